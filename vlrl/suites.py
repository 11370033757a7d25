"""What an evaluation asks: suite files -> Problems and how to sample answers to them.

name: gsm8k
problems: [{recipe: gsm8k, split: eval, limit: 200}]
k: 4
temperature: 1.0
max_tokens: 1024
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from pydantic import Field, model_validator

from vlrl.broken import BrokenRow, BrokenRows, Check, problem_at, task_of
from vlrl.config import ConfigError, Section, read_yaml, validate
from vlrl.recipes import OpenRecipe, Split, open_recipe
from vlrl.resources import find_yaml
from vlrl.tasks.base import Task
from vlrl.types import Problem


class SuitePart(Section):
    """Problems of one recipe."""

    recipe: str
    split: Split = "eval"
    limit: int | None = Field(default=None, gt=0)
    """How many problems, drawn by `seed`; None: all."""
    seed: int = 0
    """Of no effect on generated problems, whose recipe has a seed."""


class Reference(Section):
    """A published result to compare with."""

    model: str
    pass_at_1: float = Field(ge=0, le=1)
    source: str
    domain: str | None = None


class SuiteFile(Section):
    """What a suite file may say."""

    name: str
    about: str = ""
    problems: tuple[SuitePart, ...] = Field(min_length=1)
    k: int = Field(default=1, gt=0)
    """Responses a problem; Pass@1 is the mean over them."""
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=2048, gt=0)
    reference: tuple[Reference, ...] = ()

    @model_validator(mode="after")
    def _sampling(self) -> SuiteFile:
        if self.temperature == 0 and self.k > 1:
            raise ValueError("at temperature 0 all k responses are equal: use k: 1")
        return self


class Suite:
    """A suite with its recipes opened."""

    def __init__(self, file: SuiteFile, recipes: Sequence[OpenRecipe]) -> None:
        self.file = file
        self._recipes = recipes

    @property
    def name(self) -> str:
        """The suite's name."""
        return self.file.name

    def with_limits(self, *, k: int | None = None, limit: int | None = None) -> Suite:
        """The suite with other numbers of responses, or at most `limit` problems of each recipe.

        Raises:
            ConfigError: several responses at temperature 0.
        """
        if k and k > 1 and self.file.temperature == 0:
            raise ConfigError(
                f"suite {self.name} samples at temperature 0, where all {k} responses would be "
                "equal: leave out --k"
            )
        changes: dict[str, object] = {"k": k} if k else {}
        if limit:
            changes["problems"] = [
                part.model_copy(update={"limit": min(limit, part.limit or limit)})
                for part in self.file.problems
            ]
        return Suite(self.file.model_copy(update=changes), self._recipes)

    def problems(
        self,
        tasks: Mapping[str, Task],
        *,
        check: Check | None = None,
        broken: BrokenRows | None = None,
    ) -> list[Problem]:
        """The suite's problems, the same ones each time.

        Broken rows are skipped, counted and, up to the limit, replaced by the next in the order.

        Raises:
            ConfigError: a recipe, split or file isn't there.
            TooManyBrokenRows: a recipe has more broken rows than `broken.max_share` (1%).
        """
        broken = broken or BrokenRows()
        problems: list[Problem] = []
        for part, recipe in zip(self.file.problems, self._recipes, strict=True):
            found = _problems(part, recipe, task_of(recipe, tasks), check, broken)
            problems.extend(islice(found, part.limit))
        return problems


def load_suite(name_or_path: str, root: Path | None = None) -> Suite:
    """The suite of that name, or in that file; `root` stands in for the hub.

    Raises:
        ConfigError: no such suite or recipe, or a key or value is wrong.
    """
    path = find_yaml(name_or_path, "evals")
    file = validate(SuiteFile, read_yaml(path), where=str(path))
    return Suite(file, [open_recipe(part.recipe, root) for part in file.problems])


def _problems(
    part: SuitePart, recipe: OpenRecipe, task: Task, check: Check | None, broken: BrokenRows
) -> Iterator[Problem]:
    """The usable problems of one part, in the order that its seed gives."""
    num_rows = recipe.num_rows(part.split)
    if num_rows is None:
        raise ConfigError(f"recipe {recipe.name}: its {part.split} split is endless; use eval")
    order = list(range(num_rows))
    if part.limit is not None and not recipe.recipe.generator:  # those rows are random as they come
        random.Random(f"{part.seed}/{recipe.name}").shuffle(order)
    num_broken = 0
    for index in order:
        found = problem_at(recipe, part.split, index, task, check)
        if isinstance(found, BrokenRow):
            num_broken += 1
            broken.add(found, num_broken, num_rows)
        else:
            yield found
