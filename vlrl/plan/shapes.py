"""Shapes of models: those of the known checkpoints ship with vlrl, others come from a config.json.

The files in shapes/ hold of each checkpoint's public config.json what decides shapes. Their
parameter counts are checked against the published ones (tests/test_plan.py).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

SHAPES = Path(__file__).resolve().parent / "shapes"


def shape_names() -> list[str]:
    """The names of the shapes that ship with vlrl."""
    return sorted(path.stem for path in SHAPES.glob("*.json"))


def shape_name(path: str) -> str | None:
    """The shipped shape that a hub id or a name means: `Qwen/Qwen3-VL-2B-Instruct` is qwen3-vl-2b.

    None: none of them.
    """
    name = re.sub(r"-(instruct|thinking)$", "", path.rsplit("/", 1)[-1].lower())
    return name if name in shape_names() else None


def shape_config(name: str) -> Any:
    """A shipped shape as transformers' config.

    Raises:
        KeyError: no such shape.
    """
    from transformers import AutoConfig

    if name not in shape_names():
        raise KeyError(f"no shape is named {name!r}; there are {', '.join(shape_names())}")
    tree = json.loads((SHAPES / f"{name}.json").read_text(encoding="utf-8"))
    return AutoConfig.for_model(**tree)
