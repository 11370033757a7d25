"""A policy without its weights: every parameter has a shape and no memory (torch's meta device)."""

from __future__ import annotations

from typing import Any

import torch

from vlrl.config import ModelConfig
from vlrl.models.load import freeze, resolve
from vlrl.models.lora import add_lora
from vlrl.plan.shapes import shape_config, shape_name


def policy_config(path: str) -> Any:
    """The transformers config of a config's `model.path`.

    A known checkpoint's shape ships with vlrl, so it needs no download; else a folder or the hub.

    Raises:
        ModelError: a path to no folder, or a folder that holds no checkpoint.
        OSError: the hub did not give the config.
    """
    from transformers import AutoConfig

    name = shape_name(path)
    return shape_config(name) if name else AutoConfig.from_pretrained(resolve(path))


def meta_policy(config: ModelConfig) -> Any:
    """The model that a config names, frozen or with adapters as it says.

    Raises:
        ModelError: no such checkpoint, or a pattern that matches nothing.
        OSError: the hub did not give the config.
    """
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(policy_config(config.path))
        if config.lora:
            add_lora(model, config.lora, seed=0, base=config.path)
    if not config.lora:
        freeze(model, config.freeze)
    return model
