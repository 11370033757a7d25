"""How many: a whole number as digits or words, alone or as the only number of a sentence."""

from __future__ import annotations

import re

from vlrl.grading.number import NUMBER_WORDS, parse_count, words_value
from vlrl.grading.response import bare_answer, clean, final_answer

_TOKEN = re.compile(r"[0-9][0-9.,]{0,400}|[^\W\d_]{1,40}")
_BOUNDS = ("between", "least", "most", "more", "less", "fewer", "over", "under", "than", "exceeds")
_GUESSES = ("about", "around", "roughly", "approximately", "nearly", "almost", "maybe", "perhaps")
_OTHERS = ("dozen", "half", "or", "no", "not", "might", "could", "either", "neither")
_REFUSED = frozenset((*_BOUNDS, *_GUESSES, *_OTHERS))
"""Words with which a number is a bound, a guess or another number."""
_NOT_PLAIN = re.compile(r"[<>~%?/+^=\u2248\u2264\u2265\u00b1]|n't\b|[-.][0-9]|[0-9]-")
_RAISED = re.compile("[\u00b2\u00b3\u00b9\u2070-\u209f\u00bc-\u00be\u2150-\u218f]")
_GROUPS = re.compile(r"[0-9]{1,3}(?: [0-9]{3}){1,9}")


def read_count(response: str) -> int | None:
    """The one whole number that a response answers with; None if there is none or are several."""
    answer = final_answer(response) or bare_answer(response)
    if answer is None or _RAISED.search(answer):
        return None
    answer = clean(answer).rstrip(".!")
    if "/" in answer:
        return None
    if _GROUPS.fullmatch(answer):
        answer = answer.replace(" ", "")
    value = parse_count(answer)
    return value if value is not None else _only_number(answer)


def _only_number(sentence: str) -> int | None:
    """The number of a sentence; `3 (three) cats` says one, `2 red, 1 blue` two."""
    if _NOT_PLAIN.search(sentence):
        return None
    values: list[int] = []
    words: list[str] = []
    for match in _TOKEN.finditer(sentence):
        token = match[0].rstrip(".,").casefold()
        if token in _REFUSED:
            return None
        if token in NUMBER_WORDS or (token == "and" and words and words[-1] == "hundred"):
            words.append(token)
            continue
        if words:
            values.append(_value_of(words))
            words = []
        if token[0].isdigit():
            after = sentence[match.end() : match.end() + 1]
            value = parse_count(token)
            if value is None or (after.isalnum() and after.isascii()):
                return None
            values.append(value)
    if words:
        values.append(_value_of(words))
    if "(" in sentence and len(values) == 2 and values[0] == values[1]:
        values.pop()
    return values[0] if len(values) == 1 and values[0] >= 0 else None


def _value_of(words: list[str]) -> int:
    """What number words say; -1 for what is no number, like `two three`."""
    value = words_value([word for word in words if word != "and"])
    return -1 if value is None else value
