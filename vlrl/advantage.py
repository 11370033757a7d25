"""Group-relative advantages: how much better a response is than its group.

A = (R - mean) / std over the group's learnable attempts (SAPO, arXiv 2511.20347, Eq. 2; GRPO). The
std is the sample's (divided by G - 1), as in TRL and verl, so that learning rates carry over; with
G = 8 it makes advantages 6% smaller than the population's. An attempt whose verifier failed is no
evidence about the policy and takes no part, nor does one that is masked.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from vlrl.types import Group

MIN_SPREAD = 1e-6
"""Rewards this close are the same: a group without spread teaches nothing."""
STD_EPSILON = 1e-6


def group_advantages(group: Group, *, scale: bool = True) -> tuple[float, ...] | None:
    """One advantage for each of `group.learnable`, in order; None when there is nothing to learn.

    That is so when fewer than two attempts are there or all rewards are the same. `scale=False`
    leaves out the division by the std (Dr. GRPO, arXiv 2503.20783).

    Raises:
        ValueError: a reward that isn't a finite number.
    """
    rewards = [attempt.verdict.reward for attempt in group.learnable]
    if not all(math.isfinite(reward) for reward in rewards):
        raise ValueError(f"{group.problem.id}: a reward is not a finite number: {rewards}")
    return advantages(rewards, scale=scale)


def advantages(rewards: Sequence[float], *, scale: bool = True) -> tuple[float, ...] | None:
    """`group_advantages` for bare rewards."""
    if len(rewards) < 2 or max(rewards) - min(rewards) < MIN_SPREAD:
        return None
    mean = statistics.fmean(rewards)
    divisor = statistics.stdev(rewards) + STD_EPSILON if scale else 1.0
    return tuple((reward - mean) / divisor for reward in rewards)
