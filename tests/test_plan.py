from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from typer.testing import CliRunner

from tests.tiny_groups import HEAD, HUGE, MEDIA, group, image, tiny_model
from vlrl.batch import Microbatch, microbatches
from vlrl.cli import app
from vlrl.config import LearnerConfig, LoraConfig, LossConfig, ModelConfig, RunConfig, parse
from vlrl.forward import predict, prompt_positions
from vlrl.learner import Learner
from vlrl.models.patch_embed import use_patch_projection
from vlrl.models.random_tiny import TinySize, random_model
from vlrl.models.recompute import use_cheap_recompute
from vlrl.plan.activations import backward_bytes, head_bytes
from vlrl.plan.estimate import GIB, Machine, Plan, make_plans, unfit
from vlrl.plan.model import meta_policy
from vlrl.plan.shapes import shape_name, shape_names
from vlrl.plan.sizes import PlanError, sizes_of
from vlrl.plan.warn import misfits

PROMPT_TEXT, RESPONSES = 40, (16, 30, 16, 7)


def microbatch(model: Any) -> Microbatch:
    rng = torch.Generator().manual_seed(0)
    g = group(rng, prompt=PROMPT_TEXT, responses=RESPONSES, images=[image(model, 8, 12, rng)])
    (batch,) = microbatches(
        [g], max_tokens=HUGE, max_patches=HUGE, positions=partial(prompt_positions, model)
    )
    return batch


def saved_bytes(model: Any, batch: Microbatch) -> int:
    """What autograd keeps of a forward pass, each storage once, parameters not counted."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in parameters:
            kept[pointer] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        predict(model, batch, HEAD)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"])
def test_activations_are_what_autograd_saves(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family).to(dtype)
    use_patch_projection(model)
    use_cheap_recompute(model)
    batch = microbatch(model)
    estimate = backward_bytes(
        sizes_of(model.config),
        torch.finfo(dtype).bits // 8,
        tokens=batch.token_ids_T.numel(),
        patches=8 * 12,
        on_cpu=True,
    )
    assert estimate == pytest.approx(saved_bytes(model, batch), rel=0.1)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_peak_of_an_update_is_what_the_allocator_gave_out(checkpointed: bool) -> None:
    """All of it: activations, gradients, and what backward needs for the moment.

    Of two micro-batches: in the second the gradients of all parameters are there.
    """
    agent = Learner(
        random_model("qwen3_vl", TinySize(hidden=128, num_layers=4, vocab_size=704), MEDIA),
        config=LearnerConfig(gradient_checkpointing=checkpointed, tokens_per_microbatch=900),
        loss=LossConfig(),
        temperature=1.0,
        banned_token_ids=(),
        max_response_tokens=64,
    )
    rng, lengths = torch.Generator().manual_seed(0), (64,) * 8
    groups = [
        group(rng, prompt=46, responses=lengths, images=[image(agent.model, 32, 32, rng)])
        for _ in range(2)
    ]
    agent.update(groups)  # makes the optimiser's state
    measured = allocator_peak(lambda: agent.update(groups))
    sizes = sizes_of(agent.model.config)
    estimate = backward_bytes(
        sizes,
        4,
        tokens=groups[0].num_tokens,
        patches=32 * 32,
        head=head_bytes(sizes.text, 4, chunk=sum(lengths)),
        on_cpu=True,
        checkpointed=checkpointed,
    )
    estimate -= 32 * 32 * sizes.vision.patch_values * 4  # on a CPU pixels are used where they lie
    gradients = 4 * sum(p.numel() for p in agent.model.parameters())
    assert estimate + gradients == pytest.approx(measured, rel=0.1)


def allocator_peak(call: Callable[[], object]) -> int:
    """The most bytes that torch held on the CPU beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()
    memory = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(num for _, num in memory))


