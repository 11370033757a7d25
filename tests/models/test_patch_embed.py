"""The patch projection against the convolution that it stands in for."""

from __future__ import annotations

import copy

import pytest
import torch

from vlrl.models.patch_embed import PatchProjection, use_patch_projection
from vlrl.models.random_tiny import MediaTokens, TinySize, random_model

MEDIA = MediaTokens(vision_start=1, vision_end=2, image=3, video=4)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_the_vision_tower_computes_the_same(family: str) -> None:
    plain = random_model(family, TinySize(), MEDIA)
    model = copy.deepcopy(plain)
    use_patch_projection(model)
    use_patch_projection(model)  # a second time changes nothing
    names = [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in model.named_parameters()] == names
    conv = plain.model.visual.patch_embed.proj
    pixels = torch.randn(24, conv.weight[0].numel(), generator=torch.Generator().manual_seed(0))
    outputs = [m.model.visual.patch_embed(pixels) for m in (plain, model)]
    assert outputs[0].shape == (24, conv.out_channels)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    for old, new in zip(
        plain.model.visual.patch_embed.parameters(),
        model.model.visual.patch_embed.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(new.grad, old.grad, rtol=1e-4, atol=1e-4)


def test_a_real_convolution_is_refused() -> None:
    with pytest.raises(ValueError, match="separate patches"):
        PatchProjection(torch.nn.Conv3d(3, 8, kernel_size=(2, 4, 4), stride=(2, 2, 2)))
