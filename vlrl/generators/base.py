"""What a generator is: a row from an index, the same one each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Generator(Protocol):
    """Built from a recipe's parameters and seed: `Generator(parameters, seed, where)`.

    Raises at construction:
        ConfigError: an unknown or wrong parameter; `where` names the recipe.
    """

    def make(self, index: int) -> Mapping[str, object]:
        """The row of that index (0 and up, without end), by field names."""
        ...
