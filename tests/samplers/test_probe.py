"""The probe's figures against hand-made ones, and its refusal of NaN."""

from __future__ import annotations

import math

import pytest

from vlrl.samplers.probe import compare


def test_equal_policies_are_at_distance_zero() -> None:
    agreement = compare([[-1.0, -2.0], [-3.0]], [[-1.0, -2.0], [-3.0]])
    assert (agreement.kl, agreement.max_abs, agreement.num_tokens) == (0.0, 0.0, 3)


def test_errors_of_either_sign_add_up() -> None:
    agreement = compare([[-1.0], [-1.0]], [[-0.9], [-1.1]])
    wanted = (math.exp(0.1) + math.exp(-0.1)) / 2 - 1
    assert agreement.kl == pytest.approx(wanted, rel=1e-12)
    assert agreement.max_abs == pytest.approx(0.1)


def test_the_estimate_is_the_kl_divergence() -> None:
    p, q = [0.5, 0.3, 0.2], [0.2, 0.5, 0.3]
    counts = [50, 30, 20]  # tokens as p would sample them
    sampler = [math.log(x) for x, n in zip(p, counts, strict=True) for _ in range(n)]
    learner = [math.log(x) for x, n in zip(q, counts, strict=True) for _ in range(n)]
    exact = sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    assert compare([sampler], [learner]).kl == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_what_is_not_finite_is_infinitely_far(bad: float) -> None:
    assert compare([[-1.0, -1.0]], [[-1.0, bad]]).kl == math.inf


def test_unequal_lengths_and_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="response 0: 2 sampler log-probs, 1 learner's"):
        compare([[-1.0, -2.0]], [[-1.0]])
    with pytest.raises(ValueError, match="no tokens"):
        compare([], [])
