"""The vision tower's first layer as a matrix product.

Its convolution has a stride equal to its kernel: each patch is seen once, by itself. Written as a
linear layer over flat patches it computes the same, without the slow gradient of a convolution.
"""

from __future__ import annotations

from typing import Any

import torch

from vlrl.lean.products import linear


class PatchProjection(torch.nn.Module):
    """Takes over a Conv3d's parameters under their names; [N, C, T, H, W] -> [N, E, 1, 1, 1].

    Raises:
        ValueError: the convolution's patches overlap, or it does more than project them.
    """

    def __init__(self, conv: torch.nn.Conv3d, *, onednn: bool = False) -> None:
        super().__init__()
        if conv.stride != conv.kernel_size or conv.groups != 1 or any(conv.padding):
            raise ValueError(f"not a projection of separate patches: {conv}")
        self.weight = conv.weight
        self.bias = conv.bias
        self.onednn = onednn

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """`patches`: each of exactly the kernel's size."""
        weight_EP = self.weight.flatten(1)
        flat = linear(patches.flatten(1), weight_EP, self.bias, onednn=self.onednn)
        return flat[:, :, None, None, None]


def use_patch_projection(model: Any, *, onednn: bool = False) -> None:
    """Exchange the convolution of a Qwen-VL model's vision tower; names of parameters stay."""
    embed = model.model.visual.patch_embed
    if isinstance(embed.proj, torch.nn.Conv3d):
        embed.proj = PatchProjection(embed.proj, onednn=onednn)
