"""Do sampler and learner hold the same policy? Their log-probs of the same tokens say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far sampler and learner are apart, over `num_tokens` sampled tokens.

    kl: KL(sampler || learner) in nats per token, by Schulman's estimator k3: the mean of
        exp(d) - 1 - d with d = learner - sampler. It is never negative and, unlike the mean of -d,
        errors of either sign don't cancel out.
    mean_abs, max_abs: of d, in nats.
    """

    kl: float
    mean_abs: float
    max_abs: float
    num_tokens: int


def compare(
    sampler_logprobs: Sequence[npt.ArrayLike], learner_logprobs: Sequence[npt.ArrayLike]
) -> Agreement:
    """Compare log-probs of the same tokens, one array [T] per response.

    A difference that isn't finite makes every figure infinite: NaN would pass a threshold.

    Raises:
        ValueError: unequal numbers of responses or of tokens, or no token at all.
    """
    differences: list[npt.NDArray[np.float64]] = []
    for index, (sampler, learner) in enumerate(
        zip(sampler_logprobs, learner_logprobs, strict=True)
    ):
        sampler_T = np.asarray(sampler, dtype=np.float64)
        learner_T = np.asarray(learner, dtype=np.float64)
        if sampler_T.shape != learner_T.shape:
            raise ValueError(
                f"response {index}: {sampler_T.size} sampler log-probs, {learner_T.size} learner's"
            )
        differences.append(learner_T - sampler_T)
    d = np.concatenate(differences) if differences else np.empty(0)
    if d.size == 0:
        raise ValueError("no tokens to compare")
    if not np.isfinite(d).all():
        return Agreement(kl=np.inf, mean_abs=np.inf, max_abs=np.inf, num_tokens=d.size)
    return Agreement(
        kl=float(np.mean(np.expm1(np.minimum(d, 60.0)) - d)),
        mean_abs=float(np.abs(d).mean()),
        max_abs=float(np.abs(d).max()),
        num_tokens=d.size,
    )
