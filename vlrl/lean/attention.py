"""Attention that keeps for the backward pass what it must, and no copies of it.

A row's tokens attend in a few calls, in each of which some stretches of the row see others. A token
may see two parts of the row in two calls: by the logarithms of their weights' sums the outputs are
put together to what one softmax over both would give, and each call goes back with those of the
whole. So a prompt's keys serve all of its responses and are never copied.

Autograd keeps every tensor that a fused attention call was given. Here the row's own queries, keys,
values and outputs are kept, and the calls' are taken from them again on the way back, some heads
and one call at a time. On a CPU the kernels are those that torch's scaled_dot_product_attention
takes there, called by name; elsewhere it is plain_attention.py.

A part of the model that is computed again (models/recompute.py) needn't attend again: see `Kept`.

Shapes: T tokens of the row, N rows of a call, L its queries and M its keys, A its tokens without
padding, H heads, K key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from vlrl.lean.plain_attention import plain_attention, plain_gradients

_FORWARD: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Stretches of the row as N rows of L places, padded at their end.

    first: of stretches that follow each other and want no padding: where they begin. They are
        views. Else the others say which tokens are gathered.
    token_NL: of each place; padding: its row's first. place_A: places that hold a token.
    """

    num: int
    length: int
    first: int | None
    token_NL: torch.Tensor
    place_A: torch.Tensor

    @staticmethod
    def of(stretches: Sequence[tuple[int, int]], device: torch.device) -> Rows:
        """Of each (start, length), in this order."""
        length = max(length for _, length in stretches)
        starts_N1 = torch.tensor([[start] for start, _ in stretches])
        is_token_NL = torch.arange(length) < torch.tensor([[length] for _, length in stretches])
        first = stretches[0][0]
        is_view = all(s == (first + i * length, length) for i, s in enumerate(stretches))
        return Rows(
            num=len(stretches),
            length=length,
            first=first if is_view else None,
            token_NL=(starts_N1 + torch.arange(length) * is_token_NL).flatten().to(device),
            place_A=is_token_NL.flatten().nonzero().flatten().to(device),
        )

    @property
    def num_tokens(self) -> int:
        """Places that are no padding."""
        return self.place_A.numel()

    def take(self, x_T: torch.Tensor) -> torch.Tensor:
        """[N, L, ...] of the row's [T, ...]; padding has some token's values."""
        if self.first is None:
            taken = x_T.index_select(0, self.token_NL)
        else:
            taken = x_T.narrow(0, self.first, self.num * self.length)
        return taken.unflatten(0, (self.num, self.length))

    def put(self, x_T: torch.Tensor, x_NL: torch.Tensor) -> None:
        """Write the tokens' values into the row's."""
        if self.first is None:
            x_T.index_copy_(0, self._tokens(), self._without_padding(x_NL))
        else:
            self.take(x_T).copy_(x_NL)

    def add(self, x_T: torch.Tensor, x_NL: torch.Tensor) -> None:
        """Add the tokens' values to the row's; a token has one place at most."""
        if self.first is None:
            x_T.index_add_(0, self._tokens(), self._without_padding(x_NL))
        else:
            self.take(x_T).add_(x_NL)

    def take_padded(self, x_T: torch.Tensor, padding: float) -> torch.Tensor:
        """`take`, with a value of its own in the padding."""
        taken = self.take(x_T)
        if self.num_tokens == self.num * self.length:
            return taken
        found = torch.full_like(taken, padding)
        found.flatten(0, 1)[self.place_A] = self._without_padding(taken)
        return found

    def _tokens(self) -> torch.Tensor:
        return self.token_NL.index_select(0, self.place_A)

    def _without_padding(self, x_NL: torch.Tensor) -> torch.Tensor:
        return x_NL.flatten(0, 1).index_select(0, self.place_A)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One fused call: which tokens see which.

    bias: [N, 1, 1, M] to add to the scores: -inf where a key is padding that a query would see.
    causal: queries and keys are the same tokens, and each sees those up to itself.
    joins: its queries have seen other keys in an earlier call. Calls that don't join come first,
        and each token is in one of them once, as a query and as a key.
    """

    queries: Rows
    keys: Rows
    bias: torch.Tensor | None = None
    causal: bool = False
    joins: bool = False


def whole_row(length: int, device: torch.device) -> tuple[Call]:
    """Every token attends to every token."""
    rows = Rows.of([(0, length)], device)
    return (Call(queries=rows, keys=rows),)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, calls: Sequence[Call], scale: float | None
) -> torch.Tensor:
    """The outputs [T, H, D] of a row's queries, keys and values [T, heads, D], with gradient."""
    return _Attention.apply(q, k, v, calls, scale)


