"""Verdicts for a file of answers or programs: one JSON line in, one JSON line out.

Answers: `{"id": "1", "domain": "math", "gold": "5", "response": "The answer is 5."}`. The domain
is a task that is judged as in training (math_qa, image_qa, logic), or one judge: math, count, text,
choice. With options the gold is `{"answer": "B", "options": {"A": "Rome", "B": "Paris"}}`.
Programs: `{"id": "2", "program": "...", "entry": {"type": "stdio", "tests": [{"stdin": "1",
"stdout": "2"}]}}` or `{"type": "call", "fn": "add", "tests": [{"args": [1, 2], "expected": 3}]}`,
optionally `time_limit_s`, `memory_mb`, `tol`; `{"__tuple__": [..]}` and `{"__set__": [..]}` stand
for tuples and sets.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlrl.grading.choice import choose, choose_several
from vlrl.grading.count import read_count
from vlrl.grading.math_answer import Match, same_answer
from vlrl.grading.response import bare_answer, final_answer
from vlrl.grading.text import same_text
from vlrl.sandbox import Ending, Limits, default_sandbox
from vlrl.tasks import TASKS, Row, RowError
from vlrl.types import CallTest, CallTests, Completion, Finish, Status, StdioTests

NUM_THREADS = 4
TEXT_TASKS = ("math_qa", "image_qa", "logic")
"""Tasks whose gold is a text or a choice; a program has a row of its own kind."""


@dataclass(frozen=True, kw_only=True)
class Graded:
    """One line of the output; `seconds` is wall time, waiting for a free worker included."""

    id: str
    status: Status
    correct: bool
    reward: float
    note: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class GradeSummary:
    """What became of the file's rows. `bad_lines` says "line 12: what is wrong"."""

    num_rows: int
    num_correct: int
    by_status: Mapping[Status, int]
    bad_lines: tuple[str, ...]

    def __str__(self) -> str:
        """`rows: 5, correct: 3 (4 ok, 1 unparsable), bad lines: 2`, and each bad line below."""
        counts = ", ".join(f"{n} {s.value}" for s in Status if (n := self.by_status.get(s)))
        line = f"rows: {self.num_rows}, correct: {self.num_correct}"
        line += f" ({counts})" if counts else ""
        return "\n  ".join((f"{line}, bad lines: {len(self.bad_lines)}", *self.bad_lines))


class LineError(ValueError):
    """A row that can't be judged, in words."""


Found = tuple[Status, bool, str]


def grade_file(cases: Path, out: Path) -> GradeSummary:
    """Judge every row of `cases`, write `out` whole or not at all, in the same order.

    A row that can't be judged is named in the summary and has no line in `out`; a judge that
    fails gives a line with status `error`.

    Raises:
        OSError: `cases` can't be read or `out` can't be written.
    """
    graded: list[Graded] = []
    bad: list[str] = []
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for number, found in threads.map(_line, _numbered(cases)):
            if isinstance(found, Graded):
                graded.append(found)
            else:
                bad.append(f"line {number}: {found}")
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in graded)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(lines, encoding="utf-8")
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return GradeSummary(
        num_rows=len(graded),
        num_correct=sum(row.correct for row in graded),
        by_status=Counter(row.status for row in graded),
        bad_lines=tuple(bad),
    )


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _line(numbered: tuple[int, bytes]) -> tuple[int, Graded | str]:
    number, line = numbered
    start = time.monotonic()
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise LineError("a row is a JSON object")
        judge = _judge(row)
        name = str(row.get("id", number))
    except LineError as error:
        return number, str(error)
    except (ValueError, RecursionError) as error:
        return number, f"not valid JSON: {error}"
    try:
        status, correct, note = judge()
    except LineError as error:
        return number, str(error)
    # A judge's own failure costs this row only; it is shown as `error`, not as a wrong answer.
    except Exception as error:  # noqa: BLE001
        status, correct, note = Status.ERROR, False, f"{type(error).__name__}: {error}"
    return number, Graded(
        id=name,
        status=status,
        correct=correct,
        reward=float(correct),
        note=note,
        seconds=round(time.monotonic() - start, 4),
    )


def _judge(row: dict[str, Any]) -> Callable[[], Found]:
    """What will judge the row; the row's own mistakes come out here."""
    if "program" in row:
        return _program(row)
    domain = str(row.get("domain", ""))
    judge = _TEXT_JUDGES.get(domain)
    if judge is None and domain not in TEXT_TASKS:
        names = ", ".join((*TEXT_TASKS, *_TEXT_JUDGES))
        raise LineError(f"domain {domain!r} is not supported; it is one of {names}")
    response = row.get("response")
    if not isinstance(response, str):
        raise LineError("no text in `response`")
    if "gold" not in row:
        raise LineError("no `gold`")
    gold = row["gold"]
    if judge is None:
        return _task(domain, gold, response)
    return lambda: judge(gold, response)


