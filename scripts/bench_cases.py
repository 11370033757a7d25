"""What the step bench gives both sides: a random tiny Qwen3-VL, prompts, pictures, a reward."""

from __future__ import annotations

import io
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from make_tiny_checkpoint import make_processor, make_tokenizer
from PIL import Image, ImageDraw

from vlrl.models.load import save_policy
from vlrl.models.random_tiny import MediaTokens, TinySize, random_model
from vlrl.types import Problem

TEXT = "How many shapes are in the picture, and which colour does the largest one of them have?"
"""The tokenizer is trained on this: it has little more than single bytes."""
TINY = TinySize(hidden=128, num_layers=4, vision_hidden=64, vision_depth=2, vocab_size=704)


@dataclass(frozen=True, kw_only=True)
class Case:
    """`prompt_tokens` with the image expanded; `image_side` in pixels, 0 for no image."""

    name: str
    prompt_tokens: int
    image_side: int = 0


CASES = (
    Case(name="short", prompt_tokens=64),
    Case(name="image", prompt_tokens=304, image_side=512),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What both sides do in a step, and TRL's own choices: `trl_*`."""

    prompts: int = 8
    responses: int = 8
    response_tokens: int = 64
    updates: int = 2
    optimizer: str = "AdamW"
    lr: float = 1e-5
    dtype: str = "float32"
    trl_num_iterations: int = 1
    trl_gradient_checkpointing: bool = False

    @property
    def num_response_tokens(self) -> int:
        return self.prompts * self.responses * self.response_tokens


@dataclass(frozen=True, kw_only=True)
class Elapsed:
    """Seconds by the clock, and of all cores together: what a busy machine distorts less."""

    wall_s: float
    cpu_s: float


class Stopwatch:
    """Runs from its making on."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def elapsed(self) -> Elapsed:
        return Elapsed(wall_s=time.perf_counter() - self.wall, cpu_s=time.process_time() - self.cpu)


def digits(num: int, seed: int) -> str:
    """A text of exactly `num` tokens: Qwen's pre-tokeniser lets every digit stand alone."""
    return "".join(random.Random(seed).choices("0123456789", k=num))


def picture(side: int, seed: int) -> bytes:
    """A PNG with a few shapes."""
    rng = random.Random(seed)
    image = Image.new("RGB", (side, side), tuple(rng.choices(range(256), k=3)))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.randrange(side), rng.randrange(side)
        box = (x, y, x + rng.randrange(8, side), y + rng.randrange(8, side))
        draw.ellipse(box, fill=tuple(rng.choices(range(256), k=3)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def make_problems(case: Case, num: int, count_tokens: Callable[[Problem], int]) -> list[Problem]:
    """`num` different problems whose prompts have exactly `case.prompt_tokens` tokens."""

    def problem(seed: int, num_digits: int) -> Problem:
        images = (picture(case.image_side, seed),) if case.image_side else ()
        question = digits(num_digits, seed)
        return Problem(
            id=f"{case.name}/{seed}", domain="bench", question=question, answer="", images=images
        )

    template_tokens = count_tokens(problem(0, 1)) - 1
    return [problem(seed, case.prompt_tokens - template_tokens) for seed in range(num)]


def reward(token_ids: Sequence[int]) -> float:
    """Costs nothing and always differs inside a group, so that every response is learned from."""
    return statistics.fmean(token_ids) / TINY.vocab_size


def make_checkpoint(folder: Path) -> int:
    """Write a random tiny Qwen3-VL with its processor; its number of parameters."""
    tokenizer = make_tokenizer([TEXT] * 4, TINY.vocab_size)
    ids = tokenizer.get_vocab()
    media = MediaTokens(
        vision_start=ids["<|vision_start|>"],
        vision_end=ids["<|vision_end|>"],
        image=ids["<|image_pad|>"],
        video=ids["<|video_pad|>"],
    )
    model = random_model("qwen3_vl", replace(TINY, vocab_size=len(tokenizer)), media)
    save_policy(model, make_processor(tokenizer, patch_size=16), folder)
    return sum(parameter.numel() for parameter in model.parameters())
