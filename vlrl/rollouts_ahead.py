"""Rollout batches on their way: sampled up to k steps before they are trained on.

    step s:    request the batches up to s + k | take batch s | learn | publish the new weights
    sampler:   ... sample s | load the weights after step s - 1 | sample s + k | ...

Sampling and the loading of weights are jobs of one queue, done in its order, so that batch s is
sampled by the policy after step s - 1 - k, whatever the speeds: a run can be repeated bit for bit.
With k = 0 each job is done in the caller's thread; else in one thread beside the learner's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from vlrl.samplers.probe import Agreement
from vlrl.types import Group

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RolloutBatch:
    """The sampled and graded groups that one step trains on.

    sampled_after: the step whose weights were the newest when it was requested.
    version: optimiser updates that those weights had seen.
    seconds: of sampling and grading.
    agreement: of the sampler with the learner as it was then, once it was probed.
    """

    step: int
    sampled_after: int
    version: int
    groups: Sequence[Group]
    seconds: float
    agreement: Agreement | None = None

    @property
    def staleness(self) -> int:
        """Steps that the policy has moved on since, when this batch is trained on."""
        return self.step - 1 - self.sampled_after

    @property
    def fresh(self) -> list[Group]:
        """The groups of which no response is older than it should be."""
        return [group for group in self.groups if self._age(group) <= 0]

    @property
    def stale(self) -> list[Group]:
        """The others: a server had missed the newest weights, say. They are not trained on."""
        return [group for group in self.groups if self._age(group) > 0]

    def _age(self, group: Group) -> int:
        return self.version - min(a.completion.policy_version for a in group.attempts)


Probe = Callable[[RolloutBatch], RolloutBatch]
"""Fills in the agreement."""


class RolloutsAhead:
    """The queue between sampler and learner."""

    def __init__(self, max_staleness: int) -> None:
        self._worker = (
            ThreadPoolExecutor(1, "rollouts", initializer=_leave_cores) if max_staleness else None
        )
        self._pending: deque[tuple[int, Callable[[], RolloutBatch]]] = deque()
        self._failure: BaseException | None = None

    @property
    def num_pending(self) -> int:
        """Groups requested and not taken."""
        return sum(num for num, _ in self._pending)

    def request(
        self, step: int, sampled_after: int, version: int, num: int, roll: Callable[[], list[Group]]
    ) -> None:
        """Have `roll` sample and grade the `num` groups of a step."""

        def sample() -> RolloutBatch:
            start = time.perf_counter()
            groups = roll()
            return RolloutBatch(
                step=step,
                sampled_after=sampled_after,
                version=version,
                groups=groups,
                seconds=time.perf_counter() - start,
            )

        # Without a thread it is sampled when it's taken: nothing is done in between.
        self._pending.append((num, self._submit(sample).result if self._worker else sample))

    def publish(self, load: Callable[[], None]) -> None:
        """Have the sampler load new weights, after all that was requested before."""
        if self._worker:
            self._submit(load)
        else:
            load()

    def take(self) -> RolloutBatch:
        """The next step's batch, when it is there. What sampling it raised is raised here."""
        _, result = self._pending[0]
        batch = result()
        self._pending.popleft()
        return batch

    def settle(self, probe: Probe) -> list[RolloutBatch]:
        """Wait until nothing is under way; the finished batches, probed. They stay to be taken."""
        batches = [probe(result()) for _, result in self._pending]
        self._pending.clear()
        self.put_back(batches)
        if self._worker:
            self._submit(lambda: None).result()  # weights, and what they raised
        return batches

    def put_back(self, batches: Sequence[RolloutBatch]) -> None:
        """Batches that are to be taken next, after those that are there."""
        for batch in batches:
            self._pending.append((len(batch.groups), _constant(batch)))

    def close(self) -> None:
        """Drop what has not begun, and wait for what has."""
        if self._worker:
            self._worker.shutdown(cancel_futures=True)

    def _submit(self, job: Callable[[], T]) -> Future[T]:
        def run() -> T:
            if self._failure:  # never sample with weights that could not be loaded
                raise self._failure
            try:
                return job()
            except BaseException as error:
                self._failure = error
                raise

        assert self._worker
        return self._worker.submit(run)


def _leave_cores() -> None:
    """A sampler that computes on the CPU beside the learner takes half of the cores.

    The setting is this thread's alone. With all of them in both threads each waits for the other's.
    """
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))


def _constant(batch: RolloutBatch) -> Callable[[], RolloutBatch]:
    return lambda: batch
