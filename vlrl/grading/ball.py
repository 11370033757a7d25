"""Numbers known up to an error bound: a midpoint of some hundred bits, and how far off it may be.

Every operation adds what it may lose, to first order and with a factor of two to spare; what can't
be bounded (a branch cut, a pole, a number too big) is an exception and no value. mpmath does the
arithmetic, in contexts of our own: it changes the precision of none that others use.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mpmath import MPContext

MAX_LOG2 = 900
"""Larger and smaller magnitudes than 2^±900 are not computed with."""
_MAX_PRECISION = 4096


class Undefined(ArithmeticError):
    """No value: a division by zero, the logarithm of zero, a pole."""


class Undecided(ArithmeticError):
    """There may be a value, but not one that could be bounded here."""


class TooBig(Undecided):
    """Past the bounds on size."""


@dataclass(frozen=True, slots=True)
class Ball:
    """The true value is within `error` units of 2^-precision of `mid`."""

    mid: Any
    error: float


class Balls:
    """Arithmetic at one precision, in bits. One thread at a time."""

    def __init__(self, precision: int) -> None:
        self._context: Any = MPContext()
        self._context.prec = precision
        self.unit = math.ldexp(1.0, -precision)
        self._full = float(self._context.pi + self._context.ln2)  # fills mpmath's tables

    def of(self, value: Fraction) -> Ball:
        """A rational number."""
        if value and abs(math.log2(abs(value.numerator)) - math.log2(value.denominator)) > MAX_LOG2:
            raise TooBig
        mid = self._context.mpf(value.numerator) / value.denominator
        whole = value.denominator == 1 and value.numerator.bit_length() < self._context.prec
        return Ball(mid, 0.0 if whole else float(abs(mid)))

    def constant(self, name: str) -> Ball:
        """pi, e or i."""
        if name == "i":
            return Ball(self._context.mpc(0, 1), 0.0)
        mid = +(self._context.pi if name == "pi" else self._context.e)
        return Ball(mid, 4.0)

    def add(self, one: Ball, other: Ball) -> Ball:
        """one + other."""
        return self._ball(one.mid + other.mid, one.error + other.error)

    def neg(self, one: Ball) -> Ball:
        """-one."""
        return Ball(-one.mid, one.error)

    def mul(self, one: Ball, other: Ball) -> Ball:
        """one * other."""
        error = _size(one) * other.error + _size(other) * one.error
        return self._ball(one.mid * other.mid, error + one.error * other.error * self.unit)

    def div(self, one: Ball, other: Ball) -> Ball:
        """one / other; Undefined if other may be zero."""
        size = _size(other)
        if size <= 4 * other.error * self.unit or size == 0:
            raise Undefined
        mid = one.mid / other.mid
        return self._ball(mid, 2 * (one.error + float(abs(mid)) * other.error) / size)

    def whole_power(self, one: Ball, exponent: int) -> Ball:
        """one to a whole power."""
        size = _size(one)
        if size <= 4 * one.error * self.unit:
            if one.error == 0 and exponent > 0:
                return one
            raise Undefined if exponent < 0 else Undecided
        if abs(exponent) * abs(math.log2(size)) > MAX_LOG2 or abs(exponent) > 10_000:
            raise TooBig
        mid = one.mid**exponent
        slope = abs(exponent) * float(abs(mid)) / size
        return self._ball(mid, 2 * slope * one.error + 2 * abs(exponent) * float(abs(mid)))

    def power(self, one: Ball, exponent: Ball) -> Ball:
        """exp(exponent ln one), the principal value."""
        if one.error == 0 and one.mid == 0:
            if self._context.re(exponent.mid) > 0:
                return one
            raise Undefined
        return self.exp(self.mul(exponent, self.ln(one)))

    def root(self, one: Ball, index: int) -> Ball:
        """The principal root, and the real one of a negative number where the index is odd."""
        size = _size(one)
        if size <= 4 * one.error * self.unit:
            if one.error == 0:
                return one
            raise Undecided
        if index % 2 and self.is_real(one) and self._context.re(one.mid) < 0:
            return self.neg(self.root(self.neg(one), index))
        mid = self._context.root(self._context.mpc(one.mid), index)
        if self.is_real(one) and self._context.re(one.mid) > 0:
            mid = mid.real
        return self._ball(mid, 2 * float(abs(mid)) / (index * size) * one.error)

    def exp(self, one: Ball) -> Ball:
        """e to the power of one."""
        if abs(float(self._context.re(one.mid))) > MAX_LOG2 * math.log(2):
            raise TooBig
        mid = self._context.exp(one.mid)
        return self._ball(mid, 2 * float(abs(mid)) * one.error + float(abs(mid)) * _size(one))

    def ln(self, one: Ball) -> Ball:
        """The natural logarithm, principal value; Undefined if one may be zero."""
        size = _size(one)
        if size <= 4 * one.error * self.unit:
            raise Undefined
        return self._ball(self._context.ln(one.mid), 2 * one.error / size)

    def wave(self, name: str, one: Ball) -> Ball:
        """sin, cos, sinh or cosh."""
        steep = self._context.re(one.mid) if name.endswith("h") else self._context.im(one.mid)
        if abs(float(steep)) > 300 or _size(one) > 1e18:
            raise TooBig
        slope = 2 * math.cosh(float(steep))
        mid = getattr(self._context, name)(one.mid)
        return self._ball(mid, slope * one.error + slope * (1 + _size(one)))

    def arc(self, name: str, one: Ball) -> Ball:
        """asin, acos (on [-1, 1]) or atan of a real number."""
        if not self.is_real(one):
            raise Undecided
        x = float(self._context.re(one.mid))
        slope = 1.0
        if name != "atan":
            if abs(x) > 1:
                raise Undefined  # not real
            gap = 1 - x * x
            if one.error and gap < 1e-6:
                raise Undecided
            slope = 1 / math.sqrt(gap) if one.error else 0.0
        return self._ball(
            getattr(self._context, name)(self._context.re(one.mid)), 2 * slope * one.error
        )

    def size(self, one: Ball) -> Ball:
        """The absolute value."""
        return self._ball(abs(one.mid), one.error)

    def is_real(self, one: Ball) -> bool:
        """Whether the imaginary part is zero as far as is known."""
        return abs(float(self._context.im(one.mid))) <= 2 * one.error * self.unit

    def same(self, one: Ball, other: Ball) -> bool:
        """Whether two values agree as far as they are known, which is to 80 bits at least.

        Raises:
            Undecided: less than that is known of them.
        """
        allowed = (one.error + other.error + 2) * self.unit
        far = float(abs(one.mid - other.mid))
        if far > allowed:
            return False
        if allowed > math.ldexp(max(_size(one), _size(other)), -80):
            raise Undecided
        return True

    def _ball(self, mid: Any, error: float) -> Ball:
        size = float(abs(mid))
        if not size < 2.0**MAX_LOG2 or not error < 2.0**MAX_LOG2:
            raise TooBig
        return Ball(mid, error + 2 * size)


_free: dict[int, deque[Balls]] = {}


def with_balls(precision: int, work: Callable[[Balls], bool]) -> bool:
    """What `work` returns, given arithmetic of at least so many bits that no other thread uses.

    Raises:
        TooBig: more precision is wanted than there is.
    """
    bits = 192
    while bits < precision:
        bits *= 2
    if bits > _MAX_PRECISION:
        raise TooBig
    free = _free.setdefault(bits, deque())
    try:
        balls = free.pop()
    except IndexError:
        balls = Balls(bits)
    try:
        return work(balls)
    finally:
        free.append(balls)


def _size(one: Ball) -> float:
    return float(abs(one.mid))


# mpmath keeps pi and ln 2 in tables that all its contexts share and that grow with the precision;
# growing is no single step, so it is done before there are threads.
_WARM = Balls(_MAX_PRECISION)
