r"""Math answers: read and compared here, by a computer algebra system where that can't decide.

Numbers, units, fractions, surds, sets, tuples, intervals, matrices, equations, inequalities and
expressions in variables are decided by math_compare.py; sums, limits and unknown commands go to
math-verify in a killable process. One answer only: a list, an "or", a range or a chain of
equalities for a single gold fails, and so does arithmetic that was left undone (`1+2+4` for 7),
else copying the question would pay. docs/grading.md has the rules.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

from vlrl.grading import cas
from vlrl.grading.ball import Undecided
from vlrl.grading.latex import normalise
from vlrl.grading.math_compare import same_shape
from vlrl.grading.math_read import read, read_lettered
from vlrl.grading.math_shape import Items, Refused, Shape, Value
from vlrl.grading.math_spelling import unwrapped
from vlrl.grading.math_tokens import MAX_CHARACTERS
from vlrl.grading.math_value import exact
from vlrl.grading.response import clean

_WORDS = re.compile(r"(?<![\\a-zA-Z])(?:or|and|if|else|to|import|lambda|exec|eval)(?![a-zA-Z])")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|lt|gt|ne|in|approx|sim|pm|mp)(?![a-zA-Z])")
_OPEN_ENDED = re.compile(r"\\(?:int|sum|prod|lim|input|include|square|def|write)(?![a-zA-Z])|__|\?")
_HUGE = re.compile(
    r"\^\{?\(?-?[0-9]{4}|\^\{[-+0-9.()]{0,20}\^|[0-9]{4}!|[)}]!|e[0-9]{3}|[0-9]\^[0-9]\^"
)
_BASE = re.compile(r"[0-9]_")
_ALGEBRA = re.compile(
    r"\\(?:gcd|lcm|max|min|det|operatorname|[bp]?mod|arg|Re|Im|coth|sech|csch|arcsec|arccsc|arccot"
    r"|lim|int|sum|prod|setminus|cap|begin\{(?:cases|vmatrix|aligned)\})(?![a-zA-Z])"
)
"""What math-verify may know and the grammar here doesn't hold."""
_COMMAND = re.compile(r"\\[a-zA-Z]{1,30}")


class Match(Enum):
    """What the comparison came to."""

    SAME = "same"
    DIFFERENT = "different"
    TIMEOUT = "timeout"


def same_answer(gold: str, answer: str) -> Match:
    """Whether an answer equals the gold. An empty gold equals nothing. Thread-safe.

    Raises:
        cas.CasBroken: the process pool failed twice; says nothing about the answer.
    """
    if len(gold) > MAX_CHARACTERS or len(answer) > MAX_CHARACTERS:
        return Match.DIFFERENT
    if _plain(gold) == _plain(answer):
        return _match(bool(_plain(gold)))
    wanted, got = read(gold), read(answer)
    if isinstance(wanted, Refused) or isinstance(got, Refused):
        return Match.DIFFERENT
    if wanted is not None and got is not None:
        if isinstance(wanted, Value) and wanted.unit and isinstance(got, Value) and not got.unit:
            got = read_lettered(answer) or got
        try:
            return _match(same_shape(wanted, got) or _same_ungrouped(gold, answer, wanted, got))
        except Undecided:
            return _by_algebra(gold, answer)
    if wanted is None or (_ALGEBRA.search(answer) and not _is_number(wanted)):
        return _by_algebra(gold, answer)
    return Match.DIFFERENT


def _is_number(gold: Shape) -> bool:
    r"""Whether the gold is a number: then `\gcd(12, 18)` is work left undone, not an answer."""
    return isinstance(gold, Value) and exact(gold.node) is not None


def _match(same: bool) -> Match:
    return Match.SAME if same else Match.DIFFERENT


@lru_cache(maxsize=8192)
def _plain(text: str) -> str:
    """The text with single blanks, without dollars; nothing if it holds control characters."""
    text = " ".join(unwrapped(clean(text)).split())
    text = text if text.endswith("..") else text.removesuffix(".").rstrip()
    return text if text.isprintable() else ""


def _same_ungrouped(gold: str, answer: str, wanted: Shape, got: Shape) -> bool:
    """`100,200` read as two numbers where the other side is a list."""
    if "\\{" in gold + answer:
        return False
    if isinstance(wanted, Items) and isinstance(got, Value) and "," in answer:
        other = read(answer, grouped=False)
        return isinstance(other, Items) and same_shape(wanted, other)
    if isinstance(got, Items) and isinstance(wanted, Value) and "," in gold:
        other = read(gold, grouped=False)
        return isinstance(other, Items) and same_shape(other, got)
    return False


def _by_algebra(gold: str, answer: str) -> Match:
    wanted, got = normalise(gold), normalise(answer)
    if wanted is None or got is None or _refused(wanted.body, got.body):
        return Match.DIFFERENT
    if wanted.body == got.body:
        return _match(wanted.unit == got.unit or not (wanted.unit and got.unit))
    if wanted.unit != got.unit and wanted.unit and got.unit:
        return Match.DIFFERENT
    return Match(cas.default_pool().equal(wanted.body, got.body).value)


def _refused(gold: str, answer: str) -> bool:
    """Answers that no value should come of, whatever the algebra system makes of them."""
    if "=" in answer and (answer.count("=") > 1 or "=" not in gold):
        return True
    if ";" in answer or _WORDS.search(answer) or _OPEN_ENDED.search(answer):
        return True
    if bool(_RELATION.search(answer)) != bool(_RELATION.search(gold)):
        return True
    if _HUGE.search(answer) or _BASE.search(answer) or _BASE.search(gold):
        return True
    return _prose(gold) or _prose(answer) or _other_letters(gold, answer)


def _other_letters(gold: str, answer: str) -> bool:
    """A variable that the gold doesn't have; `X` for `x`, too."""
    wanted, got = (set(_COMMAND.sub(" ", body)) for body in (gold, answer))
    return any(c.isalpha() and c not in wanted for c in got)


def _prose(body: str) -> bool:
    """Words rather than an expression."""
    plain = re.sub(r"\\[a-zA-Z]{1,30}|\\begin\{[a-z]{1,9}\}|\\end\{[a-z]{1,9}\}", " ", body)
    plain = re.sub(r"sin|cos|tan|log|ln|sqrt|pi|arc|cot|sec|csc|exp|pmatrix", " ", plain)
    return bool(re.search(r"[^\W\d_]{4,}", plain)) or not plain.isascii()
