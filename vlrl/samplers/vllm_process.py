"""vLLM as a guest in the learner's process: quiet, and what it changes there is put back.

Starting an engine replaces `torch.set_num_threads` by a no-op, reseeds every global random
generator and puts LD_PRELOAD and others into the environment, where each program that a verifier
starts would inherit them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch

_DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are about its own deprecations and LD_PRELOAD
    "VLLM_NO_USAGE_STATS": "1",  # no phoning home
}


def prepare_import() -> None:
    """Set what vLLM reads when it's imported. Comes before the first `import vllm`."""
    # The engine has to live in this process: weights are then handed over as tensors.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


@contextmanager
def undisturbed() -> Generator[None]:
    """Put back threads, affinity, random generators and environment after an engine's start."""
    environment = dict(os.environ)
    num_threads, set_num_threads = torch.get_num_threads(), torch.set_num_threads
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with kept_random_state():
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads = set_num_threads
        if affinity is not None:
            os.sched_setaffinity(0, affinity)
        torch.set_num_threads(num_threads)
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def kept_random_state() -> Generator[None]:
    """Put torch's CPU generator back afterwards.

    Not `torch.random.fork_rng`: inside it, what torch.compile made fails on image prompts ("CPU
    Generator does not use offset").
    """
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
