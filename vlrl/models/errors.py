"""What is wrong with a model that a config names."""

from __future__ import annotations


class ModelError(ValueError):
    """A checkpoint or a pattern that can't be used: which, why, and what to do."""
