"""Suites -> transcripts and Pass@1 per domain: the training path, stopped after grading."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from vlrl.broken import BROKEN_FILE, BrokenRows, Check
from vlrl.chat import Chat, PromptError
from vlrl.config import DataConfig, ImageConfig, SamplerConfig
from vlrl.models.load import dtype_name, load_processor, resolve
from vlrl.report.console import Progress, score_table
from vlrl.report.eval_summary import write_summary
from vlrl.report.log import append_jsonl, scores_as_json, transcript, write_json
from vlrl.rollout import Rollout
from vlrl.samplers.base import SamplingParams, derive_seed
from vlrl.scores import DomainScore, score
from vlrl.suites import Suite, load_suite
from vlrl.tasks import TASKS, Task
from vlrl.tasks.coding import Coding
from vlrl.types import Group, Problem

CHUNK = 64
"""Problems that are sampled at once: so often is progress shown and a stop possible."""

MAX_PROMPT_TOKENS: int = DataConfig.model_fields["max_prompt_tokens"].default
"""Room for a prompt where no config sets it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The attempts of a suite, and what they come to by domain."""

    suite: Suite
    groups: Sequence[Group]
    scores: dict[str, DomainScore]


def evaluate(
    suite: Suite,
    rollout: Rollout,
    progress: Progress,
    *,
    seed: int,
    folder: Path,
    step: int = 0,
    check: Check | None = None,
    max_broken: float | None = None,
    stop: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate the sampler's policy and write FOLDER/SUITE.jsonl and FOLDER/SUITE.json.

    `check` refuses problems that can't be used: they are named in FOLDER/broken_rows.jsonl and, up
    to the share `max_broken` of a recipe (a run's `data.max_broken`; None: 1%), skipped. `stop` is
    called after each chunk and may raise. The same seed gives the same responses.

    Raises:
        ConfigError, TooManyBrokenRows: the suite's problems can't be had.
        SandboxUnavailable: programs can't be run safely on this machine.
    """
    file = suite.file
    if max_broken is None:
        broken = BrokenRows(path=folder / BROKEN_FILE)
    else:
        broken = BrokenRows(max_broken, folder / BROKEN_FILE, key="data.max_broken")
    problems = suite.problems(rollout.tasks, check=check, broken=broken)
    if broken.num_added:
        progress.warn(f"{file.name}: {broken.num_added} broken row(s) skipped, see {broken.path}")
    prove_sandbox(problems, rollout.tasks)
    groups: list[Group] = []
    with progress.bar(f"evaluating {file.name}", len(problems)) as advance:
        for start in range(0, len(problems), CHUNK):
            params = SamplingParams(
                n=file.k,
                temperature=file.temperature,
                top_p=file.top_p,
                max_tokens=file.max_tokens,
                seed=derive_seed(seed, "eval", file.name, start),
            )
            groups += rollout(problems[start : start + CHUNK], params)
            advance(len(groups))
            stop()
    return finish(suite, groups, progress, folder=folder, step=step)


def prove_sandbox(problems: Sequence[Problem], tasks: Mapping[str, Task]) -> None:
    """One error where programs can't be run, before the first response and not for each of them.

    Raises:
        SandboxUnavailable: which layer is missing, and the mend.
    """
    for domain in sorted({problem.domain for problem in problems}):
        task = tasks.get(domain)
        if isinstance(task, Coding):
            task.protection()


def finish(
    suite: Suite, groups: Sequence[Group], progress: Progress, *, folder: Path, step: int = 0
) -> Evaluation:
    """Score graded groups and write FOLDER/SUITE.jsonl and FOLDER/SUITE.json."""
    name = suite.name
    scores = score(groups)
    for domain in sorted({group.problem.domain for group in groups} - scores.keys()):
        progress.warn(f"{name}: {domain} has no score: every verifier call failed")
    lines = folder / f"{name}.jsonl"
    lines.unlink(missing_ok=True)
    append_jsonl(lines, transcript(groups, step))
    write_json(folder / f"{name}.json", scores_as_json(scores))
    return Evaluation(suite=suite, groups=groups, scores=scores)


def prompt_check(chat: Chat, max_prompt_tokens: int) -> Check:
    """Refuses a problem whose prompt can't be made or is too long.

    The check raises ImageError or PromptError.
    """

    def check(problem: Problem) -> None:
        num_tokens = len(chat.expand(chat.render(problem)))
        if num_tokens > max_prompt_tokens:
            raise PromptError(
                f"{problem.id}: the prompt has {num_tokens} tokens, more than "
                f"max_prompt_tokens={max_prompt_tokens}"
            )

    return check


@contextmanager
def open_rollout(
    model: str,
    *,
    max_tokens: int,
    max_num_seqs: int = 256,
    max_prompt_tokens: int = MAX_PROMPT_TOKENS,
) -> Generator[Rollout]:
    """A checkpoint in vLLM, ready to roll out; closed at the end.

    Raises:
        ModelError: no such checkpoint.
    """
    # vLLM takes seconds to import and is not there on every machine that only grades.
    from vlrl.samplers.vllm_engine import VllmSampler

    chat = Chat(load_processor(model), ImageConfig())
    sampler = VllmSampler(
        resolve(model),
        chat,
        SamplerConfig(max_num_seqs=max_num_seqs),
        max_model_len=max_prompt_tokens + max_tokens,
        dtype=dtype_name("auto"),
    )
    rollout = Rollout(chat, sampler, TASKS)
    try:
        yield rollout
    finally:
        rollout.close()
        sampler.close()


def evaluate_model(
    model: str,
    suites: Sequence[str],
    *,
    out: Path | None = None,
    max_prompt_tokens: int = MAX_PROMPT_TOKENS,
    k: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    root: Path | None = None,
) -> list[Evaluation]:
    """`vlrl eval`: a checkpoint on some suites, a table each.

    `out`: where transcripts and scores go; None: runs/eval/ and the model's name.
    """
    out = out or default_out(model)
    opened = [load_suite(name, root).with_limits(k=k, limit=limit) for name in suites]
    progress = Progress(num_steps=0)
    results: list[Evaluation] = []
    max_tokens = max(suite.file.max_tokens for suite in opened)
    with open_rollout(model, max_tokens=max_tokens, max_prompt_tokens=max_prompt_tokens) as rollout:
        check = prompt_check(rollout.chat, max_prompt_tokens)
        for suite in opened:
            done = evaluate(suite, rollout, progress, seed=seed, folder=out, check=check)
            progress.console.print(score_table(f"{model} on {suite.name}", {"": done.scores}))
            results.append(done)
    write_summary(out, model, results)
    progress.say(f"transcripts, scores and summary: {out}")
    return results


def default_out(model: str) -> Path:
    """A folder for one model: runs/eval/Qwen2.5-VL-3B-Instruct, runs/eval/RUN-step-000100."""
    *_, run, parent, name = ("", "", *Path(model).expanduser().resolve().parts)
    return Path("runs/eval") / (f"{run}-{name}" if parent == "checkpoints" else name)
