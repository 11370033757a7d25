from __future__ import annotations

import math

import pytest

from vlrl.advantage import advantages, group_advantages
from vlrl.types import Attempt, Completion, Finish, Group, Problem, Prompt, Status, Verdict


def group_of(*verdicts: tuple[Status, float]) -> Group:
    completion = Completion(text="", token_ids=(1,), logprobs=(-1.0,), finish=Finish.STOP)
    return Group(
        problem=Problem(id="p/7", domain="math_qa", question="?", answer="1"),
        prompt=Prompt(token_ids=(1,)),
        attempts=[
            Attempt(
                completion=completion,
                verdict=Verdict(status=status, correct=False, reward=reward),
            )
            for status, reward in verdicts
        ],
    )


def test_by_hand() -> None:
    # mean 0.25; deviations 0.75, -0.25 x 3; sample variance (0.5625 + 3 * 0.0625) / 3 = 0.25
    found = advantages([1, 0, 0, 0])
    assert found == pytest.approx([1.5, -0.5, -0.5, -0.5], rel=1e-5)


def test_without_scale() -> None:
    assert advantages([1, 0, 0, 0], scale=False) == (0.75, -0.25, -0.25, -0.25)


def test_they_sum_to_zero_and_have_unit_variance() -> None:
    found = advantages([0.1, 0.9, 0.4, 0.4, 0.0])
    assert found is not None
    assert math.fsum(found) == pytest.approx(0, abs=1e-12)
    assert math.fsum(a * a for a in found) / 4 == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("rewards", [[1, 1, 1], [0, 0], [0.1 + 0.2, 0.3], [0.7], [], [-1e6, -1e6]])
def test_uniform_and_small_groups_teach_nothing(rewards: list[float]) -> None:
    assert advantages(rewards) is None


def test_attempts_whose_verifier_failed_take_no_part() -> None:
    group = group_of(
        (Status.OK, 1.0), (Status.ERROR, 100.0), (Status.UNPARSABLE, 0.0), (Status.TIMEOUT, 0.0)
    )
    assert group_advantages(group) == advantages([1.0, 0.0, 0.0])


def test_a_group_with_one_scored_attempt_teaches_nothing() -> None:
    assert group_advantages(group_of((Status.OK, 1.0), (Status.ERROR, 0.0))) is None


def test_a_reward_that_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="p/7"):
        group_advantages(group_of((Status.OK, math.nan), (Status.OK, 0.0)))
