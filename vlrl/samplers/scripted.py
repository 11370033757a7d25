"""A sampler that says what it's told: the whole loop runs in a test, without a model."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from vlrl.chat import Chat
from vlrl.samplers.base import OnGroup, SamplingParams, prompt_seeds
from vlrl.types import Completion, Finish, Prompt

Script = Callable[[Prompt], Sequence[str]] | Mapping[str, Sequence[str]]


class ScriptedSampler:
    """Answers from a script (see `Sampler` for the methods' contract).

    ScriptedSampler(chat, lambda prompt: ["4", "5"])
    ScriptedSampler(chat, {"two plus two": ["4", "5"]})

    A function gets the prompt and gives the texts of its answers; a mapping is searched for the
    first key that the prompt's text contains. The n responses go through the answers in turn,
    beginning where the prompt's seed says. Log-probs are made up, in (-1, 0), also by the seed.

    Attributes:
        version: of the weights that were loaded last.
        loaded: the names in them.
    """

    def __init__(self, chat: Chat, script: Script, *, version: int = 0) -> None:
        self.chat = chat
        self.version = version
        self.loaded: tuple[str, ...] = ()
        self._script = script

    def sample(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams,
        *,
        seeds: Sequence[int] | None = None,
        on_group: OnGroup | None = None,
    ) -> list[list[Completion]]:
        """See `Sampler.sample`.

        Raises:
            LookupError: the script has no answer for a prompt.
        """
        groups: list[list[Completion]] = []
        for index, seed in enumerate(prompt_seeds(len(prompts), params, seeds)):
            rng = random.Random(seed)
            answers = self._answers(prompts[index])
            start = rng.randrange(len(answers))
            texts = [answers[(start + i) % len(answers)] for i in range(params.n)]
            groups.append([self._completion(text, params.max_tokens, rng) for text in texts])
            if on_group is not None:
                on_group(index, groups[index])
        return groups

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """See `Sampler.load_weights`; the names are kept, the tensors are not."""
        self.loaded = tuple(name for name, _ in named_tensors)
        self.version = version

    def close(self) -> None:
        """Nothing to free."""

    def _answers(self, prompt: Prompt) -> Sequence[str]:
        if not isinstance(self._script, Mapping):
            answers = self._script(prompt)
        else:
            text = self.chat.decode(prompt.token_ids)
            answers = next((a for key, a in self._script.items() if key in text), [])
        if not answers:
            raise LookupError(f"no answer in the script for: {self.chat.decode(prompt.token_ids)}")
        return answers

    def _completion(self, text: str, max_tokens: int, rng: random.Random) -> Completion:
        ids = [*self.chat.tokenizer(text, add_special_tokens=False)["input_ids"]]
        ids.append(self.chat.tokenizer.eos_token_id)
        finish = Finish.STOP if len(ids) <= max_tokens else Finish.LENGTH
        token_ids = tuple(ids[:max_tokens])
        return Completion(
            text=self.chat.decode(token_ids),
            token_ids=token_ids,
            logprobs=tuple(math.log(1 - 0.6 * rng.random()) for _ in token_ids),
            finish=finish,
            policy_version=self.version,
        )