def _task(name: str, gold: object, response: str) -> Callable[[], Found]:
    """A task's own verdict; by its own rules a gold that can't be judged is a bad line."""
    answer, options = _options(gold) if isinstance(gold, Mapping) else (gold, ())
    row = Row(id="", source="", question="(not in the file)", answer=answer, options=options)

    def judge() -> Found:
        try:
            problem = TASKS[name].problem(row)
        except RowError as error:
            raise LineError(f"gold: {error}") from error
        completion = Completion(text=response, token_ids=(), logprobs=(), finish=Finish.STOP)
        verdict = TASKS[name].grade(problem, completion)
        return verdict.status, verdict.correct, verdict.note

    return judge


def _options(gold: object) -> tuple[str, tuple[str, ...]]:
    """A choice's answer and its options' texts."""
    if not isinstance(gold, Mapping) or not isinstance(gold.get("options"), Mapping | list):
        raise LineError('the gold of a choice row is {"answer": "B", "options": {"A": ...}}')
    options = gold["options"]
    texts = options.values() if isinstance(options, Mapping) else options
    return str(gold.get("answer", "")), tuple(str(text) for text in texts)


def _unparsable(response: str) -> Found:
    said = "no answer was found" if response.strip() else "the response is empty"
    return Status.UNPARSABLE, False, said


def _found(correct: bool) -> Found:
    return Status.OK, correct, "" if correct else "wrong answer"


def _math(gold: object, response: str) -> Found:
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise LineError("the gold of a math row is a text or a number")
    answer = final_answer(response)
    if answer is None:
        return _unparsable(response)
    match = same_answer(str(gold), answer)
    if match is Match.TIMEOUT:
        return Status.TIMEOUT, False, "comparing the answer took too long"
    return _found(match is Match.SAME)


def _count(gold: object, response: str) -> Found:
    if isinstance(gold, bool) or not isinstance(gold, int):
        raise LineError("the gold of a count row is a whole number")
    count = read_count(response)
    return _unparsable(response) if count is None else _found(count == gold)


def _text(gold: object, response: str) -> Found:
    if not isinstance(gold, str):
        raise LineError("the gold of a text row is a text")
    answer = final_answer(response) or bare_answer(response)
    return _unparsable(response) if answer is None else _found(same_text(gold, answer))


def _choice(gold: object, response: str) -> Found:
    wanted, texts = _options(gold)
    answer = final_answer(response) or bare_answer(response)
    if answer is None:
        return _unparsable(response)
    if wanted in texts or len(wanted) == 1:
        index = choose(texts, wanted)
        return _found(index is not None and choose(texts, answer) == index)
    several = choose_several(texts, wanted)
    return _found(several is not None and choose_several(texts, answer) == several)


_TEXT_JUDGES: dict[str, Callable[[object, str], Found]] = {
    "math": _math,
    "count": _count,
    "text": _text,
    "choice": _choice,
}


def _program(row: dict[str, Any]) -> Callable[[], Found]:
    """A program and its tests."""
    program, entry = row["program"], row.get("entry")
    if not isinstance(program, str) or not isinstance(entry, Mapping):
        raise LineError("a program row has a text `program` and an object `entry`")
    try:
        limits = Limits(
            time_s=float(entry.get("time_limit_s", Limits.time_s)),
            memory_mb=int(entry.get("memory_mb", Limits.memory_mb)),
        )
        tests = _tests(entry)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LineError(f"`entry` is not in shape: {error!r}") from error

    def judge() -> Found:
        sandbox = default_sandbox()
        if isinstance(tests, CallTests):
            outcome = sandbox.run_calls(program, tests, limits)
        else:
            outcome = sandbox.run_stdio(program, tests, limits)
        passed = outcome.ending is Ending.PASSED
        status = Status.TIMEOUT if outcome.ending is Ending.TIMEOUT else Status.OK
        return status, passed, outcome.note

    return judge


def _tests(entry: Mapping[str, Any]) -> CallTests | StdioTests:
    if not entry["tests"]:
        raise ValueError("there are no tests")
    tolerance = entry.get("tol")
    if entry["type"] == "stdio":
        pairs = tuple((test["stdin"], test["stdout"]) for test in entry["tests"])
        return StdioTests(
            tests=pairs, tolerance=tolerance if entry.get("compare") == "float" else None
        )
    if entry["type"] != "call":
        raise ValueError(f"type {entry['type']!r} is neither stdio nor call")
    function = f"{entry['cls']}.{entry['fn']}" if entry.get("cls") else entry["fn"]
    calls = tuple(
        CallTest(
            args=tuple(_plain(value) for value in test["args"]),
            kwargs={name: _plain(value) for name, value in test.get("kwargs", {}).items()},
            expected=_plain(test["expected"]),
        )
        for test in entry["tests"]
    )
    return CallTests(function=function, tests=calls, tolerance=float(tolerance or 0))


def _plain(value: Any) -> object:
    """A JSON value with its marked tuples and sets."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {"__tuple__"}:
            return tuple(_plain(item) for item in value["__tuple__"])
        if value.keys() == {"__set__"}:
            return {_plain(item) for item in value["__set__"]}
        return {key: _plain(item) for key, item in value.items()}
    return value
