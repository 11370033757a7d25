"""coding: a program or a function, judged only by running it on hidden inputs."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vlrl.sandbox import Ending, Protection, Sandbox, Tests, default_sandbox
from vlrl.sandbox.guest.values import Unplain, dumps
from vlrl.tasks.base import Row, RowError
from vlrl.tasks.common import judged, not_judged, question_of, unparsable
from vlrl.types import (
    AssertTests,
    CallTest,
    CallTests,
    Completion,
    Problem,
    Status,
    StdioTests,
    UnitTests,
    Verdict,
)

MAX_PROGRAM, MAX_RESPONSE = 1 << 16, 1 << 18
KINDS = {"calls", "stdio", "code", "unittest"}
_FENCE = re.compile(r"^[ \t]{0,3}```[ \t]*([a-zA-Z0-9+]{0,12})[ \t]*$", re.MULTILINE)


class Coding:
    """All hidden tests must pass. `sandbox`: one of your own, else the shared one."""

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        self._sandbox = sandbox

    def protection(self) -> Protection:
        """What programs are held by here; proven by the self-test, once in a process.

        Raises:
            SandboxUnavailable: this machine can't run untrusted programs safely.
        """
        return (self._sandbox or default_sandbox()).protection()

    def problem(self, row: Row) -> Problem:
        """`row.answer` is one of the kinds of tests in types.py, or plain data as in `tests_of`.

        Raises:
            RowError: no question, no tests, or tests that are not plain values.
        """
        try:
            tests = tests_of(row.answer, row.extra)
        except RowError as error:
            kinds = sorted(f"extra.{kind}" for kind in KINDS & row.extra.keys())
            raise RowError(f"{error}{row.named(*(kinds or ['answer']))}") from error
        return Problem(
            id=row.id,
            domain="coding",
            question=question_of(row),
            answer=tests,
            images=row.images,
            source=row.source,
        )

    def grade(self, problem: Problem, completion: Completion) -> Verdict:
        """The verdict.

        Raises:
            SandboxBroken: the sandbox failed; says nothing about the program.
            SandboxUnavailable: this machine can't run untrusted programs safely.
        """
        program = extract_program(completion.text)
        if program is None:
            return unparsable(completion.text)
        if len(program) > MAX_PROGRAM:
            return not_judged(Status.UNPARSABLE, f"longer than {MAX_PROGRAM} characters")
        sandbox = self._sandbox or default_sandbox()
        tests = problem.answer
        if not isinstance(tests, CallTests | StdioTests | AssertTests | UnitTests):
            raise TypeError(f"{problem.id}: coding judges by tests")
        if isinstance(tests, AssertTests):
            outcome = sandbox.run_asserts(*_completed(program, tests))
        else:
            outcome = sandbox.judge(program, tests)
        if outcome.ending is Ending.TIMEOUT:
            return not_judged(Status.TIMEOUT, outcome.note, program)
        return judged(outcome.ending is Ending.PASSED, program, outcome.note)


def extract_program(response: str) -> str | None:
    """The last fenced block after the reasoning, or the whole response; None if that is empty.

    A fence that is never closed is taken to its end. None for a response beyond MAX_RESPONSE.
    """
    if len(response) > MAX_RESPONSE:
        return None
    end = response.rfind("</think>")
    if response.find("<think>", max(end, 0)) >= 0:
        return None
    text = response[end + len("</think>") :] if end >= 0 else response
    marks = list(_FENCE.finditer(text))
    if not marks:
        return text if text.strip() else None
    opening = marks[-1] if len(marks) % 2 else marks[-2]
    close = text.find("\n```", opening.end()) if not len(marks) % 2 else len(text)
    program = text[opening.end() : close].lstrip("\n")
    return program if program.strip() else None


def _completed(program: str, tests: AssertTests) -> tuple[str, AssertTests]:
    """The prefix before a program that continues it, or before one that defines the function too.

    The tests get the prefix's helpers from a prefix that compiles by itself.
    """
    if not tests.prefix:
        return program, tests
    stub = next((p for p in (tests.prefix, tests.prefix + "\n    pass\n") if _compiles(p)), "")
    defined = re.search(rf"^(?:async )?def {re.escape(tests.function)}\b", program, re.MULTILINE)
    if not defined:
        body = program if program[:1].isspace() else textwrap.indent(program, "    ")
        program = tests.prefix + "\n" + body
    elif stub and "from __future__" not in program:
        program = stub + "\n" + program
    return program, replace(tests, prefix=stub)


def _compiles(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def tests_of(answer: object, extra: Mapping[str, object]) -> Tests:
    """The tests of a row, typed.

    Plain data: `{"function": "add", "calls": [{"args": [1, 2], "expected": 3}]}`,
    `{"stdio": [{"stdin": "1", "stdout": "2"}]}`, `{"code": "assert add(1, 2) == 3"}` with optional
    `function`, `prefix`, `tolerance`; `{"unittest": "import unittest ..."}` with optional `module`;
    a text or a list of texts is assert code. Where `extra` holds `calls`, `stdio`, `code` or
    `unittest`, those are the tests, and a text answer is a reference solution.

    Raises:
        RowError: nothing of that kind, no tests, tests that are not plain values, or tests that an
            empty program passes, as far as that shows without running them.
    """
    typed = isinstance(answer, CallTests | StdioTests | AssertTests | UnitTests)
    if not typed and KINDS & extra.keys():
        answer = extra
    elif isinstance(answer, str):
        answer = {"code": answer}
    elif isinstance(answer, Sequence) and all(isinstance(line, str) for line in answer):
        answer = {"code": "\n".join(answer)}
    if isinstance(answer, Mapping):
        answer = _typed({**extra, **answer})
    if isinstance(answer, CallTests):
        return _checked_calls(answer)
    if isinstance(answer, StdioTests):
        if not answer.tests:
            raise RowError("there are no tests")
        if not any(stdout.strip() for _, stdout in answer.tests):
            raise RowError("no test expects any output: an empty program would pass")
        return answer
    if isinstance(answer, AssertTests):
        return _checked_asserts(answer)
    if isinstance(answer, UnitTests):
        return _checked_unittests(answer)
    raise RowError("no tests were found: give calls, stdio, code or unittest")


def _typed(data: Mapping[str, Any]) -> object:
    try:
        tolerance = data.get("tolerance")
        if "calls" in data:
            tests = tuple(
                CallTest(
                    args=tuple(test["args"]),
                    expected=test["expected"],
                    kwargs=dict(test.get("kwargs", {})),
                )
                for test in data["calls"]
            )
            return CallTests(
                function=data["function"], tests=tests, tolerance=float(tolerance or 0)
            )
        if "stdio" in data:
            pairs = tuple((test["stdin"], test["stdout"]) for test in data["stdio"])
            return StdioTests(tests=pairs, tolerance=tolerance)
        if "unittest" in data:
            return UnitTests(
                code=data["unittest"], module=str(data.get("module", UnitTests.module))
            )
        if "code" in data:
            return AssertTests(
                code=data["code"],
                function=str(data.get("function", "")),
                prefix=str(data.get("prefix", "")),
            )
    except (KeyError, TypeError, ValueError) as error:
        raise RowError(f"the tests are not in shape: {error!r}") from error
    return None


def _checked_calls(tests: CallTests) -> CallTests:
    if not tests.tests or not tests.function:
        raise RowError("there are no tests" if tests.function else "the tests name no function")
    try:
        for test in tests.tests:
            dumps([list(test.args), dict(test.kwargs), test.expected])
    except Unplain as error:
        raise RowError(f"a test is not made of plain values: {error}") from error
    return tests


def _checked_asserts(tests: AssertTests) -> AssertTests:
    if not _compiles(tests.code):
        raise RowError("the test code does not compile")
    tree = ast.parse(tests.code)
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise RowError("the test code asserts nothing")
    return tests


def _checked_unittests(tests: UnitTests) -> UnitTests:
    if not _compiles(tests.code):
        raise RowError("the test code does not compile")
    defined = [n for n in ast.walk(ast.parse(tests.code)) if isinstance(n, ast.FunctionDef)]
    if not any(function.name.startswith("test") for function in defined):
        raise RowError("the test code has no test: nothing in it is named test...")
    return tests
