"""Shared-prefix attention as one block-sparse kernel: FlexAttention over the packed row.

A token of the row sees two stretches of it: its prompt, and its own piece up to itself. Blocks of
128 x 128 that hold no such pair are never computed, so the kernel's work is that of the pairs. The
row is padded to a power of two inside attention only (a padding token sees itself): few shapes to
compile, and next to no work.

Shapes: T tokens of the row, L its padded length, B blocks of it, H heads, K key-value heads,
D head size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from vlrl.spans import GroupSpan

BLOCK = 128
MIN_LENGTH = 1024
MAX_COMPILED = 64
"""Kernels that may be compiled: a few lengths, with and without gradients, for each head size."""


@dataclass(frozen=True, kw_only=True)
class FlexLayout:
    """A row of `num_tokens` tokens in `mask`, a mask over its padded length.

    seen_L3: what each token sees: from `seen_L3[:, 0]` up to itself, and from `seen_L3[:, 1]` to
        before `seen_L3[:, 2]`.
    """

    spans: tuple[GroupSpan, ...]
    num_tokens: int
    seen_L3: torch.Tensor
    mask: BlockMask

    @property
    def padding_share(self) -> float:
        """Share of the padded row that holds no token."""
        return 1 - self.num_tokens / self.seen_L3.shape[0]


def build_flex_layout(spans: Sequence[GroupSpan], *, device: torch.device) -> FlexLayout:
    """The mask of a row of groups."""
    num_tokens = sum(span.num_tokens for span in spans)
    seen_L3 = _seen(spans, padded_length(num_tokens)).to(device)
    mask = _block_mask(seen_L3)
    return FlexLayout(spans=tuple(spans), num_tokens=num_tokens, seen_L3=seen_L3, mask=mask)


def padded_length(num_tokens: int) -> int:
    """The power of two that a row is padded to."""
    return max(MIN_LENGTH, 1 << (num_tokens - 1).bit_length())


def flex_prefix_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: FlexLayout, scale: Any
) -> torch.Tensor:
    """query [1, H, T, D], key and value [1, K, T, D] -> [1, T, H, D]."""
    num_padding = layout.seen_L3.shape[0] - layout.num_tokens
    q, k, v = (functional.pad(x, (0, 0, 0, num_padding)) for x in (query, key, value))
    kernel = _compiled() if query.device.type == "cuda" else flex_attention
    out = kernel(q, k, v, block_mask=layout.mask, scale=scale, enable_gqa=True)
    return out[:, :, : layout.num_tokens].transpose(1, 2)


def mask_mod(seen_L3: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Whether the token at `q` sees the one at `k`, as FlexAttention asks it."""

    def sees(b: Any, h: Any, q: Any, k: Any) -> Any:
        own = k >= seen_L3[q, 0]
        prompt = (k >= seen_L3[q, 1]) & (k < seen_L3[q, 2])
        return (own | prompt) & (k <= q)

    return sees


def _seen(spans: Sequence[GroupSpan], length: int) -> torch.Tensor:
    """seen_L3 of the layout."""
    pieces: list[tuple[int, int, int, int]] = []  # length, own start, prompt's start and end
    start = 0
    for span in spans:
        prompt, end = start, start + span.prompt_length
        pieces.append((span.prompt_length, prompt, 0, 0))
        start = end
        for response_length in span.response_lengths:
            pieces.append((response_length, start, prompt, end))
            start += response_length
    table = torch.tensor(pieces, dtype=torch.int32)
    seen = table[:, 1:].repeat_interleave(table[:, 0].long(), dim=0)
    padding = torch.zeros(length - start, 3, dtype=torch.int32)
    padding[:, 0] = torch.arange(start, length, dtype=torch.int32)
    return torch.cat([seen, padding])


def _block_mask(seen_L3: torch.Tensor) -> BlockMask:
    """Counted from the stretches: a dense [L, L] mask is never made."""
    length = seen_L3.shape[0]
    first_B = torch.arange(0, length, BLOCK, device=seen_L3.device)
    own, prompt, prompt_end = seen_L3.unbind(dim=1)
    end = torch.arange(1, length + 1, device=seen_L3.device)
    counts_LB = _overlap(own, end, first_B) + _overlap(prompt, prompt_end, first_B)
    counts_BB = counts_LB.unflatten(0, (-1, BLOCK)).sum(dim=1)
    full_BB = counts_BB == BLOCK * BLOCK
    full_num, full = _ordered(full_BB)
    num, indices = _ordered((counts_BB > 0) & ~full_BB)
    return BlockMask.from_kv_blocks(
        num, indices, full_num, full, BLOCK_SIZE=BLOCK, mask_mod=mask_mod(seen_L3)
    )


def _overlap(start_L: torch.Tensor, end_L: torch.Tensor, first_B: torch.Tensor) -> torch.Tensor:
    """How many tokens of each stretch lie in each block: [L, B]."""
    low = torch.maximum(start_L[:, None], first_B)
    high = torch.minimum(end_L[:, None], first_B + BLOCK)
    return (high - low).clamp(min=0)


def _ordered(is_there_BB: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each block of queries: how many blocks of keys, and which, the others after them."""
    num = is_there_BB.sum(dim=1, dtype=torch.int32)
    indices = is_there_BB.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    return num[None, None], indices.to(torch.int32)[None, None]


@functools.cache
def _compiled() -> Callable[..., Any]:
    # Past dynamo's limit of 8 shapes a function runs as written, which here would hold [H, L, L]
    # scores: allow more, and make it an error to pass even that (fullgraph).
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MAX_COMPILED)
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)
