"""Signs that a program may be after its judge. For logs only: honest code mentions these too."""

from __future__ import annotations

import re

SIGNS = {
    "gc": re.compile(
        r"\bimport[ \t][\w., \t]{0,60}\bgc\b|\bfrom[ \t]+gc\b|\bgc\.[a-z]|['\"]gc['\"]"
    ),
    "sys._getframe": re.compile(r"\b_getframe\b|\b_current_frames\b|\b[ft]b?_(?:back|frame)\b"),
    "ctypes": re.compile(r"\b_?ctypes\b"),
    "__eq__": re.compile(r"\b__eq__\b"),
    "os._exit": re.compile(r"\b_exit\b"),
}


def suspicious(program: str) -> frozenset[str]:
    """Which of the names of `SIGNS` the source text touches, comments and strings included.

    A search of the text, never a parse: linear in time, and no program can make it fail.
    `suspicious("import gc")` is `{"gc"}`.
    """
    return frozenset(name for name, sign in SIGNS.items() if sign.search(program))
