"""Sandbox: judges untrusted programs on a few workers; knows nothing of RL.

Every program runs in a process of its own, made by a worker (a fork server) that sees no program,
no input and no expected value, behind all the layers of docs/security.md: namespaces and a file
tree with nothing but Python's library (tier A), a list of system calls, Landlock, limits, no
descriptors, capabilities or environment. Expected values stay in this process, which compares plain
builtins; test code runs in a second sandboxed process that shares only plain data with the program.
A worker that dies costs a retry, never a verdict. One kernel is shared: its holes are holes here.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from vlrl.config import SandboxConfig
from vlrl.sandbox import judge
from vlrl.sandbox.cgroup import make_cgroup
from vlrl.sandbox.errors import SandboxBroken, SandboxUnavailable
from vlrl.sandbox.judge import Outcome
from vlrl.sandbox.limits import Limits
from vlrl.sandbox.seats import Seat, Seats
from vlrl.sandbox.selftest import Protection, establish
from vlrl.sandbox.worker import Job, Run, Worker, WorkerDied, socket_pair
from vlrl.types import AssertTests, CallTests, StdioTests, UnitTests

MAX_ATTEMPTS = 8
RETRY_S, MAX_RETRY_S = 0.05, 1.0
"""Pause before a broken worker's job is tried on a new one; doubled each time."""
Tests = CallTests | StdioTests | AssertTests | UnitTests
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Sandbox:
    """A pool of workers, started when first needed. Thread-safe.

    `run_*` wait for a free worker and for the outcome; `submit` waits for room in the queue only.
    All raise:
        SandboxUnavailable: this machine lacks a layer; says which call was refused, and the mend.
        SandboxBroken: the sandbox itself failed, again and again; says nothing about the program.
        ValueError: no tests, or tests that are not plain values.
    """

    def __init__(
        self,
        workers: int | None = None,
        limits: Limits | None = None,
        config: SandboxConfig | None = None,
    ) -> None:
        config = config or SandboxConfig()
        self._config = config
        self._limits = limits or Limits.of(config)
        self._num_workers = workers or config.workers
        self._seats = Seats(self._num_workers)
        self._room = threading.BoundedSemaphore(self._num_workers + config.queue)
        self._threads = ThreadPoolExecutor(self._num_workers, thread_name_prefix="sandbox")
        self._closed = False
        self.started = False

    def protection(self) -> Protection:
        """What is in force, proven by the self-test; the first call in a process runs it.

        Raises:
            SandboxUnavailable: what the config asks for can't be had here.
        """
        found = establish(self._config)
        self.started = True
        return found

    def submit(self, program: str, tests: Tests, limits: Limits | None = None) -> Future[Outcome]:
        """The outcome to come. Waits while `queue` programs wait already."""
        self._room.acquire()
        try:
            future = self._threads.submit(self.judge, program, tests, limits)
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        return future

    def judge(self, program: str, tests: Tests, limits: Limits | None = None) -> Outcome:
        """`run_calls`, `run_stdio`, `run_asserts` or `run_unittests`, by the kind of tests."""
        if isinstance(tests, CallTests):
            return self.run_calls(program, tests, limits)
        if isinstance(tests, StdioTests):
            return self.run_stdio(program, tests, limits)
        if isinstance(tests, AssertTests):
            return self.run_asserts(program, tests, limits)
        return self.run_unittests(program, tests, limits)

    def run_calls(self, program: str, tests: CallTests, limits: Limits | None = None) -> Outcome:
        """Call the program's function with every test's arguments, compare the values here."""
        return judge.calls(lambda job: self.run(job, limits), program, tests)

    def run_stdio(self, program: str, tests: StdioTests, limits: Limits | None = None) -> Outcome:
        """Run the program once a test on its stdin, compare stdout here; stop at a miss."""
        return judge.stdio(lambda job: self.run(job, limits), program, tests)

    def run_asserts(
        self, program: str, tests: AssertTests, limits: Limits | None = None
    ) -> Outcome:
        """Run the test code in a second process, which asks the program's for values."""
        inputs = judge.suite("asserts", tests.code, tests.prefix, tests.function)
        return judge.tested(self._run_suite(program, inputs, limits), program)

    def run_unittests(
        self, program: str, tests: UnitTests, limits: Limits | None = None
    ) -> Outcome:
        """The same for a unittest file, which imports the program as the module it names."""
        inputs = judge.suite("unittest", tests.code, module=tests.module)
        return judge.tested(self._run_suite(program, inputs, limits), program)

    def run(self, job: Job, limits: Limits | None = None) -> Run:
        """One job on a free worker; a broken worker is replaced and the job tried again."""

        def once(seat: Seat) -> Run:
            seat.worker = seat.worker or self._start()
            return seat.worker.run(job, limits or self._limits)

        return self._retried(once)

    def _run_suite(self, program: str, inputs: bytes, limits: Limits | None) -> tuple[Run, Run]:
        """The program's run and the test code's, which talk to each other."""
        limits = limits or self._limits

        def once(seat: Seat) -> tuple[Run, Run]:
            seat.worker = seat.worker or self._start()
            seat.tester = seat.tester or self._start()
            with socket_pair() as (ours, theirs):
                job = Job(mode="candidate", program=judge.source(program), peer=theirs)
                seat.worker.begin(job, limits)
                seat.tester.begin(Job(mode="tester", inputs=inputs, peer=ours), limits)
            tested = seat.tester.end()
            ran = seat.worker.end()
            if tested.signal and not tested.timed_out:  # nothing of the program's can do that
                raise WorkerDied(f"the test code's process was killed by signal {tested.signal}")
            return ran, tested

        return self._retried(once)

    def _retried(self, once: Callable[[Seat], T]) -> T:
        seat = self._seats.get()
        try:
            for attempt in range(MAX_ATTEMPTS):
                if self._closed:
                    raise SandboxBroken("the sandbox is closed")
                try:
                    return once(seat)
                except (WorkerDied, OSError) as error:
                    seat.drop_broken()
                    if attempt == MAX_ATTEMPTS - 1:
                        raise SandboxBroken(str(error)) from error
                    _log.info("a sandbox worker is replaced: %s", error)
                    time.sleep(min(RETRY_S * 2**attempt, MAX_RETRY_S))
            raise AssertionError("unreachable")
        finally:
            self._seats.put(seat)

    def _start(self) -> Worker:
        plan = self.protection().plan
        cgroup = make_cgroup(self._config.memory_mb) if self._config.cgroup else None
        try:
            return Worker(plan, cgroup)
        except SandboxUnavailable as error:  # it could be had before: a failure, not a lack
            raise WorkerDied(str(error)) from error

    def close(self) -> None:
        """Wait for the runs under way, end the workers."""
        self._closed = True
        for _ in range(self._num_workers):
            self._seats.get().close()
        for _ in range(self._num_workers):
            self._seats.put(Seat())
        self._threads.shutdown(wait=False, cancel_futures=True)


_lock = threading.Lock()
_default: Sandbox | None = None
_config = SandboxConfig()


def configure(config: SandboxConfig) -> None:
    """Settings of the sandbox that tasks share; one that runs with others is closed."""
    global _default, _config
    with _lock:
        if config == _config:
            return
        _config, old, _default = config, _default, None
    if old is not None:
        old.close()


def default_sandbox() -> Sandbox:
    """The sandbox that tasks share, made when first asked for, closed at exit."""
    global _default
    with _lock:
        if _default is None:
            _default = Sandbox(config=_config)
            atexit.register(_default.close)
        return _default


def in_force() -> str:
    """The mark of the shared sandbox, for logs and reports; empty while no program has run."""
    with _lock:
        sandbox = _default
    return sandbox.protection().mark if sandbox is not None and sandbox.started else ""
