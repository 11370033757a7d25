"""Random models of each family, small enough for tests and for a cold start.

The real classes with every part that makes a family special: M-RoPE, DeepStack, window attention,
grouped-query attention, tied or untied heads, routed experts, recurrent layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)


@dataclass(frozen=True, kw_only=True)
class TinySize:
    """The sizes of a tiny model; every head has 32 dimensions in the text part.

    Families with experts have `num_experts` in every layer, `num_chosen` of them for each token.
    """

    hidden: int = 64
    num_layers: int = 3
    num_heads: int = 4
    num_kv_heads: int = 2
    vision_hidden: int = 32
    vision_depth: int = 3
    vocab_size: int = 512
    tied: bool = True
    num_experts: int = 8
    num_chosen: int = 2
    recurrent_head: int = 16
    """vLLM's kernels want 128 on a CPU, as the released models have."""


@dataclass(frozen=True, kw_only=True)
class MediaTokens:
    """Ids of the special tokens that a config names."""

    vision_start: int
    vision_end: int
    image: int
    video: int


HEAD_DIM = 32


def tiny_config(family: str, size: TinySize, media: MediaTokens) -> Any:
    """A config of one family: one of `tiny_families()`.

    Raises:
        ValueError: another family.
    """
    if family not in _CLASSES:
        raise ValueError(f"no tiny model of the family {family!r}; there are {list(_CLASSES)}")
    make, vision = _CLASSES[family][0], _VISION[family](size)
    text: dict[str, Any] = {
        "vocab_size": size.vocab_size,
        "hidden_size": size.hidden,
        "intermediate_size": size.hidden * 3,
        "num_hidden_layers": size.num_layers,
        "num_attention_heads": size.num_heads,
        "num_key_value_heads": size.num_kv_heads,
        "max_position_embeddings": 8192,
        "rope_parameters": _rope(family),
        "tie_word_embeddings": size.tied,
    }
    if family.endswith("_moe"):
        text |= {
            "num_experts": size.num_experts,
            "num_experts_per_tok": size.num_chosen,
            "moe_intermediate_size": size.hidden * 3 // 4,  # never square
            "decoder_sparse_step": 1,
            "norm_topk_prob": True,  # transformers knows no other; vLLM asks
        }
    if family.startswith("qwen3_5"):
        text |= _recurrent(size)
    elif family.startswith("qwen3_vl"):
        text["head_dim"] = HEAD_DIM
    elif size.hidden != HEAD_DIM * size.num_heads:
        text["num_attention_heads"] = size.hidden // HEAD_DIM
        text["num_key_value_heads"] = max(1, size.hidden // HEAD_DIM // 2)
    return make(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=size.tied,
        image_token_id=media.image,
        video_token_id=media.video,
        vision_start_token_id=media.vision_start,
        vision_end_token_id=media.vision_end,
    )


def tiny_families() -> tuple[str, ...]:
    """The `model_type`s that there are tiny models of."""
    return tuple(_CLASSES)


def random_model(family: str, size: TinySize, media: MediaTokens, seed: int = 0) -> Any:
    """A model with random weights, fp32. The global random state is left as it was."""
    config = tiny_config(family, size, media)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _CLASSES[family][1](config).float().eval()


def _rope(family: str) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    if family.startswith("qwen3_5"):  # a quarter of each head is rotated
        return rope | {
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
            "partial_rotary_factor": 0.25,
        }
    if family.startswith("qwen3_vl"):
        return rope | {"mrope_section": [6, 5, 5], "mrope_interleaved": True}
    return rope | {"mrope_section": [4, 6, 6]}


def _recurrent(size: TinySize) -> dict[str, Any]:
    """Layers with a recurrent state, and every third one with attention."""
    kinds = ("linear_attention", "linear_attention", "full_attention")
    return {
        "head_dim": HEAD_DIM,
        "layer_types": [kinds[i % 3] for i in range(size.num_layers)],
        "linear_key_head_dim": size.recurrent_head,
        "linear_value_head_dim": size.recurrent_head,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "shared_expert_intermediate_size": size.hidden,
    }


def _qwen2_vision(size: TinySize) -> dict[str, Any]:
    return {
        "depth": size.vision_depth,
        "embed_dim": size.vision_hidden,
        "hidden_size": size.hidden,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 14,
    }


def _qwen2_5_vision(size: TinySize) -> dict[str, Any]:
    return {
        "depth": size.vision_depth,
        "hidden_size": size.vision_hidden,
        "intermediate_size": size.vision_hidden * 2,
        "out_hidden_size": size.hidden,
        "num_heads": 2,
        "patch_size": 14,
        "window_size": 56,
        "fullatt_block_indexes": [size.vision_depth - 1],
    }


def _qwen3_vision(size: TinySize) -> dict[str, Any]:
    return {
        "depth": size.vision_depth,
        "hidden_size": size.vision_hidden,
        "intermediate_size": size.vision_hidden * 2,
        "out_hidden_size": size.hidden,
        "num_heads": 2,
        "patch_size": 16,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": list(range(min(2, size.vision_depth - 1))),
    }


def _qwen3_5_vision(size: TinySize) -> dict[str, Any]:
    """Qwen3-VL's tower without DeepStack."""
    vision = _qwen3_vision(size)
    del vision["deepstack_visual_indexes"]
    return vision


_CLASSES: dict[str, tuple[Any, Any]] = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration),
    "qwen3_vl_moe": (Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration),
    "qwen3_5": (Qwen3_5Config, Qwen3_5ForConditionalGeneration),
    "qwen3_5_moe": (Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration),
}
_VISION = {
    "qwen2_vl": _qwen2_vision,
    "qwen2_5_vl": _qwen2_5_vision,
    "qwen3_vl": _qwen3_vision,
    "qwen3_vl_moe": _qwen3_vision,
    "qwen3_5": _qwen3_5_vision,
    "qwen3_5_moe": _qwen3_5_vision,
}
