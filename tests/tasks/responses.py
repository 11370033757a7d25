"""A response made of a text, for tests of tasks."""

from __future__ import annotations

from vlrl.tasks import TASKS, Row
from vlrl.types import Completion, Finish, Verdict


def respond(text: str) -> Completion:
    return Completion(text=text, token_ids=(), logprobs=(), finish=Finish.STOP)


def row(answer: object, **more: object) -> Row:
    return Row(**{"id": "1", "source": "test", "question": "What?", "answer": answer, **more})


def grade(domain: str, row: Row, text: str) -> Verdict:
    task = TASKS[domain]
    return task.grade(task.problem(row), respond(text))
