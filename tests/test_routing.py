"""Routers of a mixture of experts: their statistics, and choices that are made to stand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from tests.tiny_groups import BANNED, HEAD, gradients, mixed_groups, tiny_model
from vlrl.batch import LearnerGroup, Microbatch, microbatches, with_experts
from vlrl.config import LearnerConfig, LossConfig
from vlrl.forward import predict, prompt_positions
from vlrl.learner import Learner
from vlrl.models.errors import ModelError
from vlrl.models.recompute import use_recompute
from vlrl.routing import UNKNOWN, Routers

NUM_LAYERS, NUM_CHOSEN = 3, 2


def rows(model: Any, groups: list[LearnerGroup], max_tokens: int = 10**6) -> list[Microbatch]:
    positions = partial(prompt_positions, model)
    return list(microbatches(groups, max_tokens=max_tokens, max_patches=10**6, positions=positions))


def choose(model: Any, routers: Routers, batches: list[Microbatch]) -> list[torch.Tensor]:
    """What the routers choose for each row."""
    chosen: list[torch.Tensor] = []
    for batch in batches:
        with torch.no_grad(), routers.row(batch.experts_TLK, replay=False):
            predict(model, batch, HEAD)
            chosen.append(routers.choices())
    return chosen


def moved(model: Any) -> None:
    """Other routers: noise on their weights."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("mlp.gate.weight"):
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("family", ["qwen3_vl_moe", "qwen3_5_moe"])
def test_a_replayed_own_choice_changes_nothing(family: str) -> None:
    model = tiny_model(family)
    routers, groups = Routers(model), mixed_groups(model)
    batches = rows(model, groups, max_tokens=120)
    chosen = choose(model, routers, batches)
    known = with_experts(groups, zip(batches, chosen, strict=True))
    found: list[dict[str, torch.Tensor]] = []
    for replay in (False, True):
        total = torch.zeros(())
        for batch in rows(model, known):
            with routers.row(batch.experts_TLK, replay=replay):
                total = total + predict(model, batch, HEAD).logprobs_R.sum()
                found.append(gradients(model, total))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=0)


def test_replay_holds_the_choice_and_says_how_far_the_routers_went() -> None:
    model = tiny_model("qwen3_vl_moe")
    routers, groups = Routers(model), mixed_groups(model)
    batches = rows(model, groups)
    chosen = choose(model, routers, batches)
    first = routers.take_stats()
    assert first is not None and first.differ_layers is None and first.replayed == 0
    known = rows(model, with_experts(groups, zip(batches, chosen, strict=True)))
    before = predict(model, known[0], HEAD).logprobs_R.detach()
    moved(model)
    own = predict(model, known[0], HEAD).logprobs_R.detach()
    with routers.row(known[0].experts_TLK, replay=True):
        replayed = predict(model, known[0], HEAD).logprobs_R
        replayed.sum().backward()
    gate = model.get_parameter("model.language_model.layers.1.mlp.gate.weight")
    assert gate.grad.abs().max() > 0, "the gradient still goes through the weights of the choice"
    stats = routers.take_stats()
    assert stats is not None and stats.replayed == 1
    assert stats.differ_layers is not None and stats.differ_tokens is not None
    assert 0 < stats.differ_layers < stats.differ_tokens < 1
    assert stats.load_max == first.load_max, "the load is that of the replayed choice"
    assert not torch.equal(replayed.detach(), own)
    apart = [float((x.detach() - before).abs().mean()) for x in (replayed, own)]
    assert apart[0] < apart[1], "a changed choice is the larger part of the jump"


def test_unknown_choices_are_the_routers_own() -> None:
    model = tiny_model("qwen3_vl_moe")
    routers, groups = Routers(model), mixed_groups(model)
    (batch,) = rows(model, groups)
    (own,) = choose(model, routers, [batch])
    given = (own + 1) % 8
    given[::2] = UNKNOWN
    routers.take_stats()
    with torch.no_grad(), routers.row(given, replay=True):
        predict(model, batch, HEAD)
        again = routers.choices()
    assert torch.equal(again[:, 0], own[:, 0]), "the first layer's input is the same"
    stats = routers.take_stats()
    assert stats is not None
    assert stats.replayed == pytest.approx(0.5, abs=0.01)
    assert stats.differ_tokens == 1


