"""The policy losses: each is one pure function, gate and averaging together.

A loss sees the response tokens of one micro-batch, but divides by the whole update's denominators,
so that the sum over micro-batches is the loss of the update however it is cut. Prompt and image
tokens are not among its inputs, so they can't carry loss.

With r = exp(learner_logprob - old_logprob), each loss but policy_gradient has a gradient of the
form -A * r * gate * grad(log pi); `gate` is what tells them apart. pi_old is the sampler, or what
the learner computes for the policy that sampled.

Shapes: R response tokens of the micro-batch, N its responses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from vlrl.config import LossConfig

MAX_LOG_RATIO = 20.0
"""exp of more overflows fp32 further on and turns gradients into NaN; no gate is open there."""


@dataclass(frozen=True, kw_only=True)
class Denominators:
    """What an update divides by: all its responses and tokens, empty responses included.

    max_response_tokens: the limit in sampling, Dr. GRPO's constant length.
    """

    num_responses: int
    num_tokens: int
    max_response_tokens: int


@dataclass(frozen=True, kw_only=True)
class LossInputs:
    """The response tokens of a micro-batch; log-probs in nats.

    learner_logprobs_R: the policy being trained, with gradient.
    sampler_logprobs_R: of the policy that sampled, as the sampler computed them.
    advantages_R: of the token's response.
    response_R: index of the token's response, 0 to N - 1; all tokens of a response are here.
    old_logprobs_R: pi_old; None: the sampler's.
    weight_R: of each token's loss, without gradient; None: 1. kept_R: False where a token's loss
        is left out (the denominators stay); None: True (see remedies.py for both).
    """

    learner_logprobs_R: torch.Tensor
    sampler_logprobs_R: torch.Tensor
    advantages_R: torch.Tensor
    response_R: torch.Tensor
    num_responses: int
    denominators: Denominators
    old_logprobs_R: torch.Tensor | None = None
    weight_R: torch.Tensor | None = None
    kept_R: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class LossOutputs:
    """The micro-batch's part of the update's loss, and per token what the statistics are made of.

    log_ratio_R: log r before any clamp, detached.
    gate_R: the effective update ratio, detached; None for a loss without a gate.
    """

    loss: torch.Tensor
    log_ratio_R: torch.Tensor
    gate_R: torch.Tensor | None


Loss = Callable[[LossInputs, LossConfig], LossOutputs]


def sapo(inputs: LossInputs, config: LossConfig) -> LossOutputs:
    """Soft Adaptive Policy Optimization (arXiv 2511.20347, Eqs. 5 and 6).

    The paper's f(r) = (4/tau) sigmoid(tau (r - 1)) is written as f(r) - f(1) =
    (2/tau) tanh(tau (r - 1) / 2): the constant has no gradient and means nothing. The gate is
    sech^2(tau (r - 1) / 2), 1 on-policy for every tau.
    """
    log_ratio_R = log_ratio(inputs)
    ratio_R = _exp(log_ratio_R)
    advantages_R = inputs.advantages_R
    tau_R = torch.where(advantages_R > 0, config.tau_pos, config.tau_neg)
    soft_R = torch.tanh(tau_R * (ratio_R - 1) / 2)
    loss = average(-advantages_R * soft_R * 2 / tau_R, inputs, config.average)
    return _outputs(loss, log_ratio_R, gate_R=1 - soft_R.detach() ** 2)


def grpo(inputs: LossInputs, config: LossConfig) -> LossOutputs:
    """GRPO (arXiv 2402.03300) without its KL term; clip_high > clip_low is DAPO's clip-higher."""
    log_ratio_R = log_ratio(inputs)
    losses_R, gate_R = _clipped(_exp(log_ratio_R), inputs.advantages_R, config)
    return _outputs(average(losses_R, inputs, config.average), log_ratio_R, gate_R)


def dr_grpo(inputs: LossInputs, config: LossConfig) -> LossOutputs:
    """Dr. GRPO (arXiv 2503.20783): GRPO's gate over a constant length instead of the response's.

    Its advantages are not divided by the std (see advantage.py); `average` is not read.
    """
    log_ratio_R = log_ratio(inputs)
    losses_R, gate_R = _clipped(_exp(log_ratio_R), inputs.advantages_R, config)
    return _outputs(average(losses_R, inputs, "constant"), log_ratio_R, gate_R)


