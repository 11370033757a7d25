from __future__ import annotations

from typing import Any

import torch

from tests.test_learner import accumulated
from tests.tiny_groups import BANNED, MEDIA, mixed_groups
from vlrl.config import LearnerConfig, LoraConfig, LossConfig
from vlrl.learner import Learner
from vlrl.models.lora import add_lora
from vlrl.models.random_tiny import TinySize, random_model
from vlrl.models.wide import use_wide_activations


def learner(model: Any, activations: str = "float32") -> Learner:
    return Learner(
        model,
        config=LearnerConfig.model_validate({"activations": activations}),
        loss=LossConfig(),
        temperature=1.0,
        banned_token_ids=BANNED,
        max_response_tokens=40,
    )


def outputs(model: Any) -> dict[str, torch.dtype]:
    """The types of what a model's parts hand on in one update."""
    found: dict[str, torch.dtype] = {}

    def note(name: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                found[name] = output.dtype

        return hook

    agent = learner(model)
    for name, module in model.named_modules():
        module.register_forward_hook(note(name))
    agent._backward(mixed_groups(model))
    return found


def test_every_part_hands_on_float32_and_keeps_bfloat16_weights() -> None:
    model = random_model("qwen3_vl", TinySize(), MEDIA).bfloat16()
    found = outputs(model)
    layer = "model.language_model.layers.1"
    assert {f"{layer}.mlp.up_proj", f"{layer}.input_layernorm", layer} <= found.keys()
    assert {"model.visual.patch_embed.proj", "model.visual.blocks.0.norm1"} <= found.keys()
    assert set(found.values()) == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_experts_take_and_give_float32() -> None:
    model = random_model("qwen3_vl_moe", TinySize(), MEDIA).bfloat16()
    assert outputs(model)["model.language_model.layers.0.mlp.experts"] == torch.float32


def test_a_float32_model_stays_as_it_is() -> None:
    results: list[Any] = []
    for activations in ("model", "float32"):
        agent = learner(random_model("qwen3_vl_moe", TinySize(), MEDIA), activations)
        results.append(accumulated(agent, mixed_groups(agent.model)))
    (loss, expected), (loss_wide, found) = results
    assert loss_wide == loss
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_weights_keep_their_names() -> None:
    model = random_model("qwen3_vl_moe", TinySize(), MEDIA).bfloat16()
    names = list(model.state_dict())
    use_wide_activations(model)
    assert list(model.state_dict()) == names


def test_adapters_learn_beside_it() -> None:
    model = random_model("qwen3_vl", TinySize(), MEDIA).bfloat16()
    add_lora(model, LoraConfig(rank=4, alpha=8), seed=0, base="base")
    agent = learner(model)
    before = agent.snapshot()
    stats = agent.update(mixed_groups(model))
    assert not stats.skipped and stats.grad_norm > 0
    assert any(not torch.equal(a, b) for a, b in zip(agent.snapshot(), before, strict=True))
