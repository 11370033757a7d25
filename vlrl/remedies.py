"""Against what a soft gate lets through when the data is stale; all off by default.

Each one changes what a loss of losses.py is given or adds to it; none of them is part of SAPO.

Shapes: R response tokens of a micro-batch, N its responses.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from vlrl.config import LossConfig
from vlrl.losses import LossInputs, LossOutputs, average, log_ratio


def truncated_weight(
    old_logprobs_R: torch.Tensor, sampler_logprobs_R: torch.Tensor, cap: float
) -> torch.Tensor:
    """Truncated importance sampling: min(pi_old / sampler, cap) of each token.

    Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training". Without the cap the weighted gradient would be pi_old's own in expectation.
    """
    log_weight_R = old_logprobs_R.detach().float() - sampler_logprobs_R
    return log_weight_R.clamp(max=math.log(cap)).exp()


def keep_negative(inputs: LossInputs, limit: float) -> torch.Tensor:
    """Off-policy sequence masking: which tokens stay [R].

    A response with A < 0 goes if its mean log(sampler / pi), in nats a token, is above the limit:
    the policy has left it already, and to push on is what collapses.

    Source: DeepSeek-V3.2, arXiv 2512.02556.
    """
    gone_R = inputs.sampler_logprobs_R - inputs.learner_logprobs_R.detach().float()
    zeros_N = gone_R.new_zeros(inputs.num_responses)
    length_N = zeros_N.index_add(0, inputs.response_R, torch.ones_like(gone_R)).clamp(min=1)
    mean_N = zeros_N.index_add(0, inputs.response_R, gone_R) / length_N
    return (inputs.advantages_R >= 0) | (mean_N[inputs.response_R] <= limit)


def remedied(inputs: LossInputs, config: LossConfig) -> LossInputs:
    """The inputs with the weights that a config asks for."""
    weight_R = inputs.weight_R
    if config.tis_cap is not None:
        old_R = inputs.old_logprobs_R
        old_R = inputs.sampler_logprobs_R if old_R is None else old_R
        weight_R = truncated_weight(old_R, inputs.sampler_logprobs_R, config.tis_cap)
    kept_R = None
    if config.mask_negative is not None:
        kept_R = keep_negative(inputs, config.mask_negative)
    return replace(inputs, weight_R=weight_R, kept_R=kept_R)


def with_kl(outputs: LossOutputs, inputs: LossInputs, config: LossConfig) -> LossOutputs:
    """A loss plus kl_coef times KL(pi_old || pi), estimated from the tokens as r - 1 - log r.

    It has no gradient at r = 1 and pulls r back to 1 elsewhere, masked responses included.

    Source: Schulman, "Approximating KL divergence" (k3).
    """
    if not config.kl_coef:
        return outputs
    log_ratio_R = log_ratio(inputs)
    kl_R = log_ratio_R.clamp(-20, 20).exp() - 1 - log_ratio_R
    plain = replace(inputs, weight_R=None, kept_R=None)
    penalty = average(kl_R, plain, "constant" if config.name == "dr_grpo" else config.average)
    return replace(outputs, loss=outputs.loss + config.kl_coef * penalty)
