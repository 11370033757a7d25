"""Who is what: "Abigail is a knave, and Evelyn is a knight." or "Abigail: knave, Evelyn: knight".

All names, no other words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vlrl.grading.response import clean
from vlrl.grading.text import without_text_commands

_CLAIM = re.compile(r"([^\W\d_][\w'-]{0,40})(?: is|:) (?:an? )?([^\W\d_][\w'-]{0,40})")
_BETWEEN = re.compile(r"(?:[\s,;.*]|\band\b|\([0-9]{1,2}\)|[0-9]{1,2}\))*", re.IGNORECASE)


def parse_assignment(text: str) -> dict[str, str] | None:
    """Name -> role of each claim, casefolded; None if the text holds anything else.

    A name that is given two roles is a guess, not an answer: None.
    """
    text = without_text_commands(clean(text)).casefold().replace("**", "")
    roles: dict[str, str] = {}
    position = 0
    for match in _CLAIM.finditer(text):
        if not _BETWEEN.fullmatch(text, position, match.start()):
            return None
        name, role = match[1], match[2]
        if roles.setdefault(name, role) != role:
            return None
        position = match.end()
    return roles if roles and _BETWEEN.fullmatch(text, position) else None


def same_assignment(gold: Mapping[str, str], answer: str) -> bool:
    """Whether the answer gives every name its role, and no further names."""
    return bool(gold) and parse_assignment(answer) == dict(gold)
