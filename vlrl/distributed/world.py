"""The processes of a run: how many, which one this is, and the few things they tell each other.

`torchrun --nproc-per-node 8 -m vlrl train CONFIG` (or `accelerate launch --multi_gpu`) starts them
and says so in the environment. For one process every call here is a no-op that opens no connection.

Each call is a collective: all processes make the same calls in the same order, or all of them wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from vlrl.config import ConfigError

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)
"""How long one process may wait for another: as long as the slowest batch of responses takes. A
process that died is noticed at once by what started it (torchrun), not by this."""


class OtherProcessError(RuntimeError):
    """Process 0 could not do what all others depend on: what it said."""


class LostProcessError(RuntimeError):
    """Another process of the run ended, or can't be reached any more."""


@dataclass(frozen=True, kw_only=True)
class World:
    """`size` processes, of which this is number `rank`.

    `group` carries its calls; those of one group are made by one thread.
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def share(self, num: int) -> range:
        """Which of `num` things are this process's: every `size`-th."""
        return range(self.rank, num, self.size)

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank; plain values only (they are pickled)."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values  # pyright: ignore[reportReturnType]

    def sum(self, *values: int) -> list[int]:
        """Each value summed over the processes."""
        return [sum(column) for column in zip(*self.gather(values), strict=True)]

    def max(self, *values: int) -> list[int]:
        """Each value's largest."""
        return [max(column) for column in zip(*self.gather(values), strict=True)]

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process."""
        return any(self.gather(flag))

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` gives in process 0, everywhere; it isn't called elsewhere.

        Raises:
            OtherProcessError: it raised in process 0, which raises its own error.
        """
        if self.size == 1:
            return make()
        if not self.is_main:
            sent: list[tuple[T | None, str | None]] = [(None, None)]
            dist.broadcast_object_list(sent, src=0, group=self.group)
            value, error = sent[0]
            if error is not None:
                raise OtherProcessError(f"process 0: {error}")
            return value  # pyright: ignore[reportReturnType]
        try:
            made = make()
        except BaseException as error:
            # The others wait for a word, whatever happened.
            said = f"{type(error).__name__}: {error}"
            dist.broadcast_object_list([(None, said)], src=0, group=self.group)
            raise
        dist.broadcast_object_list([(made, None)], src=0, group=self.group)
        return made

    def merge(self, items: Sequence[T], num: int) -> list[T]:
        """All `num` things in their order, from each process's share of them (see `share`)."""
        parts = self.gather(list(items))
        return [parts[index % self.size][index // self.size] for index in range(num)]

    def beside(self) -> World:
        """The same processes for a thread of its own: its calls don't mix with this world's."""
        if self.size == 1:
            return self
        return replace(self, group=dist.new_group(backend="gloo", timeout=TIMEOUT))


ALONE = World()
"""A run of one process."""


@contextmanager
def join() -> Generator[World]:
    """The world that the environment describes; each process gets a GPU of its own if there are.

    Connections that are there already are used, and left open. gloo connects CPUs, NCCL GPUs; what
    is small goes over gloo everywhere.

    Raises:
        ConfigError: accelerate was asked for several processes and starts none of its own.
        LostProcessError: another process ended while this one waited for it.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        _check_accelerate()
        yield ALONE
        return
    if dist.is_initialized():
        yield World(rank=dist.get_rank(), size=dist.get_world_size())
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    else:
        backend = "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield World(rank=dist.get_rank(), size=size)
    except RuntimeError as error:
        # Of gloo's errors only the text says whose they are.
        if not (isinstance(error, dist.DistError) or "gloo/transport" in str(error)):
            raise
        raise LostProcessError(
            f"process {dist.get_rank()} lost another process of this run, which ended or can't "
            "be reached; what it said, or what started them, says why. A run goes on from its last "
            f"checkpoint with `vlrl train RUN --resume`, on any number of processes ({error})"
        ) from error
    finally:
        if dist.is_initialized():  # closing vLLM may have ended it
            dist.destroy_process_group()


def _check_accelerate() -> None:
    """With --cpu it starts one process, or leaves several to MPI, each as if it were alone."""
    told = os.environ.keys()
    if {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= told and "RANK" not in told:
        raise ConfigError(
            "accelerate launch starts several processes with --multi_gpu only, on CPUs too: "
            "leave out --cpu and add --multi_gpu, or use torchrun --nproc-per-node N"
        )
