from __future__ import annotations

import math

import pytest
import torch

from vlrl.config import LossConfig
from vlrl.losses import LOSSES, Denominators, LossInputs, LossOutputs, sapo

LOG_RATIOS = (-200.0, -100.0, -20.0, -3.0, -0.1, 0.0, 1e-3, 0.1, 0.7, 3.0, 19.0, 89.0, 200.0)
NAMES = tuple(LOSSES)


def run(
    name: str,
    log_ratio: torch.Tensor,
    advantages: torch.Tensor,
    lengths: tuple[int, ...],
    config: LossConfig | None = None,
    denominators: Denominators | None = None,
) -> tuple[LossOutputs, torch.Tensor]:
    """The outputs, and the gradient with respect to the learner's log-probs."""
    sampler = torch.full_like(log_ratio, -2.0)
    learner = (sampler + log_ratio).requires_grad_()
    num_tokens = log_ratio.numel()
    inputs = LossInputs(
        learner_logprobs_R=learner,
        sampler_logprobs_R=sampler,
        advantages_R=advantages,
        response_R=torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
        num_responses=len(lengths),
        denominators=denominators
        or Denominators(num_responses=len(lengths), num_tokens=num_tokens, max_response_tokens=100),
    )
    outputs = LOSSES[name](inputs, config or LossConfig(name=name))  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(outputs.loss, learner)
    return outputs, gradient


@pytest.mark.parametrize("advantage", [1.5, -0.7])
@pytest.mark.parametrize("log_ratio", LOG_RATIOS)
def test_sapo_agrees_with_its_closed_form_in_float64(log_ratio: float, advantage: float) -> None:
    tau = 1.0 if advantage > 0 else 1.05
    outputs, gradient = run(
        "sapo", torch.tensor([log_ratio]), torch.tensor([advantage]), lengths=(1,)
    )
    # The paper's form in float64; the sigmoid is written so that exp can't overflow.
    r = math.exp(log_ratio)
    gate = 1 / (1 + math.exp(max(-tau * (r - 1), -700))) if r < 1e4 else 1.0
    value = 4 / tau * gate - 2 / tau
    coefficient = advantage * 4 * gate * (1 - gate) * r if log_ratio < 50 else 0.0
    # fp32 knows log r to 1e-7 of the log-probs' size, so r and everything after to about 1e-6.
    assert outputs.loss.item() == pytest.approx(-advantage * value, rel=2e-5, abs=2e-6)
    assert gradient.item() == pytest.approx(-coefficient, rel=1e-4, abs=1e-6)


def test_sapo_is_finite_at_any_log_ratio() -> None:
    log_ratio = torch.tensor(LOG_RATIOS)
    for sign in (1.0, -1.0):
        outputs, gradient = run(
            "sapo", log_ratio, torch.full_like(log_ratio, sign), (len(LOG_RATIOS),)
        )
        assert outputs.loss.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("tau", [0.1, 1.0, 1.05, 10.0, 100.0])
def test_sapo_has_slope_one_on_policy_for_every_tau(tau: float) -> None:
    config = LossConfig(tau_pos=tau, tau_neg=tau)
    for advantage in (1.0, -1.0):
        outputs, gradient = run("sapo", torch.zeros(1), torch.tensor([advantage]), (1,), config)
        assert gradient.item() == pytest.approx(-advantage, abs=1e-6)
        assert outputs.loss.item() == 0.0  # the constant f(1) is gone
        assert outputs.gate_R is not None
        assert outputs.gate_R.item() == 1.0


def test_sapo_turns_the_right_tau_by_the_sign_of_the_advantage() -> None:
    config = LossConfig(tau_pos=1.0, tau_neg=8.0)
    log_ratio = torch.tensor([0.5, 0.5])
    outputs, _ = run("sapo", log_ratio, torch.tensor([1.0, -1.0]), (1, 1), config)
    r = math.exp(0.5)
    expected = [1 / math.cosh(tau * (r - 1) / 2) ** 2 for tau in (1.0, 8.0)]
    assert outputs.gate_R is not None
    assert outputs.gate_R.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("average", ["sequence", "token"])
