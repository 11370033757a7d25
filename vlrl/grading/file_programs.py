"""Rows with a program to run: `{"program": "print(1)", "entry": {"type": "stdio", "tests": [..]}}`.

`entry` by type: stdio `tests: [{"stdin": "1", "stdout": "2"}]`, with `compare: "float"` and `tol`
if numbers may differ; call `fn: "add", tests: [{"args": [1, 2], "kwargs": {}, "expected": 3}]`,
with `cls` for a method; assert `code: "assert add(1, 2) == 3"`, with `fn` and `prefix` if known;
unittest `code` of a file and the `module` that it imports the program as. All may have
`time_limit_s` and `memory_mb`. `{"__tuple__": [..]}` and `{"__set__": [..]}` stand for tuples and
sets.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from vlrl.grading.file_answers import Found, LineError
from vlrl.sandbox import Ending, Limits, Tests, default_sandbox
from vlrl.types import AssertTests, CallTest, CallTests, Status, StdioTests, UnitTests

MAX_TIME_S, MAX_MEMORY_MB = 3600, 1 << 20


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
            time_s=_within(entry, "time_limit_s", Limits.time_s, MAX_TIME_S),
            memory_mb=int(_within(entry, "memory_mb", Limits.memory_mb, MAX_MEMORY_MB)),
        )
        tests = _tests(entry)
    except KeyError as error:
        raise LineError(f"`entry` is not in shape: no {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise LineError(f"`entry` is not in shape: {error}") from error

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
    if kind not in ("stdio", "call"):
        raise ValueError(f"type {kind!r} is none of stdio, call, assert, unittest")
    _checked_tests(entry["tests"])
    tolerance = entry.get("tol") or 0
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not tolerance >= 0:
        raise ValueError(f"`tol` is {tolerance!r}: a number that isn't below 0 is wanted")
    if kind == "stdio":
        if entry.get("compare", "lines") not in ("lines", "float", None):
            raise ValueError(f"compare {entry['compare']!r} is none of lines, float")
        pairs = tuple((test["stdin"], test["stdout"]) for test in entry["tests"])
        if not all(isinstance(text, str) for pair in pairs for text in pair):
            raise ValueError("each test's `stdin` and `stdout` are texts")
        return StdioTests(
            tests=pairs, tolerance=float(tolerance) if entry.get("compare") == "float" else None
        )
    function = f"{entry['cls']}.{entry['fn']}" if entry.get("cls") else entry["fn"]
    if not isinstance(function, str):
        raise ValueError("`fn` is the name of a function")
    calls = tuple(
        CallTest(
            args=tuple(_plain(value) for value in test["args"]),
            kwargs={name: _plain(value) for name, value in test.get("kwargs", {}).items()},
            expected=_plain(test["expected"]),
        )
        for test in entry["tests"]
    )
    return CallTests(function=function, tests=calls, tolerance=float(tolerance))


def _checked_tests(tests: object) -> None:
    if not isinstance(tests, list) or not all(isinstance(test, Mapping) for test in tests):
        raise ValueError("`tests` is a list of objects")
    if not tests:
        raise ValueError("there are no tests")
    for test in tests:
        if not isinstance(test.get("args", []), list):
            raise ValueError("each test's `args` is a list")
        if not isinstance(test.get("kwargs", {}), Mapping):
            raise ValueError("each test's `kwargs` is an object")


def _within(entry: Mapping[str, Any], key: str, default: float, most: float) -> float:
    value = entry.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ValueError(f"`{key}` is {value!r}: a number above 0, {most} at most, is wanted")
    return value


def _code(entry: Mapping[str, Any]) -> str:
    code = entry["code"]
    if not isinstance(code, str) or not code.strip():
        raise ValueError("`code` holds no test code")
    try:
        ast.parse(code)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"`code` is no Python: {error}") from error
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
