"""A policy without its weights: every parameter has a shape and no memory (torch's meta device)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vlrl.models.load import freeze, resolve
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


def meta_policy(path: str, freeze_patterns: Sequence[str] = ()) -> Any:
    """The model of `policy_config(path)`, frozen as `model.freeze` says.

    Raises:
        ModelError: no such checkpoint, or a pattern that matches nothing.
        OSError: the hub did not give the config.
    """
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(policy_config(path))
    freeze(model, freeze_patterns)
    return model
