"""What every side of the learner bench is given: the model, prompts, responses, advantages.

All is random and made again from the seed in each side's own process: nothing is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch

from vlrl.batch import LearnerGroup, LearnerResponse
from vlrl.images import ImageFeatures
from vlrl.models.random_tiny import MediaTokens, TinySize, random_model
from vlrl.plan.shapes import shape_config

TINY = TinySize(hidden=128, num_layers=4, vision_hidden=64, vision_depth=2, vocab_size=704)
TINY_MEDIA = MediaTokens(vision_start=700, vision_end=701, image=702, video=703)
PATCH, MERGE = 16, 2
"""Qwen3-VL's patch side in pixels, and how many patches a side make one token."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One update. `image_side` in pixels; `text_tokens` of the prompt come after its image.

    trl_rows: sequences that TRL takes at once. model: `tiny`, or one of vlrl's shapes.
    """

    device: Literal["cpu", "cuda"]
    model: str
    dtype: Literal["float32", "bfloat16"]
    prompts: int
    responses: int = 8
    response_tokens: int = 64
    image_side: int = 512
    text_tokens: int = 46
    trl_rows: int = 8
    trl_gradient_checkpointing: bool = False
    vlrl_settings: tuple[str, ...] = ()
    warm_up: int = 1
    steps: int = 3
    lr: float = 1e-6
    seed: int = 0

    @property
    def patches(self) -> int:
        """Of one image."""
        return (self.image_side // PATCH) ** 2

    @property
    def image_tokens(self) -> int:
        return self.patches // MERGE**2

    @property
    def prompt_tokens(self) -> int:
        """Image, its two marks, and text."""
        return self.image_tokens + 2 + self.text_tokens

    @property
    def group_tokens(self) -> int:
        """Of a packed group: its prompt once."""
        return self.prompt_tokens + self.responses * self.response_tokens

    @property
    def num_response_tokens(self) -> int:
        return self.prompts * self.responses * self.response_tokens

    @cached_property
    def media(self) -> MediaTokens:
        if self.model == "tiny":
            return TINY_MEDIA
        config = shape_config(self.model)
        return MediaTokens(
            vision_start=config.vision_start_token_id,
            vision_end=config.vision_end_token_id,
            image=config.image_token_id,
            video=config.video_token_id,
        )


def cpu_job(**changes: Any) -> Job:
    """A tiny Qwen3-VL, prompts of 304 tokens, 256 of them an image."""
    return Job(**{"device": "cpu", "model": "tiny", "dtype": "float32", "prompts": 2, **changes})


def cuda_job(**changes: Any) -> Job:
    """Qwen3-VL-2B's shape, images of 1024 x 1024, responses of 512 tokens."""
    given = {"device": "cuda", "model": "qwen3-vl-2b", "dtype": "bfloat16", "prompts": 4}
    given |= {"response_tokens": 512, "image_side": 1024, "text_tokens": 62}
    return Job(**{**given, **changes})


def job_from_json(text: str) -> Job:
    values = json.loads(text)
    return Job(**{**values, "vlrl_settings": tuple(values["vlrl_settings"])})


def make_model(job: Job) -> Any:
    """Random weights on the job's device."""
    if job.model == "tiny":
        model = random_model("qwen3_vl", TINY, TINY_MEDIA, job.seed)
    else:
        from transformers import AutoModelForImageTextToText

        torch.manual_seed(job.seed)
        with torch.device(job.device):
            model = AutoModelForImageTextToText.from_config(
                shape_config(job.model), dtype=getattr(torch, job.dtype)
            )
    return model.to(device=job.device, dtype=getattr(torch, job.dtype))


def make_groups(job: Job) -> list[LearnerGroup]:
    """`job.prompts` groups with one image each; advantages of both signs that sum to 0."""
    rng = torch.Generator().manual_seed(job.seed)
    num_text_ids = min(vars(job.media).values())
    sampled = -math.log(num_text_ids)

    def text(length: int) -> list[int]:
        return torch.randint(0, num_text_ids, (length,), generator=rng).tolist()

    def response(index: int) -> LearnerResponse:
        noise = 0.1 * torch.randn(job.response_tokens, generator=rng)
        return LearnerResponse(
            index=index,
            token_ids=tuple(text(job.response_tokens)),
            sampler_logprobs=tuple((sampled + noise).tolist()),
            advantage=2.0 * index / (job.responses - 1) - 1.0,
        )

    side = job.image_side // PATCH
    media = job.media
    image_ids = [media.vision_start] + [media.image] * job.image_tokens + [media.vision_end]
    return [
        LearnerGroup(
            id=f"bench/{place}",
            domain="bench",
            prompt_ids=tuple(image_ids + text(job.text_tokens)),
            images=(
                ImageFeatures(
                    pixel_values=torch.randn(job.patches, 3 * 2 * PATCH**2, generator=rng),
                    grid_thw=(1, side, side),
                    num_tokens=job.image_tokens,
                ),
            ),
            responses=tuple(response(index) for index in range(job.responses)),
        )
        for place in range(job.prompts)
    ]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some whole sequences, one response each: what a learner without shared prefixes is given.

    ids_BT: prompt and response. pixels: each row's image, once for every row.
    """

    ids_BT: torch.Tensor
    sampler_logprobs_BR: torch.Tensor
    advantages_B: torch.Tensor
    pixels: torch.Tensor
    grids: torch.Tensor
    prompt_length: int


def rows_of(job: Job, groups: Sequence[LearnerGroup], at_once: int) -> list[Rows]:
    """All sequences of the update, `at_once` at a time; of equal length, so nothing is padded."""
    pairs = [(group, response) for group in groups for response in group.responses]
    return [
        Rows(
            ids_BT=torch.tensor([[*g.prompt_ids, *r.token_ids] for g, r in part]),
            sampler_logprobs_BR=torch.tensor([r.sampler_logprobs for _, r in part]),
            advantages_B=torch.tensor([r.advantage for _, r in part]),
            # One image for one row is no copy; several rows need several.
            pixels=part[0][0].images[0].pixel_values
            if len(part) == 1
            else torch.cat([g.images[0].pixel_values for g, _ in part]),
            grids=torch.tensor([g.images[0].grid_thw for g, _ in part]),
            prompt_length=job.prompt_tokens,
        )
        for part in (pairs[i : i + at_once] for i in range(0, len(pairs), at_once))
    ]
