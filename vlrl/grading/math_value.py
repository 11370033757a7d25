"""Values of expressions: exact where they are rational, else with an error bound, at sample points.

Two expressions are the same if they agree wherever both are defined: constants by value,
expressions in variables at rational points drawn by both expressions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache, reduce
from hashlib import sha256

from vlrl.grading.ball import Ball, Balls, TooBig, Undecided, Undefined, with_balls
from vlrl.grading.math_tree import CONSTANTS, Apply, Node, Number, Symbol

MAX_BITS = 8192
"""Of an exact numerator or denominator."""
PRECISION = 192
NUM_POINTS = 5
MIN_POINTS = 2
"""Sample points at which both must have a value."""
MAX_SYMBOLS = 12
LOG_BASE = "log's base"
"""The name of the variable that the base of a `\\log` without one is."""

Point = Mapping[str, Fraction]


class _Irrational(ArithmeticError):
    """The exact value isn't rational, or isn't worth finding out."""


def symbols_of(node: Node) -> frozenset[str]:
    """Names of the variables."""
    if isinstance(node, Symbol):
        return frozenset() if node.name in CONSTANTS else frozenset({node.name})
    if isinstance(node, Number):
        return frozenset()
    found = frozenset[str]().union(*(symbols_of(arg) for arg in node.args))
    return found | {LOG_BASE} if node.op == "log" and len(node.args) == 1 else found


@lru_cache(maxsize=4096)
def exact(node: Node) -> Fraction | None:
    """The value of a constant expression if it is rational and easily found."""
    try:
        return _exact(node, {})
    except (_Irrational, Undefined, Undecided):
        return None


def same_value(gold: Node, answer: Node) -> bool:
    """Whether two expressions have the same values.

    Raises:
        Undecided: their values couldn't be compared.
    """
    if gold == answer:
        return True
    names = symbols_of(gold) | symbols_of(answer)
    if len(names) > MAX_SYMBOLS:
        raise Undecided
    if not names:
        return _same_at(gold, answer, {})
    num_compared = 0
    for point in _points(gold, answer, names):
        compared = _compare_at(gold, answer, point)
        if compared is False:
            return False
        num_compared += compared is not None
    if num_compared < MIN_POINTS:
        raise Undecided
    return True


def ratio_of(one: Node, other: Node) -> Fraction | None:
    """The constant c with one = c other at all sample points, if it is rational and not 0.

    Raises:
        Undecided: a value isn't rational.
    """
    names = symbols_of(one) | symbols_of(other)
    if not names or len(names) > MAX_SYMBOLS:
        return None
    ratio: Fraction | None = None
    for point in _points(one, other, names):
        try:
            left, right = _exact(one, point), _exact(other, point)
        except (_Irrational, Undefined) as error:
            raise Undecided from error
        if not left or not right or (ratio is not None and left / right != ratio):
            return None
        ratio = left / right
    return ratio


def _compare_at(gold: Node, answer: Node, point: Point) -> bool | None:
    """Whether they agree at a point; None where neither has a real value."""
    try:
        return _same_at(gold, answer, point)
    except Undefined:
        return None
    except TooBig:
        return None


def _same_at(gold: Node, answer: Node, point: Point) -> bool:
    try:
        return _exact(gold, point) == _exact(answer, point)
    except _Irrational:
        pass
    precision = PRECISION + 4 * max(_num_digits(gold), _num_digits(answer))

    def compare(balls: Balls) -> bool:
        one, other = _ball(gold, point, balls), _ball(answer, point, balls)
        if point and not _has_i(gold) and not _has_i(answer):
            real = (balls.is_real(one), balls.is_real(other))
            if real == (False, False):
                raise Undefined  # outside of the reals, where sign conventions differ
        return balls.same(one, other)

    return with_balls(precision, compare)


def _points(one: Node, other: Node, names: Iterable[str]) -> Iterator[Point]:
    """Sample points that hang on both expressions, so that no answer can be made to fit them.

    The first three are positive, the others of either sign; no coordinate is whole.
    """
    text = "\0".join(sorted((repr(one), repr(other))))
    chance = random.Random(sha256(text.encode("utf-8", "surrogatepass")).digest())
    for number in range(NUM_POINTS):
        # Below 1 at the even points, for functions that are real only there.
        size = 1 if number % 2 == 0 else 18
        point: dict[str, Fraction] = {}
        for name in sorted(names):
            value = chance.randrange(1, 980) * Fraction(size, 997) + Fraction(1, 131)
            point[name] = -value if number > 2 and chance.random() < 0.7 else value
        yield point


def _num_digits(node: Node) -> int:
    """Digits of the longest literal: a rounded value must not pass for the exact one."""
    if isinstance(node, Number):
        bits = node.value.numerator.bit_length() + node.value.denominator.bit_length()
        return bits // 3
    return max((_num_digits(arg) for arg in node.args), default=0) if isinstance(node, Apply) else 0


def _has_i(node: Node) -> bool:
    if isinstance(node, Apply):
        return any(_has_i(arg) for arg in node.args)
    return isinstance(node, Symbol) and node.name == "i"


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise TooBig
    return value


def _exact(node: Node, point: Point) -> Fraction:
    """The rational value.

    Raises:
        _Irrational, Undefined, TooBig.
    """
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Symbol):
        if node.name in point:
            return point[node.name]
        if node.name == "infty":
            raise Undecided
        raise _Irrational
    op = node.op
    if op not in _RATIONAL:
        raise _Irrational
    values = [_exact(arg, point) for arg in node.args]
    if op == "add":
        return _bounded(sum(values, Fraction(0)))
    if op == "mul":
        return reduce(lambda a, b: _bounded(a * b), values)
    if op == "div":
        if values[1] == 0:
            raise Undefined
        return _bounded(values[0] / values[1])
    if op == "pow":
        return _exact_power(*values)
    if op == "root":
        if values[0].denominator != 1 or not 1 < values[0] <= 64:
            raise _Irrational
        return _exact_power(values[1], 1 / values[0])
    return _exact_unary(op, values)


_RATIONAL = frozenset(
    ["add", "mul", "div", "pow", "root", "neg", "abs", "floor", "ceil", "fact", "binom"]
)


def _exact_unary(op: str, values: list[Fraction]) -> Fraction:
    value = values[0]
    if op == "neg":
        return -value
    if op == "abs":
        return abs(value)
    if op in ("floor", "ceil"):
        return Fraction(math.floor(value) if op == "floor" else math.ceil(value))
    if op == "fact":
        if value.denominator != 1 or value < 0:
            raise Undefined
        if value > 800:
            raise TooBig
        return Fraction(math.factorial(int(value)))
    below = values[1]  # a binomial coefficient
    if value.denominator != 1 or below.denominator != 1 or value < 0:
        raise Undefined
    if value > 4000:
        raise TooBig
    return Fraction(math.comb(int(value), int(below)) if below >= 0 else 0)


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction:
    if base == 0:
        if exponent > 0:
            return base
        raise Undefined
    if exponent.denominator != 1:
        base = _exact_root(base, exponent.denominator)
    power = exponent.numerator
    if base in (1, -1):
        return base if power % 2 else Fraction(1)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(power) > MAX_BITS:
        raise TooBig
    return base**power


def _exact_root(value: Fraction, index: int) -> Fraction:
    if index > 64 or (value < 0 and index % 2 == 0):
        raise _Irrational
    size = abs(value)
    over, under = _whole_root(size.numerator, index), _whole_root(size.denominator, index)
    root = Fraction(over, under)
    if root**index != size:
        raise _Irrational
    return -root if value < 0 else root


def _whole_root(number: int, index: int) -> int:
    """The whole root, rounded down or near it; the caller checks it."""
    if index == 2:
        return math.isqrt(number)
    if number < 2:
        return number
    root = 1 << -(-number.bit_length() // index)
    while True:  # Newton's method from above
        after = ((index - 1) * root + number // root ** (index - 1)) // index
        if after >= root:
            return root
        root = after


def _ball(node: Node, point: Point, balls: Balls) -> Ball:
    """The value with its error bound.

    Raises:
        Undefined, Undecided.
    """
    try:
        return balls.of(_exact(node, point))
    except _Irrational:
        pass
    if isinstance(node, Symbol):
        return balls.constant(node.name)
    assert isinstance(node, Apply)
    if node.op in ("pow", "root"):
        return _ball_power(node, point, balls)
    if node.op == "log":
        return _logarithm(node, point, balls)
    values = [_ball(arg, point, balls) for arg in node.args]
    one = values[0]
    if node.op == "add":
        return reduce(balls.add, values)
    if node.op == "mul":
        return reduce(balls.mul, values)
    if node.op == "div":
        return balls.div(one, values[1])
    return _ball_unary(node.op, one, balls)


def _ball_unary(op: str, one: Ball, balls: Balls) -> Ball:
    if op == "neg":
        return balls.neg(one)
    if op == "abs":
        return balls.size(one)
    if op == "deg":
        return balls.mul(one, balls.div(balls.constant("pi"), balls.of(Fraction(180))))
    if op == "exp":
        return balls.exp(one)
    if op in ("ln", "lg"):
        natural = balls.ln(one)
        return natural if op == "ln" else balls.div(natural, balls.ln(balls.of(Fraction(10))))
    if op in ("sin", "cos", "sinh", "cosh"):
        return balls.wave(op, one)
    if op in ("arcsin", "arccos", "arctan"):
        return balls.arc(op.replace("arc", "a"), one)
    if op in ("tan", "cot", "tanh"):
        h = "h" if op == "tanh" else ""
        sine, cosine = balls.wave("sin" + h, one), balls.wave("cos" + h, one)
        return balls.div(cosine, sine) if op == "cot" else balls.div(sine, cosine)
    if op in ("sec", "csc"):
        return balls.div(balls.of(Fraction(1)), balls.wave("cos" if op == "sec" else "sin", one))
    raise Undecided


def _logarithm(node: Apply, point: Point, balls: Balls) -> Ball:
    """With its base; without one the base is a variable, so that only what holds for any counts."""
    base = balls.of(point[LOG_BASE]) if len(node.args) == 1 else _ball(node.args[0], point, balls)
    return balls.div(balls.ln(_ball(node.args[-1], point, balls)), balls.ln(base))


def _ball_power(node: Apply, point: Point, balls: Balls) -> Ball:
    if node.op == "root":
        index = exact(node.args[0])
        base = _ball(node.args[1], point, balls)
        exponent = None if index is None or index == 0 else 1 / index
    else:
        base = _ball(node.args[0], point, balls)
        try:
            exponent = _exact(node.args[1], point)
        except _Irrational:
            exponent = None
    if exponent is None:
        return balls.power(base, _ball(node.args[-1 if node.op == "pow" else 0], point, balls))
    if exponent.denominator == 1:
        return balls.whole_power(base, exponent.numerator)
    if exponent.denominator > 64:
        return balls.power(base, balls.of(exponent))
    return balls.whole_power(balls.root(base, exponent.denominator), exponent.numerator)
