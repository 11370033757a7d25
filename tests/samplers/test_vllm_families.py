"""The other families in real vLLM: log-probs as the learner's own, before and after a sync."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.samplers import tiny_models as tiny
from vlrl.config import LearnerConfig, LossConfig, SamplerConfig
from vlrl.learner import Learner
from vlrl.models.load import load_policy
from vlrl.samplers.base import SamplingParams
from vlrl.samplers.vllm_engine import VllmSampler

pytestmark = pytest.mark.vllm
PARAMS = SamplingParams(n=2, max_tokens=16, seed=3)


@pytest.mark.parametrize(
    "family, tied",
    [("qwen2_vl", True), ("qwen2_5_vl", False), ("qwen3_vl_moe", True), ("qwen3_5", False)],
)
def test_sampler_and_learner_agree(family: str, tied: bool, tmp_path: Path) -> None:
    _, chat = tiny.build(tmp_path, family=family, tied=tied)
    # On a CPU vLLM's recurrent layers take bfloat16 only; the learner's here are float32.
    dtype, tolerance = ("bfloat16", 0.5) if family == "qwen3_5" else ("float32", 1e-4)
    has_experts = family.endswith("_moe")
    config = SamplerConfig(max_num_seqs=8, experts=has_experts)
    learner = Learner(
        load_policy(str(tmp_path), "float32"),
        config=LearnerConfig(routing_replay="sampler" if has_experts else "off"),
        loss=LossConfig(),
        temperature=1.0,
        banned_token_ids=chat.banned_token_ids,
        max_response_tokens=PARAMS.max_tokens,
    )
    prompts = tiny.prompts(chat)
    sampler = VllmSampler(tmp_path, chat, config, max_model_len=256, dtype=dtype)

    def difference() -> float:
        return tiny.difference(learner, tiny.learner_groups(chat, prompts, samples))

    try:
        samples = sampler.sample(prompts, PARAMS)
        assert difference() < tolerance
        for version in (1, 2):  # a second sync must not find what the first one packed
            tiny.shake(learner.model, seed=version, std=0.1)
            assert difference() > max(0.1, 2 * tolerance), "the new weights must matter"
            sampler.load_weights(learner.weights(), version)
            samples = sampler.sample(prompts, PARAMS)
            assert difference() < tolerance
        if has_experts:
            routers = learner.update(tiny.learner_groups(chat, prompts, samples)).routers
            assert routers is not None
            assert routers.replayed > 0 and routers.differ_tokens == 0
            tiny.shake(learner.model, seed=3, std=0.1)
            routers = learner.update(tiny.learner_groups(chat, prompts, samples)).routers
            assert routers is not None and routers.differ_tokens
            greedy = SamplingParams(n=1, max_tokens=4, temperature=0)
            (one,) = sampler.sample(prompts[:1], greedy)[0]
            assert len(one.experts) == len(one.token_ids) - 1
    finally:
        sampler.close()
