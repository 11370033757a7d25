"""Everything that going on needs, written whole or not at all.

    checkpoints/step-000060/   a Hugging Face model with its processor, and trainer.pt beside it

A folder is written under a temporary name and renamed when it is complete, so one that has its
final name is whole.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

STATE_FILE = "trainer.pt"


class CheckpointError(ValueError):
    """A checkpoint that can't be gone on from: which one, and why."""


@dataclass(frozen=True, kw_only=True)
class TrainerState:
    """What a run is besides its weights.

    step: rollout batches done. learner: optimiser, schedule and counters. stream: the data's cursor
    in each recipe. rng: the states of Python's, numpy's and torch's generators.
    """

    step: int
    learner: Mapping[str, Any]
    stream: Mapping[str, Any]
    rng: Mapping[str, Any]


def save(folder: Path, state: TrainerState, save_model: Callable[[Path], None], keep: int) -> Path:
    """Write a checkpoint below `folder` and drop all but the newest `keep`; its path."""
    target = folder / f"step-{state.step:06d}"
    draft = folder / f".{target.name}.{os.getpid()}"
    _drop_dead_drafts(folder)
    draft.mkdir(parents=True)
    save_model(draft)
    torch.save(vars(state), draft / STATE_FILE)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    for old in _whole(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def latest(folder: Path) -> Path:
    """The newest whole checkpoint below a folder.

    Raises:
        CheckpointError: there is none.
    """
    found = _whole(folder)
    if not found:
        raise CheckpointError(f"{folder}: no checkpoint to go on from")
    return found[-1]


def load_state(checkpoint: Path) -> TrainerState:
    """The trainer's state of a checkpoint that this program wrote.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = checkpoint / STATE_FILE
    try:
        # Only tensors and plain containers are unpickled.
        return TrainerState(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, TypeError) as error:
        raise CheckpointError(f"{path}: can't be read: {error}") from error


def rng_state() -> dict[str, Any]:
    """The states of all random generators of this process, as plain values."""
    _, words, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(np.asarray(words).copy()), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Put the generators back to what `rng_state` saw."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    words, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", words.numpy(), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def _drop_dead_drafts(folder: Path) -> None:
    """Remove what saves that were broken off left behind: the whole size of a model each.

    A draft of another living process stays: it may be at work on it.
    """
    for draft in folder.glob(".step-*.*"):
        pid = draft.name.rpartition(".")[2]
        if pid.isdecimal() and (int(pid) == os.getpid() or not _is_alive(int(pid))):
            shutil.rmtree(draft, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # someone else's process
    return True


def _whole(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"step-*/{STATE_FILE}"))
