"""Runs a function in several processes that gloo joins, without a port to be found free."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

from vlrl.distributed.world import World, join


def in_processes(
    num: int, function: Callable[..., Any], folder: Path, *args: Any, timeout_s: float = 240
) -> list[Any]:
    """What `function(world, *args)` returns in each of `num` processes, by rank.

    A process that raises ends all of them with its traceback; after `timeout_s` each says where it
    is (on stderr).
    """
    store = folder / f"store-{uuid.uuid4().hex}"
    context = multiprocessing.spawn(
        _one, (num, store, function, folder, args), nprocs=num, join=False
    )
    try:
        end = time.monotonic() + timeout_s
        while not context.join(timeout=1, grace_period=5):
            if time.monotonic() > end:
                for process in context.processes:
                    os.kill(process.pid, signal.SIGUSR1)
                time.sleep(1)
                raise TimeoutError(f"{function.__name__}: no end after {timeout_s:g} s")
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(num)]


def _one(
    rank: int,
    num: int,
    store: Path,
    function: Callable[..., Any],
    folder: Path,
    args: tuple[Any, ...],
) -> None:
    faulthandler.register(signal.SIGUSR1)
    os.environ["WORLD_SIZE"] = str(num)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=num)
    torch.set_num_threads(1)
    with join() as world:
        assert world == World(rank=rank, size=num)
        torch.save(function(world, *args), folder / f"rank{rank}.pt")
    if dist.is_initialized():  # gloo's threads abort a process that ends with them
        dist.barrier()
        dist.destroy_process_group()
