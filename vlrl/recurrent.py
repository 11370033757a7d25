"""Layers with a recurrent state, in a packed row: each response as a sequence of its own.

Such a layer (Qwen3.5's gated delta net) reads its tokens in order, so responses that lie one after
the other would see each other. For these layers alone the row is laid out as sequences, prompt and
response together, padded at their end, which no earlier token sees. The rest of the model still
runs on each token once.

Shapes: T tokens of the row, N sequences of a bucket, L their padded length, E hidden size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vlrl.spans import GroupSpan

CLASSES = ("Qwen3_5GatedDeltaNet", "Qwen3_5MoeGatedDeltaNet")
"""The layers' names in transformers."""
SLACK = 1.25
"""A bucket's longest sequence is at most this times its shortest (plus 16 tokens)."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """A row as buckets of padded sequences.

    buckets: the row's token at each place, [N, L] each (padding: the sequence's first token).
    place_T: where each token's output lies in all buckets' places, flat; a prompt's in one of
        its sequences.
    """

    buckets: tuple[torch.Tensor, ...]
    place_T: torch.Tensor


def build_sequences(spans: Sequence[GroupSpan], *, device: torch.device) -> Sequences:
    """The sequences of a row of groups, longest first."""
    sequences: list[torch.Tensor] = []
    start = 0
    for span in spans:
        prompt = torch.arange(start, start + span.prompt_length)
        start += span.prompt_length
        for length in span.response_lengths or (0,):
            sequences.append(torch.cat([prompt, torch.arange(start, start + length)]))
            start += length
    buckets: list[torch.Tensor] = []
    place_T = torch.empty(start, dtype=torch.long)
    num_places = 0
    for members in _buckets(sequences):
        length = len(members[0])
        rows = [torch.cat([m, m[:1].expand(length - len(m))]) for m in members]
        for row, member in enumerate(members):
            first = num_places + row * length
            place_T[member] = torch.arange(first, first + len(member))
        num_places += length * len(members)
        buckets.append(torch.stack(rows).to(device))
    return Sequences(buckets=tuple(buckets), place_T=place_T.to(device))


def use_sequences(model: Any) -> None:
    """Make a model's recurrent layers read rows that come with a layout as sequences.

    Every decoder layer is called with the layout; a hook hands it on, so that nothing depends on
    what the layer passes to its parts. A model without such layers stays as it is.
    """
    for layer in model.modules():
        mixer: Any = getattr(layer, "linear_attn", None)
        if type(mixer).__name__ not in CLASSES or isinstance(mixer.forward, _PerSequence):
            continue
        mixer.forward = _PerSequence(mixer.forward)
        layer.register_forward_pre_hook(_hand_on, with_kwargs=True)


def _hand_on(layer: Any, args: Any, kwargs: dict[str, Any]) -> None:
    layout = kwargs.get("shared_prefix")
    layer.linear_attn.forward.spans = None if layout is None else layout.spans


class _PerSequence:
    """A recurrent layer's forward, [1, T, E] -> [1, T, E], with the spans of the row in hand."""

    def __init__(self, plain: Callable[..., torch.Tensor]) -> None:
        self.plain = plain
        self.spans: tuple[GroupSpan, ...] | None = None

    def __call__(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if self.spans is None:
            return self.plain(hidden_states, **kwargs)
        layout = _cached(self.spans, hidden_states.device)
        outputs = [
            self.plain(hidden_states[0][token_NL]).flatten(0, 1) for token_NL in layout.buckets
        ]
        return torch.cat(outputs).index_select(0, layout.place_T)[None]


@functools.lru_cache(maxsize=2)
def _cached(spans: tuple[GroupSpan, ...], device: torch.device) -> Sequences:
    """Every layer of a forward asks for the same."""
    return build_sequences(spans, device=device)


def _buckets(sequences: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    buckets: list[list[torch.Tensor]] = []
    for sequence in sorted(sequences, key=len, reverse=True):
        if buckets and len(buckets[-1][0]) <= SLACK * len(sequence) + 16:
            buckets[-1].append(sequence)
        else:
            buckets.append([sequence])
    return buckets
