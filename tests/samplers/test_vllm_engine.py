"""Real vLLM against plain transformers, in float32, with images, tied and untied LM heads."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from tests.samplers import tiny_models as tiny
from vlrl.chat import Chat
from vlrl.config import SamplerConfig
from vlrl.samplers.base import SamplerError, SamplingParams
from vlrl.samplers.probe import compare
from vlrl.samplers.vllm_engine import VllmSampler
from vlrl.types import Completion, Finish, Prompt

pytestmark = pytest.mark.vllm
PARAMS = SamplingParams(n=3, max_tokens=24, temperature=0.8, seed=7)
CONFIG = SamplerConfig(max_num_seqs=16)


@dataclass
class Policy:
    """A learner's model and the sampler that was started from its checkpoint."""

    model: Any
    chat: Chat
    sampler: VllmSampler
    prompts: list[Prompt]


@pytest.fixture(scope="module", params=["tied", "untied"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Policy]:
    folder = tmp_path_factory.mktemp(request.param)
    model, chat = tiny.build(folder, tied=request.param == "tied")
    torch.manual_seed(5)
    random.seed(5)
    before = (torch.get_rng_state(), random.getstate(), dict(os.environ), torch.get_num_threads())
    sampler = VllmSampler(folder, chat, CONFIG, max_model_len=256, dtype="float32")
    after = (torch.get_rng_state(), random.getstate(), dict(os.environ), torch.get_num_threads())
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    yield Policy(model, chat, sampler, tiny.prompts(chat))
    sampler.close()


def reference(policy: Policy, prompt: Prompt, completion: Completion, temperature: float) -> Any:
    """Log-probs [T, vocab] of a response's places by one plain forward pass of transformers."""
    prompt_ids = policy.chat.expand(prompt)
    ids = torch.tensor([prompt_ids + completion.token_ids])
    inputs: dict[str, Any] = {"input_ids": ids}
    if prompt.image_keys:
        features = [policy.chat.features(key) for key in prompt.image_keys]
        inputs["pixel_values"] = torch.cat([f.pixel_values for f in features])
        inputs["image_grid_thw"] = torch.tensor([f.grid_thw for f in features])
        inputs["mm_token_type_ids"] = (ids == policy.chat.image_token_id).long()
    with torch.no_grad():
        logits = policy.model(**inputs).logits[0, len(prompt_ids) - 1 : -1].float()
    logits[:, list(policy.chat.banned_token_ids)] = -torch.inf
    return (logits / temperature).log_softmax(-1)


def max_error(policy: Policy, groups: Sequence[Sequence[Completion]], temperature: float) -> float:
    """The largest difference between sampler and learner log-probs of the sampled tokens."""
    sampler, learner = [], []
    for prompt, completions in zip(policy.prompts, groups, strict=True):
        for completion in completions:
            logprobs_TV = reference(policy, prompt, completion, temperature)
            ids = torch.tensor(completion.token_ids)[:, None]
            sampler.append(completion.logprobs)
            learner.append(logprobs_TV.gather(1, ids)[:, 0].tolist())
    return compare(sampler, learner).max_abs


def test_logprobs_agree_before_and_after_a_sync(policy: Policy) -> None:
    groups = policy.sampler.sample(policy.prompts, PARAMS)
    assert [len(p.image_keys) for p in policy.prompts] == [0, 1, 3]
    assert max_error(policy, groups, 0.8) < 1e-4
    start = policy.sampler.version
    tiny.shake(policy.model, seed=start + 1, std=0.1)
    assert max_error(policy, groups, 0.8) > 0.1, "the new weights must matter"
    policy.sampler.load_weights(policy.model.named_parameters(), start + 1)
    groups = policy.sampler.sample(policy.prompts, PARAMS)
    assert max_error(policy, groups, 0.8) < 1e-4
    assert {c.policy_version for group in groups for c in group} == {start + 1}


def test_a_later_change_in_place_does_not_reach_the_sampler(policy: Policy) -> None:
    policy.sampler.load_weights(policy.model.named_parameters(), policy.sampler.version + 1)
    groups = policy.sampler.sample(policy.prompts, PARAMS)
    tiny.shake(policy.model, seed=99, std=0.1)
    assert policy.sampler.sample(policy.prompts, PARAMS) == groups


def test_same_seed_same_transcript(policy: Policy) -> None:
    first = policy.sampler.sample(policy.prompts, PARAMS)
    torch.manual_seed(random.randrange(1000))  # the global generator must not matter
    assert policy.sampler.sample(policy.prompts, PARAMS) == first
    other = SamplingParams(n=3, max_tokens=24, temperature=0.8, seed=8)
    assert policy.sampler.sample(policy.prompts, other) != first


def test_greedy_takes_the_likeliest_token(policy: Policy) -> None:
    policy.sampler.load_weights(policy.model.named_parameters(), policy.sampler.version)
    params = SamplingParams(n=1, max_tokens=8, temperature=0)
    groups = policy.sampler.sample(policy.prompts, params)
    assert max_error(policy, groups, 1.0) < 1e-4
    for prompt, (completion,) in zip(policy.prompts, groups, strict=True):
        logprobs_TV = reference(policy, prompt, completion, 1.0)
        assert tuple(logprobs_TV.argmax(-1).tolist()) == completion.token_ids


def test_media_tokens_are_never_sampled(policy: Policy) -> None:
    banned = list(policy.chat.banned_token_ids)
    head = policy.model.lm_head.weight
    with torch.no_grad():  # make them likely: their logits are large, half of the time positive
        head[banned] = 20 * head[: len(banned)]
    policy.sampler.load_weights(policy.model.named_parameters(), policy.sampler.version + 1)
    groups = policy.sampler.sample(policy.prompts, PARAMS)
    assert max_error(policy, groups, 0.8) < 1e-4
    assert not {t for group in groups for c in group for t in c.token_ids} & set(banned)
    ids = torch.tensor([policy.prompts[0].token_ids])
    with torch.no_grad():
        unmasked = policy.model(input_ids=ids).logits[0].softmax(-1)
    assert unmasked[:, banned].sum(-1).max() > 0.9, "without the ban they would be"


def test_wrong_prompt_ids_are_an_error(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    right = policy.chat.expand
    monkeypatch.setattr(policy.chat, "expand", lambda p: right(p) + (0,) * len(p.image_keys))
    with pytest.raises(SamplerError, match=r"prompt 1: vLLM sees .* first difference is at"):
        policy.sampler.sample(policy.prompts, PARAMS)
    monkeypatch.undo()
    policy.sampler.sample(policy.prompts, PARAMS)  # the failed call has left nothing behind


def test_too_long_a_prompt_is_an_error(policy: Policy) -> None:
    params = SamplingParams(n=1, max_tokens=240)
    with pytest.raises(SamplerError, match=r"prompt 0 has .* max_model_len 256"):
        policy.sampler.sample(policy.prompts, params)


def test_stops_and_lengths(policy: Policy) -> None:
    stop = max(policy.chat.stop_token_ids)
    params = SamplingParams(n=8, max_tokens=60, temperature=2.0, seed=0)
    completions = [c for g in policy.sampler.sample(policy.prompts, params) for c in g]
    for completion in completions:
        stopped = completion.token_ids[-1] in policy.chat.stop_token_ids
        assert completion.finish is (Finish.STOP if stopped else Finish.LENGTH)
        assert stopped or len(completion.token_ids) == 60
        assert not set(completion.token_ids[:-1]) & set(policy.chat.stop_token_ids)
        assert policy.chat.tokenizer.decode([stop]) not in completion.text
    assert {c.finish for c in completions} == {Finish.STOP, Finish.LENGTH}
