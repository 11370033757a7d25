r"""Math answers: exact where that is cheap, a computer algebra system where it is not.

Text, integers, decimals, fractions, powers, units, sets, tuples and intervals are compared here;
what stays undecided goes to math-verify in a killable process. One answer only: a list, an "or", a
range or a chain of equalities for a single gold fails, and so does arithmetic that was left
undone (`1+2+4` for 7), else copying the question would pay.
"""

from __future__ import annotations

import re
from enum import Enum

from vlrl.grading import cas
from vlrl.grading.latex import Expression, exact_value, normalise, split_top
from vlrl.grading.text import normalise_text

_WORDS = re.compile(r"(?<![\\a-zA-Z])(?:or|and|if|else|to|import|lambda|exec|eval)(?![a-zA-Z])")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|lt|gt|ne|in|approx|sim|pm|mp)(?![a-zA-Z])")
_OPEN_ENDED = re.compile(r"\\(?:int|sum|prod|lim|input|include|square|def|write)(?![a-zA-Z])|__|\?")
_VARIABLE = re.compile(r"[a-zA-Z](?:_\{?[a-zA-Z0-9]\}?)?|[fgh]\([a-z]\)")
_ARITHMETIC = re.compile(r"[0-9)}%]\s?(?:[+*-]|\\cdot|\\div)\s?[0-9({\\]")
_HUGE = re.compile(
    r"\^\{?\(?-?[0-9]{4}|\^\{[-+0-9.()]{0,20}\^|[0-9]{4}!|[)}]!|e[0-9]{3}|[0-9]\^[0-9]\^"
)
_BASE = re.compile(r"[0-9]_")
_CONTAINERS = {"(": ")", "[": "]", "\\{": "\\}"}


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
    wanted, got = normalise(gold), normalise(answer)
    if wanted is None:  # a gold beyond the parser: its text, or nothing
        plain = normalise_text(gold)
        return _match(bool(plain) and plain.isprintable() and plain == normalise_text(answer))
    if got is None:
        return Match.DIFFERENT
    return _same(wanted, got)


def _same(gold: Expression, answer: Expression) -> Match:
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return Match.DIFFERENT
    wanted, got = _without_name(gold.body, answer.body)
    if wanted == got or (_prose(wanted) and wanted.casefold() == got.casefold()):
        return Match.SAME
    left, right = exact_value(wanted), exact_value(got)
    if left is not None and right is not None:
        return _match(left == right)
    container = _same_containers(wanted, got)
    if container is not None:
        return container
    if _refused(wanted, got):
        return Match.DIFFERENT
    return Match(cas.default_pool().equal(wanted, got).value)


def _match(same: bool) -> Match:
    return Match.SAME if same else Match.DIFFERENT


def _without_name(gold: str, answer: str) -> tuple[str, str]:
    """`x = 5` and `5 = x` say 5, unless the gold is an equation with another left side."""
    gold_name, gold_value = _named(gold)
    name, value = _named(answer)
    if gold_name and name and gold_name != name:
        return gold, answer
    return gold_value, value


def _named(body: str) -> tuple[str, str]:
    left, equals, right = body.partition("=")
    if not equals or "=" in right or left.endswith(("<", ">", "!")):
        return "", body
    if _VARIABLE.fullmatch(left):
        return left, right
    if _VARIABLE.fullmatch(right) and exact_value(left) is not None:
        return right, left
    return "", body


def _same_containers(gold: str, answer: str) -> Match | None:
    """Sets without order, tuples and intervals with their brackets; None if neither is one."""
    first, second = _contents(gold), _contents(answer)
    if first is None and second is None:
        return None
    if first is None or second is None:
        return (
            Match.SAME if {gold, answer} <= {"\\emptyset", "\\{\\}"} else _plus_minus(gold, answer)
        )
    if first[0] != second[0]:
        return Match.DIFFERENT
    wanted, got = list(dict.fromkeys(first[1])), list(dict.fromkeys(second[1]))
    ordered = first[0] not in ("\\{\\}", "")
    if ordered:
        wanted, got = first[1], second[1]
    if len(wanted) != len(got):
        return Match.DIFFERENT
    return _in_order(wanted, got) if ordered else _in_any_order(wanted, got)


