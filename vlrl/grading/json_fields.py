"""JSON against JSON: the same keys and values by type; what isn't strict JSON is no answer.

Keys given twice, NaN, comments and numbers past the bounds fail; 3 equals 3.0, 1 isn't true.
Size and depth are looked at before anything is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import cast

from vlrl.grading.similar import similarity

MAX_CHARACTERS = 1 << 14
MAX_DEPTH = 32
MAX_DIGITS = 400
MAX_EXPONENT = 400

_LANGUAGE = re.compile(r"\A[a-zA-Z0-9]{0,20}[ \t]*\n")

_PROSE_AFTER = re.compile(r"[.`*]{0,3}\s*\Z|\.?\s+[A-Za-z]")


def read_json(text: str) -> tuple[object] | None:
    """The one JSON value of a text, in a tuple as it may be null; None if there is none.

    The last fenced block counts; without one, the value that stands alone or inside of prose.
    """
    found = _one_value(text)
    if found is None or len(found) > MAX_CHARACTERS or _depth(found) > MAX_DEPTH:
        return None
    try:
        return (
            json.loads(
                found,
                object_pairs_hook=_no_key_twice,
                parse_int=_whole,
                parse_float=_decimal,
                parse_constant=_constant,
            ),
        )
    except (ValueError, RecursionError):
        return None


def same_json(gold: object, answer: object, min_similarity: float = 1.0) -> bool:
    """Whether two values are equal by type; below 1.0 texts by their similarity (similar.py)."""
    if isinstance(gold, bool) or isinstance(answer, bool) or gold is None or answer is None:
        return gold is answer
    if isinstance(gold, str) or isinstance(answer, str):
        if not isinstance(gold, str) or not isinstance(answer, str):
            return False
        if min_similarity >= 1 or not gold:
            return gold == answer
        return similarity(gold, answer) >= min_similarity
    if isinstance(gold, Mapping) and isinstance(answer, Mapping):
        wanted = cast(Mapping[object, object], gold)
        got = cast(Mapping[object, object], answer)
        return wanted.keys() == got.keys() and all(
            same_json(value, got[key], min_similarity) for key, value in wanted.items()
        )
    if isinstance(gold, list | tuple) and isinstance(answer, list | tuple):
        one, other = cast(Sequence[object], gold), cast(Sequence[object], answer)
        return len(one) == len(other) and all(
            same_json(a, b, min_similarity) for a, b in zip(one, other, strict=True)
        )
    left, right = _number(gold), _number(answer)
    return left is not None and left == right


def _one_value(text: str) -> str | None:
    parts = text.split("```", 64)
    if len(parts) > 1:
        if len(parts) % 2 == 0 or _has_value(parts[-1]):
            return None  # never closed, or a second value after the block
        return _LANGUAGE.sub("", parts[-2], count=1).strip()
    text = text.strip()
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    if not starts:
        return text
    start, end = min(starts), max(text.rfind("}"), text.rfind("]")) + 1
    before, after = text[:start], text[end:]
    if "//" in before or "/*" in before or "\0" in before or not _PROSE_AFTER.match(after):
        return None
    return text[start:end]


def _has_value(text: str) -> bool:
    return "{" in text or "[" in text


def _depth(text: str) -> int:
    """How deep brackets nest; those inside of texts count too, which errs to the safe side."""
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _whole(text: str) -> Fraction:
    if len(text) > MAX_DIGITS:
        raise ValueError("a number has too many digits")
    return Fraction(int(text))


def _decimal(text: str) -> Fraction:
    exponent = re.split("[eE]", text)[1:]
    if len(text) > MAX_DIGITS or (exponent and abs(int(exponent[0])) > MAX_EXPONENT):
        raise ValueError("a number is out of bounds")
    value = Fraction(text)
    if abs(value) > Fraction(2) ** 1024:
        raise ValueError("a number is out of bounds")
    return value


def _constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _number(value: object) -> Fraction | None:
    if isinstance(value, float):
        finite = value == value and abs(value) != float("inf")
        return Fraction(repr(value)) if finite else None
    return Fraction(value) if isinstance(value, int | Fraction) else None
