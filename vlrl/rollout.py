"""Problems -> sampled, graded Groups. Grading runs in threads while the sampler works on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from vlrl.chat import Chat
from vlrl.graders import Judges
from vlrl.rewards import PLAIN, RewardRules, reward
from vlrl.samplers.base import Sampler, SamplingParams
from vlrl.tasks.base import Task
from vlrl.types import Attempt, Completion, Group, Problem, Prompt, Verdict


class Rollout:
    """Samples and grades: the one path of training and evaluation."""

    def __init__(self, chat: Chat, sampler: Sampler, tasks: Mapping[str, Task]) -> None:
        self.chat = chat
        self.sampler = sampler
        self.tasks = tasks
        self.judges = Judges(tasks)

    def __call__(
        self,
        problems: Sequence[Problem],
        params: SamplingParams,
        rules: RewardRules = PLAIN,
        *,
        seeds: Sequence[int] | None = None,
    ) -> list[Group]:
        """One Group a problem, in the order of the problems, each with `params.n` attempts.

        `seeds` are as `Sampler.sample` takes them. `rules` are training's: an evaluation has none,
        as it counts what is correct.
        """
        prompts = [self.chat.render(problem) for problem in problems]
        verdicts: dict[int, list[Future[Verdict]]] = {}

        def grade(index: int, completions: Sequence[Completion]) -> None:
            verdicts[index] = [
                self.judges.later(problems[index], completion) for completion in completions
            ]

        completions = self.sampler.sample(prompts, params, seeds=seeds, on_group=grade)
        return [
            _group(problem, prompt, completions[i], verdicts[i], rules)
            for i, (problem, prompt) in enumerate(zip(problems, prompts, strict=True))
        ]

    def close(self) -> None:
        """Stop the grading threads."""
        self.judges.close()


def _group(
    problem: Problem,
    prompt: Prompt,
    completions: Sequence[Completion],
    verdicts: Sequence[Future[Verdict]],
    rules: RewardRules,
) -> Group:
    attempts = tuple(
        Attempt(completion=completion, verdict=reward(problem, completion, verdict.result(), rules))
        for completion, verdict in zip(completions, verdicts, strict=True)
    )
    return Group(problem=problem, prompt=prompt, attempts=attempts)
