"""The mixture: data recipes -> an endless, resumable stream of Problems at fixed domain ratios.

Every batch holds each domain's share, not only the average batch: with q = share x batch size, a
domain has floor(q) or ceil(q) problems, and those that have fallen behind their share so far get
the places that are left, so that shares are exact in the long run. Each recipe is gone through
without repeats, in an order of its own for each epoch, and comes after a restart where it was.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from pydantic import Field

from vlrl.broken import BROKEN_FILE, MIN_SEEN, BrokenRow, BrokenRows, Check, problem_at, task_of
from vlrl.config import ConfigError, DataConfig, DomainConfig, Section
from vlrl.recipes import OpenRecipe, open_recipe
from vlrl.resources import nearest
from vlrl.tasks.base import Task
from vlrl.types import Problem


class CursorState(Section):
    """Where one recipe stands."""

    num_rows: int | None
    """None: endless."""
    epoch: int = 0
    position: int = 0
    """Rows gone through in this epoch."""
    num_seen: int = 0
    """Rows looked at for the first time, broken ones among them."""
    num_broken: int = 0
    broken: tuple[int, ...] = ()
    """The broken rows of a finite split: passed over from the second epoch on."""


class StreamState(Section):
    """Where the stream stands: `restore` goes on from it exactly."""

    seed: int
    drawn: dict[str, int]
    """Problems drawn so far, by domain."""
    cursors: dict[str, CursorState] = Field(min_length=1)
    """By recipe."""


class ProblemStream:
    """Problems for training, a batch at a time.

    `check` raises a ValueError for a problem that can't be used (its prompt is too long, an image
    is unreadable); such rows are broken. They are named in `folder`/broken_rows.jsonl.

    Raises:
        ConfigError: an unknown recipe or domain, a recipe under another domain than its task's, a
            missing file or split.
    """

    def __init__(
        self,
        config: DataConfig,
        seed: int,
        tasks: Mapping[str, Task],
        *,
        check: Check | None = None,
        folder: Path | None = None,
    ) -> None:
        self._config = config
        self._seed = seed
        self._drawn = dict.fromkeys(config.mixture, 0)
        path = folder / BROKEN_FILE if folder else None
        broken = BrokenRows(config.max_broken, path, key="data.max_broken")
        self._cursors: dict[str, list[_Cursor]] = {}
        for domain, part in config.mixture.items():
            if domain not in tasks:
                known = nearest(domain, tasks)
                raise ConfigError(f"key 'data.mixture.{domain}': no task has that name: {known}")
            recipes = _open_all(domain, part, config.root)
            self._cursors[domain] = [
                _Cursor(recipe, seed, task_of(recipe, tasks), check, broken) for recipe in recipes
            ]
        names = [cursor.recipe.name for cursor in self._all_cursors()]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"key 'data.mixture': recipe {name} stands twice")

    def next_batch(self) -> list[Problem]:
        """`prompts_per_step` problems; the domains are spread evenly over the batch.

        Raises:
            TooManyBrokenRows: a recipe has more broken rows than `max_broken` allows.
        """
        shares = {domain: part.share for domain, part in self._config.mixture.items()}
        counts = batch_counts(shares, self._config.prompts_per_step, self._drawn)
        placed: list[tuple[float, Problem]] = []
        for domain, count in counts.items():
            cursors = self._cursors[domain]
            for i in range(count):
                cursor = cursors[self._drawn[domain] % len(cursors)]
                placed.append(((i + 0.5) / count, cursor.next()))
                self._drawn[domain] += 1
        placed.sort(key=lambda pair: pair[0])
        return [problem for _, problem in placed]

    @property
    def num_broken(self) -> dict[str, int]:
        """Broken rows found so far, by recipe."""
        return {c.recipe.name: c.state.num_broken for c in self._all_cursors()}

    def state(self) -> StreamState:
        """Where the stream stands."""
        cursors = {cursor.recipe.name: cursor.state for cursor in self._all_cursors()}
        return StreamState(seed=self._seed, drawn=dict(self._drawn), cursors=cursors)

    def restore(self, state: StreamState) -> None:
        """Go on from a state of a stream with the same seed, mixture and data.

        Raises:
            ConfigError: something of it is different.
        """
        now = self.state()
        for what, ours, saved in (
            ("seed", now.seed, state.seed),
            ("domains of data.mixture", sorted(now.drawn), sorted(state.drawn)),
            ("recipes of data.mixture", sorted(now.cursors), sorted(state.cursors)),
        ):
            if ours != saved:
                raise ConfigError(f"can't resume: the {what} were {saved}, and are now {ours}")
        for cursor in self._all_cursors():
            saved_cursor = state.cursors[cursor.recipe.name]
            if saved_cursor.num_rows != cursor.state.num_rows:
                raise ConfigError(
                    f"can't resume: recipe {cursor.recipe.name} had {saved_cursor.num_rows} rows, "
                    f"and now has {cursor.state.num_rows}"
                )
            cursor.state = saved_cursor
        self._drawn = {domain: state.drawn[domain] for domain in self._drawn}

    def _all_cursors(self) -> list[_Cursor]:
        return [cursor for cursors in self._cursors.values() for cursor in cursors]


def batch_counts(
    shares: Mapping[str, float], batch_size: int, drawn: Mapping[str, int]
) -> dict[str, int]:
    """How many problems of each domain the next batch holds.

    Each domain gets the whole part of its quota; the places left go, one each, to the domains that
    are furthest behind their share of everything drawn so far, this batch included.
    """
    exact = {domain: Fraction(share).limit_denominator(10**9) for domain, share in shares.items()}
    total = sum(exact.values())
    exact = {domain: share / total for domain, share in exact.items()}
    counts = {domain: int(share * batch_size) for domain, share in exact.items()}
    after = sum(drawn.values()) + batch_size
    behind = {d: exact[d] * after - drawn[d] - counts[d] for d in exact}
    left = batch_size - sum(counts.values())
    # A domain whose quota is whole is never behind for long, and gets no extra place.
    wanting = [d for d in exact if exact[d] * batch_size != counts[d]]
    for domain in sorted(wanting, key=lambda d: behind[d], reverse=True)[:left]:
        counts[domain] += 1
    return counts


def _open_all(domain: str, part: DomainConfig, root: Path | None) -> list[OpenRecipe]:
    """The recipes of one domain.

    Raises:
        ConfigError: one is judged by another task.
    """
    recipes = [open_recipe(name, root) for name in part.recipes]
    for recipe in recipes:
        if recipe.recipe.task != domain:
            raise ConfigError(
                f"key 'data.mixture.{domain}.recipes': {recipe.name} is judged by "
                f"{recipe.recipe.task}: put it under data.mixture.{recipe.recipe.task}"
            )
    return recipes


class _Cursor:
    """Goes through one recipe's train split, epoch after epoch."""

    def __init__(
        self,
        recipe: OpenRecipe,
        seed: int,
        task: Task,
        check: Check | None,
        broken: BrokenRows,
    ) -> None:
        self.recipe = recipe
        self.state = CursorState(num_rows=recipe.num_rows("train"))
        self._seed = seed
        self._task = task
        self._check = check
        self._broken = broken
        self._order: tuple[int, Sequence[int]] | None = None

    def next(self) -> Problem:
        """The next row's problem; broken rows are counted and passed over.

        Raises:
            TooManyBrokenRows: more of them than the limit, or nothing but broken rows.
        """
        known = frozenset(self.state.broken)
        while True:
            index = self._step()
            if index in known:
                continue
            found = problem_at(self.recipe, "train", index, self._task, self._check)
            if not isinstance(found, BrokenRow):
                return found
            self._count(found)
            known |= {index}

    def _step(self) -> int:
        """The row to look at now; moves on to the next."""
        state, num_rows = self.state, self.state.num_rows
        if num_rows is None:
            index = state.position
        else:
            if state.position == num_rows:
                state = state.model_copy(update={"epoch": state.epoch + 1, "position": 0})
            index = self._order_of(state.epoch)[state.position]
        first_time = state.epoch == 0
        self.state = state.model_copy(
            update={"position": state.position + 1, "num_seen": state.num_seen + first_time}
        )
        return index

    def _count(self, found: BrokenRow) -> None:
        state = self.state
        num_broken = state.num_broken + 1
        finite = state.num_rows is not None
        self.state = state.model_copy(
            update={
                "num_broken": num_broken,
                "broken": (*state.broken, found.row) if finite else (),
            }
        )
        out_of = state.num_rows if state.num_rows is not None else max(state.num_seen, MIN_SEEN)
        self._broken.add(found, num_broken, out_of)
        if num_broken == out_of:
            raise ConfigError(
                f"recipe {self.recipe.name}: all {out_of} rows are broken: {found.why}"
            )

    def _order_of(self, epoch: int) -> Sequence[int]:
        """The rows' order in an epoch: by seed, recipe and epoch, and quick to read."""
        if self._order is None or self._order[0] != epoch:
            rng = random.Random(f"{self._seed}/{self.recipe.name}/{epoch}")
            self._order = (epoch, array("q", self.recipe.shuffled("train", rng)))
        return self._order[1]
