"""Computing again on the way back what a forward pass would otherwise keep.

Always, because it costs little (`use_cheap_recompute`): norms keep their input and one number a
token, gated MLPs what their first products are, and not their activations.

Gradient checkpointing (`use_recompute`): each half of a decoder layer, each block of the vision
tower and each of its mergers keeps its input and, on a CPU, its attention's output; all else is
computed again. The MLP's half works on a stretch of tokens at a time, so that not even one layer's
intermediate values are there at once.

The model stays in eval mode (transformers' own switch works in train mode only), so there is no
dropout to repeat. torch.utils.checkpoint puts hooks on every tensor of a part: for a small model
they cost more than what is computed again, so parts are autograd functions of their inputs here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from vlrl.lean.attention import Kept
from vlrl.lean.products import FastLinear

STRETCH = {"cpu": 512, "cuda": 4096}
"""Tokens that a recomputed MLP works on at once."""


def use_cheap_recompute(model: Any) -> None:
    """Make a Qwen-VL model's norms and gated MLPs keep less; gradients are the same up to the
    order of sums."""
    for module in model.modules():
        if isinstance(module.forward, Again):
            continue
        if type(module).__name__.endswith("RMSNorm"):
            is_plain = hasattr(module, "variance_epsilon")  # Qwen3.5's scale is 1 + weight
            module.forward = _PlainNorm(module) if is_plain else _Norm(module)
        elif all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
            module.forward = _GatedMlp(module)


def use_recompute(model: Any) -> None:
    """Make the layers of a Qwen-VL model keep less for the backward pass."""
    visual = model.model.visual
    for layer in model.model.language_model.layers:
        if not isinstance(layer.forward, Again):
            layer.forward = _Halves(layer) if hasattr(layer, "self_attn") else _Whole(layer)
    for part in (*visual.blocks, visual.merger, *getattr(visual, "deepstack_merger_list", ())):
        if not isinstance(part.forward, Again):
            part.forward = _Whole(part)


class Again:
    """A module's forward in which something is computed again for the backward pass."""


class _Part:
    """Modules that are computed again together.

    last: the linear layer at their end, where only a sum takes its output: it isn't repeated.
    """

    def __init__(self, *modules: torch.nn.Module, last: torch.nn.Module | None = None) -> None:
        self._owners = [m for module in modules for m in module.modules() if m._parameters]
        self._last = last if isinstance(last, FastLinear) else None  # one with adapters is repeated

    def again(self, forward: Callable[..., Any], *inputs: torch.Tensor, **kwargs: Any) -> Any:
        """`forward`'s result; for a backward pass it is called once more. Keyword arguments (masks,
        the attention's layout) are kept as they are. A part of a part that is computed again is
        not."""
        if not torch.is_grad_enabled() or Kept.current() is not None:
            return forward(*inputs, **kwargs)
        return self.from_inputs(partial(forward, **kwargs), *inputs)

    def from_inputs(self, forward: Callable[..., Any], *inputs: torch.Tensor) -> Any:
        """The same, in another part too."""
        # Asked for now: shards are put together for each pass (see distributed/sharding.py).
        parameters = (p for m in self._owners for p in m._parameters.values() if p is not None)
        return _FromInputs.apply(forward, self._last, len(inputs), *inputs, *parameters)


class _FromInputs(torch.autograd.Function):
    """Keeps a function's inputs. `forward` uses the parameters, which are named for their gradient:
    tensors are the inputs and then them."""

    @staticmethod
    def forward(ctx: Any, forward: Any, last: Any, num_inputs: int, *tensors: torch.Tensor) -> Any:
        inputs = tensors[:num_inputs]
        ctx.forward, ctx.last, ctx.parameters = forward, last, tensors[num_inputs:]
        ctx.save_for_backward(*inputs)
        ctx.kept = Kept()
        with ctx.kept.time(replays=False):
            return forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        wanted = ctx.needs_input_grad[3:]
        inputs = zip(ctx.saved_tensors, wanted, strict=False)
        leaves = [x.detach().requires_grad_(is_wanted) for x, is_wanted in inputs]
        with torch.enable_grad(), ctx.kept.time(replays=True), _without_result(ctx.last):
            output = ctx.forward(*leaves)
        tensors = zip((*leaves, *ctx.parameters), wanted, strict=True)
        sources = [x for x, is_wanted in tensors if is_wanted]
        found = iter(torch.autograd.grad(output, sources, grads[0], allow_unused=True))
        return None, None, None, *(next(found) if is_wanted else None for is_wanted in wanted)


