"""One forward of a packed micro-batch: row in, log-probs and entropies of its response tokens out.

The text part of the Hugging Face model runs as it is, on a batch of one row; only its attention
knows about groups (shared_prefix.py) and only predicting positions meet the LM head (logprobs.py).
Images come as the vision tower's outputs (vision.py).

Shapes: T tokens of the row, R response tokens, P tokens of a prompt, M image tokens, E hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vlrl.batch import Microbatch
from vlrl.images import ImageFeatures
from vlrl.logprobs import PolicyHead, token_logprobs
from vlrl.shared_prefix import Kernel, row_layout
from vlrl.vision import ImageEmbeddings, run_tower, unique


@dataclass(frozen=True, kw_only=True)
class TokenPredictions:
    """fp32 log-probs (with gradient) and entropies (without) of R response tokens, in nats."""

    logprobs_R: torch.Tensor
    entropy_R: torch.Tensor
    padding_share: float


def predict(
    model: Any,
    batch: Microbatch,
    head: PolicyHead,
    images: Sequence[ImageEmbeddings] | None = None,
    *,
    kernel: Kernel = "auto",
) -> TokenPredictions:
    """What the policy thought of each response token.

    images: the embeddings of `batch.images`; None: the tower runs here, once for each of them.
    kernel: of attention (see shared_prefix.row_layout).

    Raises:
        ValueError: a response holds a banned token, which the policy can't have sampled.
    """
    banned = torch.isin(batch.target_R, torch.tensor(head.banned_token_ids, dtype=torch.long))
    if banned.any():
        raise ValueError(
            f"a response holds the banned token {int(batch.target_R[banned][0])}: the sampler must "
            "not sample media tokens"
        )
    device = model.get_input_embeddings().weight.device
    if images is None:
        images = _embed(model, batch)
    inputs = _text_inputs(model, batch.token_ids_T.to(device), images)
    dtype = inputs["inputs_embeds"].dtype
    layout = row_layout(batch.spans, dtype=dtype, device=device, kernel=kernel)
    output = model.model.language_model(
        **inputs,
        position_ids=batch.position_ids_3T[:, None].to(device),
        shared_prefix=layout,
        use_cache=False,
    )
    hidden_RE = output.last_hidden_state[0].index_select(0, batch.predict_R.to(device))
    logprobs_R, entropy_R = token_logprobs(
        hidden_RE, model.get_output_embeddings().weight, batch.target_R.to(device), head
    )
    return TokenPredictions(
        logprobs_R=logprobs_R, entropy_R=entropy_R, padding_share=layout.padding_share
    )


def _embed(model: Any, batch: Microbatch) -> list[ImageEmbeddings]:
    distinct = list(unique(batch.images))
    if not distinct:
        return []
    embeddings = run_tower(model.model.visual, distinct)
    by_key = {image.key: one for image, one in zip(distinct, embeddings, strict=True)}
    return [by_key[image.key] for image in batch.images]


def _text_inputs(
    model: Any, token_ids_T: torch.Tensor, images: Sequence[ImageEmbeddings]
) -> dict[str, Any]:
    """Embedded tokens, image tokens replaced; and what DeepStack adds to the first layers."""
    embedded = model.get_input_embeddings()(token_ids_T[None])
    if not images:
        return {"inputs_embeds": embedded}
    is_image_1T = (token_ids_T == model.config.image_token_id)[None]
    tokens_ME, *deepstack_ME = (
        torch.cat(parts) for parts in zip(*(one.tensors for one in images), strict=True)
    )
    embedded = embedded.masked_scatter(is_image_1T[..., None], tokens_ME.to(embedded.dtype))
    inputs: dict[str, Any] = {"inputs_embeds": embedded}
    if deepstack_ME:
        inputs |= {"visual_pos_masks": is_image_1T, "deepstack_visual_embeds": deepstack_ME}
    return inputs


def prompt_positions(
    model: Any, prompt_ids: Sequence[int], images: Sequence[ImageFeatures]
) -> torch.Tensor:
    """M-RoPE positions [3, P] of an expanded prompt, by the model's own rule."""
    ids = torch.tensor([prompt_ids])
    grids = torch.tensor([image.grid_thw for image in images]) if images else None
    is_image = (ids == model.config.image_token_id).int()
    num_places, num_tokens = int(is_image.sum()), sum(image.num_tokens for image in images)
    if num_places != num_tokens:
        raise ValueError(
            f"a prompt has {num_places} image tokens but its {len(images)} images take {num_tokens}"
        )
    positions, _ = model.model.get_rope_index(
        ids, mm_token_type_ids=is_image, image_grid_thw=grids, attention_mask=torch.ones_like(ids)
    )
    return positions[:, 0]
