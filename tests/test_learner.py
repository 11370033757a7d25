from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.tiny_groups import BANNED, MEDIA, PolicyHead, group, image, mixed_groups, plain_logprobs
from vlrl.batch import LearnerGroup
from vlrl.config import LearnerConfig, LossConfig
from vlrl.learner import Learner
from vlrl.models.load import ModelError
from vlrl.models.random_tiny import TinySize, random_model

ON_POLICY = PolicyHead(temperature=0.8, banned_token_ids=BANNED, chunk=64)


def learner(
    *,
    loss: LossConfig | None = None,
    freeze: tuple[str, ...] = (),
    seed: int = 0,
    **config: Any,
) -> Learner:
    return Learner(
        random_model("qwen3_vl", TinySize(), MEDIA, seed),
        config=LearnerConfig(**{"lr": 1e-3, "warmup_updates": 0, **config}),
        loss=loss or LossConfig(),
        temperature=ON_POLICY.temperature,
        banned_token_ids=BANNED,
        max_response_tokens=40,
        freeze_patterns=freeze,
    )


def accumulated(agent: Learner, groups: list[LearnerGroup]) -> tuple[float, dict[str, Any]]:
    """Loss and gradients of an update, before the optimiser sees them."""
    collector, _ = agent._backward(groups)
    gradients = {n: p.grad.clone() for n, p in agent.model.named_parameters() if p.grad is not None}
    agent.model.zero_grad()
    return collector.loss, gradients


def with_sampler_logprobs(agent: Learner, groups: list[LearnerGroup]) -> list[LearnerGroup]:
    """The groups as if this very policy had sampled them."""
    logprobs = agent.logprobs(groups)
    return [
        edited(g, lambda r, own=own: {"sampler_logprobs": tuple(own[r.index].tolist())})
        for g, own in zip(groups, logprobs, strict=True)
    ]


def edited(g: LearnerGroup, change: Callable[[Any], dict[str, Any]]) -> LearnerGroup:
    """The group with every response changed."""
    return replace(g, responses=tuple(replace(r, **change(r)) for r in g.responses))


@pytest.mark.parametrize("average", ["sequence", "token"])
@pytest.mark.parametrize("name", ["sapo", "gspo", "dr_grpo"])
def test_no_cut_changes_the_update(name: str, average: str) -> None:
    loss = LossConfig(name=name, average=average)  # type: ignore[arg-type]
    whole = learner(loss=loss)
    groups = mixed_groups(whole.model)
    pieces = learner(loss=loss, tokens_per_microbatch=1, patches_per_microbatch=1, logprob_chunk=3)
    loss_whole, expected = accumulated(whole, groups)
    loss_pieces, found = accumulated(pieces, groups)
    assert loss_pieces == pytest.approx(loss_whole, rel=1e-5)
    for name_, gradient in expected.items():
        torch.testing.assert_close(
            found[name_], gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max() + 1)
        )


def test_on_policy_sapo_is_policy_gradient() -> None:
    sapo, plain = learner(), learner(loss=LossConfig(name="policy_gradient"))
    groups = with_sampler_logprobs(sapo, mixed_groups(sapo.model))
    _, found = accumulated(sapo, groups)
    _, expected = accumulated(plain, groups)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def test_without_advantage_nothing_is_learnt() -> None:
    agent = learner()
    groups = [edited(g, lambda r: {"advantage": 0.0}) for g in mixed_groups(agent.model)]
    loss, gradients = accumulated(agent, groups)
    assert loss == 0
    assert all(gradient.eq(0).all() for gradient in gradients.values())


def test_log_probs_are_the_plain_models() -> None:
    agent = learner(tokens_per_microbatch=60)
    groups = mixed_groups(agent.model)
    found = agent.logprobs(groups)
    expected = plain_logprobs(agent.model, groups, ON_POLICY)
    assert [len(own) for own in found] == [3, 2, 3, 2]
    for (place, index), logprobs in expected.items():
        assert not found[place][index].requires_grad
        torch.testing.assert_close(found[place][index], logprobs.detach(), rtol=0, atol=1e-5)


def test_updates_make_good_responses_likelier_than_bad_ones() -> None:
    agent = learner()
    groups = with_sampler_logprobs(agent, mixed_groups(agent.model))
    before = agent.logprobs(groups)
    for _ in range(5):
        agent.update(groups)
    after = agent.logprobs(groups)
    for g, old, new in zip(groups, before, after, strict=True):
        gains = [float((n - o).mean()) for o, n in zip(old, new, strict=True)]
        good = [x for x, r in zip(gains, g.responses, strict=True) if r.advantage > 0]
        bad = [x for x, r in zip(gains, g.responses, strict=True) if r.advantage < 0]
        assert min(good) > max(bad)


