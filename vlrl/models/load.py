"""A policy and its processor from a folder, a hub id or a built-in name; and back to a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as hf_logging

from vlrl.models.errors import ModelError
from vlrl.models.experts import TRANSPOSED_FAMILIES, as_released, has_square_experts
from vlrl.models.lora import (
    ADAPTER_FOLDER,
    adapter_weights,
    has_lora,
    merged_weights,
    save_adapter,
)
from vlrl.models.patterns import hint, matching
from vlrl.shared_prefix import use_shared_prefix

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
"""`model_type`s whose packed forward is known to be exact."""
RECURRENT = ("qwen3_5", "qwen3_5_moe")
"""Those with recurrent layers (see recurrent.py)."""
BUILTIN_ROOT = Path(__file__).resolve().parent
"""A folder in here with a config.json is a built-in checkpoint."""


def resolve(path: str) -> str:
    """What transformers is given for a config's `model.path`: a folder, or a hub id.

    Raises:
        ModelError: a path to no folder, or a folder that holds no checkpoint.
    """
    builtin = BUILTIN_ROOT / path
    folder = builtin if (builtin / "config.json").is_file() else Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            runs = sorted(folder.glob("checkpoints/step-*/config.json"))
            hint = f"; the newest checkpoint of that run: {runs[-1].parent}" if runs else ""
            raise ModelError(f"{folder}: no config.json: not a Hugging Face checkpoint{hint}")
        return str(folder)
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        names = sorted(p.parent.name for p in BUILTIN_ROOT.glob("*/config.json"))
        raise ModelError(
            f"{path}: no such folder, and neither a hub id (owner/name) nor a built-in model "
            f"({', '.join(names) or 'none'})"
        )
    return path


def load_policy(path: str, dtype: Literal["auto", "float32", "bfloat16"] = "auto") -> Any:
    """The model, ready for the packed forward, on the GPU if there is one.

    `dtype` auto: float32 on a CPU, bfloat16 on a GPU.

    Raises:
        ModelError: no such checkpoint, the hub can't be reached, or the family isn't supported.
    """
    hf_logging.disable_progress_bar()
    where = resolve(path)
    config = _from_hub(where, AutoConfig.from_pretrained)
    check_family(config, where)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = getattr(torch, dtype_name(dtype))
    model = _from_hub(where, AutoModelForImageTextToText.from_pretrained, dtype=wanted)
    use_shared_prefix(model)
    return model.to(device).eval()


def dtype_name(dtype: Literal["auto", "float32", "bfloat16"]) -> Literal["float32", "bfloat16"]:
    """What `auto` means on this machine: float32 on a CPU, bfloat16 on a GPU."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if torch.cuda.is_available() else "float32"


def load_processor(path: str) -> Any:
    """The checkpoint's processor: tokenizer, chat template, image processor.

    Raises:
        ModelError: no such checkpoint, one that takes no images, or the hub can't be reached.
    """
    where = resolve(path)
    # First the one small file: without a network each missing file costs half a minute of tries.
    _from_hub(where, AutoConfig.from_pretrained)
    processor = _from_hub(where, AutoProcessor.from_pretrained)
    if not hasattr(processor, "image_processor"):  # then it is a bare tokenizer
        raise ModelError(
            f"{where}: this model takes no images. vlrl wants a vision-language model of one of "
            f"the families {', '.join(FAMILIES)}"
        )
    return processor


def save_policy(model: Any, processor: Any, folder: Path) -> None:
    """Write a checkpoint that `AutoModelForImageTextToText` and vLLM load.

    With LoRA that is the merged model; the adapter goes into a folder in it.
    """
    if has_lora(model):
        named, adapter = dict(merged_weights(model)), dict(adapter_weights(model))
        write_policy(model, processor, folder, named, adapter)
    elif model.config.model_type in TRANSPOSED_FAMILIES:
        write_policy(model, processor, folder, model.state_dict())
    else:
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)


def write_policy(
    model: Any,
    processor: Any,
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    adapter: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """`save_policy` with other tensors than the model's: whole ones, say, where it has shards."""
    folder.mkdir(parents=True, exist_ok=True)
    family = model.config.model_type
    if family in TRANSPOSED_FAMILIES:
        tensors = {n: t.contiguous() for n, t in as_released(family, weights.items())}
        model.save_pretrained(folder, state_dict=tensors, save_original_format=False)
    else:
        model.save_pretrained(folder, state_dict=dict(weights))
    if adapter:
        save_adapter(model, folder / ADAPTER_FOLDER, adapter)
    processor.save_pretrained(folder)


def check_family(config: Any, where: str) -> None:
    """Refuse what the packed forward would compute wrongly.

    Raises:
        ModelError: an unknown family, layers of a kind that it isn't known to have, or experts
            that no file says the layout of.
    """
    family = getattr(config, "model_type", None)
    if family not in FAMILIES:
        raise ModelError(
            f"{where}: models of the family {family!r} can't be trained: nothing says that prompts "
            f"shared by responses give them the right gradients; families that are known: "
            f"{', '.join(FAMILIES)}"
        )
    safe = {"full_attention", "linear_attention" if family in RECURRENT else "full_attention"}
    if unsafe := set(getattr(config.text_config, "layer_types", None) or ()) - safe:
        raise ModelError(
            f"{where}: a {family} with layers of the kind {', '.join(sorted(unsafe))} can't be "
            f"trained: its responses would see other tokens than when they were sampled; known: "
            f"{', '.join(sorted(safe))}"
        )
    if has_square_experts(config):
        raise ModelError(
            f"{where}: its experts' matrices are square, so no file says which way they lie; "
            "models with another moe_intermediate_size can be trained"
        )


def freeze(model: Any, patterns: Sequence[str]) -> list[str]:
    """Stop training the parameters whose names match; the names that were frozen.

    Raises:
        ModelError: a pattern that matches nothing, or nothing left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not matching(names, [pattern]):
            near = hint(names, pattern)
            raise ModelError(f"model.freeze: {pattern!r} matches no parameter; {near}")
    frozen = matching(names, patterns)
    if len(frozen) == len(names):
        raise ModelError("model.freeze: every parameter is frozen, nothing is left to train")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in set(frozen))
    return frozen


def _from_hub(where: str, load: Any, **kwargs: Any) -> Any:
    try:
        return load(where, **kwargs)
    except (OSError, ValueError, SafetensorError) as error:
        # transformers raises a ValueError for a model_type that it doesn't know
        if Path(where).is_dir() or not isinstance(error, OSError):
            raise ModelError(f"{where}: can't be loaded: {_first_line(error)}") from error
        raise ModelError(
            f"{where}: not in a local folder, and the hub did not give it ({_first_line(error)}). "
            "Download it where there is a network (`hf download ID --local-dir FOLDER`) and set "
            "model.path=FOLDER."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
