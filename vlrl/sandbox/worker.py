"""One fork server seen from the parent: a fresh interpreter behind a control socket."""

from __future__ import annotations

import contextlib
import dataclasses
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

from vlrl.sandbox.cgroup import Cgroup
from vlrl.sandbox.errors import SandboxUnavailable
from vlrl.sandbox.guest.plan import Isolation, Plan
from vlrl.sandbox.limits import Limits

START_S, GRACE_S = 60.0, 5.0
START = b"start"
BOOT = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.insert(0, sys.argv[1]); "
    "from guest.server import main; sys.path.pop(0); main(int(sys.argv[2]), sys.argv[3])"
)
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LC_ALL": "C.UTF-8",
    # Large blocks in huge pages, where the kernel gives them on request: filling 100 MB takes a
    # quarter of the time. Another libc than glibc doesn't read it.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    # Thread pools of numpy's libraries: one process, one core.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
MAX_NOTE_BYTES = 2000

Mode = Literal["script", "calls", "candidate", "tester"]


class WorkerDied(RuntimeError):
    """The fork server went away or does not answer."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: `inputs` holds the calls' arguments or the test code, never an expected value.

    `peer` is this process's end of the socket between the two of an assert suite.
    """

    mode: Mode
    program: bytes = b""
    stdin: bytes = b""
    inputs: bytes = b""
    function: str = ""
    peer: int | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of a job. `code` is the exit code, -1 after a signal; times in seconds."""

    timed_out: bool
    too_large: bool
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
        return not self.timed_out and not self.too_large and self.code == 0


class Worker:
    """A fork server. Not thread-safe: one job at a time, `begin` and then `end`.

    Raises:
        SandboxUnavailable: the kernel refused a layer of the plan.
        WorkerDied: it did not come up.
    """

    def __init__(self, plan: Plan, cgroup: Cgroup | None = None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._folder = None
        if not (plan.wants("namespaces") and plan.wants("file_tree")):  # else a /tmp of its own
            self._folder = tempfile.TemporaryDirectory(prefix="vlrl-sandbox-")
            plan = dataclasses.replace(plan, folder=self._folder.name)
        command = [sys.executable, "-s", "-S", "-B", "-c", BOOT, str(Path(__file__).parent)]
        self._process = subprocess.Popen(
            [*command, str(theirs.fileno()), json.dumps(dataclasses.asdict(plan))],
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
        self._closed = False
        self._cgroup = cgroup
        self._files: list[int] = []
        self._limits = Limits()
        if cgroup is not None:
            self._enter(cgroup)
        with contextlib.suppress(OSError):  # it has gone already: the reply says so
            ours.send(START)  # not before: what it forks is to be born in the cgroup
        hello = self._reply(START_S)
        if "refused" in hello:
            self.close()
            raise SandboxUnavailable(f"{hello['refused']} (errno {hello['errno']})")
        self.isolation = Isolation(**hello)

    @property
    def pid(self) -> int:
        """Process id of the fork server's outermost process."""
        return self._process.pid

    @property
    def idle(self) -> bool:
        """Whether it is there and has no job; it may have died since it was last used."""
        return not self._closed and not self._files

    def run(self, job: Job, limits: Limits) -> Run:
        """`begin` and `end`."""
        self.begin(job, limits)
        return self.end()

    def begin(self, job: Job, limits: Limits) -> None:
        """Hand over a job.

        Raises:
            WorkerDied: it is gone; the worker is of no more use.
        """
        header = {
            "mode": job.mode,
            "function": job.function,
            "cpu_s": limits.time_s,
            "wall_s": limits.wall_s,
            "memory": limits.memory_mb << 20,
            "output": limits.output_mb << 20,
        }
        self._limits = limits
        self._files = _memory_files(job)
        fds = self._files if job.peer is None else [*self._files, job.peer]
        try:
            socket.send_fds(self._socket, [json.dumps(header).encode()], fds)
        except OSError as error:
            self.close()
            raise WorkerDied(f"the sandbox worker is gone: {error}") from error

    def end(self) -> Run:
        """What came of the job that was begun.

        Raises:
            WorkerDied: no answer; the worker is of no more use.
        """
        limits = self._limits
        try:
            reply = self._reply(limits.wall_s + GRACE_S)
            most = limits.output_mb << 20
            stdout, stderr, results = (os.pread(fd, most, 0) for fd in self._files[3:])
        finally:
            self._close_files()
        if not reply.pop("ready"):
            self.close()
            said = stderr[-MAX_NOTE_BYTES:].decode("utf-8", "replace")
            raise WorkerDied(f"a program's process could not be locked in: {said}")
        # RLIMIT_CPU's own SIGKILL, should the server have come late.
        reply["timed_out"] |= reply["signal"] == signal.SIGKILL and reply["cpu_s"] >= limits.time_s
        return Run(stdout=stdout, stderr=stderr[-MAX_NOTE_BYTES:], results=results, **reply)

    def close(self) -> None:
        """Kill the server; its programs die with it."""
        if self._closed:
            return
        self._closed = True
        self._close_files()
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._folder is not None:
            self._folder.cleanup()
        if self._cgroup is not None:
            self._cgroup.remove()

    def _enter(self, cgroup: Cgroup) -> None:
        try:
            cgroup.add(self._process.pid)
        except OSError as error:
            self.close()
            raise WorkerDied(f"the sandbox worker is gone: {error}") from error

    def _close_files(self) -> None:
        for fd in self._files:
            os.close(fd)
        self._files = []

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


def _memory_files(job: Job) -> list[int]:
    """Memory files in the server's order: sealed inputs, then empty ones for what comes back."""
    fds: list[int] = []
    try:
        for data in (job.program, job.stdin, job.inputs):
            fd = os.memfd_create("in", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            fds.append(fd)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.lseek(fd, 0, os.SEEK_SET)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        for _ in range(3):
            fds.append(os.memfd_create("out", os.MFD_CLOEXEC))
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return fds


@contextlib.contextmanager
def socket_pair() -> Generator[tuple[int, int]]:
    """Two connected descriptors, closed here at the end; workers get duplicates."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other:
        yield one.fileno(), other.fileno()
