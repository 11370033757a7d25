"""What answers an evaluation's problems. Here: a policy in a sampler, live or from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch

from vlrl.evaluation.cache import ResponseCache
from vlrl.evaluation.judging import OnGroup, UnderWay
from vlrl.rollout import Rollout
from vlrl.samplers.base import OnGroup as OnCompletions
from vlrl.samplers.base import Sampler, SamplingParams
from vlrl.tasks.base import Task
from vlrl.types import Completion, Problem, Prompt

MAX_PROBLEMS, MAX_RESPONSES = 256, 4096
"""Of one call of the sampler."""


class Source(Protocol):
    """Answers problems, judged by tasks."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """What judges the responses, by domain."""
        ...

    def num_at_once(self, n: int) -> int:
        """How many problems it is best asked at once, n responses each."""
        ...

    def answer(
        self,
        problems: Sequence[Problem],
        params: SamplingParams,
        seeds: Sequence[int],
        on_group: OnGroup,
    ) -> None:
        """Hand on a group of `params.n` attempts for each problem, in whatever order they end.

        Raises:
            SamplerError, EndpointError: responses can't be had.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class PolicySource:
    """A rollout's policy: the prompts, pixels, sampler and verifiers of training."""

    def __init__(self, rollout: Rollout, cache: ResponseCache | None = None) -> None:
        self.rollout = rollout
        self._cache = cache

    @property
    def tasks(self) -> Mapping[str, Task]:
        """See `Source.tasks`."""
        return self.rollout.tasks

    def num_at_once(self, n: int) -> int:
        """Enough to keep an engine busy; so many prompts' pictures are in memory together."""
        return max(1, min(MAX_PROBLEMS, MAX_RESPONSES // n))

    def answer(
        self,
        problems: Sequence[Problem],
        params: SamplingParams,
        seeds: Sequence[int],
        on_group: OnGroup,
    ) -> None:
        """See `Source.answer`. What the cache holds isn't sampled."""
        rollout, cache = self.rollout, self._cache
        prompts = [rollout.chat.render(problem) for problem in problems]
        under_way = UnderWay(rollout.judges.later, on_group)
        missing: list[int] = []
        for index, prompt in enumerate(prompts):
            known = cache.get(prompt, params, seeds[index]) if cache else None
            if known is None:
                missing.append(index)
            else:
                under_way.add(index, problems[index], prompt, known)

        def sampled(place: int, completions: Sequence[Completion]) -> None:
            index = missing[place]
            if cache:
                cache.put(prompts[index], params, seeds[index], completions)
            under_way.add(index, problems[index], prompts[index], completions)

        try:
            if missing:
                rollout.sampler.sample(
                    [prompts[index] for index in missing],
                    params,
                    seeds=[seeds[index] for index in missing],
                    on_group=sampled,
                )
            under_way.hand_on(wait=True)
        finally:  # after Ctrl-C or an error: what is done is not lost
            under_way.hand_on()

    def close(self) -> None:
        """Stop the grading threads and free the sampler."""
        self.rollout.close()
        self.rollout.sampler.close()


class LazySampler:
    """A sampler that is opened when first asked: what is known already needs no engine."""

    def __init__(self, opened: Callable[[], Sampler]) -> None:
        self._open = opened
        self._sampler: Sampler | None = None

    def sample(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams,
        *,
        seeds: Sequence[int] | None = None,
        on_group: OnCompletions | None = None,
    ) -> list[list[Completion]]:
        """See `Sampler.sample`."""
        self._sampler = self._sampler or self._open()
        return self._sampler.sample(prompts, params, seeds=seeds, on_group=on_group)

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """See `Sampler.load_weights`."""
        self._sampler = self._sampler or self._open()
        self._sampler.load_weights(named_tensors, version)

    def close(self) -> None:
        """See `Sampler.close`."""
        if self._sampler:
            self._sampler.close()
