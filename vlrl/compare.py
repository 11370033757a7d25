"""Two evaluations of the same problems, paired: how far apart, how surely, who won which problem.

Everything is counted from the transcripts. A problem is one observation: its difference is B's mean
over its graded attempts less A's, so the samples of one problem are never taken for independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import fmean

import numpy as np

from vlrl.exact_interval import student_quantile
from vlrl.recorded import EvalFileError, RecordedProblem, read_evaluation
from vlrl.scores import Z95, Interval, macro_interval

NUM_FLIPS = 100_000
"""Draws of the sign-flip test where its distribution can't be counted out."""
MAX_CELLS = 100_000_000
"""Steps of counting it out: 1,500 problems at k = 32 stay below."""
CHUNK = 500
"""Draws at once; divides NUM_FLIPS."""


@dataclass(frozen=True, kw_only=True)
class PairedProblem:
    """One problem in both runs; `a` and `b` are means over graded attempts."""

    suite: str
    domain: str
    problem: str
    a: float
    b: float
    attempts_a: int
    attempts_b: int
    difference: Fraction

    @property
    def winner(self) -> str:
        """Who has the higher mean: "a", "b" or "tie"."""
        return "tie" if self.difference == 0 else "b" if self.difference > 0 else "a"


@dataclass(frozen=True, kw_only=True)
class DomainComparison:
    """One domain of one suite. `difference` is B's Pass@1 less A's.

    `p_value` is two-sided, of the sign-flip test; `exact`: its distribution was counted out.
    """

    suite: str
    domain: str
    num_problems: int
    a: float
    b: float
    difference: Interval
    p_value: float
    exact: bool
    wins_a: int
    wins_b: int
    ties: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs on the same problems.

    `num_ungraded`: problems that were left out because every verifier call of a run failed.
    `num_reworded`: problems whose question reads otherwise in the other run.
    """

    domains: tuple[DomainComparison, ...]
    macro: Interval
    problems: tuple[PairedProblem, ...]
    num_ungraded: int
    num_reworded: int


def compare(run_a: Path, run_b: Path, *, seed: int = 0) -> Comparison:
    """Compare two evaluations: folders with transcripts (SUITE.jsonl), or two transcripts.

    Raises:
        EvalFileError: a transcript isn't there or can't be read, or the two have not the same
            suites and problems: which are missing where.
    """
    if run_a.is_file() != run_b.is_file():
        raise EvalFileError(f"{run_a} and {run_b}: name two files or two folders")
    first, second = read_evaluation(run_a), read_evaluation(run_b)
    _same([*first], [*second], "suite", run_a, run_b)
    pairs: list[PairedProblem] = []
    num_ungraded = num_reworded = 0
    for suite, problems_a in first.items():
        problems_b = second[suite]
        _same([*problems_a], [*problems_b], f"problem of {suite}", run_a, run_b)
        for name, a in problems_a.items():
            b = problems_b[name]
            if a.domain != b.domain:
                raise EvalFileError(
                    f"problem {name} of {suite} is of domain {a.domain} in {run_a} and of "
                    f"{b.domain} in {run_b}: these are not the same problems"
                )
            num_reworded += a.question != b.question
            if a.graded and b.graded:
                pairs.append(_pair(suite, name, a, b))
            else:
                num_ungraded += 1
    if not pairs:
        raise EvalFileError(f"{run_a} and {run_b}: no problem has a graded attempt in both")
    groups: dict[tuple[str, str], list[PairedProblem]] = {}
    for pair in pairs:
        groups.setdefault((pair.suite, pair.domain), []).append(pair)
    domains = tuple(_compare_domain(members, seed) for members in groups.values())
    parts: dict[str, list[Interval]] = {}
    for domain in domains:
        parts.setdefault(domain.domain, []).append(domain.difference)
    return Comparison(
        domains=domains,
        macro=macro_interval(parts),
        problems=tuple(pairs),
        num_ungraded=num_ungraded,
        num_reworded=num_reworded,
    )


def paired_interval(differences_P: Sequence[float]) -> Interval:
    """95% interval of the mean of P problems' differences in [-1, 1].

    Student's over the problems, with P - 1 degrees of freedom. Where every difference is -1, 0 or
    1 (one sample each) or all are alike, that is too sure of itself, or has no width: then it is
    Agresti and Min's for matched proportions (2005, Statistics in Medicine 24, 729-740), which adds
    half a problem to each cell of the table of who solved what.
    """
    num = len(differences_P)
    mean = fmean(differences_P)
    total, squares = math.fsum(differences_P), math.fsum(d * d for d in differences_P)
    if set(differences_P) <= {-1.0, 0.0, 1.0} or len(set(differences_P)) == 1:
        centre = total / (num + 2)
        half = Z95 * math.sqrt(squares + 1 - total**2 / (num + 2)) / (num + 2)
    else:
        variance = math.fsum((d - mean) ** 2 for d in differences_P) / (num - 1)
        centre, half = mean, student_quantile(num - 1) * math.sqrt(variance / num)
    return Interval(mean=mean, low=max(-1.0, centre - half), high=min(1.0, centre + half))


def sign_flip_test(differences_P: Sequence[Fraction], seed: int = 0) -> tuple[float, bool]:
    """Two-sided p-value of "neither run is better", and whether it is exact.

    If the runs were exchangeable, every problem's difference could as well have the other sign: p
    is the share of all 2^P signs whose sum is at least as far from 0. The sums are counted out
    wherever their common denominator allows, else NUM_FLIPS signs are drawn with `seed` and the
    observed one counts among them, so that p is never 0.
    """
    moved = [abs(d) for d in differences_P if d]
    if not moved:
        return 1.0, True
    common = math.lcm(*(d.denominator for d in moved))
    sizes = [int(d * common) for d in moved]
    observed = abs(int(sum(differences_P, Fraction()) * common))
    total = sum(sizes)
    if total * len(sizes) <= MAX_CELLS:
        # chances[s]: that the positive ones sum to s, of which the signed sum is 2 s - total.
        chances = np.zeros(total + 1)
        chances[0] = 1.0
        for size in sizes:
            moved_up = chances[:-size] / 2
            chances /= 2
            chances[size:] += moved_up
        sums = 2 * np.arange(total + 1) - total
        return min(1.0, float(chances[np.abs(sums) >= observed].sum())), True
    draw = np.random.default_rng(seed)
    lengths = np.array([float(abs(d)) for d in moved])
    far = abs(float(sum(differences_P, Fraction()))) - 1e-9
    hits = 0
    for _ in range(NUM_FLIPS // CHUNK):
        signs = draw.integers(0, 2, size=(CHUNK, len(lengths)), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ lengths) >= far).sum())
    return (hits + 1) / (NUM_FLIPS + 1), False


def _pair(suite: str, name: str, a: RecordedProblem, b: RecordedProblem) -> PairedProblem:
    mean_a, mean_b = Fraction(a.correct, a.graded), Fraction(b.correct, b.graded)
    return PairedProblem(
        suite=suite,
        domain=a.domain,
        problem=name,
        a=float(mean_a),
        b=float(mean_b),
        attempts_a=a.graded,
        attempts_b=b.graded,
        difference=mean_b - mean_a,
    )


def _compare_domain(pairs: Sequence[PairedProblem], seed: int) -> DomainComparison:
    differences = [pair.difference for pair in pairs]
    p_value, exact = sign_flip_test(differences, seed)
    winners = [pair.winner for pair in pairs]
    return DomainComparison(
        suite=pairs[0].suite,
        domain=pairs[0].domain,
        num_problems=len(pairs),
        a=fmean(pair.a for pair in pairs),
        b=fmean(pair.b for pair in pairs),
        difference=paired_interval([float(d) for d in differences]),
        p_value=p_value,
        exact=exact,
        wins_a=winners.count("a"),
        wins_b=winners.count("b"),
        ties=winners.count("tie"),
    )


def _same(
    names_a: Sequence[str], names_b: Sequence[str], what: str, run_a: Path, run_b: Path
) -> None:
    """Refuse two runs that don't have the same names: the first ones that are missing in each."""
    said: list[str] = []
    for missing, run in (
        ([name for name in names_a if name not in set(names_b)], run_b),
        ([name for name in names_b if name not in set(names_a)], run_a),
    ):
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            said.append(f"{run} has no {what} {', '.join(missing[:5])}{more}")
    if said:
        raise EvalFileError(f"{'; '.join(said)}: only the same problems can be compared")
