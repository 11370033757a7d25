"""What several tasks share: reading rows strictly, and the one way a verdict is made."""

from __future__ import annotations

from types import MappingProxyType

from vlrl.tasks.base import Row, RowError
from vlrl.types import Status, Verdict


def question_of(row: Row) -> str:
    """The row's question.

    Raises:
        RowError: there is none.
    """
    if not row.question.strip():
        raise RowError("the question is empty")
    return row.question


def text_answer(row: Row) -> str:
    """The row's answer as text; numbers are written out.

    Raises:
        RowError: it is empty, or neither text nor number.
    """
    answer = row.answer
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise RowError(f"the answer is a {type(answer).__name__}, not text or a number")
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    text = str(answer).strip()
    if not text:
        raise RowError("the answer is empty")
    return text


def judged(correct: bool, parsed: str, note: str = "") -> Verdict:
    """An answer was read and compared; reward 1 or 0."""
    reward = float(correct)
    return Verdict(
        status=Status.OK,
        correct=correct,
        reward=reward,
        parts=MappingProxyType({"correct": reward}),
        parsed=parsed,
        note="" if correct else note or "wrong answer",
    )


def not_judged(status: Status, note: str, parsed: str | None = None) -> Verdict:
    """No answer to compare, or no end of comparing it; reward 0."""
    parts = MappingProxyType({"correct": 0.0})
    return Verdict(status=status, correct=False, reward=0.0, parts=parts, parsed=parsed, note=note)


def unparsable(response: str) -> Verdict:
    """The response holds no answer."""
    note = "no answer was found" if response.strip() else "the response is empty"
    return not_judged(Status.UNPARSABLE, note)
