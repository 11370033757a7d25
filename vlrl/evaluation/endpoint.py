"""An OpenAI-compatible endpoint that answers problems: vLLM's server, or anyone's.

A request a response, as not every server knows `n`; the i-th of a problem has the problem's seed
plus i. Its share of the work is the prompt and the sampling alone: verdicts are made here, by the
same tasks. There are no token ids and no log-probs, as with recorded responses.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from vlrl.chat import content_of
from vlrl.config import EndpointConfig
from vlrl.evaluation.images import data_url, image_keys
from vlrl.evaluation.judging import OnGroup, UnderWay
from vlrl.evaluation.rows import SeenCompletion
from vlrl.graders import Judges
from vlrl.samplers.base import SamplingParams
from vlrl.tasks.base import Task
from vlrl.tasks.http_judge import sendable
from vlrl.tasks.remote import Endpoint, JudgeError, Patience
from vlrl.types import Completion, Finish, Problem, Prompt

MAX_REPLY = 16 << 20
SEED_BITS = 31
"""Servers in C count seeds in 32 bits."""
FATAL = frozenset({401, 403, 404, 405})
"""No other request will fare better: a wrong key, path or model name."""
MIN_IN_A_ROW = 8
GARBAGE_TRIES = 3
"""Replies with code 200 that are no chat completion, before a response is given up."""
_FINISH = {"stop": Finish.STOP, "eos": Finish.STOP, "length": Finish.LENGTH}


class EndpointError(RuntimeError):
    """Responses that the endpoint didn't give: how many problems lack some, and why."""


