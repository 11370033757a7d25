"""An update equals the plain one: one sequence at a time, the paper's formulas, torch's autograd.

Groups, images that groups share, budgets, cuts, frozen towers and recomputed layers are drawn at
random; loss, log-probs and every gradient must agree.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_learner import ON_POLICY, edited
from tests.tiny_groups import (
    BANNED,
    MEDIA,
    gradients,
    group,
    image,
    mixed_groups,
    plain_logprobs,
    tiny_model,
    worst_gradient_error,
)
from vlrl.batch import LearnerGroup
from vlrl.config import LearnerConfig, LossConfig
from vlrl.learner import Learner
from vlrl.models.load import FAMILIES, RECURRENT
from vlrl.models.random_tiny import TinySize, random_model
from vlrl.shared_prefix import use_shared_prefix

FROZEN = ("model.visual.*",)
Average = Literal["sequence", "token"]


def make_learner(model: Any, loss: LossConfig, freeze: tuple[str, ...], **config: Any) -> Learner:
    return Learner(
        model,
        config=LearnerConfig(**config),
        loss=loss,
        temperature=ON_POLICY.temperature,
        banned_token_ids=BANNED,
        max_response_tokens=40,
        freeze_patterns=freeze,
    )


def plain_sapo(model: Any, groups: Sequence[LearnerGroup], average: Average) -> torch.Tensor:
    """Eqs. 5 and 6 of arXiv 2511.20347 with f(1) left out, from whole sequences."""
    values: list[torch.Tensor] = []
    for (place, index), logprobs in plain_logprobs(model, groups, ON_POLICY).items():
        response = groups[place].responses[index]
        ratio = (logprobs - torch.tensor(response.sampler_logprobs)).exp()
        tau = 1.0 if response.advantage > 0 else 1.05
        gate = 4 / tau * torch.sigmoid(tau * (ratio - 1)) - 2 / tau
        values.append(-response.advantage * gate)
    if average == "token":
        return torch.cat(values).mean()
    # An empty response counts and has no gradient, not even one of zeros.
    return torch.stack([v.mean() if len(v) else torch.zeros(()) for v in values]).mean()


def near_policy(model: Any, groups: Sequence[LearnerGroup], seed: int) -> list[LearnerGroup]:
    """The groups as sampled by a policy that is about 0.3 nats a token from the model's."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        own = plain_logprobs(model, groups, ON_POLICY)

    def change(place: int, r: Any) -> dict[str, Any]:
        noise = 0.3 * torch.randn(len(r.token_ids), generator=rng)
        return {"sampler_logprobs": tuple((own[place, r.index] + noise).tolist())}

    return [edited(g, lambda r, n=n: change(n, r)) for n, g in enumerate(groups)]


Prompt = tuple[int, tuple[int, ...], list[int]]
PROMPTS = st.lists(
    st.tuples(
        st.integers(1, 40),  # text tokens
        st.sampled_from([(), (0,), (1,), (0, 1, 2), (2, 0, 0)]),  # images, some shared
        st.lists(st.integers(0, 20), min_size=1, max_size=3),  # responses' lengths
    ),
    min_size=1,
    max_size=4,
)
MAX_TOKENS = st.integers(1, 250)
MAX_PATCHES = st.sampled_from([1, 30, 10_000])


def drawn_groups(model: Any, prompts: list[Prompt], seed: int) -> list[LearnerGroup]:
    """Of a near policy; with a response token somewhere."""
    rng = torch.Generator().manual_seed(seed)
    pictures = [image(model, *size, rng) for size in ((2, 4), (4, 4), (2, 2))]
    groups = [
        group(rng, prompt=text, responses=lengths, images=[pictures[i] for i in images])
        for text, images, lengths in prompts
    ]
    if not any(length for _, _, lengths in prompts for length in lengths):
        groups.append(group(rng, prompt=3, responses=(2,)))
    return near_policy(model, groups, seed)