def test_statistics_by_hand() -> None:
    model = tiny_model("qwen3_vl_moe")
    routers, groups = Routers(model), mixed_groups(model)
    batches = rows(model, groups, max_tokens=120)
    assert len(batches) > 1
    chosen = torch.cat(choose(model, routers, batches))
    assert chosen.shape == (sum(len(b.token_ids_T) for b in batches), NUM_LAYERS, NUM_CHOSEN)
    loads = [torch.bincount(chosen[:, i].flatten().long(), minlength=8) for i in range(NUM_LAYERS)]
    shares = [load.double() / load.sum() for load in loads]
    stats = routers.take_stats()
    assert stats is not None
    assert stats.load_max == pytest.approx(sum(float(s.max()) * 8 for s in shares) / NUM_LAYERS)
    assert stats.load_max_worst == pytest.approx(max(float(s.max()) * 8 for s in shares))
    entropies = [float(-(s[s > 0] * s[s > 0].log()).sum()) / 2.0794415 for s in shares]
    assert stats.load_entropy == pytest.approx(sum(entropies) / NUM_LAYERS)
    assert stats.idle == sum(int((load == 0).sum()) for load in loads) / (8 * NUM_LAYERS)


def test_gradient_checkpointing_counts_each_row_once() -> None:
    counts: list[Any] = []
    for recompute in (False, True):
        model = tiny_model("qwen3_vl_moe")
        if recompute:
            use_recompute(model)
        routers = Routers(model)
        for batch in rows(model, mixed_groups(model)):
            with routers.row(None, replay=False):
                predict(model, batch, HEAD).logprobs_R.sum().backward()
        counts.append(routers.take_stats())
    assert counts[0] is not None and counts[0] == counts[1]


def test_a_model_without_routers() -> None:
    model = tiny_model("qwen3_vl")
    routers = Routers(model)
    assert not routers
    for batch in rows(model, mixed_groups(model)):
        assert batch.experts_TLK is None
        with torch.no_grad(), routers.row(None, replay=True):
            predict(model, batch, HEAD)
    assert routers.take_stats() is None


def agent(family: str = "qwen3_vl_moe", **config: Any) -> Learner:
    return Learner(
        tiny_model(family),
        config=LearnerConfig(lr=3e-3, warmup_updates=0, tokens_per_microbatch=150, **config),
        loss=LossConfig(),
        temperature=HEAD.temperature,
        banned_token_ids=BANNED,
        max_response_tokens=64,
    )


def test_later_mini_batches_replay_what_the_policy_chose_before_the_first() -> None:
    learner, plain = agent(routing_replay="learner"), agent()
    parts = [mixed_groups(learner.model, seed)[:3] for seed in (0, 1)]
    first, second = learner.updates(parts)
    assert first.routers is not None and second.routers is not None
    assert first.routers.replayed == 0 and first.routers.differ_layers is None
    assert second.routers.replayed == 1
    assert second.routers.differ_layers is not None and second.routers.differ_layers > 0
    free = plain.updates(parts)
    assert free[0] == first
    assert free[1].routers is not None and free[1].routers.replayed == 0
    assert free[1].loss != second.loss


def test_the_samplers_experts_are_used_or_asked_for() -> None:
    learner = agent(routing_replay="sampler")
    groups = mixed_groups(learner.model)[:2]
    with pytest.raises(ValueError, match="the sampler returned no experts"):
        learner.update(groups)
    sampled = [
        replace(
            group,
            responses=tuple(
                replace(r, experts=torch.zeros(len(r.token_ids) - 1, 3, 2, dtype=torch.int16))
                for r in group.responses
            ),
        )
        for group in groups
    ]
    stats = learner.update(sampled).routers
    assert stats is not None
    num_tokens = sum(group.num_tokens for group in groups)
    num_known = sum(len(r.token_ids) - 1 for group in groups for r in group.responses)
    assert stats.replayed == pytest.approx(num_known / num_tokens)


def test_replay_without_routers_is_refused() -> None:
    with pytest.raises(ModelError, match="has no routers"):
        agent("qwen3_vl", routing_replay="learner")
