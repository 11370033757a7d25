"""What several tasks share: reading rows strictly, and the one way a verdict is made."""

from __future__ import annotations

from vlrl.grading.choice import choose
from vlrl.grading.form import judge_form, written
from vlrl.grading.gold import why_useless
from vlrl.grading.response import bare_answer, final_answer
from vlrl.tasks.base import Row, RowError, Task
from vlrl.types import (
    Answer,
    Choice,
    Completion,
    Finish,
    Form,
    Pattern,
    Problem,
    Status,
    Verdict,
)


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
        raise RowError(
            f"the answer is a {type(answer).__name__}, not text or a number{row.named('answer')}"
        )
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    text = str(answer).strip()
    if not text:
        raise RowError(f"the answer is empty{row.named('answer')}")
    return text


def gold_of(row: Row) -> str | Choice | Form:
    """The row's gold: a form as it is, with options the one of them that is meant, else a text.

    Raises:
        RowError: no answer, or one that is none of the options.
    """
    if isinstance(row.answer, Form):
        return row.answer
    answer = text_answer(row)
    if not row.options:
        return answer
    if any(not option.strip() for option in row.options):
        raise RowError(f"an option is empty: {row.options!r}{row.named('options')}")
    index = choose(row.options, answer)
    if index is None:
        raise RowError(
            f"the answer {answer!r} is none of the options {row.options!r}"
            f"{row.named('answer', 'options')}"
        )
    return Choice(options=row.options, answer=row.options[index])


def checked(task: Task, problem: Problem) -> Problem:
    """The problem, if its gold is correct by its own task and no answer or a list of guesses isn't.

    Raises:
        RowError: why rewards by this gold would mean nothing.
    """

    def correct(text: str) -> bool:
        completion = Completion(text=text, token_ids=(), logprobs=(), finish=Finish.STOP)
        return task.grade(problem, completion).correct

    gold = problem.answer
    if isinstance(gold, Choice):
        text = gold.answer if gold.options.count(gold.answer) == 1 else _letter(gold)
    else:
        text = gold if isinstance(gold, str) else written(gold) if isinstance(gold, Form) else ""
    reason = why_useless(text, correct, zero=not isinstance(gold, Pattern))
    if reason:
        raise RowError(reason)
    return problem


def verdict_by_gold(gold: Answer, response: str) -> Verdict | None:
    """The verdict where the gold's type says how; None for a text: each task reads it its way."""
    if isinstance(gold, Form):
        found = judge_form(gold, response)
        if found is None:
            return unparsable(response)
        if found.timed_out:
            return not_judged(Status.TIMEOUT, found.note, found.answer)
        return judged(found.correct, found.answer, found.note)
    if isinstance(gold, Choice):
        answer = final_answer(response) or bare_answer(response)
        if answer is None:
            return unparsable(response)
        index = choose(gold.options, answer)
        if index is None:
            return judged(False, answer, "names no option, or more than one")
        return judged(gold.options[index] == gold.answer, answer)
    return None


def _letter(gold: Choice) -> str:
    return chr(ord("A") + gold.options.index(gold.answer))


def judged(correct: bool, parsed: str, note: str = "") -> Verdict:
    """An answer was read and compared; reward 1 or 0."""
    reward = float(correct)
    return Verdict(
        status=Status.OK,
        correct=correct,
        reward=reward,
        parts={"correct": reward},
        parsed=parsed,
        note="" if correct else note or "wrong answer",
    )


def not_judged(status: Status, note: str, parsed: str | None = None) -> Verdict:
    """No answer to compare, or no end of comparing it; reward 0."""
    parts = {"correct": 0.0}
    return Verdict(status=status, correct=False, reward=0.0, parts=parts, parsed=parsed, note=note)


def unparsable(response: str) -> Verdict:
    """The response holds no answer."""
    note = "no answer was found" if response.strip() else "the response is empty"
    return not_judged(Status.UNPARSABLE, note)
