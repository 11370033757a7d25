"""Routed experts' weights as released checkpoints hold them.

Qwen3-VL-MoE's checkpoints hold each expert's matrices transposed, and vLLM's loader counts on it.
transformers turns them when it loads a checkpoint, but not back when it saves one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

TRANSPOSED_FAMILIES = ("qwen3_vl_moe",)
"""`model_type`s whose released experts are [E, in, out]; in transformers they are [E, out, in]."""
_EXPERTS = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")


def as_released(
    family: str, named_tensors: Iterable[tuple[str, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """A model's tensors under their names, in the layout of the family's released checkpoints."""
    turned = family in TRANSPOSED_FAMILIES
    for name, tensor in named_tensors:
        yield name, tensor.transpose(1, 2) if turned and name.endswith(_EXPERTS) else tensor


def has_square_experts(config: Any) -> bool:
    """Whether a file's layout can't be told from its shapes, as transformers does on loading."""
    if config.model_type not in TRANSPOSED_FAMILIES:
        return False
    text = config.text_config
    return text.hidden_size in (text.moe_intermediate_size, 2 * text.moe_intermediate_size)