@dataclass
class Kept:
    """Outputs of the attention in a part of a model that is computed twice.

    They are kept from the first time and taken the second: a few values a token, and the dearest
    operation isn't repeated.
    """

    results: list[Tensors] = field(default_factory=list[Tensors])
    replays: bool = False

    @staticmethod
    def current() -> Kept | None:
        """That of the part at work, if it is one that is computed twice."""
        return _kept.get()

    @contextmanager
    def time(self, *, replays: bool) -> Generator[None]:
        """Around the first time and, with `replays`, around the second."""
        self.replays = replays
        token = _kept.set(self)
        try:
            yield
        finally:
            _kept.reset(token)


_kept: ContextVar[Kept | None] = ContextVar("kept", default=None)


class _Attention(torch.autograd.Function):
    """Its saved tensors: q, k, v, the outputs, and the logarithms of the weights' sums."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, calls: Any, scale: Any
    ) -> torch.Tensor:
        kept = Kept.current()
        if kept is not None and kept.replays:
            results = kept.results.pop(0)
        else:
            results = _outputs(q, k, v, calls, scale)
            if kept is not None:
                kept.results.append(results)
        ctx.save_for_backward(q, k, v, *results)
        ctx.calls, ctx.scale = calls, scale
        return results[0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        q, k, v, out, lse = ctx.saved_tensors
        found = [torch.empty_like(x) for x in (q, k, v)]
        share = q.shape[1] // k.shape[1]
        for call in ctx.calls:
            for keys in _heads(call, k.shape[1], share):
                own = slice(keys.start * share, keys.stop * share)
                rows = (q[:, own], k[:, keys], v[:, keys], out[:, own], lse[:, own])
                sums = (found[0][:, own], found[1][:, keys], found[2][:, keys])
                _add_gradients(sums, call, (*rows, grads[0][:, own]), ctx.scale)
        return *found, None, None


def _heads(call: Call, num_keys: int, share: int) -> list[slice]:
    """Key-value heads that go back together: all, or where rows are copied few of them, for the
    copies; enough for every thread."""
    is_view = call.queries.first is not None and call.keys.first is not None
    step = num_keys if is_view else min(num_keys, -(-torch.get_num_threads() // share))
    return [slice(i, min(i + step, num_keys)) for i in range(0, num_keys, step)]


def _outputs(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, calls: Sequence[Call], scale: float | None
) -> Tensors:
    """Outputs [T, H, D], and the logarithms [T, H] of the sums of each token's weights."""
    run = _FORWARD if q.device.type == "cpu" else plain_attention
    out_T = torch.empty_like(q, memory_format=torch.contiguous_format)
    # Of a bfloat16 row the kernels give them in float32.
    lse_T = q.new_empty(q.shape[:2], dtype=torch.promote_types(q.dtype, torch.float32))
    for call in calls:
        rows = (call.queries.take(q), call.keys.take(k), call.keys.take(v))
        q_NH, k_NK, v_NK = (x.transpose(1, 2) for x in rows)
        found = run(q_NH, k_NK, v_NK, 0.0, call.causal, attn_mask=call.bias, scale=scale)
        out, lse = (x.transpose(1, 2) for x in found)
        if call.joins:
            before = call.queries.take(lse_T)
            both = torch.logaddexp(before, lse)
            weight = (lse - both).exp_()[..., None]
            earlier = call.queries.take(out_T).to(lse.dtype)
            out, lse = earlier.lerp(out.to(lse.dtype), weight), both
        call.queries.put(out_T, out.to(q.dtype))
        call.queries.put(lse_T, lse)
    return out_T, lse_T


def _add_gradients(
    sums: Sequence[torch.Tensor], call: Call, part: Tensors, scale: float | None
) -> None:
    """Add a call's gradients of the row's queries, keys and values; those of the calls that don't
    join come first, are of all tokens, and are written.

    part: some heads of q, k, v, the outputs, the logarithms of the weights' sums and the outputs'
        gradient. Padding has no weights: the sum of those is taken to be infinite.
    """
    q, k, v, out, lse, grad = part
    back = _BACKWARD if q.device.type == "cpu" else plain_gradients
    queries, keys = call.queries, call.keys
    rows = [queries.take(grad), queries.take(q), keys.take(k), keys.take(v), queries.take(out)]
    rows.append(queries.take_padded(lse, torch.inf))
    grad, q, k, v, out, lse = (x.transpose(1, 2) for x in rows)
    found = back(grad, q, k, v, out, lse, 0.0, call.causal, attn_mask=call.bias, scale=scale)
    for total, own, x in zip(sums, (queries, keys, keys), found, strict=True):
        (own.add if call.joins else own.put)(total, x.transpose(1, 2))
