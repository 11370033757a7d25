"""The process that holds math-verify: forks a child that compares, kills it when it is too slow.

Run as a script by cas.py. One JSON line in, one out. The child's budget is CPU time, so neighbours
on the same cores cost an honest answer nothing; the wall clock is a second, larger limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any

POLL_S = 0.02
WALL_FACTOR = 10
WARM_UP = (
    ("x^2-1", "(x-1)(x+1)"),
    ("\\sin^2 x+\\cos^2 x", "1"),
    ("\\frac{\\pi}{4}", "0.25\\pi"),
    ("2\\sqrt{2}", "\\sqrt{8}"),
    ("\\log_{2} 8", "\\ln 2"),
    ("\\binom{5}{2}", "5!"),
    ("x>3", "3<x"),
    ("y=2x+1", "y=2x-1"),
    ("3+4i", "4i+3"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1\\\\3\\end{pmatrix}"),
)
NO_ALARM: Any = None  # its own time limit is a SIGALRM: ours is a kill


def main(control_fd: int, budget_s: float, memory_mb: int) -> None:
    """Serve until the control socket closes."""
    for gold, answer in WARM_UP:  # imports and caches are filled once, before the forks
        _equal(gold, answer)
    control = socket.socket(fileno=control_fd)
    control.sendall(b"ready\n")
    stream = control.makefile("rb")
    child: _Child | None = None
    while line := stream.readline():
        child = child or _Child(memory_mb)
        reply = child.ask(line, budget_s)
        if reply is None:
            child.kill()
            child = None
            reply = b'{"said": "timeout"}\n'
        control.sendall(reply)
    if child is not None:
        child.kill()


class _Child:
    """A fork that answers until it is killed."""

    def __init__(self, memory_mb: int) -> None:
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._requests)
            os.close(self._replies)
            resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
            _answer(requests, replies)
        os.close(requests)
        os.close(replies)

    def ask(self, line: bytes, budget_s: float) -> bytes | None:
        """The reply, or None if the budget is spent or the child died of the question."""
        os.write(self._requests, line)
        # The CPU clock of another process: see clock_getcpuclockid(3).
        clock = (~self._pid << 3) | 2
        start, deadline = time.clock_gettime(clock), time.monotonic() + WALL_FACTOR * budget_s
        while time.monotonic() < deadline:
            if select.select([self._replies], [], [], POLL_S)[0]:
                return os.read(self._replies, 1 << 12) or None
            if time.clock_gettime(clock) - start > budget_s:
                return None
        return None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._requests)
        os.close(self._replies)


def _answer(requests: int, replies: int) -> None:
    """The child's loop."""
    with os.fdopen(requests, "rb") as stream:
        for line in stream:
            try:
                said = _equal(**json.loads(line))
            # math-verify and SymPy raise anything at all on odd input: then they are not equal.
            except Exception:  # noqa: BLE001
                said = False
            os.write(
                replies, json.dumps({"said": "same" if said else "different"}).encode() + b"\n"
            )
    os._exit(0)


def _equal(gold: str, answer: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify

    config: Any = [LatexExtractionConfig()]

    def read(text: str) -> Any:
        return parse(f"${text}$", config, fallback_mode="no_fallback", parsing_timeout=NO_ALARM)

    wanted, got = read(gold), read(answer)
    if not wanted or not got:
        return False
    return bool(verify(wanted, got, float_rounding=12, timeout_seconds=NO_ALARM))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
