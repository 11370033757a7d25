"""A fork server: one program at a time, each in a fork of this small, preloaded interpreter.

Requests are one packet each: a JSON header and file descriptors (program, stdin, inputs, stdout,
stderr, results; all memory files, so nothing can block; for assert suites also a socket to the
other process). The server never reads them. The end of the control socket ends it.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import random
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from . import candidate, kernel, runner, tester
from .isolation import Boundary, Scratch
from .plan import Plan

MAX_FDS = 7
WATCH_S = 0.05
"""Between two looks at a program's folder, where nothing else bounds its size."""
PRELOAD = (
    "bisect",
    "collections",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "io",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "re",
    "statistics",
    "string",
    "threading",
    "typing",
)
MODES = {
    "script": runner.script,
    "calls": runner.calls,
    "candidate": candidate.serve,
    "tester": tester.judge,
}


def main(control_fd: int, plan_json: str) -> None:
    """Put up the plan's layers, say so or say what was refused, then serve."""
    control = socket.socket(fileno=control_fd)
    if not control.recv(16):  # the parent says when
        os._exit(1)
    try:
        boundary, scratch = _prepare(Plan(**json.loads(plan_json)), control)
    except OSError as error:
        said = error.strerror or str(error)
        control.send(json.dumps({"refused": said, "errno": error.errno or 0}).encode())
        os._exit(1)
    control.send(json.dumps(asdict(boundary.isolation)).encode())
    runner.standard_streams()
    random.seed(0)  # every program starts from this state
    gc.collect()
    gc.freeze()
    gc.disable()
    _serve(control, boundary, scratch)
    scratch.remove()
    os._exit(0)


def _prepare(plan: Plan, control: socket.socket) -> tuple[Boundary, Scratch]:
    for name in PRELOAD:
        __import__(name)
    boundary = Boundary(plan)
    boundary.isolation.baseline = _import_packages(plan)
    boundary.leave_host()
    # The first fork after unshare(NEWPID) is process 1 of the new namespace: when it ends, all end.
    pid = os.fork()
    if pid:
        control.close()
        os.waitpid(pid, 0)
        os._exit(0)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL, "PDEATHSIG")
    return boundary, boundary.close_in()


def _import_packages(plan: Plan) -> int:
    """Import what programs may use besides the standard library; the memory it takes, in bytes.

    Raises:
        OSError: one of them can't be imported.
    """
    if not plan.packages:
        return 0
    before = _address_space()
    parents = list(dict.fromkeys(os.path.dirname(path) for path in plan.package_path))
    sys.path.extend(parents)
    for name in plan.packages:
        try:
            __import__(name)
        # Whatever a package's import raises: the sandbox can't be had with it.
        except Exception as error:
            raise OSError(0, f"import {name}: {error}") from error
    del sys.path[-len(parents) :]
    return _address_space() - before


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * mmap.PAGESIZE


def _serve(control: socket.socket, boundary: Boundary, scratch: Scratch) -> None:
    ready = mmap.mmap(-1, mmap.PAGESIZE)
    while True:
        packet, fds, _, _ = socket.recv_fds(control, 1 << 16, MAX_FDS)
        if not packet:
            return
        header = json.loads(packet)
        ready[0] = 0
        os.environ["TMPDIR"] = scratch.path
        start = time.monotonic()
        pid = kernel.fork()
        if pid == 0:
            runner.child(header, fds, boundary, scratch.path, ready, MODES[header["mode"]])
        for fd in fds:
            os.close(fd)
        limits = (header["cpu_s"], start + header["wall_s"])
        reply = _await(pid, limits, control, boundary, scratch)
        reply["ready"] = ready[0] == 1
        reply["wall_s"] = time.monotonic() - start
        boundary.renew(scratch)
        control.send(json.dumps(reply).encode())


def _await(
    pid: int,
    limits: tuple[float, float],
    control: socket.socket,
    boundary: Boundary,
    scratch: Scratch,
) -> dict[str, Any]:
    """Wait for the program, kill it when its time is up, then kill what is left.

    limits: CPU seconds, and when the wall clock ends it. RLIMIT_CPU is the last resort only: on a
    busy machine the kernel's ticks charge a program for others' time, by a fifth and more.
    """
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(control, select.POLLIN)
    watched = "namespaces" not in boundary.isolation.layers
    timed_out = too_large = False
    while True:
        left = min(limits[0] - _cpu_time(pid), limits[1] - time.monotonic())
        if left <= 0 and boundary.plan.wants("clocks"):
            timed_out = True
            break
        slice_s = min(left, WATCH_S) if watched else left
        events = [fd for fd, _ in poll.poll(max(0.01, slice_s) * 1000)]
        if pidfd in events:
            break
        if events:  # the parent has gone, or talks out of turn: nobody waits for this any more
            _kill(pidfd)
            os.waitpid(pid, 0)
            scratch.remove()
            os._exit(0)
        if watched and scratch.too_large():
            too_large = True
            break
    _kill(pidfd)
    os.close(pidfd)
    _, status, usage = os.wait4(pid, 0)
    _kill_rest(pid, boundary)
    return {
        "timed_out": timed_out,
        "too_large": too_large,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


def _cpu_time(pid: int) -> float:
    """CPU seconds of a process so far, exact (see clock_getcpuclockid(3))."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:  # it ended this moment
        return 0.0


def _kill(pidfd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _kill_rest(pid: int, boundary: Boundary) -> None:
    """Processes that the program left behind: none while the filters hold."""
    try:
        if "namespaces" in boundary.isolation.layers:
            os.kill(-1, signal.SIGKILL)
        else:
            os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
