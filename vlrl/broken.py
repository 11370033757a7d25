"""Broken rows: named in a file, counted, and the end of the run when a recipe has too many.

The rule. A recipe may have at most `max_share` broken rows: of all its rows where the split is
finite, so that a run never stops for a cluster of bad rows among the first few; of the rows seen
where it is endless, counted as 100 while they are fewer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlrl.config import ConfigError
from vlrl.recipes import OpenRecipe, Split
from vlrl.resources import nearest
from vlrl.tasks.base import RowError, Task
from vlrl.types import Problem

BROKEN_FILE = "broken_rows.jsonl"
MIN_SEEN = 100
"""Rows that an endless split is taken to have while fewer were seen."""
MAX_SHARE = 0.01
"""The limit where no config sets one: in evaluations outside of a run."""

Check = Callable[[Problem], None]
"""Raises a ValueError for a problem that can't be used: image unreadable, prompt too long."""


class TooManyBrokenRows(ValueError):
    """A recipe's share of broken rows is above the limit: which, how many, where they are named."""


@dataclass(frozen=True, kw_only=True)
class BrokenRow:
    """One row that was skipped: `BrokenRow(recipe="gsm8k", split="train", row=12, why="...")`."""

    recipe: str
    split: Split
    row: int
    why: str


class BrokenRows:
    """Names broken rows in a JSONL file and keeps the limit.

    A row that the file already names, as after a resume, is not written again. `key` is the config
    key that set the limit, for whoever must raise it.
    """

    def __init__(
        self, max_share: float = MAX_SHARE, path: Path | None = None, *, key: str = ""
    ) -> None:
        self.max_share = max_share
        self.path = path
        self.key = key
        self.num_added = 0
        self._named: set[str] = set()
        if path and path.is_file():
            self._named.update(path.read_text(encoding="utf-8").split("\n"))

    def add(self, broken: BrokenRow, num_broken: int, num_rows: int) -> None:
        """Count and name a row; `num_broken` of `num_rows` are broken with this one.

        Raises:
            TooManyBrokenRows: that share is above the limit.
        """
        self.num_added += 1
        line = json.dumps(vars(broken), ensure_ascii=False)
        if self.path and line not in self._named:
            self._named.add(line)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(line + "\n")
        if num_broken > self.max_share * num_rows:
            where = f"; all are named in {self.path}" if self.path else ""
            limit = f"{self.key}={self.max_share:g}" if self.key else f"{100 * self.max_share:g}%"
            mend = f"Mend the rows or raise {self.key}" if self.key else "Mend the rows"
            raise TooManyBrokenRows(
                f"recipe {broken.recipe}: {num_broken} of {num_rows} rows are broken, more than "
                f"the limit of {limit}{where}. The last one, row {broken.row} of split "
                f"{broken.split}: {broken.why}. {mend}"
            )


def task_of(recipe: OpenRecipe, tasks: Mapping[str, Task]) -> Task:
    """The task that judges a recipe's rows.

    Raises:
        ConfigError: there is no such task.
    """
    name = recipe.recipe.task
    if name not in tasks:
        raise ConfigError(
            f"recipe {recipe.name}: no task is named {name!r}: {nearest(name, tasks)}"
        )
    return tasks[name]


def problem_at(
    recipe: OpenRecipe, split: Split, index: int, task: Task, check: Check | None
) -> Problem | BrokenRow:
    """The problem of one row, or why there is none."""
    try:
        problem = task.problem(recipe.row(split, index))
        if not problem.question.strip() and not problem.images:
            raise RowError("the question is empty")
    except RowError as error:
        return BrokenRow(recipe=recipe.name, split=split, row=index, why=str(error))
    try:
        if check:
            check(problem)
    except ValueError as error:
        return BrokenRow(recipe=recipe.name, split=split, row=index, why=str(error))
    return problem
