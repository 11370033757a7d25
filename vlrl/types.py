"""The nouns: frozen values that flow from stage to stage. Imports nothing of ours.

    row -> Problem -> Prompt -> Completion x G -> Verdict -> Attempt, Group -> Batch

Shape letters: G responses of one group, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

ImageSource = Path | bytes
"""An encoded image: a file's path, or the file's bytes. Decoded once, by chat.py."""


class Finish(StrEnum):
    """Why a response ended. Truncated (`LENGTH`) is not the same as failed."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


class Status(StrEnum):
    """What became of grading. Only `ERROR` says something about the verifier, not the response."""

    OK = "ok"
    UNPARSABLE = "unparsable"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Gold of a multiple-choice problem: `options=("red", "blue"), answer="blue"`."""

    options: tuple[str, ...]
    answer: str

    def __post_init__(self) -> None:
        if self.answer not in self.options:
            raise ValueError(f"answer {self.answer!r} is not one of the options {self.options!r}")


@dataclass(frozen=True, kw_only=True)
class CallTest:
    """One hidden call: `args=(2,), expected=5`. Plain builtins only."""

    args: tuple[object, ...]
    expected: object
    kwargs: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, kw_only=True)
class CallTests:
    """Gold of a write-a-function problem: `function` is called with hidden inputs."""

    function: str
    tests: tuple[CallTest, ...]
    tolerance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StdioTests:
    """Gold of a write-a-program problem: hidden (stdin, stdout) pairs."""

    tests: tuple[tuple[str, str], ...]
    tolerance: float | None = None


@dataclass(frozen=True, kw_only=True)
class AssertTests:
    """Gold in the style of HumanEval and MBPP: `code` raises unless the program is right.

    `prefix` precedes the program when the response does not define `function` itself
    (HumanEval's prompt: imports, helpers and the signature).
    """

    code: str
    function: str = ""
    prefix: str = ""


Answer = str | Choice | CallTests | StdioTests | AssertTests


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing to solve.

    Problem(id="easy_vqa/train/12", domain="image_qa", question="<image>What colour is it?",
            images=(Path("12.png"),), answer="red", source="easy_vqa")

    `domain` is a key of `tasks.TASKS`: the adapter that judges it. Each `<image>` in `question`
    is the place of one of `images`; with no marker the images come first.
    """

    id: str
    domain: str
    question: str
    answer: Answer
    images: tuple[ImageSource, ...] = ()
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A rendered problem: un-expanded ids (one media token an image) and the images' hashes."""

    token_ids: tuple[int, ...]
    image_keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One sampled response of T tokens.

    `logprobs` are the sampler's, in nats, of each token under the distribution that was sampled:
    logits divided by the temperature, media tokens banned. The learner computes the same.
    The end-of-turn token belongs to `token_ids`, not to `text`.

    Raises:
        ValueError: not as many log-probs as tokens.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    policy_version: int = 0

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.logprobs):
            raise ValueError(
                f"a completion has {len(self.token_ids)} tokens but {len(self.logprobs)} log-probs"
            )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A verifier's word on one response.

    `correct` is what evals count; `reward` is what the learner sees; `parts` is the reward by
    name; `parsed` is the answer that was read; `note` says why in a few words.
    """

    status: Status
    correct: bool
    reward: float
    parts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    parsed: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.correct and self.status is not Status.OK:
            raise ValueError(f"a verdict with status {self.status} can't be correct")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A response and its verdict."""

    completion: Completion
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Group:
    """One problem, its prompt and its G attempts. Advantages are derived, never stored here."""

    problem: Problem
    prompt: Prompt
    attempts: Sequence[Attempt]

    @property
    def scored(self) -> list[Attempt]:
        """The attempts whose verifier did its work; the others are kept out of the advantage."""
        return [a for a in self.attempts if a.verdict.status is not Status.ERROR]
