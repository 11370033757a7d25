"""Coordinates that a response holds, in the shapes that models write; all of them, or none.

`[10, 20, 30, 40]`, lists of these, `{"bbox_2d": [..], "label": ".."}`, `(10, 20, 30, 40)`,
`(10, 20), (30, 40)`, `<|box_start|>(10,20),(30,40)<|box_end|>`, `<box>10, 20, 30, 40</box>`,
`{"x1": 10, "y1": 20, "x2": 30, "y2": 40}`; points likewise with two numbers. Every group of
numbers counts, so that a guess more is a wrong number of answers. Scans are linear.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

Group = tuple[Fraction, ...]

MAX_CHARACTERS = 1 << 14
MAX_DEPTH = 8
"""Of brackets around each other."""
MAX_GROUPS = 256
"""More groups than this are no answer."""

_NUMBER = r"[+-]?(?:[0-9]{1,9}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})"
_ONE = re.compile(_NUMBER)
_PAIR = rf"\(\s{{0,9}}({_NUMBER})\s{{0,9}},\s{{0,9}}({_NUMBER})\s{{0,9}}\)"
_TWO_PAIRS = re.compile(rf"{_PAIR}\s{{0,9}},?\s{{0,9}}{_PAIR}")
_SQUARE = re.compile(r"\[([^\[\]]*)\]")
_ROUND = re.compile(r"\(([^()\[\]]*)\)")
_TAG = re.compile(r"<(?:\|?(?:b?box|point)(?:_start\|)?)>([^<>\[\]()]*)<")
_ATTRIBUTES = re.compile(rf'<point\s+x="({_NUMBER})"\s+y="({_NUMBER})"')
_OBJECT = re.compile(r"\{([^{}\[\]]*)\}")
_FIELD = re.compile(rf'\s*"([a-z]{{1,4}}[0-9]?)"\s*:\s*({_NUMBER})\s*')
_NEGATED = re.compile(r"\bnot\s{1,3}(?:at\s{1,3}|in\s{1,3})?[\[(<]", re.IGNORECASE)
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity|\u221e)", re.IGNORECASE)
_KEYS = {2: (("x", "y"),), 4: (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"))}


def read_groups(text: str, size: int) -> tuple[Group, ...] | None:
    """Groups of `size` numbers (4: boxes, 2: points), by shape; () if there are none.

    None: brackets that don't pair up (a truncated answer), a group of another size, a number that
    isn't finite, or too many groups.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    text = unicodedata.normalize("NFKC", text)
    if len(text) > MAX_CHARACTERS or not _balanced(text) or _NEGATED.search(text):
        return None
    bare = _numbers(text.strip())
    if bare is not None:
        return (bare,) if len(bare) == size else None
    found: list[Group] = []
    for pattern in (_SQUARE, _OBJECT, _TAG, _ROUND):
        rest: list[str] = []
        position = 0
        if pattern is _ROUND and size == 4:
            text = _take_pairs(text, found)
        for match in pattern.finditer(text):
            if pattern is _OBJECT:
                group = _fields(match[1], size)
            elif pattern is _ROUND:  # prose has brackets too
                group = _sized(_numbers(match[1]), size)
            else:
                group = _group(match[1], size)
            if group is _BAD or len(found) > MAX_GROUPS:
                return None
            if group:
                found.append(group)
            rest += (text[position : match.start()], " ")
            position = match.end()
        if pattern is not _OBJECT:  # an object's own lists were taken out before
            text = "".join((*rest, text[position:]))
    if size == 2:
        found += [(Fraction(m[1]), Fraction(m[2])) for m in _ATTRIBUTES.finditer(text)]
    return tuple(found) if len(found) <= MAX_GROUPS else None


_BAD: Group = (Fraction(-1), Fraction(-1), Fraction(-1))


def _group(content: str, size: int) -> Group | None:
    """The numbers in brackets; None if there are none, _BAD if they are no answer."""
    numbers = _numbers(content)
    if numbers is not None:
        return _sized(numbers, size)
    pairs = _TWO_PAIRS.fullmatch(content.strip()) if size == 4 else None
    if pairs:
        return tuple(Fraction(number) for number in pairs.groups())
    parts = [part.strip() for part in re.split(r"[\s,()]+", content[:2000])]
    if any(_ONE.fullmatch(part) or _NOT_FINITE.fullmatch(part) for part in parts):
        return _BAD
    return None


def _sized(numbers: Group | None, size: int) -> Group | None:
    return numbers if numbers is None or len(numbers) == size else _BAD


def _numbers(content: str) -> Group | None:
    """Comma-separated numbers and nothing else."""
    if len(content) > 200 or "," not in content:
        return None
    parts = [part.strip() for part in content.split(",")]
    if not all(_ONE.fullmatch(part) for part in parts):
        return None
    return tuple(Fraction(part) for part in parts)


def _take_pairs(text: str, found: list[Group]) -> str:
    """Adds `(x, y), (x, y)` to `found`; the text without them."""
    for match in _TWO_PAIRS.finditer(text):
        found.append(tuple(Fraction(number) for number in match.groups()))
    return _TWO_PAIRS.sub(" ", text)


def _fields(content: str, size: int) -> Group | None:
    """`"x1": 10, "y1": 20, ..` -> the numbers in their places."""
    pairs = [_FIELD.fullmatch(part) for part in content[:400].split(",")]
    values = {match[1]: Fraction(match[2]) for match in pairs if match}
    for keys in _KEYS[size]:
        if values.keys() >= set(keys):
            whole = len([match for match in pairs if match]) == len(keys)
            return tuple(values[key] for key in keys) if whole else _BAD
    return None


def _balanced(text: str) -> bool:
    """Whether square brackets and braces pair up, and don't nest deep."""
    square = curly = 0
    for character in text:
        if character in "[]{}":
            square += (character == "[") - (character == "]")
            curly += (character == "{") - (character == "}")
            if square < 0 or curly < 0 or square + curly > MAX_DEPTH:
                return False
    return square == curly == 0
