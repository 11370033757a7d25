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
    routed = experts.per_token * (2 * text.hidden + 4 * experts.intermediate) * item
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


def head_bytes(text: TextSizes, item: int, chunk: int) -> int:
    """Of the LM head and its backward pass, at their largest, for a chunk of response tokens.

    Two fp32 tensors of the vocabulary for each token of the chunk and one in the model's dtype,
    and the sum of the head's gradient over the chunks in fp32.
    """
    logits = chunk * text.vocab * (2 * FLOAT32 + (item if item < FLOAT32 else 0))
    return logits + text.vocab * text.hidden * FLOAT32


def backward_bytes(
    sizes: ModelSizes,
    item: int,
    *,
    tokens: int,
    patches: int,
    head: int = 0,
    copied_keys: int = 0,
    checkpointed: bool = False,
    trains_vision: bool = True,
) -> int:
    """The most that a micro-batch holds for its backward pass, gradients of parameters apart.

    head: of `head_bytes`, while the whole forward pass is still kept. copied_keys: tokens of prompt
    and response, for each response, on a CPU; 0 on a GPU. checkpointed: a layer keeps its input and
    computes the rest again, one layer at a time; the text part is done when the tower's turn comes.
    """
    text, vision = sizes.text, sizes.vision
    layer = tokens * text_layer_bytes(text, item) + copied_keys * copied_keys_bytes(text, item)
    block = patches * vision_block_bytes(vision, item) if trains_vision else 0
    kept = tokens * text.hidden * (FLOAT32 + 2 * item)  # the last norm
    outside = patches * _outside_blocks(vision, item) if trains_vision else 0
    if not checkpointed:
        return kept + outside + head + text.num_layers * layer + vision.num_blocks * block
    kept += text.num_layers * tokens * text.hidden * item
    if trains_vision:
        outside += vision.num_blocks * patches * vision.hidden * item
    return outside + max(kept + max(head, layer), block)


def _outside_blocks(vision: VisionSizes, item: int) -> int:
    # The pixels, and in each merger its norm and two activations.
    return (vision.patch_values + 4 * vision.num_mergers * vision.hidden) * item
