"""One fork server seen from the parent: a fresh interpreter behind a control socket."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlrl.sandbox.guest.isolation import Isolation
from vlrl.sandbox.limits import Limits

START_S, GRACE_S = 30.0, 5.0
BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from guest.server import main; "
    "sys.path.pop(0); main(int(sys.argv[2]), sys.argv[3])"
)
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
MAX_NOTE_BYTES = 2000

Mode = Literal["script", "calls", "asserts"]


class WorkerDied(RuntimeError):
    """The fork server went away or does not answer."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: `inputs` holds the calls' arguments or the test code, never an expected value."""

    mode: Mode
    program: bytes
    stdin: bytes = b""
    inputs: bytes = b""
    function: str = ""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of a job. `code` is the exit code, -1 after a signal; times in seconds."""

    timed_out: bool
    signal: int
    code: int
    cpu_s: float
    wall_s: float
    stdout: bytes
    stderr: bytes
    results: bytes

    @property
    def clean(self) -> bool:
        """Ended by itself with exit code 0."""
        return not self.timed_out and self.code == 0


class Worker:
    """A fork server. Not thread-safe: one job at a time.

    Raises:
        WorkerDied: it did not come up.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._folder = tempfile.TemporaryDirectory(prefix="vlrl-sandbox-")
        command = [sys.executable, "-s", "-S", "-B", "-P", "-c", BOOT, str(Path(__file__).parent)]
        self._process = subprocess.Popen(
            [*command, str(theirs.fileno()), self._folder.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd="/",
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        self._socket = ours
        self.isolation = Isolation(**self._reply(START_S))

    def run(self, job: Job, limits: Limits) -> Run:
        """Run one job.

        Raises:
            WorkerDied: no answer; the worker is of no more use.
        """
        header = {
            "mode": job.mode,
            "function": job.function,
            "cpu_s": limits.cpu_s,
            "wall_s": limits.wall_s,
            "memory": limits.memory_mb << 20,
            "output": limits.output_mb << 20,
        }
        with _files(job) as fds:
            try:
                socket.send_fds(self._socket, [json.dumps(header).encode()], fds)
            except OSError as error:
                raise WorkerDied(f"the sandbox worker is gone: {error}") from error
            reply = self._reply(limits.wall_s + GRACE_S)
            most = limits.output_mb << 20
            stdout, stderr, results = (os.pread(fd, most, 0) for fd in fds[3:])
        return Run(stdout=stdout, stderr=stderr[-MAX_NOTE_BYTES:], results=results, **reply)

    def close(self) -> None:
        """Kill the server; its programs die with it."""
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()

    def _reply(self, timeout_s: float) -> dict[str, Any]:
        self._socket.settimeout(timeout_s)
        try:
            packet = self._socket.recv(1 << 16)
        except OSError as error:
            self.close()
            raise WorkerDied(f"the sandbox worker does not answer: {error}") from error
        if not packet:
            self.close()
            raise WorkerDied("the sandbox worker died")
        return json.loads(packet)


@contextlib.contextmanager
def _files(job: Job) -> Generator[list[int]]:
    """Memory files in the server's order: sealed inputs, then empty ones for what comes back."""
    fds: list[int] = []
    try:
        for data in (job.program, job.stdin, job.inputs):
            fd = os.memfd_create("in", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            fds.append(fd)
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            os.lseek(fd, 0, os.SEEK_SET)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        fds.extend(os.memfd_create("out", os.MFD_CLOEXEC) for _ in range(3))
        yield fds
    finally:
        for fd in fds:
            os.close(fd)