class _RmsNorm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + epsilon), as transformers computes it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = x.to(torch.float32)
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight, scale = ctx.saved_tensors
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        unit = x.to(torch.float32) * scale
        by_unit = grads[0] * unit
        grad_weight = by_unit.flatten(0, -2).sum(dim=0).to(weight.dtype) if wants_weight else None
        if not wants_x:
            return None, grad_weight, None
        mean = (by_unit @ weight.to(by_unit.dtype))[..., None] / weight.numel()
        grad = (grads[0] * weight).to(torch.float32)
        return grad.sub_(unit.mul_(mean)).mul_(scale).to(x.dtype), grad_weight, None


class _Whole(Again):
    """All of a module."""

    def __init__(self, module: Any) -> None:
        self._forward = module.forward
        mlp = getattr(module, "mlp", module)
        self._part = _Part(module, last=getattr(mlp, "linear_fc2", None))

    def __call__(self, hidden: torch.Tensor, **kwargs: Any) -> Any:
        return self._part.again(self._forward, hidden, **kwargs)


class _Norm(Again):
    """In a part that is computed again too, where all its norms' values would be there at once."""

    def __init__(self, norm: Any) -> None:
        self._forward = norm.forward
        self._part = _Part(norm)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return self._forward(hidden)
        return self._part.from_inputs(self._forward, hidden)


class _PlainNorm(Again):
    """With a gradient that is written out: cheaper than computing the norm again."""

    def __init__(self, norm: Any) -> None:
        self._norm = norm

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return _RmsNorm.apply(hidden, self._norm.weight, self._norm.variance_epsilon)


class _GatedMlp(Again):
    """Both halves of the first product are kept, their activation and product are not."""

    def __init__(self, mlp: Any) -> None:
        self._mlp = mlp
        self._part = _Part(mlp.down_proj, last=mlp.down_proj)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        mlp = self._mlp
        return self._part.again(self._down, mlp.gate_proj(hidden), mlp.up_proj(hidden))

    def _down(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return self._mlp.down_proj(self._mlp.act_fn(gate) * up)


class _Halves(Again):
    """A decoder layer: attention and MLP by themselves, each with its norm and residual."""

    def __init__(self, layer: Any) -> None:
        self._forward = layer.forward
        self._layer = layer
        self._is_dense = hasattr(layer.mlp, "gate_proj")  # experts are routed all at once
        last = layer.mlp.down_proj if self._is_dense else None
        attention = layer.self_attn
        self._first = _Part(layer.input_layernorm, attention)
        self._second = _Part(attention.o_proj, layer.post_attention_layernorm, layer.mlp, last=last)

    def __call__(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return self._forward(hidden_states, **kwargs)
        attended = self._first.again(self._attend, hidden_states, **kwargs)
        if not self._is_dense:
            return self._second.again(self._feed, hidden_states, attended)
        num = -(-attended.shape[1] // STRETCH[attended.device.type])
        stretches = zip(hidden_states.chunk(num, dim=1), attended.chunk(num, dim=1), strict=True)
        return torch.cat([self._second.again(self._feed, *one) for one in stretches], dim=1)

    def _attend(self, hidden: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The attention's output before its projection: on a CPU that is kept anyway."""
        normed = self._layer.input_layernorm(hidden)
        with _computing(self._layer.self_attn.o_proj, _identity):
            return self._layer.self_attn(hidden_states=normed, **kwargs)[0]

    def _feed(self, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        mixed = hidden + self._layer.self_attn.o_proj(attended)
        return mixed + self._layer.mlp(self._layer.post_attention_layernorm(mixed))


@contextmanager
def _computing(module: Any, forward: Callable[..., Any]) -> Generator[None]:
    """Inside, the module computes something else."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


@contextmanager
def _without_result(linear: Any) -> Generator[None]:
    if linear is None:
        yield
        return
    with _computing(linear, linear.without_result):
        yield


def _identity(hidden: torch.Tensor) -> torch.Tensor:
    return hidden