def _plus_minus(gold: str, answer: str) -> Match:
    r"""`\pm 2` is the set of both."""
    for one, other in ((gold, answer), (answer, gold)):
        if one.startswith("\\pm"):
            value = one.removeprefix("\\pm").strip()
            contents = _contents(other)
            if contents and contents[0] in ("\\{\\}", ""):
                return _in_any_order([value, f"-{value}"], contents[1])
    return Match.DIFFERENT


def _contents(body: str) -> tuple[str, list[str]] | None:
    """Kind of brackets and the parts; a list without brackets has the kind ''."""
    for opening in _CONTAINERS:
        for closing in _CONTAINERS.values():
            if body.startswith(opening) and body.endswith(closing):
                inner = body[len(opening) : -len(closing)]
                parts = split_top(inner) if inner else []
                if len(parts) > 1 or opening == "\\{":
                    return opening + closing, [p for p in parts if p] if parts else []
    parts = split_top(body)
    return ("", parts) if len(parts) > 1 else None


def _in_order(gold: list[str], answer: list[str]) -> Match:
    for wanted, got in zip(gold, answer, strict=True):
        match = _same_part(wanted, got)
        if match is not Match.SAME:
            return match
    return Match.SAME


def _in_any_order(gold: list[str], answer: list[str]) -> Match:
    left = list(answer)
    if len(left) != len(gold) or len(left) > 30:
        return Match.DIFFERENT
    for wanted in gold:
        found = next((got for got in left if _same_part(wanted, got) is Match.SAME), None)
        if found is None:
            return Match.DIFFERENT
        left.remove(found)
    return Match.SAME


def _same_part(gold: str, answer: str) -> Match:
    wanted, got = normalise(gold), normalise(answer)
    if wanted is None or got is None:
        return _match(gold == answer)
    return _same(wanted, got)


def _refused(gold: str, answer: str) -> bool:
    """Answers that no value should come of, whatever the CAS makes of them."""
    if "=" in answer and (answer.count("=") > 1 or "=" not in gold):
        return True
    if ";" in answer or _WORDS.search(answer) or _OPEN_ENDED.search(answer):
        return True
    if bool(_RELATION.search(answer)) != bool(_RELATION.search(gold)):
        return True
    if _HUGE.search(answer):
        return True
    if _BASE.search(answer) or _BASE.search(gold):
        return True
    if _prose(gold) or _prose(answer) or _other_case(gold, answer):
        return True
    return exact_value(gold) is not None and _undone(answer)


def _other_case(gold: str, answer: str) -> bool:
    """`X` for `x`: the CAS takes them for the same variable."""
    wanted, got = (set(re.sub(r"\\[a-zA-Z]{1,30}", " ", body)) for body in (gold, answer))
    return any(c.isalpha() and c not in wanted and c.swapcase() in wanted for c in got)


def _undone(answer: str) -> bool:
    """Sums and products of numbers that were left standing."""
    return not re.search(r"[a-zA-Z]", answer.replace("\\cdot", "")) and bool(
        _ARITHMETIC.search(answer)
    )


def _prose(body: str) -> bool:
    """Words rather than an expression."""
    plain = re.sub(r"\\[a-zA-Z]{1,30}|\\begin\{[a-z]{1,9}\}|\\end\{[a-z]{1,9}\}", " ", body)
    plain = re.sub(r"sin|cos|tan|log|ln|sqrt|pi|arc|cot|sec|csc|exp|pmatrix", " ", plain)
    return bool(re.search(r"[^\W\d_]{4,}", plain)) or not plain.isascii()
