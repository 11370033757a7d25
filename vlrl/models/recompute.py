"""Computing again on the way back what a forward pass would otherwise keep.

Always, because it costs little (`use_cheap_recompute`): what norms and the activations of
gated MLPs make of tensors that are kept anyway.

Gradient checkpointing (`use_recompute`): each half of a decoder layer, each block of the vision
tower and each of its mergers keeps its input and, on a CPU, its attention's output; all else is
computed again. The MLP's half works on a stretch of tokens at a time, so that not even one layer's
intermediate values are there at once.

The model stays in eval mode (transformers' own switch works in train mode only), so there is no
dropout to repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch.utils.checkpoint import checkpoint

from vlrl.lean.attention import Kept

STRETCH = {"cpu": 512, "cuda": 4096}
"""Tokens that a recomputed MLP works on at once."""


def use_cheap_recompute(model: Any) -> None:
    """Make a Qwen-VL model's norms and gated MLPs keep their inputs only; gradients are the same
    to the bit."""
    for module in model.modules():
        if isinstance(module.forward, _Again):
            continue
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = _Norm(module)
        elif all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
            module.forward = _GatedMlp(module)


def use_recompute(model: Any) -> None:
    """Make the layers of a Qwen-VL model keep less for the backward pass."""
    visual = model.model.visual
    for layer in model.model.language_model.layers:
        if not isinstance(layer.forward, _Again):
            split = hasattr(layer, "self_attn")
            layer.forward = _Halves(layer) if split else _Again(layer.forward)
    for part in (*visual.blocks, visual.merger, *getattr(visual, "deepstack_merger_list", ())):
        if not isinstance(part.forward, _Again):
            part.forward = _Again(part.forward)


def again(forward: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    """`forward`'s result; for a backward pass it is called once more. Keyword arguments (masks, the
    attention's layout) are kept as they are. A part of a part that is computed again is not."""
    if not torch.is_grad_enabled() or Kept.current() is not None:
        return forward(*args, **kwargs)
    found = checkpoint(
        forward,
        *args,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=Kept().contexts,
        **kwargs,
    )
    return cast(torch.Tensor, found)


class _Again:
    """A part's forward, computed again for the backward pass."""

    def __init__(self, forward: Any) -> None:
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return again(self._forward, *args, **kwargs)


class _Norm(_Again):
    """Inside a part that is computed again too, where the values of all its norms would be there
    at once. A checkpoint in a checkpoint would cost more than the norm, so there it is none."""

    def __init__(self, norm: Any) -> None:
        super().__init__(norm.forward)
        self._norm = norm

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled() or Kept.current() is None:
            return again(self._forward, hidden)
        # Asked for now: shards are put together for each pass (see distributed/sharding.py).
        return _FromInput.apply(self._forward, hidden, *self._norm.parameters())


class _FromInput(torch.autograd.Function):
    """Keeps a function's input; `forward` uses the parameters, which are named
    for their gradient."""

    @staticmethod
    def forward(ctx: Any, forward: Any, hidden: torch.Tensor, *parameters: torch.Tensor) -> Any:
        ctx.forward, ctx.parameters = forward, parameters
        ctx.save_for_backward(hidden)
        return forward(hidden)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (hidden,) = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        with torch.enable_grad():
            leaf = hidden.detach().requires_grad_(wanted[0])
            output = ctx.forward(leaf)
        inputs = [
            x for x, is_wanted in zip((leaf, *ctx.parameters), wanted, strict=True) if is_wanted
        ]
        found = iter(torch.autograd.grad(output, inputs, grads[0]))
        return None, *(next(found) if is_wanted else None for is_wanted in wanted)


class _GatedMlp(_Again):
    """Both halves of the first product are kept, their activation and product are not."""

    def __init__(self, mlp: Any) -> None:
        super().__init__(mlp.forward)
        self._mlp = mlp

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        mlp = self._mlp
        return again(self._down, mlp.gate_proj(hidden), mlp.up_proj(hidden))

    def _down(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return self._mlp.down_proj(self._mlp.act_fn(gate) * up)


class _Halves(_Again):
    """A decoder layer: attention and MLP by themselves, each with its norm and residual."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer.forward)
        self._layer = layer
        self._is_dense = hasattr(layer.mlp, "gate_proj")  # experts are routed all at once

    def __call__(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return self._forward(hidden_states, **kwargs)
        attended = again(self._attend, hidden_states, **kwargs)
        if not self._is_dense:
            return again(self._feed, hidden_states, attended)
        num = -(-attended.shape[1] // STRETCH[attended.device.type])
        stretches = zip(hidden_states.chunk(num, dim=1), attended.chunk(num, dim=1), strict=True)
        return torch.cat([again(self._feed, *stretch) for stretch in stretches], dim=1)

    def _attend(self, hidden: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The attention's output before its projection: on a CPU that is kept anyway."""
        normed = self._layer.input_layernorm(hidden)
        with _left_out(self._layer.self_attn.o_proj):
            return self._layer.self_attn(hidden_states=normed, **kwargs)[0]

    def _feed(self, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        mixed = hidden + self._layer.self_attn.o_proj(attended)
        return mixed + self._layer.mlp(self._layer.post_attention_layernorm(mixed))


@contextmanager
def _left_out(module: Any) -> Generator[None]:
    """Inside, the module hands on what it is given."""
    module.forward = _identity
    try:
        yield
    finally:
        del module.forward


def _identity(hidden: torch.Tensor) -> torch.Tensor:
    return hidden
