"""Whether two answers are the same thing, by their shapes.

Order counts in tuples, not in sets and lists; brackets must agree; a unit may be missing but not be
another; names may be missing but not be others; inequalities of one variable are intervals.
"""

from __future__ import annotations

from fractions import Fraction

from vlrl.grading.ball import TooBig, Undefined
from vlrl.grading.math_shape import (
    Based,
    Items,
    Matrix,
    Named,
    Ratio,
    Refused,
    Relation,
    Shape,
    Union,
    Value,
    Words,
    is_infinite,
)
from vlrl.grading.math_tree import Apply, Node, Number, Symbol
from vlrl.grading.math_value import LOG_BASE, exact, ratio_of, same_value, symbols_of
from vlrl.grading.number import parse_count
from vlrl.grading.units import same_unit

_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


def same_shape(gold: Shape, answer: Shape) -> bool:
    """Whether the answer is the gold.

    Raises:
        Undecided: values could not be compared here.
    """
    if isinstance(gold, Refused) or isinstance(answer, Refused):
        return False
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _same_relations(gold, answer)
    if isinstance(gold, Named) and isinstance(answer, Named) and not _same_name(gold, answer):
        return False
    gold, answer = _nameless(gold), _nameless(answer)
    if isinstance(gold, Words) or isinstance(answer, Words):
        return _same_words(gold, answer)
    if isinstance(gold, Value) and isinstance(answer, Value):
        return _same_values(gold, answer)
    gold, answer = _as_region(gold), _as_region(answer)
    if isinstance(gold, Items) and isinstance(answer, Items):
        return _same_items(gold, answer)
    if isinstance(gold, Union) and isinstance(answer, Union):
        return _in_any_order(gold.items, answer.items)
    first, second = _as_matrix(gold), _as_matrix(answer)
    if isinstance(first, Matrix) and isinstance(second, Matrix):
        return _same_rows(first, second)
    if isinstance(gold, Based) and isinstance(answer, Based):
        return gold == answer
    if isinstance(gold, Ratio) and isinstance(answer, Ratio):
        return (
            len(gold.parts) == len(answer.parts)
            and same_unit(gold.unit, answer.unit)
            and all(map(same_nodes, gold.parts, answer.parts))
        )
    return False


def same_nodes(gold: Node, answer: Node) -> bool:
    """Whether two expressions are the same; arithmetic left undone for a number isn't.

    Raises:
        Undecided: see same_value.
    """
    one, other = is_infinite(gold), is_infinite(answer)
    if one or other:
        return one == other
    names = symbols_of(gold)
    if symbols_of(answer) - names - {LOG_BASE}:
        return False
    if not names and exact(gold) is not None and _undone(answer) and not _undone(gold):
        return False
    try:
        return same_value(gold, answer)
    except (Undefined, TooBig):
        return False


def _undone(node: Node) -> bool:
    """Sums and products of numbers that were left standing: else restating a question would pay."""
    if not isinstance(node, Apply):
        return False
    if node.op in ("add", "mul"):
        numbers = [arg for arg in node.args if exact(arg) is not None]
        if len(numbers) > 1 and not (node.op == "mul" and _scientific(node)):
            return True
    return any(_undone(arg) for arg in node.args)


def _scientific(node: Apply) -> bool:
    """`1.5 * 10^3`."""
    factor, power = node.args[0], node.args[-1]
    if isinstance(factor, Apply) and factor.op == "neg":
        factor = factor.args[0]
    ten = isinstance(power, Apply) and power.op == "pow" and power.args[0] == Number(Fraction(10))
    return len(node.args) == 2 and isinstance(factor, Number) and ten


def _same_name(gold: Named, answer: Named) -> bool:
    """Roots are often numbered: `x_1 = 1, x_2 = 2` for `x = 1, x = 2`."""
    name, _, index = answer.name.partition("_")
    return gold.name in (answer.name, name if index.isdigit() else "")


def _nameless(shape: Shape) -> Shape:
    return shape.shape if isinstance(shape, Named) else shape


def _same_words(gold: Shape, answer: Shape) -> bool:
    one, other = _text(gold), _text(answer)
    if one is not None and one == other:
        return bool(one)
    count = parse_count(one) if one else None
    value = answer.node if isinstance(answer, Value) and not answer.unit else None
    return count is not None and isinstance(value, Number) and value.value == count


def _text(shape: Shape) -> str | None:
    if isinstance(shape, Words):
        return shape.text
    if isinstance(shape, Value) and not shape.unit:
        node = shape.node
        letters = node.args if isinstance(node, Apply) and node.op == "mul" else (node,)
        names = [letter.name for letter in letters if isinstance(letter, Symbol)]
        return "".join(names).casefold() if len(names) == len(letters) else None
    return None


def _same_values(gold: Value, answer: Value) -> bool:
    return same_unit(gold.unit, answer.unit) and same_nodes(gold.node, answer.node)


def _same_items(gold: Items, answer: Items) -> bool:
    if gold.kind != answer.kind:
        return False
    if gold.kind != "set":
        same = len(gold.items) == len(answer.items)
        return same and all(map(same_shape, gold.items, answer.items))
    return _in_any_order(_distinct(gold.items), _distinct(answer.items))


def _distinct(items: tuple[Shape, ...]) -> tuple[Shape, ...]:
    return tuple(dict.fromkeys(items))


