"""A stricter verifier that rewards nothing: what it refuses shows how far a reward is fooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlrl.graders import NUM_GRADERS, Graders, judge
from vlrl.tasks.base import Task, Waiting
from vlrl.tasks.function import FunctionTask
from vlrl.types import Group, Problem, Status, Tests
from vlrl.verifiers.dotted import load_task


@dataclass(frozen=True, kw_only=True)
class Refusals:
    """Of the attempts judged correct: how many were asked about, refused, and not judged at all.

    `gap` is the share of the judged that were refused: Pass@1 by the training verifier less that
    by the held-out one, over the former, if the held-out one accepts nothing else.
    """

    num_correct: int
    num_refused: int
    num_failed: int
    gap: float


class HeldOut:
    """Asks a task about every attempt that another judged correct."""

    def __init__(self, task: Task) -> None:
        self._task = task
        concurrency = task.concurrency if isinstance(task, Waiting) else None
        self._graders = Graders(concurrency or NUM_GRADERS)

    def refusals(self, groups: Sequence[Group]) -> Refusals:
        """Wait for all verdicts; none changes a reward."""
        asked = [
            self._graders.submit(
                lambda g=group, a=attempt: judge(
                    {g.problem.domain: self._task}, g.problem, a.completion
                )
            )
            for group in groups
            if self._can_judge(group.problem)
            for attempt in group.attempts
            if attempt.verdict.correct
        ]
        verdicts = [future.result() for future in asked]
        failed = sum(verdict.status is Status.ERROR for verdict in verdicts)
        judged = len(verdicts) - failed
        refused = judged - sum(verdict.correct for verdict in verdicts)
        return Refusals(
            num_correct=len(verdicts),
            num_refused=refused,
            num_failed=failed,
            gap=refused / judged if judged else 0.0,
        )

    def close(self) -> None:
        """Stop the threads."""
        self._graders.close()

    def _can_judge(self, problem: Problem) -> bool:
        """A function of gold and response has nothing to say about programs."""
        return not (isinstance(problem.answer, Tests) and isinstance(self._task, FunctionTask))


def open_held_out(reference: str | None) -> HeldOut | None:
    """The verifier of `rewards.held_out`.

    Raises:
        ConfigError: it can't be loaded.
    """
    return HeldOut(load_task(reference)) if reference else None
