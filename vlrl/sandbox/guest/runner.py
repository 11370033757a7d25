"""The last steps before untrusted code, and the ways to run it: as a script, by calls, by asserts.

Everything here shares its process with the program, so nothing here is believed on its word: what
comes back are values, and the parent compares them.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import json
import os
import random
import resource
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from . import values
from .isolation import Isolation, drop_privileges

MAX_OPEN_FILES, MAX_PROCESSES = 64, 64
STACK_BYTES = 64 << 20
PROGRAM, INPUTS, RESULTS = 3, 4, 5
_exit = os._exit  # a program that patches os._exit must not come back into the server's code


def child(header: dict[str, Any], fds: list[int], isolation: Isolation, folder: str) -> NoReturn:
    """Give everything up, run the program, leave. Never returns."""
    code = 1
    try:
        os.setsid()
        _place(fds)
        os.chdir(folder)
        _limit(header)
        drop_privileges(isolation)
        _standard_streams()
        gc.enable()
        random.seed(0)
        code = _MODES[header["mode"]](header)
    except SystemExit as error:
        code = _exit_code(error)
    # Whatever the program throws, this process ends by its exit code and nothing else.
    except BaseException:  # noqa: BLE001
        traceback.print_exc(limit=-8, file=sys.__stderr__)
    finally:
        _leave(code)


def _place(fds: list[int]) -> None:
    """Program, stdin, inputs, stdout, stderr, results -> 3, 0, 4, 1, 2, 5; the rest closed."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
    for source, target in zip(high, (PROGRAM, 0, INPUTS, 1, 2, RESULTS), strict=True):
        os.dup2(source, target, inheritable=target <= 2)
    os.closerange(RESULTS + 1, 1 << 20)


def _limit(header: dict[str, Any]) -> None:
    def both(which: int, value: int) -> None:
        resource.setrlimit(which, (value, value))

    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    if hard == resource.RLIM_INFINITY or hard >= STACK_BYTES:
        both(resource.RLIMIT_STACK, STACK_BYTES)
    both(resource.RLIMIT_AS, int(header["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (int(header["cpu_s"]), int(header["cpu_s"]) + 1))
    both(resource.RLIMIT_FSIZE, int(header["output"]))
    both(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    both(resource.RLIMIT_NPROC, MAX_PROCESSES)
    both(resource.RLIMIT_CORE, 0)


def _standard_streams() -> None:
    # ruff: noqa: SIM115 - these stay open until the process ends
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = open(
        2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.argv = ["solution.py"]
    builtins: Any = sys.modules["builtins"]
    builtins.exit = builtins.quit = sys.exit  # `python -S` has none


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _load(name: str) -> types.ModuleType:
    """Compile and run the program as the module `name`."""
    source = _read(PROGRAM).decode("utf-8")
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules[name] = module
    exec(compile(source, "solution.py", "exec", dont_inherit=True), module.__dict__)
    return module


def _script(header: dict[str, Any]) -> int:
    _load("__main__")
    return 0


def _calls(header: dict[str, Any]) -> int:
    """Write one line a call: its number, and its value or its error."""
    calls = values.loads(_read(INPUTS))
    assert isinstance(calls, list)
    sys.modules["__main__"] = sys.modules["builtins"]
    function = _resolve(_load("solution"), header["function"])
    for number, (arguments, keywords) in enumerate(calls):
        try:
            line = b"v" + values.dumps(function(*arguments, **keywords))
        except Exception as error:  # noqa: BLE001 - any error of the program is its answer
            line = b"e" + json.dumps(f"{type(error).__name__}: {error}"[:200]).encode()
        os.write(RESULTS, b"%d %s\n" % (number, line))
    return 0


def _asserts(header: dict[str, Any]) -> int:
    """Run the test code after the program, in a namespace of its own; then write the token.

    The test code is read only after the program's module body has run. It gets fresh builtins, the
    helpers of the prefix rather than the program's, and each value that the program returns is
    rebuilt from plain builtins, so an object that equals everything never reaches an assert.
    """
    trusted = dict(sys.modules["builtins"].__dict__)
    module = _load("solution")
    test: Any = values.loads(_read(INPUTS))
    helpers: dict[str, Any] = {"__name__": "solution", "__builtins__": trusted}
    if test["prefix"]:
        exec(compile(test["prefix"], "prefix.py", "exec", dont_inherit=True), helpers)
    space = {k: v for k, v in module.__dict__.items() if not k.startswith("__")}
    for name, value in space.items():
        if isinstance(value, types.FunctionType):
            space[name] = _plain_results(value)
    space.update(helpers)
    name, dot, _ = test["function"].partition(".")
    if name:  # the program's own, even where the prefix has a stub of it; a class as it is
        asked = module.__dict__[name]
        space[name] = asked if dot else _plain_results(asked)
    exec(compile(test["code"], "tests.py", "exec", dont_inherit=True), space)
    os.write(RESULTS, test["token"].encode())
    return 0


def _plain_results(function: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*arguments: Any, **keywords: Any) -> Any:
        value = function(*arguments, **keywords)
        if type(value) in _library_types():
            return value
        return values.loads(values.dumps(value))

    return checked


def _library_types() -> tuple[type, ...]:
    """Types of the standard library whose `==` the program doesn't write."""
    import datetime
    import decimal
    import fractions
    import re

    stdlib = (datetime.date, datetime.datetime, datetime.timedelta, datetime.time)
    return (*stdlib, decimal.Decimal, fractions.Fraction, re.Match, range)


def _resolve(module: types.ModuleType, name: str) -> Callable[..., Any]:
    """`function`, or `Class.method` on a new instance for every call."""
    owner, dot, method = name.rpartition(".")
    if not dot:
        return module.__dict__[name]
    cls = module.__dict__[owner]
    return lambda *arguments, **keywords: getattr(cls(), method)(*arguments, **keywords)


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def _leave(code: int) -> NoReturn:
    """What the interpreter does at its end, then out."""
    try:
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - untrusted exit handlers; a failure is a failed run
        code = code or 1
    finally:
        _exit(code)


_MODES: dict[str, Callable[[dict[str, Any]], int]] = {
    "script": _script,
    "calls": _calls,
    "asserts": _asserts,
}