@pytest.mark.parametrize("name", [n for n in NAMES if n != "dr_grpo"])
def test_on_policy_every_loss_has_the_policy_gradient(name: str, average: str) -> None:
    lengths = (3, 1, 4)
    advantages = torch.tensor([1.0] * 3 + [-0.5] + [0.3] * 4)
    config = LossConfig(name=name, average=average)  # type: ignore[arg-type]
    plain = config.model_copy(update={"name": "policy_gradient"})
    _, gradient = run(name, torch.zeros(8), advantages, lengths, config)
    _, expected = run("policy_gradient", torch.zeros(8), advantages, lengths, plain)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_no_advantage_no_gradient(name: str) -> None:
    log_ratio = torch.tensor([-3.0, 0.0, 0.4, 50.0])
    _, gradient = run(name, log_ratio, torch.zeros(4), (2, 2))
    assert gradient.eq(0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_odd_on_policy(name: str) -> None:
    advantages = torch.tensor([1.0, -2.0, 0.5])
    up, up_gradient = run(name, torch.zeros(3), advantages, (1, 2))
    down, down_gradient = run(name, torch.zeros(3), -advantages, (1, 2))
    torch.testing.assert_close(up.loss, -down.loss)
    torch.testing.assert_close(up_gradient, -down_gradient)


@pytest.mark.parametrize("name", ["sapo", "grpo", "gspo", "cispo", "dr_grpo"])
def test_the_gradient_is_advantage_times_ratio_times_gate(name: str) -> None:
    """The meaning of `gate_R`, for every loss that has one (GSPO with its sequence ratio)."""
    log_ratio = torch.tensor([-0.9, -0.1, 0.05, 0.2, 0.9, 2.0])
    for sign in (1.0, -1.0):
        outputs, gradient = run(
            name,
            log_ratio,
            torch.full((6,), sign),
            (6,),
            LossConfig(name=name),  # type: ignore[arg-type]
        )
        ratio = log_ratio.mean().exp() if name == "gspo" else log_ratio.exp()
        length = 100 if name == "dr_grpo" else 6
        assert outputs.gate_R is not None
        expected = -sign * ratio * outputs.gate_R / length
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_grpo_clips_where_it_should() -> None:
    log_ratio = torch.tensor([0.7, 1.27, 1.29, 0.79, 0.81, 1.5]).log()
    advantages = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    outputs, _ = run("grpo", log_ratio, advantages, (6,))
    assert outputs.gate_R is not None
    assert outputs.gate_R.tolist() == [1, 1, 0, 0, 1, 1]


def test_gspo_clips_whole_responses() -> None:
    log_ratio = torch.tensor([0.5, -0.5, 2e-3, 2e-3])
    outputs, _ = run("gspo", log_ratio, torch.ones(4), (2, 2))
    assert outputs.gate_R is not None
    assert outputs.gate_R.tolist() == [1, 1, 0, 0]


def test_cispo_caps_the_weight_and_keeps_every_gradient() -> None:
    _, gradient = run("cispo", torch.tensor([0.5, 7.0]).log(), torch.ones(2), (2,))
    torch.testing.assert_close(gradient, -torch.tensor([0.5, 5.0]) / 2, rtol=1e-5, atol=0)


def test_averages() -> None:
    advantages = torch.ones(4)
    weights = {
        "sequence": [1 / 2, 1 / 6, 1 / 6, 1 / 6],
        "token": [1 / 4] * 4,
    }
    for average, expected in weights.items():
        config = LossConfig(average=average)  # type: ignore[arg-type]
        _, gradient = run("sapo", torch.zeros(4), advantages, (1, 3), config)
        torch.testing.assert_close(-gradient, torch.tensor(expected))
    _, gradient = run("dr_grpo", torch.zeros(4), advantages, (1, 3))
    torch.testing.assert_close(-gradient, torch.full((4,), 1 / 200))


@pytest.mark.parametrize("average", ["sequence", "token"])
@pytest.mark.parametrize("name", NAMES)
def test_one_batch_of_eight_equals_eight_of_one(name: str, average: str) -> None:
    rng = torch.Generator().manual_seed(0)
    lengths = tuple(torch.randint(1, 9, (8,), generator=rng).tolist())
    log_ratio = 0.3 * torch.randn(sum(lengths), generator=rng)
    advantages = torch.randn(8, generator=rng).repeat_interleave(torch.tensor(lengths))
    whole = Denominators(num_responses=8, num_tokens=sum(lengths), max_response_tokens=100)
    config = LossConfig(name=name, average=average)  # type: ignore[arg-type]
    outputs, gradient = run(name, log_ratio, advantages, lengths, config, whole)
    parts = [
        run(name, x, a, (len(x),), config, whole)
        for x, a in zip(log_ratio.split(lengths), advantages.split(lengths), strict=True)
    ]
    torch.testing.assert_close(sum(p.loss for p, _ in parts), outputs.loss)
    torch.testing.assert_close(torch.cat([g for _, g in parts]), gradient)


def test_an_empty_response_counts_in_the_mean_and_harms_nothing() -> None:
    outputs, gradient = run("sapo", torch.zeros(2), torch.ones(2), (2, 0))
    torch.testing.assert_close(-gradient, torch.full((2,), 1 / 4))
    assert outputs.loss.isfinite()


def test_bfloat16_log_probs_are_compared_in_float32() -> None:
    learner = torch.tensor([-2.0], dtype=torch.bfloat16)
    inputs = LossInputs(
        learner_logprobs_R=learner,
        sampler_logprobs_R=torch.tensor([-2.001]),
        advantages_R=torch.ones(1),
        response_R=torch.zeros(1, dtype=torch.long),
        num_responses=1,
        denominators=Denominators(num_responses=1, num_tokens=1, max_response_tokens=1),
    )
    assert sapo(inputs, LossConfig()).log_ratio_R.item() == pytest.approx(1e-3, rel=1e-3)
