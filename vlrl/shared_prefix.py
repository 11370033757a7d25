"""Attention of packed groups: a response sees its prompt and itself, no mask over the whole row.

A micro-batch is one row: [prompt][response 1]...[response G] of a group, then the next group. Every
token-wise part of the model runs on exactly these T tokens. Attention is the only part that has to
know (and recurrent layers, see recurrent.py), so it alone is replaced (transformers'
AttentionInterface, text model only). On a CPU prompts attend causally, responses attend causally,
and then all of a prompt's responses to its keys, each in a few padded calls (lean/attention.py puts
a response's two parts together). On a GPU one block-sparse kernel does it (flex_prefix.py).

Shapes: T tokens of the row, H heads, K key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from vlrl.flex_prefix import FlexLayout, build_flex_layout, flex_prefix_attention
from vlrl.lean.attention import Call, Kept, Rows, attend, whole_row
from vlrl.recurrent import use_sequences
from vlrl.spans import GroupSpan

Kernel = Literal["auto", "buckets", "flex"]
ATTENTION_NAME = "vlrl_shared_prefix"
VISION_ATTENTION_NAME = "vlrl_vision"
BUCKET_SLACK = 1.25
"""A bucket's longest row is at most this times its shortest (plus 16 tokens)."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The calls in which a row's tokens attend. spans: the row's groups."""

    spans: tuple[GroupSpan, ...]
    calls: tuple[Call, ...]

    @property
    def padding_share(self) -> float:
        """Share of the calls' queries that are no token."""
        queries = [call.queries for call in self.calls]
        places = sum(rows.num * rows.length for rows in queries)
        return 1 - sum(rows.num_tokens for rows in queries) / max(places, 1)


@dataclass(frozen=True)
class _Piece:
    """A stretch of the row that becomes a row of a call; `owner` is its prompt's index."""

    start: int
    length: int
    owner: int


def build_layout(spans: Sequence[GroupSpan], *, dtype: torch.dtype, device: torch.device) -> Layout:
    """The calls of a row of groups; `dtype` is that of the attention's queries."""
    prompts, responses = _pieces(spans)
    buckets = _buckets(prompts)
    calls: list[Call] = []
    for part in (*buckets, *_buckets(responses)):
        rows = _rows(part, device)
        calls.append(Call(queries=rows, keys=rows, causal=True))
    after = _after_prompts(prompts, spans)
    for bucket in buckets:
        for part in _buckets([after[piece.owner] for piece in bucket if piece.owner in after]):
            seen = [prompts[piece.owner] for piece in part]
            bias = _bias([piece.length for piece in seen])
            calls.append(
                Call(
                    queries=_rows(part, device),
                    keys=_rows(seen, device),
                    bias=None if bias is None else bias.to(dtype=dtype, device=device),
                    joins=True,
                )
            )
    return Layout(spans=tuple(spans), calls=tuple(calls))


def row_layout(
    spans: Sequence[GroupSpan], *, dtype: torch.dtype, device: torch.device, kernel: Kernel = "auto"
) -> Layout | FlexLayout:
    """What a model with `use_shared_prefix` is given as `shared_prefix` with a row of groups.

    `kernel` auto: flex on a GPU, buckets elsewhere. `dtype` is that of the attention's queries.
    """
    if kernel == "flex" or (kernel == "auto" and device.type == "cuda"):
        return build_flex_layout(spans, device=device)
    return build_layout(spans, dtype=dtype, device=device)


def use_shared_prefix(model: Any) -> None:
    """Give a model's text part the attention of this file; its vision tower computes as with SDPA.

    Without a layout (generation, a plain forward) the model computes as it did with SDPA.
    """
    AttentionInterface.register(ATTENTION_NAME, shared_prefix_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
    AttentionInterface.register(VISION_ATTENTION_NAME, vision_attention)
    AttentionMaskInterface.register(VISION_ATTENTION_NAME, sdpa_mask)
    model.set_attn_implementation(
        {"": "sdpa", "text_config": ATTENTION_NAME, "vision_config": VISION_ATTENTION_NAME}
    )
    use_sequences(model)


def shared_prefix_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    shared_prefix: Layout | FlexLayout | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What a layer calls: query [1, H, T, D], key and value [1, K, T, D] -> [1, T, H, D]."""
    if shared_prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    layout, scale = shared_prefix, kwargs.get("scaling")
    if isinstance(layout, FlexLayout):
        # The kernel takes the weights' type, whatever lies between products (models/wide.py).
        dtype: torch.dtype = module.o_proj.weight.dtype
        q, k, v = (x.to(dtype) for x in (query, key, value))
        return flex_prefix_attention(q, k, v, layout, scale).to(query.dtype), None
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return attend(q, k, v, layout.calls, scale)[None], None


def vision_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What a block of the vision tower calls for one image or window, [1, H, N, D] each."""
    is_kept = torch.is_grad_enabled() or Kept.current() is not None
    if query.device.type != "cpu" or not is_kept:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    calls = whole_row(q.shape[0], q.device)
    return attend(q, k, v, calls, kwargs.get("scaling"))[None], None


def _pieces(spans: Sequence[GroupSpan]) -> tuple[list[_Piece], list[_Piece]]:
    """The prompts and the responses of a row."""
    prompts: list[_Piece] = []
    responses: list[_Piece] = []
    start = 0
    for owner, span in enumerate(spans):
        prompts.append(_Piece(start, span.prompt_length, owner))
        start += span.prompt_length
        for length in span.response_lengths:
            responses.append(_Piece(start, length, owner))
            start += length
    return prompts, responses


def _buckets(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Pieces of nearly the same length together, longest first."""
    buckets: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -piece.length):
        if buckets and buckets[-1][0].length <= BUCKET_SLACK * piece.length + 16:
            buckets[-1].append(piece)
        else:
            buckets.append([piece])
    return buckets


def _after_prompts(prompts: Sequence[_Piece], spans: Sequence[GroupSpan]) -> dict[int, _Piece]:
    """All responses of each prompt that has any, as the one stretch that they are."""
    lengths = [sum(span.response_lengths) for span in spans]
    return {
        prompt.owner: _Piece(prompt.start + prompt.length, length, prompt.owner)
        for prompt, length in zip(prompts, lengths, strict=True)
        if length
    }


def _rows(bucket: Sequence[_Piece], device: torch.device) -> Rows:
    return Rows.of([(piece.start, piece.length) for piece in bucket], device)


def _bias(lengths: Sequence[int]) -> torch.Tensor | None:
    """[N, 1, 1, M] for keys of these lengths: None if none of them is padded."""
    longest = max(lengths)
    if min(lengths) == longest:
        return None
    is_padding = torch.arange(longest) >= torch.tensor(lengths)[:, None]
    return torch.zeros(is_padding.shape).masked_fill(is_padding, -torch.inf)[:, None, None]
