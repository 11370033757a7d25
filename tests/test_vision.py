"""The vision tower once per image: how often it runs, and that nothing changes by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.test_learner import learner
from tests.tiny_groups import group, image, worst_gradient_error
from vlrl.batch import LearnerGroup
from vlrl.images import ImageFeatures
from vlrl.learner import Learner
from vlrl.update_stats import StatsCollector

FROZEN = ("model.visual.*",)


def shared_images(model: Any) -> list[LearnerGroup]:
    """Two images in four prompts of different lengths: a; b and a; text only; a; a twice."""
    rng = torch.Generator().manual_seed(0)
    a, b = image(model, 4, 6, rng), image(model, 2, 4, rng)
    return [
        group(rng, prompt=9, responses=(7, 5), images=[a], name="a"),
        group(rng, prompt=4, responses=(8, 3), images=[b, a], name="ba"),
        group(rng, prompt=30, responses=(6, 4), name="text"),
        group(rng, prompt=50, responses=(3, 9), images=[a], name="a again"),
        group(rng, prompt=5, responses=(2, 2), images=[a, a], name="aa"),
    ]


@contextmanager
def tower_images(agent: Learner) -> Iterator[list[int]]:
    """The number of images of each forward of the vision tower."""
    seen: list[int] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(len(kwargs["grid_thw"]))

    handle = agent.model.model.visual.register_forward_pre_hook(look, with_kwargs=True)
    yield seen
    handle.remove()


def backward(
    agent: Learner, groups: list[LearnerGroup]
) -> tuple[StatsCollector, dict[str, torch.Tensor]]:
    collector, _ = agent._backward(groups)
    found = {n: p.grad.clone() for n, p in agent.model.named_parameters() if p.grad is not None}
    agent.model.zero_grad()
    return collector, found


def renamed(groups: list[LearnerGroup]) -> list[LearnerGroup]:
    """The same pixels, each time as another image: nothing can be shared."""
    number = iter(range(99))
    return [
        LearnerGroup(
            id=g.id,
            domain=g.domain,
            prompt_ids=g.prompt_ids,
            images=tuple(
                ImageFeatures(
                    pixel_values=i.pixel_values,
                    grid_thw=i.grid_thw,
                    num_tokens=i.num_tokens,
                    key=f"no. {next(number)}",
                )
                for i in g.images
            ),
            responses=g.responses,
        )
        for g in groups
    ]


@pytest.mark.parametrize("max_tokens", [1, 40, 100_000])
def test_a_trained_tower_runs_once_per_image_of_an_update(max_tokens: int) -> None:
    agent = learner(tokens_per_microbatch=max_tokens, lr=1e-9)
    groups = shared_images(agent.model)
    with tower_images(agent) as seen:
        once, found = backward(agent, groups)
    assert sum(seen) == 2
    with tower_images(agent) as seen:
        often, expected = backward(agent, renamed(groups))
    assert sum(seen) == 6
    assert once.loss == pytest.approx(often.loss, abs=1e-7)
    assert any(".visual." in name for name in found)
    assert worst_gradient_error(found, expected) < 1e-5


def test_no_graph_or_embedding_outlives_its_last_micro_batch() -> None:
    agent = learner(tokens_per_microbatch=1)
    batches, vision = agent._open(shared_images(agent.model))
    lives = []
    for _, predictions in agent._predictions(batches, vision):
        predictions.logprobs_R.sum().backward()
        lives.append((len(vision._live), len(vision._runs)))
    # a from its first prompt on; b, and a's last, in the prompt of both.
    assert lives == [(1, 1)] * 8 + [(2, 2)] * 2
    assert not vision._live
    assert not vision._runs


def test_counts_by_hand() -> None:
    agent = learner(tokens_per_microbatch=1)  # each response is a micro-batch
    stats = agent.update(shared_images(agent.model))
    assert stats.num_microbatches == 10
    assert stats.num_images == 2 * (1 + 2 + 0 + 1 + 2)
    assert stats.num_unique_images == 2
    assert stats.num_tower_forwards == 2
    assert stats.num_cached_images == 0
    assert stats.num_patches == 24 + 8


def test_a_frozen_tower_runs_once_per_image_of_the_run() -> None:
    kept, dropped = (learner(freeze=FROZEN, vision_cache_gib=gib) for gib in (1.0, 0.0))
    groups = shared_images(kept.model)
    with tower_images(kept) as seen:
        kept.logprobs(groups)
        stats = [kept.update(groups) for _ in range(2)]
    assert seen == [1, 1]
    assert [one.num_tower_forwards for one in stats] == [0, 0]
    assert [one.num_cached_images for one in stats] == [2, 2]
    with tower_images(dropped) as seen:
        dropped.logprobs(groups)
        expected = [dropped.update(groups) for _ in range(2)]
    assert seen == [1] * 6
    assert [one.num_cached_images for one in expected] == [0, 0]
    for one, other in zip(stats, expected, strict=True):
        assert (one.loss, one.grad_norm) == (other.loss, other.grad_norm)
    for (name, a), (_, b) in zip(kept.weights(), dropped.weights(), strict=True):
        assert torch.equal(a, b), name


def test_a_frozen_towers_gradients_are_those_of_a_trained_one() -> None:
    """The cache changes neither the loss nor the gradients of what is trained."""
    frozen, trained = learner(freeze=FROZEN, tokens_per_microbatch=40), learner()
    groups = shared_images(frozen.model)
    backward(frozen, groups)
    with tower_images(frozen) as seen:
        cached, found = backward(frozen, groups)
    assert seen == []
    plain, expected = backward(trained, groups)
    assert cached.loss == pytest.approx(plain.loss, abs=1e-7)
    text = {n: g for n, g in expected.items() if ".visual." not in n}
    assert worst_gradient_error(found, text) < 1e-5


def test_other_weights_of_the_tower_make_the_cache_forget() -> None:
    agent = learner(freeze=FROZEN)
    groups = shared_images(agent.model)
    before = agent.logprobs(groups)
    with torch.no_grad():
        agent.model.model.visual.merger.linear_fc2.weight.mul_(-1)
    with tower_images(agent) as seen:
        after = agent.logprobs(groups)
    assert seen == [1, 1]
    assert not torch.allclose(before[0][0], after[0][0])
    assert torch.equal(before[2][0], after[2][0])  # text only


def test_a_tower_with_one_trained_part_is_not_cached() -> None:
    agent = learner(freeze=("model.visual.blocks.*", "model.visual.patch_embed.*"))
    groups = shared_images(agent.model)
    stats = [agent.update(groups) for _ in range(2)]
    assert [one.num_tower_forwards for one in stats] == [2, 2]


def test_the_cache_stays_within_its_budget_and_drops_the_oldest() -> None:
    agent = learner(freeze=FROZEN)
    rng = torch.Generator().manual_seed(0)
    pictures = [image(agent.model, 4, 4, rng) for _ in range(3)]
    cache = agent.vision._cache
    cache._max_bytes = (
        2 * 4 * 64 * 3 * 4
    )  # two images: 4 tokens, 64 wide, with two DeepStack layers
    for picture, expected in ((0, [1]), (1, [1]), (0, []), (2, [1]), (0, []), (1, [1])):
        with tower_images(agent) as seen:
            agent.logprobs([group(rng, prompt=2, responses=(1,), images=[pictures[picture]])])
        assert seen == expected
        assert cache._bytes <= cache._max_bytes
