"""bfloat16 weights with float32 between the products of matrices (`learner.activations: float32`).

A bfloat16 model rounds to 8 bits what each operation hands on, and each gradient on its way back.
Here weights and what goes into a product are bfloat16 and all else is float32: a product's sums,
norms, activations, the residual stream, and their gradients. It takes up to twice the memory for
activations and roughly halves a gradient's error (docs/learner.md).

Experts, routers and recurrent layers multiply by themselves: between their input and their output
they stay in bfloat16. So does the kernel of attention on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from vlrl.lean.products import FastLinear
from vlrl.models.patch_embed import PatchProjection


def use_wide_activations(model: torch.nn.Module) -> None:
    """Exchange classes of a Qwen-VL model's parts; names and weights stay. Linear layers take
    float32 as they are (lean/products.py), and so do RMS norms. In a float32 model nothing
    changes."""
    inside: set[torch.nn.Module] = set()
    for module in model.modules():
        if module in inside or isinstance(module, FastLinear):
            continue
        if type(module) in _WIDE:
            module.__class__ = _WIDE[type(module)]
        elif module._parameters and not type(module).__name__.endswith("RMSNorm"):
            module.register_forward_pre_hook(_narrow, with_kwargs=True)
            module.register_forward_hook(_widen)
            inside.update(module.modules())


class _Embedding(torch.nn.Embedding):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).float()


class _LayerNorm(torch.nn.LayerNorm):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)  # Qwen's have both
        return functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


class _PatchProjection(PatchProjection):
    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return super().forward(patches.float())


_WIDE: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    torch.nn.Embedding: _Embedding,
    torch.nn.LayerNorm: _LayerNorm,
    PatchProjection: _PatchProjection,
}


def _narrow(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What goes into a part that multiplies by itself, in its weights' type."""
    dtype = next(iter(module._parameters.values())).dtype

    def narrow(value: Any) -> Any:
        is_wide = isinstance(value, torch.Tensor) and value.dtype == torch.float32
        return value.to(dtype) if is_wide else value

    return tuple(map(narrow, args)), {name: narrow(value) for name, value in kwargs.items()}


def _widen(module: Any, args: Any, output: Any) -> Any:
    """What comes out of it, in float32."""
    if isinstance(output, tuple):
        return tuple(_widen(module, args, value) for value in output)
    is_narrow = isinstance(output, torch.Tensor) and output.dtype == torch.bfloat16
    return output.float() if is_narrow else output