def test_statistics_on_policy() -> None:
    agent = learner()
    groups = with_sampler_logprobs(agent, mixed_groups(agent.model))
    stats = agent.update(groups)
    assert stats.loss == pytest.approx(0, abs=1e-5)
    assert stats.kl == pytest.approx(0, abs=1e-5)
    assert stats.kl_k3 == pytest.approx(0, abs=1e-6)
    assert stats.positive is not None
    assert stats.negative is not None
    assert stats.positive.update_ratio == pytest.approx(1)
    assert stats.positive.outside_band == stats.negative.outside_band == 0
    assert stats.positive.num_responses == 6
    assert stats.negative.num_responses == 4
    assert stats.positive.response_length == pytest.approx((5 + 1 + 8 + 40 + 6 + 4) / 6)
    assert stats.num_images == 4
    assert stats.num_patches == 24 + 16 + 48 + 4
    assert stats.num_prompt_tokens == sum(len(g.prompt_ids) for g in groups)
    assert stats.num_response_tokens == 82
    assert stats.num_microbatches == 1
    assert 0 <= stats.padding_share < 1
    assert 5 < stats.entropy < math.log(512)


def test_statistics_off_policy_by_hand() -> None:
    """Ratios of 1.5 on one response's first token and 1 elsewhere; twice, as means don't mind."""
    agent = learner()
    rng = torch.Generator().manual_seed(0)
    (g,) = with_sampler_logprobs(agent, [group(rng, prompt=5, responses=(2, 4))])

    def shift(r: Any) -> dict[str, Any]:
        first = r.sampler_logprobs[0] - (math.log(1.5) if r.index == 0 else 0)
        return {"sampler_logprobs": (first, *r.sampler_logprobs[1:])}

    stats = agent.update([edited(g, shift)] * 2)
    assert stats.positive is not None
    assert stats.negative is not None
    assert stats.positive.outside_band == 0.5
    assert stats.positive.update_ratio == pytest.approx(
        (1 / math.cosh(0.25) ** 2 + 1) / 2, rel=1e-4
    )
    assert stats.positive.log_ratio_variance == pytest.approx(math.log(1.5) ** 2 / 4, rel=1e-3)
    assert stats.negative.log_ratio_variance == pytest.approx(0, abs=1e-9)
    assert stats.kl == pytest.approx(-math.log(1.5) / 6, rel=1e-3)
    assert stats.kl_k3 == pytest.approx((0.5 - math.log(1.5)) / 6, rel=1e-2)
    # A = 1, the mean of two tokens, then of two responses.
    assert stats.loss == pytest.approx(-2 * math.tanh(0.25) / 2 / 2, rel=1e-4)


def test_a_loss_without_a_gate_reports_none() -> None:
    agent = learner(loss=LossConfig(name="policy_gradient"))
    stats = agent.update(mixed_groups(agent.model))
    assert stats.positive is not None
    assert stats.positive.update_ratio is None


def test_frozen_means_no_gradient_no_state_no_change() -> None:
    agent = learner(freeze=("model.visual.*", "*embed_tokens*"))
    before = {n: p.detach().clone() for n, p in agent.model.named_parameters()}
    agent.update(mixed_groups(agent.model))
    frozen = [n for n in before if n.startswith("model.visual.") or "embed_tokens" in n]
    assert frozen
    for name, parameter in agent.model.named_parameters():
        assert parameter.requires_grad == (name not in frozen)
        same = torch.equal(parameter, before[name])
        assert same or name not in frozen
    assert not torch.equal(agent.model.model.language_model.norm.weight, before[_NORM])
    num_states = len(agent.state_dict()["optimizer"]["state"])
    assert num_states == len(before) - len(frozen)


_NORM = "model.language_model.norm.weight"


def test_a_freeze_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"'model\.visul\.\*' matches no parameter.*model\.visual"):
        learner(freeze=("model.visul.*",))


def test_a_gradient_that_isnt_finite_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    agent = learner()
    before = {n: w.clone() for n, w in agent.weights()}
    rng = torch.Generator().manual_seed(0)
    broken = edited(group(rng, prompt=4, responses=(3, 3)), lambda r: {"advantage": math.inf})
    with caplog.at_level(logging.WARNING):
        stats = agent.update([broken])
    assert stats.skipped
    assert agent.num_skipped == 1
    assert agent.num_updates == 0
    assert "update skipped" in caplog.text
    assert all(torch.equal(w, before[n]) for n, w in agent.weights())
    assert not agent.update(mixed_groups(agent.model)).skipped


