"""A fork server: one program at a time, each in a fork of this small, preloaded interpreter.

Requests are one packet each: a JSON header and file descriptors (program, stdin, inputs, stdout,
stderr, results; all memory files, so nothing can block). The end of the control socket ends it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import asdict

from . import runner
from .isolation import (
    Isolation,
    Scratch,
    choose_user,
    die_with_parent,
    enter_namespaces,
    enter_root,
)

NUM_FDS = 6
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


def main(control_fd: int, folder: str) -> None:
    """Serve until the other end of the control socket closes.

    `folder` is where programs write if there is no private /tmp.
    """
    seat = os.getpid()
    isolation, flags = enter_namespaces()
    # The first fork after unshare(NEWPID) is process 1 of the new namespace: when it ends, all end.
    pid = os.fork()
    if pid:
        os.close(control_fd)
        os.waitpid(pid, 0)
        os._exit(0)
    die_with_parent()
    for name in PRELOAD:
        __import__(name)
    enter_root(isolation, flags)
    choose_user(isolation, seat)
    control = socket.socket(fileno=control_fd)
    scratch = Scratch(isolation, folder)
    control.send(json.dumps(asdict(isolation)).encode())
    gc.collect()
    gc.freeze()
    gc.disable()
    _serve(control, isolation, scratch)
    sys.exit(0)


def _serve(control: socket.socket, isolation: Isolation, scratch: Scratch) -> None:
    while True:
        packet, fds, _, _ = socket.recv_fds(control, 1 << 16, NUM_FDS)
        if not packet:
            return
        reply = _run(json.loads(packet), fds, isolation, scratch)
        for fd in fds:
            os.close(fd)
        control.send(json.dumps(reply).encode())
        scratch.renew()


def _run(
    header: dict[str, object], fds: list[int], isolation: Isolation, scratch: Scratch
) -> dict[str, object]:
    """Fork, run, wait, kill what is left; the header is the parent's and trusted."""
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        runner.child(header, fds, isolation, scratch.path)
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    timed_out = not poll.poll(float(str(header["wall_s"])) * 1000)
    os.close(pidfd)
    if timed_out:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    _kill_rest(pid, isolation)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return {
        "timed_out": timed_out or number == signal.SIGXCPU,
        "signal": number,
        "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.monotonic() - start,
    }


def _kill_rest(pid: int, isolation: Isolation) -> None:
    """Processes that the program left behind. With a namespace of our own: all there are."""
    if isolation.processes and os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
