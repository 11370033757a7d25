"""Random Qwen-VL models with byte tokens in checkpoint folders, and prompts with 0 to 3 images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from vlrl.batch import LearnerGroup, LearnerResponse
from vlrl.chat import Chat
from vlrl.config import ImageConfig
from vlrl.learner import Learner
from vlrl.models.load import save_policy
from vlrl.models.random_tiny import MediaTokens, TinySize, random_model
from vlrl.samplers.probe import compare
from vlrl.types import Completion, Problem, Prompt

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROCESSORS: dict[str, tuple[Any, Any]] = {
    "qwen2_vl": (Qwen2VLProcessor, Qwen2VLVideoProcessor),
    "qwen2_5_vl": (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor),
    "qwen3_vl": (Qwen3VLProcessor, Qwen3VLVideoProcessor),
    "qwen3_vl_moe": (Qwen3VLProcessor, Qwen3VLVideoProcessor),
    "qwen3_5": (Qwen3VLProcessor, Qwen3VLVideoProcessor),
}
IMAGES = ImageConfig(min_pixels=32 * 32, max_pixels=64 * 1024)


def build(folder: Path, *, family: str = "qwen3_vl", tied: bool) -> tuple[Any, Chat]:
    """Save a model and its processor into a folder; the float32 model and its chat."""
    tokenizer = _tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    media = MediaTokens(
        vision_start=ids["<|vision_start|>"],
        vision_end=ids["<|vision_end|>"],
        image=ids["<|image_pad|>"],
        video=ids["<|video_pad|>"],
    )
    size = TinySize(
        hidden=128, vision_hidden=64, vocab_size=len(tokenizer), tied=tied, recurrent_head=128
    )
    model = random_model(family, size, media)
    shake(model, seed=0, std=0.15)
    patches = {
        "patch_size": model.config.vision_config.patch_size,
        "merge_size": 2,
        "temporal_patch_size": 2,
    }
    make_processor, make_video = PROCESSORS[family]
    processor = make_processor(
        image_processor=Qwen2VLImageProcessor(**patches),
        tokenizer=tokenizer,
        video_processor=make_video(**patches),
        chat_template=TEMPLATE,
    )
    save_policy(model, processor, folder)
    return model, Chat(processor, IMAGES)


def shake(model: Any, *, seed: int, std: float) -> None:
    """Add noise to every parameter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(std * torch.randn(parameter.shape, generator=generator))


def prompts(chat: Chat) -> list[Prompt]:
    """Prompts with 0, 1 and 3 images of different sizes, two of them sharing an image."""
    pictures = [_png(seed, size) for seed, size in enumerate([(64, 96), (128, 64), (32, 32)])]
    questions = [("How many?", []), ("Which colour?", pictures[:1]), ("Spot it", pictures)]
    return [
        chat.render(Problem(id=q, domain="image_qa", question=q, images=tuple(images), answer=""))
        for q, images in questions
    ]


def learner_groups(
    chat: Chat, prompts: Sequence[Prompt], samples: Sequence[Sequence[Completion]]
) -> list[LearnerGroup]:
    """Sampled responses as the learner takes them."""
    return [
        LearnerGroup(
            id=str(i),
            domain="image_qa",
            prompt_ids=chat.expand(prompt),
            images=tuple(chat.features(key) for key in prompt.image_keys),
            responses=tuple(
                LearnerResponse(
                    index=j,
                    token_ids=c.token_ids,
                    sampler_logprobs=c.logprobs,
                    advantage=1.0,
                    experts=c.experts,
                )
                for j, c in enumerate(completions)
            ),
        )
        for i, (prompt, completions) in enumerate(zip(prompts, samples, strict=True))
    ]


def difference(learner: Learner, groups: Sequence[LearnerGroup]) -> float:
    """The largest difference between the sampler's log-probs and the learner's."""
    theirs = [r.sampler_logprobs for group in groups for r in group.responses]
    ours = [row.tolist() for group in learner.logprobs(groups) for row in group]
    return compare(theirs, ours).max_abs


def _png(seed: int, size: tuple[int, int]) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