def test_warm_up_is_linear_then_constant() -> None:
    agent = learner(warmup_updates=3, lr=4e-4)
    rng = torch.Generator().manual_seed(0)
    groups = [group(rng, prompt=2, responses=(1, 1))]
    rates = [agent.update(groups).lr for _ in range(6)]
    assert rates == pytest.approx([1e-4, 2e-4, 3e-4, 4e-4, 4e-4, 4e-4])


def test_the_gradient_is_clipped() -> None:
    """Adam hardly minds the size of a gradient, so look at what the optimiser was given."""
    agent = learner(max_grad_norm=1e-3)
    seen: list[float] = []

    def measure(optimizer: Any, *_: Any) -> None:
        grads = [p.grad.norm() for p in agent.model.parameters() if p.grad is not None]
        seen.append(float(torch.stack(grads).norm()))

    agent._optimizer.register_step_pre_hook(measure)
    stats = agent.update(mixed_groups(agent.model))
    assert stats.grad_norm > 2e-3
    assert seen == [pytest.approx(1e-3, rel=1e-3)]


def test_a_resumed_learner_goes_on_bit_for_bit() -> None:
    straight, resumed = learner(warmup_updates=5), learner(seed=1, warmup_updates=5)
    groups = mixed_groups(straight.model)
    straight.update(groups)
    resumed.model.load_state_dict(straight.model.state_dict())
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    expected, found = straight.update(groups), resumed.update(groups)
    assert found == expected
    for (name, a), (_, b) in zip(straight.weights(), resumed.weights(), strict=True):
        assert torch.equal(a, b), name


def test_weights_have_their_hugging_face_names() -> None:
    agent = learner()
    names = [name for name, _ in agent.weights()]
    assert len(set(names)) == len(names)
    assert "model.language_model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names  # tied
    assert any(name.startswith("model.visual.deepstack_merger_list.") for name in names)


def test_a_banned_token_in_a_response_is_refused() -> None:
    agent = learner()
    rng = torch.Generator().manual_seed(0)
    bad = edited(group(rng, prompt=4, responses=(2, 2)), lambda r: {"token_ids": (MEDIA.image, 1)})
    with pytest.raises(ValueError, match=f"banned token {MEDIA.image}"):
        agent.update([bad])


def test_images_that_dont_fit_the_prompt_are_refused() -> None:
    agent = learner()
    rng = torch.Generator().manual_seed(0)
    fits = group(rng, prompt=4, responses=(2,), images=[image(agent.model, 4, 4, rng)])
    other = replace(fits, images=(image(agent.model, 4, 6, rng),))
    with pytest.raises(ValueError, match="4 image tokens but its 1 images take 6"):
        agent.update([other])


def test_nothing_to_learn_from_is_refused() -> None:
    agent = learner()
    rng = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="no response token"):
        agent.update([group(rng, prompt=3, responses=(0, 0))])


def test_empty_responses_come_back_as_empty_log_probs() -> None:
    agent = learner()
    rng = torch.Generator().manual_seed(0)
    (own,) = agent.logprobs([group(rng, prompt=3, responses=(0, 2))])
    assert [len(x) for x in own] == [0, 2]


def test_steps_too_small_for_bfloat16_add_up_in_fp32_and_survive_a_restart() -> None:
    def in_bfloat16() -> Learner:
        return Learner(
            random_model("qwen3_vl", TinySize(), MEDIA, 0).bfloat16(),
            config=LearnerConfig(lr=1e-6, warmup_updates=0),
            loss=LossConfig(),
            temperature=ON_POLICY.temperature,
            banned_token_ids=BANNED,
            max_response_tokens=40,
        )

    first, second = in_bfloat16(), in_bfloat16()
    name, start = next(iter(first.weights()))
    start = start.float().clone()
    for _ in range(3):
        first.update(mixed_groups(first.model))
    pairs = first._pairs()
    assert all(torch.equal(master.bfloat16(), weight) for master, weight in pairs)
    master = first._masters[[n for n, _ in first.model.named_parameters()].index(name)]
    assert 1e-6 < (master - start).abs().max() < 1e-5
    second.load_state_dict(first.state_dict())
    for (one, _), (other, _) in zip(pairs, second._pairs(), strict=True):
        assert torch.equal(one, other)


def test_the_rate_decays_linearly_to_nothing() -> None:
    agent = learner(lr=4e-4, decay_updates=4)
    rates = [agent.update(mixed_groups(agent.model)).lr for _ in range(5)]
    assert rates == pytest.approx([4e-4, 3e-4, 2e-4, 1e-4, 0.0])
