"""Bytes that a forward pass keeps for the backward pass, from sizes alone.

Counted over what autograd saves in transformers' modules with this package's attention; a test
holds the sum to what is saved in fact (tests/test_plan.py). `item` is the bytes of a value in the
model's dtype; RMSNorm works in fp32, so its inputs count 4 whatever the dtype.
"""

from __future__ import annotations

from vlrl.plan.sizes import ModelSizes, TextSizes, VisionSizes

FLOAT32 = 4


def text_layer_bytes(text: TextSizes, item: int) -> int:
    """Of one decoder layer, for one token."""
    # A norm keeps its input in fp32, the normalised values, and (for the next product) its output.
    norms = 2 * text.hidden * (FLOAT32 + 2 * item)
    heads = text.query_size + text.kv_size
    if text.qk_norm:
        norms += heads * (FLOAT32 + item)
    # Queries, keys, values, outputs by slot, outputs by token; a normaliser for each head.
    attention = (3 * text.query_size + 2 * text.kv_size) * item + text.num_heads * FLOAT32
    return norms + attention + _mlp_bytes(text, item)


def _mlp_bytes(text: TextSizes, item: int) -> int:
    # The gate before and after its activation, the other half, their product.
    if text.experts is None:
        return 4 * text.intermediate * item
    experts = text.experts
    # Each of its experts gets a copy of the token and gives one back, to be weighed.
    routed = experts.per_token * (2 * text.hidden + 5 * experts.intermediate) * item
    return routed + 2 * experts.num * FLOAT32


def copied_keys_bytes(text: TextSizes, item: int) -> int:
    """Of one decoder layer on a CPU, for each token of prompt and response of each response.

    There every response's keys and values lie in one piece with a copy of its prompt's.
    """
    return 2 * text.kv_size * item


def vision_block_bytes(vision: VisionSizes, item: int) -> int:
    """Of one block of the vision tower, for one patch."""
    # The projection in one piece, queries and keys once more after their rotation, outputs twice.
    attention = 7 * vision.hidden * item
    if vision.mlp == "gated":  # comes with RMSNorm
        return 2 * vision.hidden * (FLOAT32 + 2 * item) + attention + 4 * vision.intermediate * item
    kept = 3 if vision.mlp == "quick_gelu" else 2
    return 4 * vision.hidden * item + attention + kept * vision.intermediate * item


def vision_bytes(vision: VisionSizes, item: int, *, checkpointed: bool) -> int:
    """Of the whole tower and its mergers, for one patch."""
    mergers = 4 * vision.num_mergers * vision.hidden * item
    outside = vision.patch_values * item + mergers
    if checkpointed:
        # Each block's input; one block at a time is computed again.
        return outside + vision.num_blocks * vision.hidden * item + vision_block_bytes(vision, item)
    return outside + vision.num_blocks * vision_block_bytes(vision, item)


def text_bytes(text: TextSizes, item: int, *, checkpointed: bool) -> int:
    """Of the whole text part without the LM head, for one token."""
    last_norm = text.hidden * (FLOAT32 + 2 * item)
    layer = text_layer_bytes(text, item)
    if checkpointed:
        return last_norm + text.num_layers * text.hidden * item + layer
    return last_norm + text.num_layers * layer


def head_bytes(text: TextSizes, item: int, chunk: int) -> int:
    """Of the LM head and its backward pass, at their largest, for a chunk of response tokens.

    Two fp32 tensors of the vocabulary for each token of the chunk and one in the model's dtype.
    """
    return chunk * text.vocab * (2 * FLOAT32 + (item if item < FLOAT32 else 0))


def microbatch_bytes(
    sizes: ModelSizes,
    item: int,
    *,
    tokens: int,
    patches: int,
    copied_keys: int = 0,
    checkpointed: bool = False,
    trains_vision: bool = True,
) -> int:
    """Kept for the backward pass of one micro-batch, without the LM head.

    copied_keys: tokens of prompt and response, for each response, on a CPU; 0 on a GPU.
    """
    total = tokens * text_bytes(sizes.text, item, checkpointed=checkpointed)
    layers = 1 if checkpointed else sizes.text.num_layers
    total += layers * copied_keys * copied_keys_bytes(sizes.text, item)
    if trains_vision:
        total += patches * vision_bytes(sizes.vision, item, checkpointed=checkpointed)
    return total
