"""Glob patterns over dotted names, and what a pattern without a match may have meant."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

WILD = "*?["


def matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that match any of the patterns, in their order."""
    return [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in patterns)]


def hint(names: Sequence[str], pattern: str) -> str:
    """For an error's end: patterns that match something and look like this one."""
    mended = _mended(names, pattern)
    similar = difflib.get_close_matches(pattern, _stems(names), n=3, cutoff=0.3)
    near = [mended, *(s for s in similar if s != mended)][:3] if mended else similar
    return f"near names: {', '.join(near)}" if near else f"e.g. {names[0]}"


def _mended(names: Sequence[str], pattern: str) -> str | None:
    """The pattern with its unknown parts exchanged for the nearest known ones, if it then fits."""
    known = sorted({part for name in names for part in name.split(".")})
    parts = [
        part
        if part in known or any(c in part for c in WILD)
        else next(iter(difflib.get_close_matches(part, known, n=1, cutoff=0.5)), part)
        for part in pattern.split(".")
    ]
    mended = ".".join(parts)
    return mended if matching(names, [mended]) else None


def _stems(names: Sequence[str]) -> list[str]:
    """The names, and the folders of modules that they lie in as patterns."""
    stems = {".".join(n.split(".")[:depth]) + ".*" for n in names for depth in range(1, 4)}
    return [*names, *sorted(stems)]
