"""reasoning-gym's procedural tasks as rows: `question`, `answer`, `metadata`.

The parameter `task` names one of reasoning-gym's tasks; the others are its settings, e.g.
`{task: chain_sum, min_terms: 3, max_terms: 3}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vlrl.config import ConfigError
from vlrl.resources import nearest

ENDLESS = 2**48  # reasoning-gym wants a size; rows are made when asked for


class ReasoningGym:
    """One of reasoning-gym's tasks."""

    def __init__(self, parameters: Mapping[str, object], seed: int, where: str) -> None:
        # Slow to import (sympy and 100 tasks), so only where it is wanted.
        from reasoning_gym.factory import DATASETS, create_dataset

        settings: dict[str, Any] = dict(parameters)
        task = settings.pop("task", None)
        if not isinstance(task, str):
            raise ConfigError(f"{where}: key 'generator.parameters.task' is missing")
        if task not in DATASETS:
            raise ConfigError(
                f"{where}: reasoning-gym has no task {task!r}: {nearest(task, DATASETS)}"
            )
        valid = [f.name for f in fields(DATASETS[task][1]) if f.name not in ("seed", "size")]
        for key in settings:
            if key not in valid:
                raise ConfigError(
                    f"{where}: unknown key 'generator.parameters.{key}': {nearest(key, valid)}"
                )
        try:
            self._data: Any = create_dataset(task, seed=seed, size=ENDLESS, **settings)
        except (AssertionError, TypeError, ValueError) as error:
            raise ConfigError(f"{where}: reasoning-gym refuses {settings}: {error}") from error

    def make(self, index: int) -> Mapping[str, object]:
        """The row of that index."""
        row: dict[str, object] = self._data[index]
        return row
