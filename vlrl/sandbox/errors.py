"""The sandbox's own failures: never the program's fault, never a reward of 0."""

from __future__ import annotations


class SandboxBroken(RuntimeError):
    """A worker died or did not answer, and so did its replacements."""


class SandboxUnavailable(RuntimeError):
    """This machine lacks what the sandbox needs. Says which call was refused, and the mend."""
