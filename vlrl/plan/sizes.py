"""The sizes in a model's config that decide memory and work, under one name for every family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


class PlanError(ValueError):
    """A model that can't be planned for: which, and why."""


@dataclass(frozen=True, kw_only=True)
class ExpertSizes:
    """A mixture-of-experts layer: `per_token` of `num` experts see a token."""

    num: int
    per_token: int
    intermediate: int


@dataclass(frozen=True, kw_only=True)
class TextSizes:
    """The text part. query_size, kv_size: all heads' values of one token's query, and key."""

    hidden: int
    num_layers: int
    num_heads: int
    query_size: int
    kv_size: int
    intermediate: int
    vocab: int
    qk_norm: bool
    experts: ExpertSizes | None


@dataclass(frozen=True, kw_only=True)
class VisionSizes:
    """The vision tower. merge: patches a side that make one token; patch_values: of one patch."""

    hidden: int
    num_blocks: int
    intermediate: int
    mlp: Literal["gelu", "quick_gelu", "gated"]
    merge: int
    num_mergers: int
    patch_values: int


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Both parts of a Qwen-VL model."""

    family: str
    text: TextSizes
    vision: VisionSizes


FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""What the formulas in activations.py were measured on."""


def sizes_of(config: Any) -> ModelSizes:
    """The sizes of a transformers config.

    Raises:
        PlanError: a family that isn't known.
    """
    family = config.model_type
    if family not in FAMILIES:
        raise PlanError(
            f"memory can't be planned for the family {family!r}; known: {', '.join(FAMILIES)}"
        )
    return ModelSizes(
        family=family, text=_text(config.text_config, family), vision=_vision(config, family)
    )


def _text(text: Any, family: str) -> TextSizes:
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    experts = None
    if family == "qwen3_vl_moe":
        experts = ExpertSizes(
            num=text.num_experts,
            per_token=text.num_experts_per_tok,
            intermediate=text.moe_intermediate_size,
        )
    return TextSizes(
        hidden=text.hidden_size,
        num_layers=text.num_hidden_layers,
        num_heads=text.num_attention_heads,
        query_size=text.num_attention_heads * head_dim,
        kv_size=text.num_key_value_heads * head_dim,
        intermediate=text.intermediate_size,
        vocab=text.vocab_size,
        qk_norm=family.startswith("qwen3"),
        experts=experts,
    )


def _vision(config: Any, family: str) -> VisionSizes:
    vision = config.vision_config
    # Qwen2-VL calls the tower's width embed_dim; its hidden_size is what it gives to the text part.
    hidden = vision.embed_dim if family == "qwen2_vl" else vision.hidden_size
    is_second = family == "qwen2_vl"
    return VisionSizes(
        hidden=hidden,
        num_blocks=vision.depth,
        intermediate=int(hidden * vision.mlp_ratio) if is_second else vision.intermediate_size,
        mlp="quick_gelu" if is_second else "gated" if family == "qwen2_5_vl" else "gelu",
        merge=vision.spatial_merge_size,
        num_mergers=1 + len(getattr(vision, "deepstack_visual_indexes", ())),
        patch_values=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
    )
