"""How many: a whole number as digits or word; a sentence may hold it if it is the only number."""

from __future__ import annotations

import re

from vlrl.grading.number import parse_count
from vlrl.grading.response import bare_answer, clean, final_answer

_TOKEN = re.compile(r"[+-]?[0-9][0-9.,]{0,400}|[^\W\d_]{1,40}")
_SCALES = frozenset({"hundred", "thousand", "million", "dozen", "half", "or", "between", "to"})
_ZERO_WORDS = frozenset({"zero"})


def read_count(response: str) -> int | None:
    """The one whole number that a response answers with; None if there is none or are several."""
    answer = final_answer(response) or bare_answer(response)
    if answer is None:
        return None
    answer = clean(answer).rstrip(".!")
    value = parse_count(answer)
    return value if value is not None else _only_number(answer)


def _only_number(sentence: str) -> int | None:
    values: list[int] = []
    for match in _TOKEN.finditer(sentence):
        token = match[0].rstrip(".,").casefold()
        if token in _SCALES:
            return None
        value = parse_count(token)
        if value is None and token[0] in "+-0123456789":
            return None
        after = sentence[match.end() : match.end() + 1]
        if value is not None and (after.isalnum() or after == "/"):
            return None
        if value is not None and token not in _ZERO_WORDS:
            values.append(value)
    return values[0] if len(values) == 1 else None
