"""Rows with a program to run: `{"program": "print(1)", "entry": {"type": "stdio", "tests": [..]}}`.

`entry` by type: stdio `tests: [{"stdin": "1", "stdout": "2"}]`, with `compare: "float"` and `tol`
if numbers may differ; call `fn: "add", tests: [{"args": [1, 2], "kwargs": {}, "expected": 3}]`,
with `cls` for a method; assert `code: "assert add(1, 2) == 3"`, with `fn` and `prefix` if known;
unittest `code` of a file and the `module` that it imports the program as. All may have
`time_limit_s` and `memory_mb`. `{"__tuple__": [..]}` and `{"__set__": [..]}` stand for tuples and
sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vlrl.grading.file_answers import Found, LineError
from vlrl.sandbox import Ending, Limits, Tests, default_sandbox
from vlrl.types import AssertTests, CallTest, CallTests, Status, StdioTests, UnitTests


def program_judge(row: Mapping[str, Any]) -> Callable[[], Found]:
    """What will judge the row.

    Raises:
        LineError: the row is not in shape.
    """
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
        outcome = default_sandbox().judge(program, tests, limits)
        passed = outcome.ending is Ending.PASSED
        status = Status.TIMEOUT if outcome.ending is Ending.TIMEOUT else Status.OK
        return status, passed, outcome.note

    return judge


def _tests(entry: Mapping[str, Any]) -> Tests:
    kind = entry["type"]
    if kind == "assert":
        return AssertTests(
            code=_code(entry), function=entry.get("fn", ""), prefix=entry.get("prefix", "")
        )
    if kind == "unittest":
        return UnitTests(code=_code(entry), module=entry.get("module", UnitTests.module))
    if not entry["tests"]:
        raise ValueError("there are no tests")
    tolerance = entry.get("tol")
    if kind == "stdio":
        pairs = tuple((test["stdin"], test["stdout"]) for test in entry["tests"])
        return StdioTests(
            tests=pairs, tolerance=tolerance if entry.get("compare") == "float" else None
        )
    if kind != "call":
        raise ValueError(f"type {kind!r} is none of stdio, call, assert, unittest")
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


def _code(entry: Mapping[str, Any]) -> str:
    code = entry["code"]
    if not isinstance(code, str) or not code.strip():
        raise ValueError("`code` holds no test code")
    return code


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
