r"""What an answer can be as a whole: a value with a unit, a set, an equation, words, ..."""

from __future__ import annotations

from dataclasses import dataclass

from vlrl.grading.math_tree import Apply, Node, Symbol


@dataclass(frozen=True, slots=True)
class Value:
    """A number or expression; `unit` by units.py, "" for none."""

    node: Node
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    """Text: casefolded, without blanks."""

    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """Parts in brackets: kind "()", "[]", "(]", "[)"; "set" where order doesn't count."""

    kind: str
    items: tuple[Shape, ...]
    spread: bool = False
    """From a plus-minus sign: inside of a list its values are the list's."""


@dataclass(frozen=True, slots=True)
class Union:
    """Intervals and sets joined by cup."""

    items: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """`x = ...` or `x in ...`."""

    name: str
    shape: Shape
    op: str = "="


@dataclass(frozen=True, slots=True)
class Relation:
    """`2 < x <= 4`: sides and what stands between them."""

    ops: tuple[str, ...]
    sides: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of cells."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Based:
    """Digits with the base that they are written in."""

    digits: str
    base: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """`3:5`, and times like `9:24`."""

    parts: tuple[Node, ...]
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """No answer, whatever the gold."""


Shape = Value | Words | Items | Union | Named | Relation | Matrix | Based | Ratio | Refused


def is_infinite(node: Node) -> int:
    """1 or -1 for infinity, else 0."""
    if node == Symbol("infty"):
        return 1
    if isinstance(node, Apply) and node.op == "neg" and node.args[0] == Symbol("infty"):
        return -1
    return 0
