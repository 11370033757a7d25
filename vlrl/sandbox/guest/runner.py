"""The last steps before untrusted code, and the two ways to run it alone: as a script, by calls.

Everything here shares its process with the program, so nothing here is believed on its word: what
comes back are values, and the parent compares them.
"""

from __future__ import annotations

import _io
import atexit
import fcntl
import gc
import json
import math
import mmap
import os
import resource
import sys
import threading
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from . import kernel, values
from .isolation import Boundary

MAX_OPEN_FILES, MAX_PROCESSES = 64, 64
STACK_BYTES = 64 << 20
PROGRAM, INPUTS, RESULTS, PEER, RULES = 3, 4, 5, 6, 7
TARGETS = (PROGRAM, 0, INPUTS, 1, 2, RESULTS, PEER)
_exit = os._exit  # a program that patches os._exit must not come back into the server's code


def child(
    header: dict[str, Any],
    fds: list[int],
    boundary: Boundary,
    folder: str,
    ready: mmap.mmap,
    run: Callable[[dict[str, Any]], int],
) -> NoReturn:
    """Give everything up, say so, run the program, leave. Never returns.

    `ready` is shared with the server and unmapped before the program is read: only a process whose
    layers are all up can have written to it.
    """
    code = 1
    try:
        _give_up(header, fds, boundary, folder)
        ready[0] = 1
        ready.close()
        gc.enable()
        code = run(header)
    except SystemExit as error:
        code = _exit_code(error)
    # Whatever the program throws, this process ends by its exit code and nothing else.
    except BaseException:  # noqa: BLE001
        traceback.print_exc(limit=-8, file=sys.__stderr__)
    finally:
        _leave(code)


def _give_up(header: dict[str, Any], fds: list[int], boundary: Boundary, folder: str) -> None:
    os.setsid()
    _place(fds, boundary)
    os.chdir(folder)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9, "PDEATHSIG")
    if boundary.plan.wants("limits"):
        _limit(header, boundary)
    boundary.lock(RULES)


def _place(fds: list[int], boundary: Boundary) -> None:
    """Program, stdin, inputs, stdout, stderr, results, peer -> TARGETS; the rest closed."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
    for source, target in zip(high, TARGETS):  # noqa: B905 - no `strict` of a missing peer
        os.dup2(source, target, inheritable=target <= 2)
    rules = -1 if boundary.rules is None else boundary.rules.fd
    if rules >= 0:
        os.dup2(rules, RULES, inheritable=False)
    if boundary.plan.wants("close_fds"):
        os.closerange(RULES + (rules >= 0), 1 << 20)
        if len(fds) < len(TARGETS):
            os.closerange(PEER, PEER + 1)


def _limit(header: dict[str, Any], boundary: Boundary) -> None:
    def both(which: int, value: int) -> None:
        hard = resource.getrlimit(which)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(which, (value, value))

    # Programs that recurse deeply ask for more: it comes out of their address space.
    most = resource.getrlimit(resource.RLIMIT_STACK)[1]
    soft = STACK_BYTES if most == resource.RLIM_INFINITY else min(STACK_BYTES, most)
    resource.setrlimit(resource.RLIMIT_STACK, (soft, most))
    both(resource.RLIMIT_AS, int(header["memory"]) + boundary.isolation.baseline)
    both(resource.RLIMIT_CPU, math.ceil(header["cpu_s"]) + 1)
    both(resource.RLIMIT_FSIZE, int(header["output"]))
    both(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    if boundary.isolation.uid >= 0:  # a user of its own: the limit counts a user's threads
        both(resource.RLIMIT_NPROC, MAX_PROCESSES)
    for which in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        both(which, 0)


def standard_streams() -> None:
    """Made once, in the server: the files below them are put there in each program's process."""
    # ruff: noqa: SIM115 - these stay open until the process ends
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = open(
        2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.argv = ["solution.py"]
    builtins: Any = sys.modules["builtins"]
    builtins.exit = builtins.quit = sys.exit  # `python -S` has none


def read(fd: int) -> bytes:
    """The whole of a memory file."""
    return os.pread(fd, os.fstat(fd).st_size, 0)


def load(name: str) -> types.ModuleType:
    """Compile and run the program as the module `name`."""
    source = read(PROGRAM).decode("utf-8")
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = sys.modules["builtins"]
    module.__dict__["__file__"] = "solution.py"
    sys.modules[name] = module
    exec(compile(source, "solution.py", "exec", dont_inherit=True), module.__dict__)
    return module


def script(header: dict[str, Any]) -> int:
    """Run it as `python solution.py`."""
    load("__main__")
    return 0


def calls(header: dict[str, Any]) -> int:
    """Write one line a call: its number, and its value or its error."""
    tests = values.loads(read(INPUTS))
    assert isinstance(tests, list)
    sys.modules["__main__"] = sys.modules["builtins"]
    function = _resolve(load("solution"), header["function"])
    for number, (arguments, keywords) in enumerate(tests):
        try:
            line = b"v" + values.dumps(function(*arguments, **keywords))
        except Exception as error:  # noqa: BLE001 - any error of the program is its answer
            line = b"e" + json.dumps(f"{type(error).__name__}: {error}"[:200]).encode()
        os.write(RESULTS, b"%d %s\n" % (number, line))
    return 0


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
        _flush_files()
    except BaseException:  # noqa: BLE001 - untrusted exit handlers; a failure is a failed run
        code = code or 1
    finally:
        _exit(code)


def _flush_files() -> None:
    """What the program left open in its own names, or put another stdout before."""
    names = getattr(sys.modules.get("__main__"), "__dict__", {})
    for file in [sys.__stdout__, *names.values()]:
        with suppress(Exception):
            if isinstance(file, _io._IOBase) and not file.closed:
                file.flush()