PUBLISHED = {
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen3-vl-2b": 2_127_532_032,
    "qwen3-vl-4b": 4_437_815_808,
    "qwen3-vl-8b": 8_767_123_696,
    "qwen3-vl-30b-a3b": 31_070_754_032,
}
"""Half of each released checkpoint's bytes in bfloat16 (`total_size` of its safetensors index)."""


def test_every_shape_has_the_published_number_of_parameters() -> None:
    assert shape_names() == sorted(PUBLISHED)
    for name, published in PUBLISHED.items():
        assert (
            sum(p.numel() for p in meta_policy(ModelConfig(path=name)).parameters()) == published
        ), name


def test_hub_ids_mean_shapes() -> None:
    assert shape_name("Qwen/Qwen3-VL-30B-A3B-Thinking") == "qwen3-vl-30b-a3b"
    assert shape_name("Qwen/Qwen2.5-VL-7B-Instruct") == "qwen2.5-vl-7b"
    assert shape_name("Qwen/Qwen2.5-VL-7B-Instruct-AWQ") is None
    assert shape_name("tiny-qwen3-vl") is None


def config(**learner: Any) -> RunConfig:
    return parse(
        {
            "model": {"path": "qwen3-vl-2b"},
            "data": {
                "mixture": {"math_qa": {"share": 1, "recipes": ["gsm8k"]}},
                "max_prompt_tokens": 1500,
            },
            "sampler": {"max_tokens": 500},
            "learner": learner,
            "steps": 1,
        }
    )


def plans(gib: float, num_gpus: int = 1, model: Any = None, **learner: Any) -> list[Plan]:
    machine = Machine(num_gpus=num_gpus, memory_bytes=int(gib * GIB))
    policy = meta_policy(ModelConfig(path="qwen3-vl-2b", **(model or {})))
    return make_plans(config(**learner), policy, machine, dtype="bfloat16")


def test_fixed_parts_by_hand() -> None:
    """bf16 weights and gradients, fp32 copies and moments; keys of 28 layers, 8 heads of 128."""
    plain, checkpointed = plans(80)
    num = PUBLISHED["qwen3-vl-2b"]
    for one in (plain, checkpointed):
        learner = one.learner
        fixed = (learner.weights, learner.masters, learner.optimizer, learner.gradients)
        assert fixed == (2 * num, 4 * num, 8 * num, 2 * num)
    assert checkpointed.learner.activations < plain.learner.activations / 6
    sampler = plain.sampler
    assert sampler.kv_bytes_per_token == 28 * 2 * 8 * 128 * 2
    assert sampler.kv_cache == int(80 * GIB * 0.45) - 2 * num - GIB
    assert sampler.sequences == sampler.kv_cache // sampler.kv_bytes_per_token // 2000


def test_float32_between_products_doubles_activations_and_nothing_else() -> None:
    (narrow, *_), (wide, *_) = plans(80), plans(80, activations="float32")
    sizes = sizes_of(meta_policy(ModelConfig(path="qwen3-vl-2b")).config)
    head = head_bytes(sizes.text, 2, chunk=4096)
    grown = (wide.learner.activations - head) / (narrow.learner.activations - head)
    assert grown == pytest.approx(2, rel=1e-3)  # but for what is float32 anyway
    assert replace(wide.learner, activations=0) == replace(narrow.learner, activations=0)


def test_what_is_frozen_or_sharded_costs_less() -> None:
    plain, _, sharded, _ = plans(80, num_gpus=8)
    assert sharded.learner.optimizer * 8 == pytest.approx(plain.learner.optimizer)
    assert sharded.learner.activations == plain.learner.activations
    frozen, _ = plans(80, model={"freeze": ("model.visual.*",)})
    assert frozen.parameters.trained < plain.parameters.trained
    assert frozen.learner.activations < plain.learner.activations
    assert frozen.learner.weights == plain.learner.weights
    adapters, _ = plans(80, model={"lora": LoraConfig(rank=8)})
    assert adapters.parameters.trained < adapters.parameters.total / 50
    assert adapters.learner.optimizer < plain.learner.optimizer / 50