def _in_any_order(gold: tuple[Shape, ...], answer: tuple[Shape, ...]) -> bool:
    """One to one; equal things are equal to the same ones, so the first that fits is as good."""
    left = list(answer)
    if len(gold) != len(left):
        gold, left = _without_equals(gold), list(_without_equals(answer))
    if len(gold) != len(left):
        return False
    for wanted in gold:
        found = next((n for n, got in enumerate(left) if same_shape(wanted, got)), None)
        if found is None:
            return False
        left.pop(found)
    return True


def _without_equals(items: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """Each value once: `1, 1.0` are one element."""
    kept: list[Shape] = []
    for item in items[:16]:
        if not any(same_shape(other, item) for other in kept):
            kept.append(item)
    return (*kept, *items[16:])


def _same_rows(gold: Matrix, answer: Matrix) -> bool:
    if len(gold.rows) != len(answer.rows) or len(gold.rows[0]) != len(answer.rows[0]):
        return False
    return all(
        same_nodes(one, other)
        for row, its in zip(gold.rows, answer.rows, strict=True)
        for one, other in zip(row, its, strict=True)
    )


def _as_matrix(shape: Shape) -> Shape:
    """`[[1, 2], [3, 4]]` as a matrix."""
    if not isinstance(shape, Items) or shape.kind != "[]":
        return shape
    rows: list[tuple[Node, ...]] = []
    for item in shape.items:
        if not isinstance(item, Items) or item.kind != "[]":
            return shape
        cells = [cell.node for cell in item.items if isinstance(cell, Value)]
        if len(cells) != len(item.items):
            return shape
        rows.append(tuple(cells))
    return Matrix(tuple(rows)) if len({len(row) for row in rows}) == 1 else shape


def _as_region(shape: Shape) -> Shape:
    """Inequalities as intervals, `x < 1 or x > 2` as their union, all reals as an interval."""
    if isinstance(shape, Items) and shape.kind == "set" and len(shape.items) > 1:
        regions = [interval_of(item) for item in shape.items if isinstance(item, Relation)]
        found = tuple(region for region in regions if region is not None)
        return Union(found) if len(found) == len(shape.items) else shape
    if shape == Value(Symbol("R_set")):
        return Items("()", (_infinity(-1), _infinity(1)))
    return shape


def _infinity(sign: int) -> Value:
    symbol = Symbol("infty")
    return Value(symbol if sign > 0 else Apply("neg", (symbol,)))


def interval_of(relation: Relation) -> Items | None:
    """`2 < x <= 4` -> (2, 4]; None if it is no bound on one variable."""
    ops, sides = list(relation.ops), list(relation.sides)
    if ops[0] in (">", ">="):
        ops, sides = [_TURNED[op] for op in reversed(ops)], sides[::-1]
    if not set(ops) <= {"<", "<="} or len(ops) > 2:
        return None
    middle = 1 if len(ops) == 2 else next((n for n, s in enumerate(sides) if symbols_of(s)), 0)
    others = [side for number, side in enumerate(sides) if number != middle]
    if not isinstance(sides[middle], Symbol) or any(symbols_of(side) for side in others):
        return None
    low, high = "(" if ops[0] == "<" else "[", ")" if ops[-1] == "<" else "]"
    if len(ops) == 2:
        return Items(low + high, (Value(others[0]), Value(others[1])))
    if middle == 0:
        return Items(f"({high}", (_infinity(-1), Value(others[0])))
    return Items(f"{low})", (Value(others[0]), _infinity(1)))


def _same_relations(gold: Shape, answer: Shape) -> bool:
    """Equations up to a factor, inequalities up to a positive one; intervals for their bounds."""
    one, other = _as_relation(gold), _as_relation(answer)
    if one is None or other is None:
        left = interval_of(gold) if isinstance(gold, Relation) else _as_region(_nameless(gold))
        right = (
            interval_of(answer) if isinstance(answer, Relation) else _as_region(_nameless(answer))
        )
        if not isinstance(left, Items) or not isinstance(right, Items):
            return False
        return left.kind != "set" and _same_items(left, right)
    first, second = interval_of(one), interval_of(other)
    if first and second:
        return _variables(one) == _variables(other) and _same_items(first, second)
    if len(one.ops) == len(other.ops) == 1:
        return _same_differences(one, other)
    if one.ops != other.ops:
        other = Relation(
            tuple(_TURNED.get(op, op) for op in reversed(other.ops)), tuple(reversed(other.sides))
        )
    return one.ops == other.ops and all(map(same_nodes, one.sides, other.sides))


def _variables(relation: Relation) -> frozenset[str]:
    return frozenset[str]().union(*map(symbols_of, relation.sides))


def _same_differences(one: Relation, other: Relation) -> bool:
    op = other.ops[0]
    turned = op != one.ops[0]
    if turned:
        op = _TURNED[op]
    if op != one.ops[0]:
        return False
    left = Apply("add", (one.sides[0], Apply("neg", (one.sides[1],))))
    right = Apply("add", (other.sides[0], Apply("neg", (other.sides[1],))))
    ratio = ratio_of(left, right)
    if ratio is None:
        return False
    if op in ("=", "!="):
        return True
    return (ratio > 0) != turned


def _as_relation(shape: Shape) -> Relation | None:
    """An equation again: `y = 2x + 1` against `2x - y + 1 = 0`."""
    if isinstance(shape, Relation):
        return shape
    if isinstance(shape, Named) and isinstance(shape.shape, Value) and shape.op == "=":
        letters = shape.name
        if len(letters) == 1 or "_" in letters:
            return Relation(("=",), (Symbol(letters), shape.shape.node))
    return None