class _Garbage(Exception):
    """A reply that is no chat completion."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    index: int
    attempt: int
    problem: Problem


_Answer = tuple[_Job, "Completion | Exception"]


class EndpointSource:
    """`EndpointSource("http://localhost:8000/v1", "my-model", TASKS)`.

    Raises:
        ConfigError: no http(s) address, or `key_variable` names a variable that isn't set.
    """

    def __init__(
        self,
        url: str,
        model: str,
        tasks: Mapping[str, Task],
        *,
        config: EndpointConfig | None = None,
        key_variable: str = "",
    ) -> None:
        self.tasks = tasks
        self.model = model
        self._config = config or EndpointConfig()
        base = url.rstrip("/").removesuffix("/chat/completions")
        self._endpoint = Endpoint(
            url=f"{base}/chat/completions",
            key_variable=key_variable,
            patience=Patience(**self._config.model_dump()),
            max_reply=MAX_REPLY,
        )
        self._judges = Judges(tasks)
        self._names = {"max_tokens": "max_tokens", "seed": "seed"}

    def num_at_once(self, n: int) -> int:
        """All: `config.concurrency` bounds what is under way."""
        return sys.maxsize

    def answer(
        self,
        problems: Sequence[Problem],
        params: SamplingParams,
        seeds: Sequence[int],
        on_group: OnGroup,
    ) -> None:
        """See `Source.answer`. A problem that fails doesn't stop the others, unless many fail in
        a row or the endpoint refuses us altogether.

        Raises:
            EndpointError: not all responses could be had.
        """
        jobs: SimpleQueue[_Job | None] = SimpleQueue()
        for index, problem in enumerate(problems):
            for attempt in range(params.n):
                jobs.put(_Job(index=index, attempt=attempt, problem=problem))
        answers: SimpleQueue[_Answer] = SimpleQueue()
        failed: dict[int, str] = {}
        stopped = threading.Event()

        def work() -> None:
            while not stopped.is_set() and (job := jobs.get()) is not None:
                # A problem that lacks one response needs no others now.
                if job.index in failed:
                    answers.put((job, EndpointError(failed[job.index])))
                    continue
                try:
                    answers.put(
                        (job, self._ask(job.problem, params, seeds[job.index], job.attempt))
                    )
                except Exception as error:  # noqa: BLE001  (raised again by whoever waits for it)
                    answers.put((job, error))

        num_workers = min(self._config.concurrency, len(problems) * params.n)
        for number in range(num_workers):
            jobs.put(None)
            # Daemons: Ctrl-C doesn't wait for replies.
            threading.Thread(target=work, name=f"asks_{number}", daemon=True).start()
        under_way = UnderWay(self._judges.later, on_group)
        try:
            self._collect(problems, params.n, answers, failed, under_way)
        finally:
            stopped.set()
            under_way.hand_on()
        if failed:
            index, why = next(iter(failed.items()))
            raise EndpointError(
                f"{len(failed)} of {len(problems)} problems lack responses; the first, "
                f"{problems[index].id}: {why}. What came is kept: the same command asks for the "
                "rest"
            )

    def close(self) -> None:
        """Close the connections and stop the grading threads."""
        self._judges.close()
        self._endpoint.close()

    def _collect(
        self,
        problems: Sequence[Problem],
        n: int,
        answers: SimpleQueue[_Answer],
        failed: dict[int, str],
        under_way: UnderWay,
    ) -> None:
        """Put responses together by problem, name those that fail."""
        came: dict[int, dict[int, Completion]] = {}
        in_a_row = 0
        for _ in range(len(problems) * n):
            while True:
                try:
                    job, said = answers.get(timeout=0.5)
                    break
                except Empty:
                    under_way.hand_on()
            if isinstance(said, Completion):
                in_a_row = 0
                found = came.setdefault(job.index, {})
                found[job.attempt] = said
                if len(found) == n:
                    problem = problems[job.index]
                    ordered = [found[attempt] for attempt in range(n)]
                    prompt = Prompt(token_ids=(), image_keys=image_keys(problem))
                    under_way.add(job.index, problem, prompt, ordered)
                    del came[job.index]
            elif isinstance(said, JudgeError) and said.code in FATAL:
                raise EndpointError(f"the endpoint refuses: {said}") from said
            elif not isinstance(said, JudgeError | EndpointError | _Garbage):
                raise said
            elif job.index not in failed:
                failed[job.index] = str(said)
                in_a_row += 1
                if in_a_row >= max(MIN_IN_A_ROW, self._config.concurrency):
                    raise EndpointError(
                        f"{in_a_row} problems in a row got no response; the last, "
                        f"{job.problem.id}: {said}. What came is kept: the same command goes on"
                    )
        under_way.hand_on(wait=True)

    def _ask(self, problem: Problem, params: SamplingParams, seed: int, attempt: int) -> Completion:
        """One response."""
        messages = [{"role": "user", "content": _content(problem)}]
        said = ""
        for _ in range(GARBAGE_TRIES):
            try:
                return _completion(self._post(messages, params, seed + attempt))
            except _Garbage as error:
                said = str(error)
        raise _Garbage(f"{self._endpoint.url}: {GARBAGE_TRIES} replies without a response: {said}")

    def _post(self, messages: Any, params: SamplingParams, seed: int) -> Any:
        """The reply to one request; a parameter that the server refuses is put otherwise."""
        while True:
            names = dict(self._names)
            values = {"max_tokens": params.max_tokens, "seed": seed % 2**SEED_BITS}
            body = {
                "model": self.model,
                "messages": messages,
                "temperature": params.temperature,
                "top_p": params.top_p,
                **{names[key]: values[key] for key in names},
            }
            try:
                return self._endpoint.post(body)
            except JudgeError as error:
                if error.code is None and "is no JSON" in str(error):
                    raise _Garbage(str(error)) from error
                changed = _renamed(names, error)
                if changed is None:
                    raise
                self._names = changed


def _content(problem: Problem) -> str | list[dict[str, Any]]:
    """The user's turn, images at their places."""
    if not problem.images:
        return sendable(problem.question)
    sources = iter(problem.images)
    return [
        {"type": "image_url", "image_url": {"url": data_url(next(sources))}}
        if part["type"] == "image"
        else {"type": "text", "text": sendable(part["text"])}
        for part in content_of(problem)
    ]


def _completion(reply: Any) -> Completion:
    """The response in a reply; reasoning that the server keeps apart is put back before it."""
    try:
        (choice,) = reply["choices"]
        message = choice["message"]
        content = message.get("content")
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        finish = choice.get("finish_reason")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _Garbage(f"no chat completion: {reply!r:.200}") from error
    if not isinstance(content, str | None) or not isinstance(reasoning, str | None):
        raise _Garbage(f"the content is no text: {reply!r:.200}")
    text = content or ""
    if reasoning:
        text = f"<think>{reasoning}" + (f"</think>{text}" if text else "")
    usage = reply.get("usage")
    number = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return SeenCompletion(
        text=text.encode("utf-8", "replace").decode("utf-8"),
        token_ids=(),
        logprobs=(),
        finish=_FINISH.get(finish, Finish.ABORT) if isinstance(finish, str) else Finish.ABORT,
        num_tokens=number if isinstance(number, int) and number > 0 else 0,
    )


def _renamed(names: Mapping[str, str], error: JudgeError) -> dict[str, str] | None:
    """Other names for what a server refused with its name; None: it was something else."""
    if error.code not in (400, 422):
        return None
    said = str(error)
    if names["max_tokens"] == "max_tokens" and "max_completion_tokens" in said:
        return {**names, "max_tokens": "max_completion_tokens"}
    if "seed" in names and "seed" in said:
        return {key: name for key, name in names.items() if key != "seed"}
    return None
