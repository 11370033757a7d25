"""A task judged by a service of one's own: POST a JSON object, get a JSON object.

Sent: {"id", "question", "gold", "response"}. Wanted back: {"correct": true}, optionally `reward`
(from 0 to 1, where partial credit is given), `parsed` and `note`. Images are not sent.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vlrl.tasks.base import Row
from vlrl.tasks.common import question_of, text_answer, unparsable
from vlrl.tasks.remote import Endpoint, JudgeError
from vlrl.types import Completion, JsonFields, Problem, Status, Verdict


class Reply(BaseModel):
    """What the service says; other keys are ignored."""

    model_config = ConfigDict(frozen=True, strict=True)

    correct: bool
    reward: Annotated[float, Field(ge=0, le=1)] | None = None
    parsed: str | None = None
    note: str = ""


class HttpJudge:
    """`HttpJudge("essay", Endpoint(url="http://judge:8000/verdict"))`."""

    def __init__(self, domain: str, endpoint: Endpoint) -> None:
        self.domain = domain
        self.concurrency: int | None = endpoint.patience.concurrency
        self._endpoint = endpoint

    def problem(self, row: Row) -> Problem:
        """`row.answer`: a text, a number, or plain JSON.

        Raises:
            RowError: no question or no answer.
        """
        plain = isinstance(row.answer, str | int | float)
        return Problem(
            id=row.id,
            domain=self.domain,
            question=question_of(row),
            answer=text_answer(row) if plain else JsonFields(value=row.answer),
            images=row.images,
            source=row.source,
        )

    def grade(self, problem: Problem, completion: Completion) -> Verdict:
        """The service's verdict. An empty response isn't sent.

        Raises:
            JudgeError: there is none, or it is not in shape.
        """
        if not completion.text.strip():
            return unparsable(completion.text)
        said = self._endpoint.post(
            {
                "id": problem.id,
                "question": problem.question,
                "gold": plain_gold(problem),
                "response": sendable(completion.text),
            }
        )
        try:
            reply = Reply.model_validate(said)
        except ValidationError as error:
            raise JudgeError(
                f"{self._endpoint.url}: no verdict in the reply {said!r:.200}"
            ) from error
        reward = float(reply.correct) if reply.reward is None else reply.reward
        return Verdict(
            status=Status.OK,
            correct=reply.correct,
            reward=reward,
            parts={"correct": reward},
            parsed=reply.parsed,
            note=reply.note[:300],
        )


def plain_gold(problem: Problem) -> Any:
    """A problem's answer as JSON: a text as it is, any other gold by its fields."""
    answer = problem.answer
    if isinstance(answer, str):
        return answer
    return answer.value if isinstance(answer, JsonFields) else dataclasses.asdict(answer)


def sendable(text: str) -> str:
    """Without half surrogate pairs, which UTF-8 has no bytes for."""
    return text.encode("utf-8", "replace").decode("utf-8")
