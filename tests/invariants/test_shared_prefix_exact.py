"""Packing, padding, micro-batching and shared prefixes change neither log-probs nor gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tiny_groups import (
    gradients,
    group,
    image,
    mixed_groups,
    packed_logprobs,
    plain_logprobs,
    tiny_model,
    worst_gradient_error,
)
from vlrl.models.load import FAMILIES, RECURRENT

Places = dict[tuple[int, int], torch.Tensor]


def weighted(logprobs: Places) -> torch.Tensor:
    """A value with another weight for every token, so that no two may be swapped."""
    values = [
        (x * (1 + 0.1 * torch.arange(len(x)) + place + 0.3 * index)).mean()
        for (place, index), x in sorted(logprobs.items())
    ]
    return torch.stack(values).sum()


def worst(found: Places, expected: Places) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[p] - expected[p]).detach().abs().max()) for p in expected)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in RECURRENT])
def test_packed_equals_one_sequence_at_a_time(family: str, tied: bool) -> None:
    model = tiny_model(family, tied=tied)
    groups = mixed_groups(model)
    found, expected = packed_logprobs(model, groups), plain_logprobs(model, groups)
    assert worst(found, expected) < 1e-5
    error = worst_gradient_error(
        gradients(model, weighted(found)), gradients(model, weighted(expected))
    )
    assert error < 1e-5


@pytest.mark.parametrize("family", RECURRENT)
def test_recurrent_layers_see_each_response_alone(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, whatever a model casts to float32 for: the gradients of its decay rates are small
    differences of large sums, of which float32 leaves two to five digits, packed or not."""
    model = tiny_model(family)
    groups = mixed_groups(model)
    found, expected = packed_logprobs(model, groups), plain_logprobs(model, groups)
    assert worst(found, expected) < 1e-5
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    model.set_experts_implementation("eager")
    model.double()
    groups = [
        replace(g, images=tuple(replace(i, pixel_values=i.pixel_values.double()) for i in g.images))
        for g in groups
    ]
    found, expected = packed_logprobs(model, groups), plain_logprobs(model, groups)
    assert next(iter(found.values())).dtype == torch.float64
    assert worst(found, expected) < 1e-12
    error = worst_gradient_error(
        gradients(model, weighted(found)), gradients(model, weighted(expected))
    )
    assert error < 1e-9


def test_frames_of_a_video_as_images() -> None:
    """Frames of one size, two of them the same; another group with some of them."""
    rng = torch.Generator().manual_seed(4)
    frames = [image(MODEL, 4, 6, rng) for _ in range(5)]
    frames.insert(2, frames[1])
    groups = [
        group(rng, prompt=5, responses=(7, 3), images=frames),
        group(rng, prompt=2, responses=(4,), images=frames[2:4]),
    ]
    found, expected = packed_logprobs(MODEL, groups), plain_logprobs(MODEL, groups)
    assert worst(found, expected) < 1e-5
    error = worst_gradient_error(
        gradients(MODEL, weighted(found)), gradients(MODEL, weighted(expected))
    )
    assert error < 1e-5


def test_the_vision_tower_matters() -> None:
    """Else the test above could pass with images ignored on both sides."""
    model = tiny_model()
    found = gradients(model, weighted(packed_logprobs(model, mixed_groups(model))))
    vision = {n: g for n, g in found.items() if ".visual." in n}
    assert any("deepstack" in name for name in vision)
    for name, gradient in vision.items():
        if "k.bias" not in name:
            assert gradient.abs().max() > 0, name


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 1000),
    prompts=st.lists(
        st.tuples(
            st.integers(1, 60),  # text tokens
            st.integers(0, 2),  # images
            st.lists(st.integers(0, 30), min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=4,
    ),
    max_tokens=st.integers(1, 300),
    max_patches=st.sampled_from([1, 20, 10_000]),
)
def test_no_budget_changes_anything(
    seed: int,
    prompts: list[tuple[int, int, list[int]]],
    max_tokens: int,
    max_patches: int,
) -> None:
    model = MODEL
    rng = torch.Generator().manual_seed(seed)
    sizes = ((2, 4), (4, 4))
    groups = [
        group(
            rng,
            prompt=text,
            responses=responses,
            images=[image(model, *size, rng) for size in sizes[:num_images]],
        )
        for text, num_images, responses in prompts
    ]
    expected = {p: x for p, x in plain_logprobs(model, groups).items() if len(x)}
    found = packed_logprobs(model, groups, max_tokens, max_patches)
    assert found.keys() == expected.keys()
    if not expected:
        return
    assert worst(found, expected) < 1e-5
    error = worst_gradient_error(
        gradients(model, weighted(found)), gradients(model, weighted(expected))
    )
    assert error < 1e-5


def test_two_groups_with_the_same_image() -> None:
    model = MODEL
    rng = torch.Generator().manual_seed(1)
    picture = image(model, 4, 6, rng)
    groups = [group(rng, prompt=3, responses=(4, 2), images=[picture]) for _ in range(2)]
    assert worst(packed_logprobs(model, groups), plain_logprobs(model, groups)) < 1e-5


def test_identical_responses_have_identical_log_probs() -> None:
    model = MODEL
    rng = torch.Generator().manual_seed(2)
    one = group(rng, prompt=5, responses=(6,))
    twice = replace(one, responses=(*one.responses, replace(one.responses[0], index=1)))
    found = packed_logprobs(model, [twice])
    torch.testing.assert_close(found[0, 0], found[0, 1], rtol=0, atol=1e-6)


def test_later_responses_are_invisible_to_earlier_ones_and_to_the_prompt() -> None:
    model = MODEL
    rng = torch.Generator().manual_seed(3)
    first = group(rng, prompt=9, responses=(7, 5, 11))
    other = group(rng, prompt=9, responses=(7, 5, 11))
    mixed = replace(first, responses=(first.responses[0], *other.responses[1:]))
    a, b = packed_logprobs(model, [first]), packed_logprobs(model, [mixed])
    torch.testing.assert_close(a[0, 0], b[0, 0], rtol=0, atol=1e-6)
    assert float((a[0, 1] - b[0, 1]).detach().abs().max()) > 1e-3


MODEL = tiny_model()