@settings(max_examples=16, deadline=None)
@given(
    family=st.sampled_from(["qwen3_vl", "qwen2_5_vl", "qwen2_vl", "qwen3_vl_moe"]),
    seed=st.integers(0, 1000),
    prompts=PROMPTS,
    max_tokens=MAX_TOKENS,
    max_patches=MAX_PATCHES,
    chunk=st.integers(1, 40),
    average=st.sampled_from(["sequence", "token"]),
    freeze=st.sampled_from([(), FROZEN]),
    recompute=st.booleans(),
)
def test_an_update_equals_the_plain_one(
    family: str,
    seed: int,
    prompts: list[Prompt],
    max_tokens: int,
    max_patches: int,
    chunk: int,
    average: Average,
    freeze: tuple[str, ...],
    recompute: bool,
) -> None:
    model = tiny_model(family)
    groups = drawn_groups(model, prompts, seed)
    agent = make_learner(
        model,
        LossConfig(average=average),
        freeze,
        tokens_per_microbatch=max_tokens,
        patches_per_microbatch=max_patches,
        logprob_chunk=chunk,
        gradient_checkpointing=recompute,
    )
    collector, work = agent._backward(groups)
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    assert work.images.num_forwards == work.images.num_unique
    loss = plain_sapo(model, groups, average)
    assert collector.loss == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-6)
    expected = gradients(model, loss)
    # A part that no response feels (all of the vision tower without images) has no gradient.
    assert worst_gradient_error(found, expected) < 1e-5


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_bfloat16_is_close_to_fp32_and_no_further_than_the_plain_model(family: str) -> None:
    """The same weights, those that bfloat16 can hold, computed with in both.

    Log-probs within 1e-2. The gradient is itself known to little more than that in bfloat16 (these
    weights are sharper than a real model's): no further off than one sequence at a time is.
    """
    exact, half = in_both_types(tiny_model(family))
    groups = near_policy(exact, mixed_groups(exact), seed=0)
    logprobs, exact_gradient, error = bfloat16_errors(exact, half, groups)
    assert logprobs < 1e-2
    plain_sapo(half, groups, "sequence").backward()
    assert error < 2e-2
    assert error < 1.1 * relative(whole_gradient(half), exact_gradient)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_with_float32_between_products_bfloat16_is_within_a_hundredth(
    family: str, checkpointed: bool, seed: int
) -> None:
    """Of fp32 with the same weights: log-probs and the whole gradient, of every family as it is
    initialised; of those without recurrent layers with sharpened weights too (the gradients of
    recurrent layers' decay rates are then small differences of large sums, in fp32 as well). And
    nearer than with bfloat16 between them. `pytest -s` shows both."""
    models = {"initialised": random_model(family, TinySize(), MEDIA, seed)}
    if family not in RECURRENT:
        models["sharpened"] = tiny_model(family, seed=seed)
    for name, model in models.items():
        exact, half = in_both_types(model)
        groups = near_policy(exact, mixed_groups(exact), seed=0)
        config = {"gradient_checkpointing": checkpointed}
        *_, default = bfloat16_errors(exact, copy.deepcopy(half), groups, **config)
        logprobs, _, error = bfloat16_errors(exact, half, groups, activations="float32", **config)
        print(f"{family} {name} {seed}: {default:.2e}, float32 between products {error:.2e}")
        assert logprobs < 1e-2
        assert error < 1e-2
        assert error < 0.8 * default


def test_so_are_log_probs_with_flex_attention() -> None:
    """Whose kernel takes the weights' type; on a CPU it runs uncompiled, and forward alone."""
    exact, half = in_both_types(random_model("qwen3_vl", TinySize(), MEDIA, 0))
    groups = mixed_groups(exact)
    expected, found = (
        make_learner(model, LossConfig(), (), **config).logprobs(groups)
        for model, config in ((exact, {}), (half, {"activations": "float32", "attention": "flex"}))
    )
    assert relative(joined(found), joined(expected)) < 1e-2


@settings(max_examples=14, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    seed=st.integers(0, 1000),
    prompts=PROMPTS,
    max_tokens=MAX_TOKENS,
    max_patches=MAX_PATCHES,
)
def test_so_it_is_however_an_update_is_cut(
    family: str, seed: int, prompts: list[Prompt], max_tokens: int, max_patches: int
) -> None:
    exact, half = in_both_types(random_model(family, TinySize(), MEDIA, seed))
    groups = drawn_groups(exact, prompts, seed)
    _, exact_gradient, error = bfloat16_errors(
        exact,
        half,
        groups,
        activations="float32",
        tokens_per_microbatch=max_tokens,
        patches_per_microbatch=max_patches,
    )
    assert error < 1e-2
    if not family.endswith("moe"):  # fp32 is that of the plain sequences
        plain_sapo(exact, groups, "sequence").backward()
        assert relative(whole_gradient(exact), exact_gradient) < 1e-4


def in_both_types(model: Any) -> tuple[Any, Any]:
    """fp32 and bfloat16 with the same weights: those that bfloat16 can hold."""
    half = model.bfloat16()
    exact = copy.deepcopy(half).float()
    use_shared_prefix(exact)
    return exact, half


def bfloat16_errors(
    exact: Any, half: Any, groups: Sequence[LearnerGroup], **config: Any
) -> tuple[float, torch.Tensor, float]:
    """The error of log-probs; fp32's whole gradient; its error. Relative to fp32's.

    Another choice of an expert is a step and no rounding: both take those that fp32 chooses.
    """
    has_experts = hasattr(exact.config.get_text_config(), "num_experts")
    own = {"routing_replay": "learner"} if has_experts else {}
    reference = make_learner(exact, LossConfig(), (), **own)
    agent = make_learner(half, LossConfig(), (), **own, **config)
    groups = reference._as_of_now(groups) if has_experts else groups
    expected, found = (joined(one.logprobs(groups)) for one in (reference, agent))
    for one in (reference, agent):
        one._backward(groups)
    assert {p.grad.dtype for p in half.parameters() if p.grad is not None} == {torch.bfloat16}
    exact_gradient = whole_gradient(exact)
    error = relative(whole_gradient(half), exact_gradient)
    return relative(found, expected), exact_gradient, error


def joined(logprobs: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    return torch.cat([x for own in logprobs for x in own])


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def whole_gradient(model: Any) -> torch.Tensor:
    """All parameters' gradients in one vector, and none left in the model."""
    found = torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found
