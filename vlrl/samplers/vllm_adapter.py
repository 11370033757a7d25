"""LoRA in vLLM: the sampler keeps the base weights and takes the adapter alone at each sync.

The sampler then computes W x + s B (A x) as the learner does; nothing is merged, so nothing is lost
to the rounding of W + s B A in bfloat16. vLLM reads adapters from a folder in peft's format: each
sync writes the few megabytes anew and has them replaced in place.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vlrl.config import LoraConfig

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for; an adapter of another one goes into the next larger."""
_NAME, _ID = "policy", 1


class VllmAdapter:
    """The one adapter of an engine.

    Attributes:
        request: what vLLM is to sample with; None before the first sync, while the adapter changes
            nothing yet.
    """

    def __init__(self, config: LoraConfig) -> None:
        self.request: Any = None
        self._config = config
        self._folder = tempfile.TemporaryDirectory(prefix="vlrl-adapter-")

    def arguments(self) -> dict[str, Any]:
        """What the engine has to be started with."""
        rank = next(rank for rank in RANKS if rank >= self._config.rank)
        return {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}

    def load(self, llm: Any, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Replace the adapter's tensors, given by peft's names."""
        from vllm.lora.request import LoRARequest

        folder = self._write(dict(named_tensors))
        llm.llm_engine.add_lora(LoRARequest(_NAME, _ID, str(folder), load_inplace=True))
        self.request = LoRARequest(_NAME, _ID, str(folder))

    def _write(self, tensors: dict[str, torch.Tensor]) -> Path:
        folder = Path(self._folder.name)
        modules = {name.removeprefix("base_model.model.").rsplit(".", 2)[0] for name in tensors}
        settings = {
            "peft_type": "LORA",
            "r": self._config.rank,
            "lora_alpha": self._config.alpha,
            "target_modules": sorted(modules),
            "bias": "none",
        }
        (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
        on_host = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(on_host, folder / "adapter_model.safetensors")
        return folder
