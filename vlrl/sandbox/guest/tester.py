"""The test code's side of an assert suite: the program is a stand-in that asks over a socket.

The stand-in's answers are plain data, so nothing that the program writes takes part in a
comparison: an object of the program equals no value of the test's, and its operators work between
objects of the program only. The verdict goes to a descriptor that the program's process lacks.
"""

from __future__ import annotations

import ast
import builtins
import os
import sys
import traceback
import types
from typing import Any

from . import runner, values
from .remote import Program
from .wire import PeerGone

Verdict = tuple[int, int, str]
"""Tests passed, tests run, what went wrong first."""


def judge(header: dict[str, Any]) -> int:
    """Run the tests, write the verdict."""
    test: Any = values.loads(runner.read(runner.INPUTS))
    program = Program()
    try:
        run = _unittests if test["kind"] == "unittest" else _asserts
        verdict = run(program, test)
    except PeerGone:
        verdict = (0, 1, "the program ended without a result")
    # Whatever a test raises, SystemExit included, is a test that did not pass.
    except BaseException as error:  # noqa: BLE001
        verdict = (0, 1, _said(error))
    if program.gone:
        verdict = (
            min(verdict[0], verdict[1] - 1),
            verdict[1],
            "the program ended without a result",
        )
    os.write(runner.RESULTS, values.dumps(list(verdict)))
    return 0


def _asserts(program: Program, test: dict[str, str]) -> Verdict:
    """HumanEval and MBPP: the code raises unless the program is right."""
    space = _names(program, test)
    exec(compile(test["code"], "tests.py", "exec", dont_inherit=True), space)
    return 1, 1, ""


def _unittests(program: Program, test: dict[str, str]) -> Verdict:
    """TestCase classes, and plain functions named test_*."""
    import unittest  # not for every program: it takes long to import

    solution = types.ModuleType(test["module"])
    for name in program.names():
        setattr(solution, name, program.get(name))
    own = [name for name in vars(solution) if not hasattr(builtins, name)]
    vars(solution)["__all__"] = [*own, *_shadowed(test["code"], program)]  # for `import *`
    sys.modules[test["module"]] = solution
    module = types.ModuleType("tests")
    sys.modules["tests"] = module
    space = _names(program, test)
    space["__name__"] = "tests"
    exec(compile(test["code"], "tests.py", "exec", dont_inherit=True), space)
    vars(module).update(space)
    suite = unittest.TestSuite([unittest.defaultTestLoader.loadTestsFromModule(module)])
    for name, value in space.items():
        if name.startswith("test") and isinstance(value, types.FunctionType):
            suite.addTest(unittest.FunctionTestCase(value))
    with open(os.devnull, "w") as nowhere:
        result = unittest.TextTestRunner(nowhere, buffer=False).run(suite)
    done = result.testsRun - len(result.skipped)
    bad = [text for _, text in (*result.failures, *result.errors)]
    failed = max(len(bad) + len(result.unexpectedSuccesses), 0 if result.wasSuccessful() else 1)
    if done < 1:
        return 0, 1, "no test ran"
    note = bad[0].strip().splitlines()[-1][:200] if bad else "an unexpected success"
    return max(0, done - failed), done, note if failed else ""


def _names(program: Program, test: dict[str, str]) -> dict[str, Any]:
    """The names that test code sees: its own, the prefix's helpers, the program's."""
    space: dict[str, Any] = _Names(program, test)
    space["__builtins__"] = builtins
    space["__name__"] = "tests"
    if test["prefix"]:
        exec(compile(test["prefix"], "prefix.py", "exec", dont_inherit=True), space)
    name = test["function"].partition(".")[0]
    if name:  # the program's own, even where the prefix has a stub of it
        space[name] = program.get(name)
    else:
        for name in _shadowed(test["code"], program):
            space[name] = program.get(name)
    return space


class _Names(dict[str, Any]):
    """Globals of test code: a name that nobody defines is a module, or else the program's."""

    def __init__(self, program: Program, test: dict[str, str]) -> None:
        super().__init__()
        self._program, self._whole = program, not test["function"]

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        if name in sys.stdlib_module_names:  # never the program's idea of `math`
            self[name] = __import__(name)
        elif self._whole:
            self[name] = self._program.get(name)
        else:
            raise KeyError(name)
        return self[name]


def _shadowed(code: str, program: Program) -> list[str]:
    """Builtins that are the tested function: those called, if no other name is the program's."""
    tree = ast.parse(code)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    stored = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            stored |= {(a.asname or a.name).partition(".")[0] for a in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            stored.add(node.name)
        elif isinstance(node, ast.arg):
            stored.add(node.arg)
    used = {node.id for node in names} - stored - sys.stdlib_module_names
    if any(not hasattr(builtins, name) for name in used):
        return []
    return [name for name in program.names() if name in used]


def _said(error: BaseException) -> str:
    return traceback.format_exception_only(type(error), error)[-1].strip()[:200]
