"""Numbers as people write them, read exactly: integers, decimals, fractions, percentages, words."""

from __future__ import annotations

import re
from fractions import Fraction

MAX_DIGITS = 400
MAX_EXPONENT = 400
WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty"),
)
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
    """A whole number as digits or as a word up to twenty (`three`, `三`), else None."""
    word = text.strip().casefold()
    if word in WORDS:
        return WORDS.index(word)
    if len(word) == 1 and word in CHINESE:
        return CHINESE.index(word)
    value = parse_number(word) if "e" not in word else None
    return int(value) if value is not None and value.denominator == 1 else None


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
