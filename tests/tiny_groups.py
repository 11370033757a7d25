"""Random models, images and groups for the learner's tests, and the plain forward to compare with.

The plain forward is one unpadded sequence at a time through the untouched Hugging Face model, with
positions that the model works out itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from vlrl.batch import LearnerGroup, LearnerResponse, microbatches
from vlrl.forward import predict, prompt_positions
from vlrl.images import ImageFeatures
from vlrl.logprobs import PolicyHead
from vlrl.models.random_tiny import MediaTokens, TinySize, random_model
from vlrl.models.recompute import Again
from vlrl.shared_prefix import Kernel, use_shared_prefix

MEDIA = MediaTokens(vision_start=500, vision_end=501, image=502, video=503)
BANNED = (500, 501, 502, 503)
NUM_TEXT_TOKENS = 400
HEAD = PolicyHead(temperature=0.7, banned_token_ids=BANNED, chunk=7)
HUGE = 1_000_000


def tiny_model(family: str = "qwen3_vl", *, tied: bool = True, seed: int = 0) -> Any:
    """A random model with the shared-prefix attention.

    Its weights are larger than at initialisation, where attention is nearly uniform and hardly
    feels positions: a wrong mask or position must show.
    """
    model = random_model(family, TinySize(tied=tied), MEDIA, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(3)
    use_shared_prefix(model)
    return model


def image(model: Any, height: int, width: int, rng: torch.Generator) -> ImageFeatures:
    """Random pixels on a grid of height x width patches (both even)."""
    patch = model.config.vision_config.patch_size
    pixels = torch.randn(height * width, 3 * 2 * patch * patch, generator=rng)
    return ImageFeatures(
        pixel_values=pixels, grid_thw=(1, height, width), num_tokens=height * width // 4
    )


def group(
    rng: torch.Generator,
    *,
    prompt: int,
    responses: Sequence[int],
    images: Sequence[ImageFeatures] = (),
    name: str = "g",
    domain: str = "math_qa",
    logprob: float = -6.0,
) -> LearnerGroup:
    """Images, each followed by one text token; `prompt` text tokens; responses of these lengths."""
    ids: list[int] = []
    for features in images:
        ids += [MEDIA.vision_start] + [MEDIA.image] * features.num_tokens + [MEDIA.vision_end]
        ids += _text(rng, 1)
    return LearnerGroup(
        id=name,
        domain=domain,
        prompt_ids=(*ids, *_text(rng, prompt)),
        images=tuple(images),
        responses=tuple(
            LearnerResponse(
                index=index,
                token_ids=tuple(_text(rng, length)),
                sampler_logprobs=(logprob,) * length,
                advantage=1.0 - 1.5 * (index % 2),
            )
            for index, length in enumerate(responses)
        ),
    )


def mixed_groups(model: Any, seed: int = 0) -> list[LearnerGroup]:
    """Prompts with 0, 1 and 3 images of different sizes; responses of 1 to 40 tokens."""
    rng = torch.Generator().manual_seed(seed)
    three = [image(model, *size, rng) for size in ((4, 4), (8, 6), (2, 2))]
    one = [image(model, 4, 6, rng)]
    return [
        group(rng, prompt=7, responses=(5, 9, 1), name="text"),
        group(rng, prompt=4, responses=(8, 3), images=one, name="one"),
        group(rng, prompt=3, responses=(40, 2, 6), images=three, name="three"),
        group(rng, prompt=90, responses=(4, 4), name="long"),
    ]


def packed_logprobs(
    model: Any,
    groups: Sequence[LearnerGroup],
    max_tokens: int = HUGE,
    max_patches: int = HUGE,
    kernel: Kernel = "auto",
) -> dict[tuple[int, int], torch.Tensor]:
    """Log-probs by (group, response) through packed micro-batches, with gradient."""
    found: dict[tuple[int, int], torch.Tensor] = {}
    positions = partial(prompt_positions, model)
    for batch in microbatches(
        groups, max_tokens=max_tokens, max_patches=max_patches, positions=positions
    ):
        logprobs_R = predict(model, batch, HEAD, kernel=kernel).logprobs_R
        for row, place in enumerate(batch.places_N):
            found[place] = logprobs_R[batch.response_R == row]
    return found


def plain_logprobs(
    model: Any, groups: Sequence[LearnerGroup], head: PolicyHead = HEAD
) -> dict[tuple[int, int], torch.Tensor]:
    """Log-probs by (group, response), one sequence at a time."""
    return {
        (place, response.index): _plain(model, g, response, head)
        for place, g in enumerate(groups)
        for response in g.responses
    }


def _plain(
    model: Any, g: LearnerGroup, response: LearnerResponse, head: PolicyHead
) -> torch.Tensor:
    ids = torch.tensor([g.prompt_ids + response.token_ids])
    pixels: dict[str, torch.Tensor] = {}
    if g.images:
        pixels["pixel_values"] = torch.cat([i.pixel_values for i in g.images])
        pixels["image_grid_thw"] = torch.tensor([i.grid_thw for i in g.images])
    model.set_attn_implementation("sdpa")
    # transformers' own forwards, without what the learner put in their place.
    again = [m for m in model.modules() if isinstance(vars(m).get("forward"), Again)]
    ours = {m: vars(m).pop("forward") for m in again}
    output = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == MEDIA.image).int(),
        use_cache=False,
        **pixels,
    )
    for module, forward in ours.items():
        module.forward = forward
    use_shared_prefix(model)
    logits_TV = output.logits[0].float() / head.temperature
    logits_TV[:, list(head.banned_token_ids)] = -torch.inf
    logprobs_TV = logits_TV.log_softmax(dim=-1)[len(g.prompt_ids) - 1 : -1]
    return logprobs_TV.gather(1, torch.tensor(response.token_ids)[:, None])[:, 0]


def gradients(model: Any, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradient of every parameter, and none left in the model."""
    value.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def worst_gradient_error(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
) -> float:
    """The largest error of a parameter's gradient, relative to its norm (or the largest's 1e-6)."""
    assert found.keys() == expected.keys()
    floor = 1e-6 * max(float(g.norm()) for g in expected.values())

    def error(name: str) -> float:
        size, own = float(expected[name].norm()), float(found[name].norm())
        if max(size, own) < floor:  # zero but for rounding: a prompt of one token has no queries'
            return 0.0
        return float((found[name] - expected[name]).norm()) / max(size, floor)

    return max(error(name) for name in expected)


def _text(rng: torch.Generator, length: int) -> list[int]:
    return torch.randint(0, NUM_TEXT_TOKENS, (length,), generator=rng).tolist()
