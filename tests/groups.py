"""Graded groups made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from vlrl.types import Attempt, Completion, Finish, Group, Problem, Prompt, Status, Verdict


def group(
    name: str,
    *,
    correct: Sequence[int],
    domain: str = "math_qa",
    statuses: Sequence[Status] | None = None,
    finishes: Sequence[Finish] | None = None,
) -> Group:
    """A group of one-token responses, right where `correct` is 1."""
    attempts = [
        Attempt(
            completion=Completion(text="x", token_ids=(5,), logprobs=(-0.5,), finish=finish),
            verdict=Verdict(status=status, correct=bool(right), reward=float(right)),
        )
        for right, status, finish in zip(
            correct,
            statuses or [Status.OK] * len(correct),
            finishes or [Finish.STOP] * len(correct),
            strict=True,
        )
    ]
    problem = Problem(id=name, domain=domain, question="?", answer="x")
    return Group(problem=problem, prompt=Prompt(token_ids=(1, 2)), attempts=attempts)
