"""Numbers as people write them, read exactly: integers, decimals, fractions, percentages, words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

MAX_DIGITS = 400
MAX_EXPONENT = 400
WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6}
NUMBER_WORDS = frozenset((*WORDS, *TENS, *SCALES))
CHINESE = "零一二三四五六七八九十"

_DECIMAL = re.compile(r"([+-]?) ?([0-9]{0,400})(?:\.([0-9]{0,400}))?(?:[eE]([+-]?[0-9]{1,4}))?")
_GROUPED = re.compile(r"[+-]? ?[0-9]{1,3}(?:,[0-9]{3}){1,99}(?:\.[0-9]{1,99})?")


def parse_number(text: str) -> Fraction | None:
    """The exact value of a plain number (`-3`, `1,234.5`, `6e23`, `3/4`, `50%`), else None."""
    text = text.strip()
    if not text or len(text) > MAX_DIGITS or not text.isascii():
        return None
    if text.endswith("%"):
        value = parse_number(text[:-1])
        return None if value is None else value / 100
    if "/" in text:
        over, _, under = text.partition("/")
        top, bottom = _decimal(over.strip()), _decimal(under.strip())
        return None if top is None or not bottom else top / bottom
    return _decimal(text)


def same_number(gold: str, answer: str, tolerance: float = 0.0) -> bool:
    """Whether both are plain numbers and equal, or within a relative tolerance.

    At a gold of 0 the tolerance is absolute.
    """
    wanted, got = parse_number(gold), parse_number(answer)
    if wanted is None or got is None:
        return False
    allowed = Fraction(tolerance) * (abs(wanted) or 1)
    return abs(wanted - got) <= allowed


def near_number(gold: str, answer: str, relative: float = 0.0, absolute: float = 0.0) -> bool:
    """Whether an answer is within either tolerance of the gold."""
    wanted, got = parse_number(gold), parse_number(answer)
    if wanted is None or got is None:
        return False
    allowed = max(Fraction(str(relative)) * abs(wanted), Fraction(str(absolute)))
    return abs(wanted - got) <= allowed


def parse_count(text: str) -> int | None:
    """A whole number as digits or words (`three`, `twenty-one`, `三`), else None."""
    word = text.strip().casefold()
    if word[:1].isalpha() and word.isascii():
        return words_value(word.replace("-", " ").replace(" and ", " ").split())
    if len(word) == 1 and word in CHINESE:
        return CHINESE.index(word)
    value = parse_number(word) if "e" not in word else None
    return int(value) if value is not None and value.denominator == 1 else None


def words_value(words: Sequence[str]) -> int | None:
    """`["three", "hundred", "twenty", "one"]` -> 321; None if they aren't one number below 10^9."""
    if not words or len(words) > 12 or not NUMBER_WORDS.issuperset(words):
        return None
    total, part, before = 0, 0, 10**9
    room = 10**9  # the next word must be below this
    for word in words:
        if word in SCALES:
            scale = SCALES[word]
            if part == 0 or (scale == 100 and part > 9) or (scale > 100 and scale >= before):
                return None
            if scale == 100:
                part, room = part * 100, 100
            else:
                total, part, before, room = total + part * scale, 0, scale, 10**9
            continue
        value = WORDS.index(word) if word in WORDS else 20 + 10 * TENS.index(word)
        if value >= room or (part % 100 and room > 10) or (value == 0 and len(words) > 1):
            return None
        part += value
        room = 10 if value >= 20 else 0
    return total + part


def _decimal(text: str) -> Fraction | None:
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    match = _DECIMAL.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        return None
    exponent = int(match[4] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    whole, part = match[2] or "", match[3] or ""
    value = Fraction(int(whole + part), 10 ** len(part)) * Fraction(10) ** exponent
    return -value if match[1] == "-" else value