def gspo(inputs: LossInputs, config: LossConfig) -> LossOutputs:
    """GSPO (arXiv 2507.18071): one clipped ratio a response, the geometric mean of its tokens'."""
    log_ratio_R = log_ratio(inputs)
    length_N = _lengths(inputs)
    mean_N = torch.zeros_like(length_N).index_add(0, inputs.response_R, log_ratio_R) / length_N
    ratio_R = _exp(mean_N[inputs.response_R])
    losses_R, gate_R = _clipped(ratio_R, inputs.advantages_R, config)
    return _outputs(average(losses_R, inputs, config.average), log_ratio_R, gate_R)


def cispo(inputs: LossInputs, config: LossConfig) -> LossOutputs:
    """CISPO (arXiv 2506.13585): policy gradient weighted by min(r, clip_high), a constant.

    There is no lower bound. The gate is min(1, clip_high / r).
    """
    log_ratio_R = log_ratio(inputs)
    ratio_R = _exp(log_ratio_R).detach()
    weight_R = ratio_R.clamp(max=config.clip_range[1])
    losses_R = -weight_R * inputs.advantages_R * inputs.learner_logprobs_R
    loss = average(losses_R, inputs, config.average)
    return _outputs(loss, log_ratio_R, gate_R=weight_R / ratio_R)


def policy_gradient(inputs: LossInputs, config: LossConfig) -> LossOutputs:
    """Plain policy gradient: -A log pi, without any ratio."""
    losses_R = -inputs.advantages_R * inputs.learner_logprobs_R
    return _outputs(average(losses_R, inputs, config.average), log_ratio(inputs), gate_R=None)


LOSSES: dict[str, Loss] = {
    "sapo": sapo,
    "grpo": grpo,
    "gspo": gspo,
    "cispo": cispo,
    "dr_grpo": dr_grpo,
    "policy_gradient": policy_gradient,
}


def _outputs(
    loss: torch.Tensor, log_ratio_R: torch.Tensor, gate_R: torch.Tensor | None
) -> LossOutputs:
    return LossOutputs(loss=loss, log_ratio_R=log_ratio_R.detach(), gate_R=gate_R)


def log_ratio(inputs: LossInputs) -> torch.Tensor:
    """log r of each token, in fp32 at least; float64 stays float64."""
    learner_R = inputs.learner_logprobs_R
    learner_R = learner_R.to(torch.promote_types(learner_R.dtype, torch.float32))
    old_R = inputs.old_logprobs_R
    return learner_R - (inputs.sampler_logprobs_R if old_R is None else old_R)


def _exp(log_ratio: torch.Tensor) -> torch.Tensor:
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def _clipped(
    ratio_R: torch.Tensor, advantages_R: torch.Tensor, config: LossConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """PPO's pessimistic clip: the loss per token, and 1 where its gradient passes."""
    low, high = config.clip_range
    plain_R = ratio_R * advantages_R
    clipped_R = ratio_R.clamp(1 - low, 1 + high) * advantages_R
    gate_R = (plain_R <= clipped_R).to(ratio_R.dtype)
    return -torch.minimum(plain_R, clipped_R), gate_R


def _lengths(inputs: LossInputs) -> torch.Tensor:
    """Tokens of each response [N], as floats; 1 for an empty one, which has no tokens to weigh."""
    length_N = inputs.learner_logprobs_R.new_zeros(inputs.num_responses)
    ones_R = torch.ones_like(inputs.learner_logprobs_R)
    return length_N.index_add(0, inputs.response_R, ones_R).clamp(min=1)


def average(
    losses_R: torch.Tensor, inputs: LossInputs, average: Literal["sequence", "token", "constant"]
) -> torch.Tensor:
    """The micro-batch's share of the update's mean.

    sequence: mean in a response, then over responses. token: over all tokens. constant: as
    sequence, with the sampling limit in place of every response's length.
    """
    divisors = inputs.denominators
    if inputs.weight_R is not None:
        losses_R = losses_R * inputs.weight_R
    if inputs.kept_R is not None:
        losses_R = losses_R.where(inputs.kept_R, 0.0)
    if average == "token":
        return losses_R.sum() / divisors.num_tokens
    if average == "constant":
        return losses_R.sum() / (divisors.num_responses * divisors.max_response_tokens)
    length_R = _lengths(inputs)[inputs.response_R]
    return (losses_R / length_R).sum() / divisors.num_responses
