"""Units by one name each: `centimeters`, `centimetre` and `cm` are cm; `sq. ft` is ft^2."""

from __future__ import annotations

import re

_NAMES = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre",
    "km": "kilometer kilometre", "in": "inch inche", "ft": "foot feet", "yd": "yard",
    "mi": "mile", "s": "sec second", "min": "minute", "h": "hr hour", "d": "day", "week": "wk",
    "month": "mo", "year": "yr", "kg": "kilogram", "g": "gram", "mg": "milligram",
    "lb": "pound", "oz": "ounce", "l": "liter litre", "ml": "milliliter millilitre",
    "gal": "gallon", "degree": "deg", "dollar": "$ usd buck", "cent": "\u00a2",
    "euro": "\u20ac eur", "%": "percent", "mph": "", "kph": "kmh", "n": "newton", "j": "joule",
    "w": "watt", "v": "volt", "hz": "hertz", "rad": "radian", "ton": "tonne", "acre": "", "cup": "",
    "tsp": "teaspoon", "tbsp": "tablespoon", "pint": "pt", "quart": "qt",
    "am": "a.m", "pm": "p.m", "c": "celsius", "f": "fahrenheit", "gbp": "\u00a3", "unit": "",
}  # fmt: skip
_CANONICAL: dict[str, str] = {
    alias: name for name, aliases in _NAMES.items() for alias in (name, *aliases.split())
}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_WORD = re.compile(r"[^\W\d_][\w.'-]{0,40}|[$%\u20ac\u00a3\u00a2]")
_RAISED = re.compile(r"\^\{?([23])\}?")
_EXPONENT = re.compile(r"\^([23])(?![0-9])")
_REFUSED = frozenset(
    ["or", "and", "not", "if", "else", "then", "but", "to", "than", "either", "neither", "versus"]
)


def is_unit(word: str) -> bool:
    """Whether a run of letters after a number is a unit and not a product of variables."""
    word = _singular(word.casefold())
    return word in _CANONICAL or word in _POWERS


def unit_of(text: str, power: int = 1) -> str | None:
    """One name for a unit; None if the words say something else than a unit.

    Unknown words stay, in the singular: `12 right triangles` has the unit `right triangle`.
    """
    text = _RAISED.sub(r" ^\1 ", text)
    parts: list[str] = []
    for side in re.split(r"/|\bper\b", text.casefold()):
        words = [word.rstrip(".'-") for word in _WORD.findall(side)]
        if any(word in _REFUSED for word in words) or re.search(
            r"[0-9=<>(){}\[\]]", _EXPONENT.sub("", side)
        ):
            return None
        raised = _EXPONENT.search(side)
        exponent = int(raised[1]) if raised else 1
        exponent = next((_POWERS[word] for word in words if word in _POWERS), exponent)
        names = [_canonical(word) for word in words if word not in _POWERS]
        if names:
            parts.append(" ".join(names) + (f"^{exponent}" if exponent != 1 else ""))
    if parts and power != 1:
        parts[-1] += f"^{power}"
    return "/".join(parts)


def same_unit(gold: str, answer: str) -> bool:
    """Whether two units agree; a missing one is forgiven, and so are adjectives of a word."""
    if not gold or not answer or gold == answer:
        return True
    wanted, got = set(gold.split()), set(answer.split())
    if not (wanted | got) & _CANONICAL.keys() and "/" not in gold + answer:
        return wanted <= got or got <= wanted
    return False


def _canonical(word: str) -> str:
    word = _singular(word)
    return _CANONICAL.get(word, word)


def _singular(word: str) -> str:
    word = word.rstrip(".")
    if word in _CANONICAL:
        return word
    return word[:-1] if len(word) > 2 and word.endswith("s") and word[-2] != "s" else word
