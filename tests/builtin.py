"""The built-in checkpoint's chat, and a small run on a scripted sampler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlrl.chat import Chat
from vlrl.config import BUILTIN_MODEL, ImageConfig, RunConfig, parse
from vlrl.models.load import load_processor
from vlrl.run import MakeSampler
from vlrl.samplers.scripted import Script, ScriptedSampler

PIXELS = ImageConfig(min_pixels=4096, max_pixels=65536)


def make_chat() -> Chat:
    """The built-in checkpoint's chat."""
    return Chat(load_processor(BUILTIN_MODEL), PIXELS)


def small_config(out: Path, *overrides: str, **sections: Any) -> RunConfig:
    """Two steps of four problems x four responses, one recipe of each domain, no evaluation.

    A script's log-probs are made up, so sampler and learner are allowed to differ.
    """
    mixture = {
        "math_qa": {"share": 0.25, "recipes": ["chain_sum"]},
        "logic": {"share": 0.25, "recipes": ["knights_knaves_2"]},
        "coding": {"share": 0.25, "recipes": ["short_functions"]},
        "image_qa": {"share": 0.25, "recipes": ["easy_vqa"]},
    }
    tree = {
        "data": {"mixture": mixture, "prompts_per_step": 4},
        "sampler": {"responses_per_prompt": 4, "max_tokens": 16, "max_probe_kl": 1e9},
        "learner": {"lr": 1e-3, "warmup_updates": 0},
        "steps": 2,
        "out": str(out),
        **sections,
    }
    return parse(tree, overrides)


def scripted(script: Script) -> MakeSampler:
    """What `train` is given to sample from a script."""
    return lambda path, chat, config: ScriptedSampler(chat, script)


def guesses(*texts: str) -> Sequence[str]:
    """Some answers of which a few are right in each domain."""
    return ["yes", "no", "1", "2", "-3", "circle", "def f(x):\n    return x", *texts]
