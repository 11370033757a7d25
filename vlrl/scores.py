"""Graded Groups -> Pass@1 and pass@k per domain, with intervals clustered by problem.

A verifier's own failures are counted beside the score and never folded into it. Truncated,
unparsable and timed-out responses count as wrong and are shown as shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from vlrl.types import Attempt, Finish, Group, Status

Z95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95% interval; all in [0, 1], or in [-1, 1] for a difference of two means."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PassAtK:
    """The chance, by the mean over problems, that one of k responses is right."""

    k: int
    chance: Interval


@dataclass(frozen=True, kw_only=True)
class DomainScore:
    """One domain of an evaluation.

    `pass_at_1` is the mean over problems of each problem's mean over its graded attempts. Shares
    are of all attempts. `num_problems` are those with at least one graded attempt.
    """

    pass_at_1: Interval
    pass_at_k: float
    k: int
    num_problems: int
    num_attempts: int
    truncated: float
    unparsable: float
    timeout: float
    error: float


def score(groups: Sequence[Group]) -> dict[str, DomainScore]:
    """The score of each domain, in the order in which the domains first appear.

    A domain whose every verifier call failed has none.
    """
    domains: dict[str, list[Group]] = {}
    for group in groups:
        domains.setdefault(group.problem.domain, []).append(group)
    return {
        name: score_domain(members)
        for name, members in domains.items()
        if any(group.scored for group in members)
    }


def score_domain(groups: Sequence[Group]) -> DomainScore:
    """The score of some graded groups.

    Raises:
        ValueError: no attempt was graded at all.
    """
    graded = [scored for group in groups if (scored := group.scored)]
    if not graded:
        raise ValueError("no attempt was graded: every verifier call failed")
    attempts = [attempt for group in groups for attempt in group.attempts]
    k = min(len(scored) for scored in graded)
    return DomainScore(
        pass_at_1=clustered_interval([fmean(a.verdict.correct for a in s) for s in graded]),
        pass_at_k=fmean(pass_at_k(len(s), sum(a.verdict.correct for a in s), k) for s in graded),
        k=k,
        num_problems=len(graded),
        num_attempts=len(attempts),
        truncated=_share(attempts, lambda a: a.completion.finish is Finish.LENGTH),
        unparsable=_share(attempts, lambda a: a.verdict.status is Status.UNPARSABLE),
        timeout=_share(attempts, lambda a: a.verdict.status is Status.TIMEOUT),
        error=_share(attempts, lambda a: a.verdict.status is Status.ERROR),
    )


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The unbiased chance that one of k samples is right: 1 - C(n-c, k) / C(n, k).

    Source: Chen et al. 2021 (arXiv 2107.03374), equation 1.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} wants at least {k} samples, {num_samples} are there")
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def pass_at_ks(groups: Sequence[Group]) -> tuple[PassAtK, ...]:
    """pass@1, @2, @4 ... and at the largest k that every problem's graded attempts allow.

    One attempt that could not be graded lowers the largest k for all: a problem with fewer samples
    has no unbiased estimate at a higher one. Intervals are clustered by problem, as Pass@1's.

    Raises:
        ValueError: no attempt was graded at all.
    """
    counts = [
        (len(scored), sum(a.verdict.correct for a in scored))
        for group in groups
        if (scored := group.scored)
    ]
    if not counts:
        raise ValueError("no attempt was graded: every verifier call failed")
    largest = min(n for n, _ in counts)
    ks = sorted({largest, *(2**i for i in range(largest.bit_length()))})
    return tuple(
        PassAtK(k=k, chance=clustered_interval([pass_at_k(n, c, k) for n, c in counts])) for k in ks
    )


def clustered_interval(means_P: Sequence[float]) -> Interval:
    """95% Wilson interval of the mean of P problems' means in [0, 1].

    Samples of one problem are not independent, so the interval is made from the problems' means:
    the effective number of draws is mean (1 - mean) / SE^2, which Wilson's formula takes as its n
    (the idea of Korn and Graubard 1998). Where every problem has the same mean, n is P.
    """
    num = len(means_P)
    mean = fmean(means_P)
    squares = math.fsum((m - mean) ** 2 for m in means_P)
    variance = squares / (num * (num - 1)) if num > 1 else 0.0
    spread = mean * (1 - mean)
    effective = spread / variance if variance > 1e-12 and spread > 0 else float(num)
    shrink = 1 + Z95**2 / effective
    centre = (mean + Z95**2 / (2 * effective)) / shrink
    half = Z95 * math.sqrt(spread / effective + Z95**2 / (4 * effective**2)) / shrink
    return Interval(mean=mean, low=max(0.0, centre - half), high=min(1.0, centre + half))


def macro_interval(parts: Mapping[str, Sequence[Interval]]) -> Interval:
    """The plain mean over domains of the mean of each domain's parts (its suites).

    A domain weighs the same however many suites and problems it has. The parts are measured
    independently, so their distances to their own bounds add up as squares: MOVER, Zou and Donner
    2008 (Statistics in Medicine 27, 1693-1702), which keeps lopsided intervals lopsided.
    """
    weighted = [(p, 1 / len(parts) / len(of)) for of in parts.values() for p in of]
    mean = math.fsum(weight * p.mean for p, weight in weighted)
    below = math.hypot(*(weight * (p.mean - p.low) for p, weight in weighted))
    above = math.hypot(*(weight * (p.high - p.mean) for p, weight in weighted))
    return Interval(mean=mean, low=mean - below, high=mean + above)


def _share(attempts: Iterable[Attempt], test: Callable[[Attempt], bool]) -> float:
    return fmean(test(attempt) for attempt in attempts)
