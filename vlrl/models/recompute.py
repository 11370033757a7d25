"""Gradient checkpointing: a layer keeps its inputs only, and computes the rest again for backward.

Applied to every layer of the text part and every block of the vision tower. The model stays in eval
mode (transformers' own switch works in train mode only), so there is no dropout to repeat and the
gradients are the same; it costs one more forward of the layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def use_recompute(model: Any) -> None:
    """Make the layers of a Qwen-VL model keep less for the backward pass."""
    for layer in (*model.model.language_model.layers, *model.model.visual.blocks):
        if not isinstance(layer.forward, _Recomputed):
            layer.forward = _Recomputed(layer.forward)


class _Recomputed:
    """A layer's forward; keyword arguments (masks, the attention's layout) are kept as they are."""

    def __init__(self, forward: Any) -> None:
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        return checkpoint(
            self._forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs
        )
