"""Before a run: why it can't fit this machine's GPU, while nothing is loaded yet."""

from __future__ import annotations

import torch

from vlrl.config import RunConfig
from vlrl.models.load import dtype_name
from vlrl.plan.estimate import unfit
from vlrl.plan.model import meta_policy
from vlrl.plan.sizes import PlanError


def misfits(cfg: RunConfig) -> list[str]:
    """What speaks against a run on the GPU here; empty if it fits, or without a GPU.

    An estimate, so that nothing should be refused for it. Nothing is said of a family that can't be
    planned for.

    Raises:
        ModelError: no such checkpoint, or a pattern that matches nothing.
    """
    if not torch.cuda.is_available():
        return []
    memory_bytes = torch.cuda.get_device_properties(0).total_memory
    try:
        model = meta_policy(cfg.model)
        return unfit(cfg, model, memory_bytes, dtype=dtype_name(cfg.model.dtype))
    except (PlanError, OSError):  # OSError: the hub's answer; loading the policy says more
        return []
