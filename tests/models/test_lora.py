"""LoRA: adapters alone are trained, and the sampler and the files get what the learner computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builtin import guesses, scripted, small_config
from tests.models.test_load import NoProcessor
from tests.test_learner import ON_POLICY, accumulated
from tests.test_train import metrics, weights
from tests.tiny_groups import (
    BANNED,
    MEDIA,
    gradients,
    mixed_groups,
    plain_logprobs,
    worst_gradient_error,
)
from vlrl.config import ConfigError, LearnerConfig, LoraConfig, LossConfig, ModelConfig, validate
from vlrl.learner import Learner
from vlrl.models.load import ModelError, load_policy, save_policy
from vlrl.models.lora import add_lora, load_adapter
from vlrl.models.random_tiny import TinySize, random_model
from vlrl.samplers.scripted import ScriptedSampler
from vlrl.train import train

pytest.importorskip("peft")


def base_model(family: str = "qwen3_vl") -> Any:
    return random_model(family, TinySize(), MEDIA)


def learner(model: Any | None = None, lora: LoraConfig | None = None, **config: Any) -> Learner:
    model = base_model() if model is None else model
    add_lora(model, lora or LoraConfig(rank=4, alpha=8), seed=0, base="base")
    return Learner(
        model,
        config=LearnerConfig(**{"lr": 1e-2, "warmup_updates": 0, **config}),
        loss=LossConfig(),
        temperature=ON_POLICY.temperature,
        banned_token_ids=BANNED,
        max_response_tokens=40,
    )


def trained(agent: Learner, num_updates: int = 2) -> Learner:
    for _ in range(num_updates):
        agent.update(mixed_groups(agent.model))
    return agent


def test_adapters_alone_are_trained_and_the_base_never_changes() -> None:
    base = {n: p.clone() for n, p in base_model().named_parameters()}
    agent = learner()
    assert dict(agent.weights()).keys() == base.keys()
    assert all(torch.equal(tensor, base[name]) for name, tensor in agent.weights())  # B is 0
    trained(agent)
    for name, parameter in agent.model.named_parameters():
        assert parameter.requires_grad == (".lora_" in name)
        if ".lora_" not in name:
            assert torch.equal(parameter, base[name.replace(".base_layer.", ".")])
    changed = [name for name, tensor in agent.weights() if not torch.equal(tensor, base[name])]
    assert len(changed) == 3 * 7  # layers x (q, k, v, o, gate, up, down)
    assert len(agent.state_dict()["optimizer"]["state"]) == 2 * len(changed)
    # The vision tower is frozen, so its outputs were cached.
    assert agent.vision.num_forwards == 4


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_one_sequence_at_a_time(recompute: bool) -> None:
    agent = learner(
        lora=LoraConfig(rank=3, target=("*_proj", "*.visual.*.qkv"), sync="merged"),
        gradient_checkpointing=recompute,
        tokens_per_microbatch=60,
    )
    groups = mixed_groups(agent.model)
    trained(agent, 1)
    _, found = accumulated(agent, groups)
    plain = plain_logprobs(agent.model, groups, ON_POLICY)
    terms = []
    for (place, index), logprobs in plain.items():
        response = groups[place].responses[index]
        ratio = (logprobs - torch.tensor(response.sampler_logprobs)).exp()
        tau = 1.0 if response.advantage > 0 else 1.05
        soft = torch.tanh(tau * (ratio - 1) / 2) * 2 / tau
        terms.append((-response.advantage * soft).mean())
    expected = gradients(agent.model, torch.stack(terms).mean())
    assert any(".visual." in name for name in found)
    assert worst_gradient_error(found, expected) < 1e-5


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_merged_export_and_the_adapter_are_the_learners_policy(
    family: str, tmp_path: Path
) -> None:
    import peft

    agent = trained(learner(base_model(family)))
    groups = mixed_groups(agent.model)
    expected = agent.logprobs(groups)
    before = plain_logprobs(base_model(family), groups, ON_POLICY)
    save_policy(agent.model, NoProcessor(), tmp_path)
    merged = load_policy(str(tmp_path))
    assert [n for n, _ in merged.named_parameters()] == [n for n, _ in agent.weights()]
    sampled = dict(agent.weights())  # what the sampler gets is what the file holds
    assert all(torch.equal(p, sampled[n]) for n, p in merged.named_parameters())
    beside = peft.PeftModel.from_pretrained(base_model(family), str(tmp_path / "adapter"))
    for model in (merged, beside.base_model.model):
        for (place, index), logprobs in plain_logprobs(model, groups, ON_POLICY).items():
            torch.testing.assert_close(logprobs, expected[place][index], rtol=0, atol=2e-5)
            assert float((logprobs - before[place, index]).detach().abs().max()) > 1e-3


def test_in_bfloat16_the_sampler_gets_one_rounding_of_the_exact_sum() -> None:
    agent = trained(learner(base_model().bfloat16()))
    layer = agent.model.model.language_model.layers[0].mlp.up_proj
    up, down = layer.lora_B["default"].weight, layer.lora_A["default"].weight
    exact = layer.base_layer.weight.double() + 2 * up.double() @ down.double()
    merged = dict(agent.weights())["model.language_model.layers.0.mlp.up_proj.weight"]
    assert merged.dtype == torch.bfloat16
    error = (merged.double() - exact).abs() / exact.abs().clamp(min=1e-6)
    assert float(error.detach().max()) < 2**-8


def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path) -> None:
    """From the base and the saved adapter, not from the merged weights of the checkpoint."""
    lora = {"model": {"lora": {"rank": 4}}}

    def answers(prompt: Any) -> list[str]:
        return list(guesses())

    whole = train(small_config(tmp_path / "a", **lora), make_sampler=scripted(answers))
    train(small_config(tmp_path / "b", "steps=1", **lora), make_sampler=scripted(answers))
    parts = train(small_config(tmp_path / "b", **lora), resume=True, make_sampler=scripted(answers))
    one, other = weights(whole), weights(parts)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (whole / "adapter" / "adapter_config.json").is_file()
    for a, b in zip(metrics(tmp_path / "a"), metrics(tmp_path / "b"), strict=True):
        assert a["updates"] == b["updates"]
    start = weights(tmp_path / "a" / "checkpoints" / "step-000000")
    assert any(not torch.equal(start[name], one[name]) for name in one)


def test_an_adapter_of_another_shape_is_refused(tmp_path: Path) -> None:
    agent = learner()
    save_policy(agent.model, NoProcessor(), tmp_path)
    other = base_model()
    add_lora(other, LoraConfig(rank=2), seed=0, base="base")
    with pytest.raises(ModelError, match="other layers or another rank"):
        load_adapter(other, tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"without model\.lora"):
        load_adapter(other, tmp_path)


def test_a_pattern_of_no_linear_layer_names_near_ones() -> None:
    with pytest.raises(
        ModelError, match=r"matches no linear layer; near names: \*\.self_attn\.q_proj"
    ):
        learner(lora=LoraConfig(target=("*.self_atn.q_proj",)))


def test_freeze_beside_lora_is_refused() -> None:
    with pytest.raises(ConfigError, match="leave out freeze"):
        validate(ModelConfig, {"lora": {}, "freeze": ["model.visual.*"]}, "a.yaml")


def test_adapters_of_the_vision_tower_are_only_synced_merged() -> None:
    target = ("model.visual.blocks.*.attn.qkv",)
    with pytest.raises(ModelError, match=r"model\.visual\.blocks\.0\.attn\.qkv.*sync=merged"):
        learner(lora=LoraConfig(target=target))
    assert learner(lora=LoraConfig(target=target, sync="merged"))


@pytest.mark.parametrize("sync", ["adapter", "merged"])
def test_a_run_hands_over_what_its_config_says(sync: str, tmp_path: Path) -> None:
    seen: list[tuple[str, set[str]]] = []

    class Listens(ScriptedSampler):
        def load_weights(self, named_tensors: Any, version: int) -> None:
            tensors = list(named_tensors)
            seen.append((path_seen[-1], {name for name, _ in tensors}))
            super().load_weights(iter(tensors), version)

    path_seen: list[str] = []

    def make(path: str, chat: Any, config: Any) -> ScriptedSampler:
        path_seen.append(path)
        return Listens(chat, lambda prompt: list(guesses()))

    def config(*overrides: str) -> Any:
        model = {"lora": {"rank": 2, "sync": sync}}
        return small_config(tmp_path / "run", *overrides, model=model)

    train(config("steps=1"), make_sampler=make)
    train(config("steps=2"), resume=True, make_sampler=make)
    assert len(seen) == 3
    adapters_alone = [all(".lora_" in name for name in names) for _, names in seen]
    assert adapters_alone == [sync == "adapter"] * 3
    # A sampler of adapters holds the base, not a checkpoint with the adapters merged already.
    resumed_from = path_seen[1]
    assert ("step-000001" in resumed_from) == (sync == "merged")
