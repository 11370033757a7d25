from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests.test_learner import accumulated
from tests.tiny_groups import BANNED, MEDIA, mixed_groups, worst_gradient_error
from vlrl.config import LearnerConfig, LossConfig
from vlrl.learner import Learner
from vlrl.models.random_tiny import TinySize, random_model
from vlrl.models.recompute import STRETCH, Again

DEEP = TinySize(num_layers=8, vision_depth=8)


def learner(
    family: str,
    *,
    recompute: bool,
    freeze: tuple[str, ...] = (),
    dtype: torch.dtype = torch.float32,
) -> Learner:
    return Learner(
        random_model(family, DEEP, MEDIA).to(dtype),
        config=LearnerConfig(gradient_checkpointing=recompute, tokens_per_microbatch=150),
        loss=LossConfig(),
        temperature=1.0,
        banned_token_ids=BANNED,
        max_response_tokens=40,
        freeze_patterns=freeze,
    )


def bytes_kept(agent: Learner, run: Any) -> tuple[int, Any]:
    """Bytes that autograd keeps for the backward passes of `run`, weights left out. What a backward
    pass keeps for itself while it computes again is not counted."""
    own = {p.untyped_storage().data_ptr() for p in agent.model.parameters()}
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # so that no storage's address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    hooks, backward = torch.autograd.graph.saved_tensors_hooks, torch.autograd.backward

    def uncounted(*args: Any, **kwargs: Any) -> None:
        with hooks(lambda tensor: tensor, lambda tensor: tensor):
            backward(*args, **kwargs)

    with hooks(pack, lambda tensor: tensor), patch.object(torch.autograd, "backward", uncounted):
        result = run()
    return sum(kept.values()), result


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5"])
def test_the_same_gradients_from_a_fraction_of_the_memory(family: str) -> None:
    # An MLP in stretches of tokens rounds differently: float64 tells that from an error. Experts,
    # which torch multiplies in float32 at most, are not cut.
    dtype = torch.float32 if family == "qwen3_vl_moe" else torch.float64
    plain, lean = (learner(family, recompute=on, dtype=dtype) for on in (False, True))
    groups = mixed_groups(plain.model)
    kept, (loss, expected) = bytes_kept(plain, lambda: accumulated(plain, groups))
    kept_lean, (loss_lean, found) = bytes_kept(lean, lambda: accumulated(lean, groups))
    assert loss_lean == pytest.approx(loss, abs=1e-6)
    limit = 1e-6 if dtype == torch.float64 else 1e-5  # float32's own rounding
    assert worst_gradient_error(found, expected) < limit
    assert kept_lean < 0.6 * kept


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def test_norms_and_gated_mlps_keep_less_and_give_the_same_gradients(family: str) -> None:
    groups = mixed_groups(learner(family, recompute=False).model)
    results: list[tuple[int, Any]] = []
    for cheap in (False, True):
        agent = learner(family, recompute=False, dtype=torch.float64)
        if not cheap:
            for module in agent.model.modules():
                if isinstance(vars(module).get("forward"), Again):
                    del module.forward
        results.append(bytes_kept(agent, lambda agent=agent: accumulated(agent, groups)))
    (kept, (loss, expected)), (kept_cheap, (loss_cheap, found)) = results
    assert loss_cheap == loss
    assert worst_gradient_error(found, expected) < 1e-6
    assert kept_cheap < 0.95 * kept


def test_an_mlp_works_on_a_stretch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRETCH, "cpu", 16)
    plain, lean = (learner("qwen3_vl", recompute=on, dtype=torch.float64) for on in (False, True))
    groups = mixed_groups(plain.model)
    lengths: set[int] = set()
    for layer in lean.model.model.language_model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, args: lengths.add(args[0].shape[1]))
    _, expected = accumulated(plain, groups)
    _, found = accumulated(lean, groups)
    assert worst_gradient_error(found, expected) < 1e-6
    assert max(lengths) <= 16


def test_frozen_parts_and_log_probs_are_as_before() -> None:
    freeze = ("model.visual.blocks.0.*", "model.language_model.layers.0.*", "*embed_tokens*")
    plain, lean = (learner("qwen3_vl", recompute=on, freeze=freeze) for on in (False, True))
    groups = mixed_groups(plain.model)
    _, expected = accumulated(plain, groups)
    _, found = accumulated(lean, groups)
    assert worst_gradient_error(found, expected) < 3e-6
    for one, other in zip(lean.logprobs(groups), plain.logprobs(groups), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_routed_experts_are_counted_once() -> None:
    plain, lean = (learner("qwen3_vl_moe", recompute=on) for on in (False, True))
    groups = mixed_groups(plain.model)
    expected, found = plain.update(groups), lean.update(groups)
    assert expected.routers is not None
    assert found.routers == expected.routers


def test_parameters_keep_their_names() -> None:
    names = [
        [name for name, _ in learner("qwen3_vl", recompute=on).weights()] for on in (True, False)
    ]
    assert names[0] == names[1]
