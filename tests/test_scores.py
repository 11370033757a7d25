from __future__ import annotations

import math
from itertools import combinations

import pytest

from tests.groups import group
from vlrl.scores import (
    Interval,
    clustered_interval,
    macro_interval,
    pass_at_k,
    pass_at_ks,
    score,
    score_domain,
)
from vlrl.types import Finish, Status


def test_pass_at_1_by_hand() -> None:
    """Two problems of four attempts: 3/4 and 1/4 right, so Pass@1 is 1/2."""
    groups = [group("a", correct=[1, 1, 1, 0]), group("b", correct=[0, 0, 0, 1])]
    found = score_domain(groups)
    assert found.pass_at_1.mean == 0.5
    assert (found.num_problems, found.num_attempts, found.k) == (2, 8, 4)
    assert found.pass_at_k == 1.0


def test_a_verifier_failure_is_counted_and_not_folded_in() -> None:
    groups = [
        group("a", correct=[1, 0], statuses=[Status.OK, Status.ERROR]),
        group("b", correct=[0, 0], statuses=[Status.ERROR, Status.ERROR]),
    ]
    found = score_domain(groups)
    assert found.pass_at_1.mean == 1.0
    assert found.num_problems == 1
    assert found.error == 0.75
    with pytest.raises(ValueError, match="no attempt was graded"):
        score_domain(groups[1:])
    assert score(groups[1:]) == {}


def test_truncated_unparsable_and_timeout_are_wrong_and_shown() -> None:
    statuses = [Status.OK, Status.UNPARSABLE, Status.TIMEOUT, Status.OK]
    finishes = [Finish.STOP, Finish.LENGTH, Finish.STOP, Finish.STOP]
    found = score_domain([group("a", correct=[1, 0, 0, 0], statuses=statuses, finishes=finishes)])
    assert found.pass_at_1.mean == 0.25
    assert (found.truncated, found.unparsable, found.timeout, found.error) == (0.25, 0.25, 0.25, 0)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one() -> None:
    for n in range(1, 6):
        for c in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(combinations(range(n), k))
                hits = sum(any(i < c for i in subset) for subset in subsets)
                assert math.isclose(pass_at_k(n, c, k), hits / len(subsets))
    with pytest.raises(ValueError, match="at least 3"):
        pass_at_k(2, 1, 3)


def test_the_interval_is_wilsons_for_single_samples() -> None:
    """With one sample a problem SE^2 = p(1-p)/(n-1), so Wilson's n is n - 1."""
    interval = clustered_interval([1.0] * 30 + [0.0] * 70)
    z, n, p = 1.959963984540054, 99, 0.3
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert math.isclose(interval.low, centre - half)
    assert math.isclose(interval.high, centre + half)


def test_copies_of_a_problem_do_not_narrow_the_interval() -> None:
    """Samples that always agree within their problem carry no more than one sample each."""
    once = score_domain([group(str(i), correct=[i % 2]) for i in range(40)]).pass_at_1
    often = score_domain([group(str(i), correct=[i % 2] * 8) for i in range(40)]).pass_at_1
    assert once == often


def test_the_interval_stays_within_bounds_and_open_at_the_ends() -> None:
    for means in ([0.0] * 20, [1.0] * 20, [0.5] * 3, [1.0]):
        interval = clustered_interval(means)
        assert 0 <= interval.low <= interval.mean <= interval.high <= 1
        assert interval.high - interval.low > 0.01


def test_domains_are_scored_apart() -> None:
    found = score([group("a", domain="x", correct=[1]), group("b", domain="y", correct=[0])])
    assert {name: s.pass_at_1.mean for name, s in found.items()} == {"x": 1.0, "y": 0.0}
    assert macro_interval({n: [s.pass_at_1] for n, s in found.items()}).mean == 0.5


def test_pass_at_ks_by_hand() -> None:
    """1 of 4 right: pass@2 is 1 - 3/6, pass@3 is 1 - 1/4; 0 of 4: none."""
    found = pass_at_ks([group("a", correct=[1, 0, 0, 0]), group("b", correct=[0] * 4)])
    assert [(p.k, p.chance.mean) for p in found] == [(1, 0.125), (2, 0.25), (4, 0.5)]
    assert all(p.chance.low < p.chance.mean < p.chance.high for p in found)


def test_an_ungraded_attempt_lowers_the_largest_k() -> None:
    failed = group("a", correct=[1, 0, 0, 0], statuses=[Status.OK] * 3 + [Status.ERROR])
    found = pass_at_ks([failed, group("b", correct=[0] * 4)])
    assert [p.k for p in found] == [1, 2, 3]
    assert math.isclose(found[0].chance.mean, 1 / 6)
    with pytest.raises(ValueError, match="no attempt was graded"):
        pass_at_ks([group("a", correct=[0], statuses=[Status.ERROR])])


def test_the_macro_average_weighs_domains_alike() -> None:
    """0.2 and 0.6 of one domain, 0.8 of the other: (0.4 + 0.8) / 2; weights 1/4, 1/4, 1/2."""
    parts = {
        "math": [Interval(mean=0.2, low=0.1, high=0.4), Interval(mean=0.6, low=0.5, high=0.8)],
        "code": [Interval(mean=0.8, low=0.7, high=0.9)],
    }
    found = macro_interval(parts)
    assert math.isclose(found.mean, 0.6)
    assert math.isclose(found.low, 0.6 - math.sqrt(0.025**2 + 0.025**2 + 0.05**2))
    assert math.isclose(found.high, 0.6 + math.sqrt(0.05**2 + 0.05**2 + 0.05**2))
    alone = Interval(mean=0.3, low=0.1, high=0.6)
    same = macro_interval({"x": [alone]})
    assert math.isclose(same.low, 0.1) and math.isclose(same.high, 0.6)
