"""Responses -> graded groups, each handed on whole as soon as its last verdict is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from vlrl.types import Attempt, Completion, Group, Problem, Prompt, Verdict

JudgeLater = Callable[[Problem, Completion], Future[Verdict]]
OnGroup = Callable[[int, Group], None]
"""Called with a problem's place and its graded group."""


@dataclass(frozen=True, kw_only=True)
class _Sampled:
    problem: Problem
    prompt: Prompt
    completions: Sequence[Completion]
    verdicts: Sequence[Future[Verdict]]

    def group(self) -> Group:
        attempts = tuple(
            Attempt(completion=completion, verdict=verdict.result())
            for completion, verdict in zip(self.completions, self.verdicts, strict=True)
        )
        return Group(problem=self.problem, prompt=self.prompt, attempts=attempts)


class UnderWay:
    """Sampled groups whose verdicts are still to come. Used from one thread."""

    def __init__(self, later: JudgeLater, on_group: OnGroup) -> None:
        self._later = later
        self._on_group = on_group
        self._sampled: dict[int, _Sampled] = {}

    def add(
        self, index: int, problem: Problem, prompt: Prompt, completions: Sequence[Completion]
    ) -> None:
        """Begin to judge a problem's responses, and hand on the groups that are ready."""
        self._sampled[index] = _Sampled(
            problem=problem,
            prompt=prompt,
            completions=completions,
            verdicts=[self._later(problem, completion) for completion in completions],
        )
        self.hand_on()

    def hand_on(self, *, wait: bool = False) -> None:
        """Hand on the groups whose verdicts are all there; with `wait` all of them."""
        for index, sampled in list(self._sampled.items()):
            if wait or all(verdict.done() for verdict in sampled.verdicts):
                del self._sampled[index]
                self._on_group(index, sampled.group())
