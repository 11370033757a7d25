"""pi_old by config: the sampler's log-probs, or the learner's own, with no forward too many."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.test_learner import accumulated, edited, learner, with_sampler_logprobs
from tests.tiny_groups import mixed_groups
from vlrl.batch import LearnerGroup
from vlrl.config import ConfigError, LossConfig, validate
from vlrl.learner import Learner

LEARNERS = LossConfig(old_logprobs="learner")


@contextmanager
def text_forwards(agent: Learner) -> Iterator[list[int]]:
    """The number of tokens of each forward of the text part."""
    seen: list[int] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["inputs_embeds"].shape[1])

    hook = agent.model.model.language_model.register_forward_pre_hook(look, with_kwargs=True)
    yield seen
    hook.remove()


def halves(agent: Learner) -> list[list[LearnerGroup]]:
    """Two mini-batches, sampled by an engine that is off by 0.3 nats at every token."""
    groups = with_sampler_logprobs(agent, mixed_groups(agent.model))

    def shift(r: Any) -> dict[str, Any]:
        return {"sampler_logprobs": tuple(p - 0.3 for p in r.sampler_logprobs)}

    groups = [edited(g, shift) for g in groups]
    return [groups[:2], groups[2:]]


def test_the_samplers_log_probs_cost_no_forward() -> None:
    agent = learner()
    parts = halves(agent)
    with text_forwards(agent) as seen:
        agent.updates(parts)
    assert len(seen) == 2


def test_the_learners_cost_one_forward_of_all_but_the_first_mini_batch() -> None:
    agent = learner(loss=LEARNERS)
    parts = halves(agent)
    with text_forwards(agent) as seen:
        first, second = agent.updates(parts)
    second_tokens = sum(g.num_tokens for g in parts[1])
    assert seen == [second_tokens, sum(g.num_tokens for g in parts[0]), second_tokens]
    # The first mini-batch's forward is pi_old's: r is 1 to the last bit, whatever the sampler said.
    assert first.positive is not None
    assert (first.positive.update_ratio, first.positive.log_ratio_variance) == (1.0, 0.0)
    assert first.kl == pytest.approx(-0.3, abs=1e-4)
    # At the second the policy has moved by one step from pi_old, not by the engines' 0.3.
    assert second.positive is not None
    assert second.positive.log_ratio_variance > 0
    assert second.tis_weight is None


def test_the_first_mini_batchs_forward_is_pi_old() -> None:
    """The same loss and gradients as with a forward of its own before."""
    agent = learner(loss=LossConfig(old_logprobs="learner", tis_cap=1.1))
    (part, _) = halves(agent)
    collector, _ = agent._backward(part, is_old=True)
    found = {n: p.grad.clone() for n, p in agent.model.named_parameters() if p.grad is not None}
    agent.model.zero_grad()
    old = agent.logprobs(part)
    with_old = [
        edited(g, lambda r, own=own: {"old_logprobs": tuple(own[r.index].tolist())})
        for g, own in zip(part, old, strict=True)
    ]
    loss, expected = accumulated(agent, with_old)
    assert collector.loss == pytest.approx(loss, abs=1e-7)
    assert collector.tis_weight == pytest.approx(1.1)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-8)


def test_the_weight_makes_up_for_the_engines() -> None:
    """Both sides 0.3 nats apart at every token: below the cap the loss is e^0.3 times as large."""
    plain = learner(loss=LEARNERS)
    weighted = learner(loss=LossConfig(old_logprobs="learner", tis_cap=2.0))
    (part, _) = halves(plain)
    collectors = [agent._backward(part, is_old=True)[0] for agent in (plain, weighted)]
    assert collectors[1].tis_weight == pytest.approx(math.exp(0.3), rel=1e-4)
    for (name, one), (_, other) in zip(
        plain.model.named_parameters(), weighted.model.named_parameters(), strict=True
    ):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None and other.grad is not None:
            torch.testing.assert_close(other.grad, one.grad * math.exp(0.3), rtol=1e-3, atol=1e-6)


def test_a_cap_without_a_mismatch_is_refused() -> None:
    with pytest.raises(ConfigError, match="set old_logprobs=learner"):
        validate(LossConfig, {"tis_cap": 2.0}, "a.yaml")
