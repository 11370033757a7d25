"""Where a group lies in a packed row: what every layout of attention is built from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GroupSpan:
    """A group's part of the row: its prompt's length, then its responses' (none empty)."""

    prompt_length: int
    response_lengths: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens that the group takes in the row."""
        return self.prompt_length + sum(self.response_lengths)
