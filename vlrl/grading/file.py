"""Verdicts for a file of answers or programs: one JSON line in, one JSON line out.

Answers: `{"id": "1", "domain": "math", "gold": "5", "response": "The answer is 5."}`; the domains
and the shapes of their golds stand in file_answers.py.
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

from vlrl.grading.file_answers import Found, LineError, answer_judge
from vlrl.sandbox import Ending, Limits, default_sandbox
from vlrl.types import CallTest, CallTests, Status, StdioTests

NUM_THREADS = 4


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
        judge = _program(row) if "program" in row else answer_judge(row)
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
