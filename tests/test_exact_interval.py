from __future__ import annotations

import math

import pytest

from vlrl.exact_interval import exact_interval, student_quantile
from vlrl.scores import clustered_interval


def _at_least(right: int, num: int, p: float) -> float:
    return math.fsum(math.comb(num, i) * p**i * (1 - p) ** (num - i) for i in range(right, num + 1))


@pytest.mark.parametrize("right", [1, 7, 15, 29])
def test_single_samples_give_clopper_and_pearsons_interval(right: int) -> None:
    """At either bound, a count as far out has a chance of exactly 2.5%."""
    low, high = exact_interval([1.0] * right + [0.0] * (30 - right))
    assert math.isclose(_at_least(right, 30, low), 0.025, rel_tol=1e-9)
    assert math.isclose(1 - _at_least(right + 1, 30, high), 0.025, rel_tol=1e-9)


def test_all_or_none_solved_have_closed_forms() -> None:
    low, high = exact_interval([1.0] * 30)
    assert high == 1.0 and math.isclose(low, 0.025 ** (1 / 30))
    low, high = exact_interval([0.0] * 30)
    assert low == 0.0 and math.isclose(high, 1 - 0.025 ** (1 / 30))


def test_students_quantiles() -> None:
    """Closed forms for 1 and 2 degrees; the table's 2.045 for 29."""
    assert math.isclose(student_quantile(1), math.tan(0.475 * math.pi), rel_tol=1e-9)
    q = 0.95
    assert math.isclose(student_quantile(2), q * math.sqrt(2 / (1 - q * q)), rel_tol=1e-9)
    assert round(student_quantile(29), 3) == 2.045


def test_more_samples_narrow_it_and_copies_do_not() -> None:
    single = [1.0] * 12 + [0.0] * 18
    averaged = [0.3] * 10 + [0.4] * 10 + [0.5] * 10
    low, high = exact_interval(single)
    inner_low, inner_high = exact_interval(averaged)
    assert low < inner_low < 0.4 < inner_high < high
    wilson = clustered_interval(averaged)
    assert inner_low < wilson.low and wilson.high < inner_high
    assert exact_interval([0.5] * 4) == exact_interval([1.0, 1.0, 0.0, 0.0])
