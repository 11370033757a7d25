"""Responses that were made elsewhere -> the same tasks, suites and scores, without a model.

A line a response, several a problem: {"problem": "gsm8k/eval/12", "response": "The answer is 5."}.
Ids are those of `vlrl eval`'s transcripts, which can be judged anew this way. `finish` may say
"length" for a response that was cut off, `tokens` how long it was; other keys are passed over.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vlrl.evaluate import Evaluation, finish, prove_sandbox
from vlrl.evaluation.judging import UnderWay
from vlrl.evaluation.rows import SeenCompletion
from vlrl.evaluation.store import Format, start_anew
from vlrl.graders import Judges
from vlrl.recorded import EvalFileError, json_lines, text_at
from vlrl.report.console import Progress, score_table
from vlrl.report.eval_summary import write_summary
from vlrl.suites import load_suites
from vlrl.tasks import TASKS
from vlrl.tasks.base import Task
from vlrl.types import Completion, Finish, Group, Problem, Prompt


def evaluate_responses(
    responses: Path,
    suites: Sequence[str],
    *,
    out: Path | None = None,
    limit: int | None = None,
    root: Path | None = None,
    form: Format = "jsonl",
    tasks: Mapping[str, Task] = TASKS,
) -> list[Evaluation]:
    """`vlrl eval --responses FILE`: Pass@1 of a file of responses on some suites.

    `out`: where transcripts and scores go; None: runs/eval/ and the file's name.

    Raises:
        EvalFileError: a line is wrong or names no problem of the suites (the line and the problem
            are named), or a problem has no response. Nothing is written then.
        ConfigError, TooManyBrokenRows: a suite's problems can't be had.
        SandboxUnavailable: programs can't be run safely on this machine.
    """
    out = out or Path("runs/eval") / responses.stem
    progress = Progress(num_steps=0)
    opened = [suite.with_limits(limit=limit) for suite in load_suites(suites, root)]
    problems = {suite.name: suite.problems(tasks) for suite in opened}
    everything = [problem for found in problems.values() for problem in found]
    given = read_responses(responses, everything)
    prove_sandbox(everything, tasks)
    results: list[Evaluation] = []
    for suite in opened:
        groups = judge_responses(problems[suite.name], given, tasks)
        counts = {len(group.attempts) for group in groups}
        if counts != {suite.file.k}:
            number = " to ".join(str(n) for n in sorted({min(counts), max(counts)}))
            progress.warn(
                f"{suite.name} asks for {suite.file.k} response(s) a problem; the file has {number}"
            )
        start_anew(out, suite.name)
        done = finish(suite, groups, progress, folder=out, form=form)
        if done.scores:
            title = f"{responses} on {suite.name}"
            progress.console.print(score_table(title, {"": done.scores}))
        results.append(done)
    write_summary(out, str(responses), results, sampled_here=False)
    progress.say(f"transcripts, scores and summary: {out}")
    return results


def read_responses(path: Path, problems: Iterable[Problem]) -> dict[str, list[Completion]]:
    """Problem id -> its responses, in the file's order.

    Raises:
        EvalFileError: a line is wrong or of another problem, or a problem has no response.
    """
    given: dict[str, list[Completion]] = {problem.id: [] for problem in problems}
    for number, row in json_lines(path):
        where = f"{path}, line {number}"
        name = text_at(row, "problem", where)
        where = f"{where}, problem {name}"
        if name not in given:
            raise EvalFileError(f"{where}: the suites have no such problem: {_near(name, given)}")
        text, finish_name = text_at(row, "response", where), row.get("finish", Finish.STOP.value)
        if finish_name not in list(Finish):
            raise EvalFileError(
                f"{where}: finish {finish_name!r} is none of {', '.join(f.value for f in Finish)}"
            )
        number = row.get("tokens")
        given[name].append(
            SeenCompletion(
                text=text,
                token_ids=(),
                logprobs=(),
                finish=Finish(finish_name),
                num_tokens=number if isinstance(number, int) and number > 0 else 0,
            )
        )
    if missing := [name for name, found in given.items() if not found]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise EvalFileError(
            f"{path}: {len(missing)} of {len(given)} problems have no response: "
            f"{', '.join(missing[:5])}{more}. An empty response counts as wrong; none is a mistake"
        )
    return given


def judge_responses(
    problems: Sequence[Problem],
    given: Mapping[str, Sequence[Completion]],
    tasks: Mapping[str, Task] = TASKS,
) -> list[Group]:
    """One graded Group a problem, in the problems' order; verifiers are bounded as in a rollout."""
    judges = Judges(tasks)
    groups: dict[int, Group] = {}
    under_way = UnderWay(judges.later, groups.__setitem__)
    try:
        for index, problem in enumerate(problems):
            under_way.add(index, problem, Prompt(token_ids=()), given[problem.id])
        under_way.hand_on(wait=True)
    finally:
        judges.close()
    return [groups[index] for index in range(len(problems))]


def _near(name: str, known: Iterable[str]) -> str:
    """The nearest id, or one to show what they look like: there may be thousands."""
    ids = list(known)
    (near, *_) = difflib.get_close_matches(name, ids, n=1, cutoff=0.5) or ids[:1] or [""]
    return f"did you mean {near!r}?"
