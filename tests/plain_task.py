"""A stand-in for the tasks, so that the data's tests don't depend on any verifier."""

from __future__ import annotations

from vlrl.tasks.base import Row, RowError
from vlrl.types import CallTests, Completion, Problem, Status, Verdict


class PlainTask:
    """Takes every row with a gold answer; a response is correct if it is that answer's text."""

    def __init__(self, domain: str) -> None:
        self.domain = domain

    def problem(self, row: Row) -> Problem:
        if row.answer == "refuse":
            raise RowError("the task refuses this row")
        answer = row.answer if isinstance(row.answer, CallTests) else str(row.answer)
        return Problem(
            id=row.id,
            domain=self.domain,
            question=row.question,
            images=row.images,
            answer=answer,
            source=row.source,
        )

    def grade(self, problem: Problem, completion: Completion) -> Verdict:
        correct = completion.text == problem.answer
        return Verdict(status=Status.OK, correct=correct, reward=float(correct))


PLAIN_TASKS = {name: PlainTask(name) for name in ("math_qa", "coding", "image_qa", "logic")}
