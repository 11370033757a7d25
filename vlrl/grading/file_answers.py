"""Rows with an answer to judge: `{"domain": "math", "gold": "5", "response": "The answer is 5."}`.

The domain is a task that is judged as in training (math_qa, image_qa, logic), or one judge: math,
count, text, choice, bbox, point, json, similar_text, number, pattern. Golds that aren't plain:
choice `{"answer": "B", "options": {"A": "Rome", "B": "Paris"}}`; bbox `{"boxes": [[x1, y1, x2,
y2]], "iou": 0.5, "size": [width, height]}` (or "giou"); point `{"boxes": [..], "masks": [{"size":
[width, height], "counts": [..]}]}`; similar_text `{"texts": [..], "threshold": 0.5}`; number
`{"value": 3.5, "relative": 0.01, "absolute": 0}`; pattern `{"pattern": "[A-Z]+", "example": "AB"}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vlrl.grading.choice import choose, choose_several
from vlrl.grading.count import read_count
from vlrl.grading.form import judge_form
from vlrl.grading.gold import FormKind, GoldError, form_of
from vlrl.grading.math_answer import Match, same_answer
from vlrl.grading.response import bare_answer, final_answer
from vlrl.grading.text import same_text
from vlrl.tasks import TASKS, Row, RowError
from vlrl.types import Completion, Finish, Status

TEXT_TASKS = ("math_qa", "image_qa", "logic")
"""Tasks whose gold is a text or a choice; a program has a row of its own kind."""
FORMS: Mapping[str, FormKind] = {
    "bbox": "boxes",
    "point": "points",
    "json": "json",
    "similar_text": "similar_text",
    "number": "number",
    "pattern": "pattern",
}

Found = tuple[Status, bool, str]


class LineError(ValueError):
    """A row that can't be judged, in words."""


def answer_judge(row: Mapping[str, Any]) -> Callable[[], Found]:
    """What will judge the row; the row's own mistakes come out here."""
    domain = str(row.get("domain", ""))
    known = (*TEXT_TASKS, *_JUDGES, *FORMS)
    if domain not in known:
        raise LineError(f"domain {domain!r} is not supported; it is one of {', '.join(known)}")
    response = row.get("response")
    if not isinstance(response, str):
        raise LineError("no text in `response`")
    if "gold" not in row:
        raise LineError("no `gold`")
    gold = row["gold"]
    if domain in FORMS:
        return _form(domain, gold, response)
    if domain in TEXT_TASKS:
        return _task(domain, gold, response)
    return lambda: _JUDGES[domain](gold, response)


def _form(domain: str, gold: object, response: str) -> Callable[[], Found]:
    """A gold that says itself how it is judged."""
    try:
        form = form_of(FORMS[domain], gold)
    except GoldError as error:
        raise LineError(f"the gold of a {domain} row: {error}") from error

    def judge() -> Found:
        found = judge_form(form, response)
        if found is None:
            return _unparsable(response)
        status = Status.TIMEOUT if found.timed_out else Status.OK
        return status, found.correct, "" if found.correct else found.note or "wrong answer"

    return judge


def _task(name: str, gold: object, response: str) -> Callable[[], Found]:
    """A task's own verdict; by its own rules a gold that can't be judged is a bad line."""
    answer, options = _options(gold) if isinstance(gold, Mapping) else (gold, ())
    row = Row(id="", source="", question="(not in the file)", answer=answer, options=options)

    def judge() -> Found:
        try:
            problem = TASKS[name].problem(row)
        except RowError as error:
            raise LineError(f"gold: {error}") from error
        completion = Completion(text=response, token_ids=(), logprobs=(), finish=Finish.STOP)
        verdict = TASKS[name].grade(problem, completion)
        return verdict.status, verdict.correct, verdict.note

    return judge


def _options(gold: object) -> tuple[str, tuple[str, ...]]:
    """A choice's answer and its options' texts."""
    if not isinstance(gold, Mapping) or not isinstance(gold.get("options"), Mapping | list):
        raise LineError('the gold of a choice row is {"answer": "B", "options": {"A": ...}}')
    options = gold["options"]
    texts = options.values() if isinstance(options, Mapping) else options
    return str(gold.get("answer", "")), tuple(str(text) for text in texts)


def _unparsable(response: str) -> Found:
    said = "no answer was found" if response.strip() else "the response is empty"
    return Status.UNPARSABLE, False, said


def _found(correct: bool) -> Found:
    return Status.OK, correct, "" if correct else "wrong answer"


def _math(gold: object, response: str) -> Found:
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise LineError("the gold of a math row is a text or a number")
    answer = final_answer(response)
    if answer is None:
        return _unparsable(response)
    match = same_answer(str(gold), answer)
    if match is Match.TIMEOUT:
        return Status.TIMEOUT, False, "comparing the answer took too long"
    return _found(match is Match.SAME)


def _count(gold: object, response: str) -> Found:
    if isinstance(gold, bool) or not isinstance(gold, int):
        raise LineError("the gold of a count row is a whole number")
    count = read_count(response)
    return _unparsable(response) if count is None else _found(count == gold)


def _text(gold: object, response: str) -> Found:
    if not isinstance(gold, str):
        raise LineError("the gold of a text row is a text")
    answer = final_answer(response) or bare_answer(response)
    return _unparsable(response) if answer is None else _found(same_text(gold, answer))


def _choice(gold: object, response: str) -> Found:
    wanted, texts = _options(gold)
    answer = final_answer(response) or bare_answer(response)
    if answer is None:
        return _unparsable(response)
    if wanted in texts or len(wanted) == 1:
        index = choose(texts, wanted)
        correct = index is not None and choose(texts, answer) == index
    else:
        index = choose_several(texts, wanted)
        correct = index is not None and choose_several(texts, answer) == index
    return _found(correct) if index is not None else (Status.OK, False, "the gold is no option")


_JUDGES: dict[str, Callable[[object, str], Found]] = {
    "math": _math,
    "count": _count,
    "text": _text,
    "choice": _choice,
}