def test_the_largest_microbatch_fits_and_one_more_token_does_not() -> None:
    (_, one) = plans(140)
    assert one.largest_microbatch > one.longest == 2000
    at = plans(140, tokens_per_microbatch=one.largest_microbatch)[1]
    beyond = plans(140, tokens_per_microbatch=one.largest_microbatch + 1)[1]
    assert at.learner.peak <= at.room < beyond.learner.peak
    assert not at.problems
    (problem,) = beyond.problems
    assert f"{one.largest_microbatch} fits" in problem


def test_what_cannot_fit_says_what_to_change() -> None:
    model = meta_policy(ModelConfig(path="qwen3-vl-2b"))

    def problems(gib: int, **learner: Any) -> list[str]:
        return unfit(config(**learner), model, gib * GIB, dtype="bfloat16")

    (fixed,) = problems(60)
    assert "step alone take 43.6 GiB" in fixed and "model.lora" in fixed
    small = problems(8)
    assert "vLLM has 3.6 GiB" in small[0] and len(small) == 2
    (activations,) = problems(82)
    assert "learner.gradient_checkpointing=true" in activations
    (budget,) = problems(140)
    assert "learner.tokens_per_microbatch=16384 takes up to" in budget
    assert not problems(140, gradient_checkpointing=True, tokens_per_microbatch=4096)


def test_a_sampler_that_sleeps_leaves_room_to_work_but_not_to_keep() -> None:
    """All of 140 GiB but two guesses; what the learner keeps still lies beside vLLM's 45%."""
    model = meta_policy(ModelConfig(path="qwen3-vl-8b"))

    def plan(sampler: dict[str, Any]) -> Plan:
        cfg = config(gradient_checkpointing=True)
        cfg = cfg.model_copy(update={"sampler": cfg.sampler.model_copy(update=sampler)})
        machine = Machine(num_gpus=1, memory_bytes=140 * GIB)
        return make_plans(cfg, model, machine, dtype="bfloat16")[1]

    awake, asleep, away = plan({}), plan({"sleep": True}), plan({"servers": ("http://a",)})
    assert awake.room == 139 * GIB - int(0.45 * 140 * GIB)
    assert asleep.room == 138 * GIB and away.room == 139 * GIB
    resting = 14 * PUBLISHED["qwen3-vl-8b"]  # weights 2, copies 4, moments 8
    assert asleep.learner.resting == resting > awake.room
    assert not asleep.fits and "while vLLM samples" in asleep.problems[0]
    assert away.sampler.share == 0 < away.sampler.sequences
    small = plan({"sleep": True, "gpu_memory_utilization": 0.15})
    assert small.learner.resting < 139 * GIB - small.sampler.share


def test_a_machine_with_a_gpu_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not misfits(config())
    small = SimpleNamespace(total_memory=16 * GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: small)
    assert any("while vLLM samples" in problem for problem in misfits(config()))


def test_an_unknown_family_is_refused() -> None:
    model = tiny_model("qwen3_vl")
    model.config.model_type = "llava"
    with pytest.raises(PlanError, match="llava"):
        sizes_of(model.config)


def test_the_command_says_whether_it_fits(tmp_path: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "model: {path: Qwen/Qwen3-VL-2B-Instruct}\n"
        "data: {mixture: {math_qa: {share: 1, recipes: [gsm8k]}}}\nsteps: 1\n"
    )
    arguments = ["plan", str(path), "learner.gradient_checkpointing=true", "--memory"]
    too_small = CliRunner().invoke(app, [*arguments, "40", "--gpus", "8"])
    assert too_small.exit_code == 1, too_small.output
    assert "does not fit" in too_small.output and "sharded over 8" in too_small.output
    fits = CliRunner().invoke(app, [*arguments, "141"])
    assert fits.exit_code == 0, fits.output
    models = CliRunner().invoke(app, [*arguments, "80", "--all-models"])
    assert all(name in models.output for name in PUBLISHED), models.output
