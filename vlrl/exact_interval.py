"""Intervals for sets too small for normal quantiles (AIME: 30 problems).

Beta and Student quantiles come from mpmath's regularised incomplete beta function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import mpmath

SMALL_SET = 100
"""Up to so many problems an exact interval is shown beside the clustered one."""
TAIL = 0.025


def exact_interval(means_P: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of P problems' means in [0, 1], by Clopper and Pearson (1934).

    With one sample a problem the number of problems solved is binomial if problems are drawn
    independently, and this interval holds its level for every P, where Wilson's does so only on
    average. With k samples a problem a mean is no count: as Korn and Graubard (1998), the formula
    takes the effective number of draws, mean (1 - mean) / SE^2, times (z / t)^2 with Student's t
    for P - 1 degrees of freedom, because SE is itself an estimate from few problems. That is no
    longer exact. The number is at least P: means in [0, 1] never vary more than single draws do.

    Chosen over the bootstrap, which has no width where all problems agree and is too narrow at 30.
    """
    num = len(means_P)
    mean = fmean(means_P)
    spread = mean * (1 - mean)
    squares = math.fsum((m - mean) ** 2 for m in means_P)
    effective = float(num)
    if num > 1 and squares > 1e-12 * num:
        # The population variance, so that single draws give P itself.
        factor = (student_quantile(10**9) / student_quantile(num - 1)) ** 2
        effective = max(effective, factor * spread * num**2 / squares)
    right = mean * effective
    wrong = effective - right
    low = _beta_quantile(TAIL, right, wrong + 1) if right > 1e-9 else 0.0
    high = 1 - _beta_quantile(TAIL, wrong, right + 1) if wrong > 1e-9 else 1.0
    return low, high


def student_quantile(degrees: int) -> float:
    """The t with 2.5% of Student's distribution above it."""
    if degrees > 10**6:
        return 1.959963984540054
    # P(|T| > t) = I_x(degrees / 2, 1 / 2) with x = degrees / (degrees + t^2).
    x = _beta_quantile(2 * TAIL, degrees / 2, 0.5)
    return math.sqrt(degrees * (1 - x) / x)


def _beta_quantile(share: float, a: float, b: float) -> float:
    """The x below which `share` of Beta(a, b) lies, to 1e-15, by halving."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if float(mpmath.betainc(a, b, 0, middle, regularized=True)) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2
