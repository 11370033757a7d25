"""Weights, masks and the KL term against their closed forms in float64."""

from __future__ import annotations

import math

import pytest
import torch

from tests.test_learner import learner, with_sampler_logprobs
from tests.tiny_groups import mixed_groups
from vlrl.config import LossConfig
from vlrl.losses import LOSSES, Denominators, LossInputs, LossOutputs
from vlrl.remedies import keep_negative, remedied, truncated_weight, with_kl

NAMES = tuple(LOSSES)


def with_pi_old(
    name: str, learner: torch.Tensor, old: torch.Tensor, sampler: torch.Tensor, cap: float | None
) -> tuple[LossOutputs, torch.Tensor]:
    """One response with advantage 1.3; the outputs and the gradient."""
    learner = learner.clone().requires_grad_()
    inputs = LossInputs(
        learner_logprobs_R=learner,
        sampler_logprobs_R=sampler,
        old_logprobs_R=old,
        weight_R=None if cap is None else truncated_weight(old, sampler, cap),
        advantages_R=torch.full_like(learner, 1.3),
        response_R=torch.zeros(len(learner), dtype=torch.long),
        num_responses=1,
        denominators=Denominators(
            num_responses=1, num_tokens=len(learner), max_response_tokens=100
        ),
    )
    outputs = LOSSES[name](inputs, LossConfig(name=name))  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(outputs.loss, learner)
    return outputs, gradient


def test_truncated_importance_weights_agree_with_their_closed_form_in_float64() -> None:
    rng = torch.Generator().manual_seed(0)
    sampler, old, learner = (-2 + 0.8 * torch.randn(64, generator=rng) for _ in range(3))
    outputs, gradient = with_pi_old("sapo", learner, old, sampler, cap=2.0)
    s64, o64, l64 = sampler.double(), old.double(), learner.double()
    weight, ratio = (o64 - s64).exp().clamp(max=2.0), (l64 - o64).exp()
    assert 0 < int((weight == 2.0).sum()) < 64
    # The paper's gate at tau = 1, its value at 1 left out.
    soft = 4 / (1 + (-(ratio - 1)).exp()) - 2
    assert outputs.loss.item() == pytest.approx(-1.3 * float((weight * soft).mean()), rel=1e-5)
    expected = -1.3 * weight * ratio / torch.cosh((ratio - 1) / 2) ** 2 / 64
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_engines_that_agree_weigh_nothing(name: str) -> None:
    sampler, learner = torch.tensor([-2.0, -1.0, -0.3]), torch.tensor([-1.9, -1.3, -0.2])
    plain, expected = with_pi_old(name, learner, sampler, sampler, cap=None)
    weighted, gradient = with_pi_old(name, learner, sampler, sampler, cap=1.0)
    assert weighted.loss == plain.loss
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_weight_of_the_first_update_is_policy_gradients(name: str) -> None:
    """Where the learner is pi_old the ratio is 1, and the weight alone is left."""
    sampler, old = torch.tensor([-2.0, -1.0, -0.5]), torch.tensor([-1.0, -1.1, -0.5])
    _, gradient = with_pi_old(name, old, old, sampler, cap=1.5)
    length = 100 if name == "dr_grpo" else 3
    weight = torch.tensor([1.5, math.exp(-0.1), 1.0])
    if name == "gspo":  # one ratio for all tokens: each feels every weight
        weight = weight.mean().expand(3)
    torch.testing.assert_close(gradient, -1.3 * weight / length, rtol=1e-5, atol=0)


def three_responses(learner_logprobs: torch.Tensor) -> LossInputs:
    """Of 2, 3 and 1 tokens with A of -1, -1 and 1, sampled with log-probs of -1."""
    return LossInputs(
        learner_logprobs_R=learner_logprobs,
        sampler_logprobs_R=torch.full((6,), -1.0),
        advantages_R=torch.tensor([-1.0, -1.0, -1.0, -1.0, -1.0, 1.0]),
        response_R=torch.tensor([0, 0, 1, 1, 1, 2]),
        num_responses=3,
        denominators=Denominators(num_responses=3, num_tokens=6, max_response_tokens=10),
    )


def test_a_bad_response_that_the_policy_has_left_is_left_out() -> None:
    """Means of log(sampler / policy): 0.4, 0.2 and 9, of which the last has A > 0."""
    logprobs = torch.tensor([-1.0, -1.8, -1.5, -1.1, -1.0, -10.0], requires_grad=True)
    inputs = three_responses(logprobs)
    assert keep_negative(inputs, 0.3).tolist() == [False, False, True, True, True, True]
    assert keep_negative(inputs, 0.5).all()
    config = LossConfig(mask_negative=0.3)
    masked = LOSSES["sapo"](remedied(inputs, config), config)
    (gradient,) = torch.autograd.grad(masked.loss, logprobs)
    (plain,) = torch.autograd.grad(LOSSES["sapo"](inputs, config).loss, logprobs)
    assert gradient[:2].eq(0).all()
    assert torch.equal(gradient[2:], plain[2:])  # the denominators count the masked one too
    assert plain[:2].ne(0).all()


@pytest.mark.parametrize("average", ["sequence", "token"])
def test_the_kl_term_agrees_with_its_closed_form_in_float64(average: str) -> None:
    rng = torch.Generator().manual_seed(0)
    logprobs = (-1 + 0.5 * torch.randn(6, generator=rng)).requires_grad_()
    inputs = three_responses(logprobs)
    config = LossConfig(kl_coef=0.1, average=average)  # type: ignore[arg-type]
    plain = LOSSES["sapo"](inputs, config)
    outputs = with_kl(plain, inputs, config)
    (gradient,) = torch.autograd.grad(outputs.loss - plain.loss, logprobs)
    ratio = (logprobs.detach().double() + 1).exp()
    kl = ratio - 1 - ratio.log()
    share = torch.tensor([2, 2, 3, 3, 3, 1]) * 3 if average == "sequence" else torch.tensor(6)
    penalty = float(outputs.loss.detach() - plain.loss.detach())
    assert penalty == pytest.approx(0.1 * float((kl / share).sum()), rel=1e-4)
    torch.testing.assert_close(gradient.double(), 0.1 * (ratio - 1) / share, rtol=1e-4, atol=1e-7)


def test_a_masked_update_says_so_and_no_cut_changes_it() -> None:
    """A policy that moved by hand: the mask and the term don't depend on micro-batches."""
    config = LossConfig(mask_negative=0.05, kl_coef=0.1)
    whole, pieces = learner(loss=config), learner(loss=config, tokens_per_microbatch=1)
    groups = with_sampler_logprobs(whole, mixed_groups(whole.model))
    rng = torch.Generator().manual_seed(0)
    noise = {n: 0.02 * torch.randn(p.shape, generator=rng) for n, p in whole.weights()}
    with torch.no_grad():
        for agent in (whole, pieces):
            for name, parameter in agent.model.named_parameters():
                parameter.add_(noise[name])
    one, other = whole.update(groups), pieces.update(groups)
    assert other.num_microbatches > one.num_microbatches
    assert 0 < one.num_masked == other.num_masked < 4
    assert one.loss == pytest.approx(other.loss, abs=1e-6)
    assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-4)
