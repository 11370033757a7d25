"""Sandbox: judges untrusted programs on a few workers; knows nothing of RL.

In force, as far as the kernel lets it (see `probe`): no network, a process namespace that is
emptied after each program, a read-only file tree with nothing of the host but Python's library, a
fresh /tmp, another user, no capabilities, limits on CPU, wall clock, memory, output, processes and
open files, no inherited descriptors or environment. Expected values stay outside.

Not protected: there is no system call filter, so a hole in the kernel is a hole here; the contents
of Python's library can be read; assert-style tests share a process with the program, and one that
is written against this very runner (reads the test code from its descriptor after the fact, patches
`math`) can pass them. Generic tricks (exits, objects equal to everything, patched builtins) can't.
"""

from __future__ import annotations

import atexit
import queue
import secrets
import threading
from dataclasses import dataclass
from enum import StrEnum

from vlrl.sandbox.compare import same_output, same_value
from vlrl.sandbox.errors import SandboxBroken
from vlrl.sandbox.guest import values
from vlrl.sandbox.limits import Limits
from vlrl.sandbox.worker import Job, Run, Worker, WorkerDied
from vlrl.types import AssertTests, CallTests, StdioTests

DEFAULT_WORKERS = 2


class Ending(StrEnum):
    """How the judging of a program ended."""

    PASSED = "passed"
    FAILED = "failed"
    TIMEOUT = "timeout"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`Outcome(ending=FAILED, num_passed=2, num_tests=3, note="call 3: wrong value")`."""

    ending: Ending
    num_passed: int
    num_tests: int
    note: str = ""
    cpu_s: float = 0.0


class Sandbox:
    """A pool of workers, started when first needed. Thread-safe.

    Every `run_*` raises:
        SandboxBroken: the sandbox itself failed, twice; says nothing about the program.
        ValueError: no tests, or tests that are not plain values.
    """

    def __init__(self, workers: int = DEFAULT_WORKERS, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._seats: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._seats.put(None)
        self._num_workers = workers
        self._closed = False

    def run_calls(self, program: str, tests: CallTests, limits: Limits | None = None) -> Outcome:
        """Call the program's function with every test's arguments, compare the values here."""
        num_tests = _counted(tests.tests)
        inputs = values.dumps([(list(t.args), dict(t.kwargs)) for t in tests.tests])
        run = self.run(
            Job(mode="calls", program=_source(program), inputs=inputs, function=tests.function),
            limits,
        )
        wrong = ""
        num_passed = 0
        records = _records(run.results)
        for number, test in enumerate(tests.tests):
            said, value = records.get(number, ("no value", None))
            if not said and same_value(value, test.expected, tests.tolerance):
                num_passed += 1
            else:
                wrong = wrong or f"call {number + 1}: {said or 'wrong value'}"
        return _outcome(run, num_passed, num_tests, wrong)

    def run_stdio(self, program: str, tests: StdioTests, limits: Limits | None = None) -> Outcome:
        """Run the program once a test on its stdin, compare stdout here; stop at a miss."""
        num_tests = _counted(tests.tests)
        cpu_s = 0.0
        outcome = None
        for number, (stdin, expected) in enumerate(tests.tests):
            job = Job(mode="script", program=_source(program), stdin=_source(stdin))
            run = self.run(job, limits)
            cpu_s += run.cpu_s
            got = run.stdout.decode("utf-8", "replace")
            right = same_output(got, expected, tests.tolerance)
            wrong = "" if right else f"test {number + 1}: wrong output"
            outcome = _outcome(run, number + right, num_tests, wrong, last=number + 1, cpu_s=cpu_s)
            if wrong or outcome.ending is not Ending.PASSED:
                return outcome
        assert outcome is not None
        return outcome

    def run_asserts(
        self, program: str, tests: AssertTests, limits: Limits | None = None
    ) -> Outcome:
        """Run the test code after the program; only a token written after the last assert passes.

        See the module's docstring for what this does not withstand.
        """
        if not tests.code.strip():
            raise ValueError("no test code: nothing to judge by")
        token = secrets.token_hex(16)
        inputs = values.dumps(
            {"code": tests.code, "prefix": tests.prefix, "function": tests.function, "token": token}
        )
        run = self.run(Job(mode="asserts", program=_source(program), inputs=inputs), limits)
        passed = run.results == token.encode()
        return _outcome(run, int(passed), 1, "" if passed else "an assert failed")

    def run(self, job: Job, limits: Limits | None = None) -> Run:
        """One job on a free worker; a broken worker is replaced and the job tried once more."""
        worker = self._seats.get()
        try:
            for attempt in (1, 2):
                try:
                    if self._closed:
                        raise SandboxBroken("the sandbox is closed")
                    worker = worker or Worker()
                    return worker.run(job, limits or self._limits)
                except (WorkerDied, OSError) as error:
                    if worker is not None:
                        worker.close()
                    worker = None
                    if attempt == 2:
                        raise SandboxBroken(str(error)) from error
            raise AssertionError("unreachable")
        finally:
            self._seats.put(worker)

    def close(self) -> None:
        """Wait for the runs under way, end the workers."""
        self._closed = True
        for _ in range(self._num_workers):
            worker = self._seats.get()
            if worker is not None:
                worker.close()
        for _ in range(self._num_workers):
            self._seats.put(None)


_lock = threading.Lock()
_default: Sandbox | None = None


def default_sandbox() -> Sandbox:
    """The sandbox that tasks share, made when first asked for, closed at exit."""
    global _default
    with _lock:
        if _default is None:
            _default = Sandbox()
            atexit.register(_default.close)
        return _default


def _counted(tests: tuple[object, ...]) -> int:
    if not tests:
        raise ValueError("no tests: nothing to judge by")
    return len(tests)


def _source(text: str) -> bytes:
    """Bytes of a text; a lone surrogate goes through and fails as bad UTF-8 in the program."""
    return text.encode("utf-8", "surrogatepass")


def _records(results: bytes) -> dict[int, tuple[str, object]]:
    """Call number -> (error or "", value). The first record of a number counts."""
    records: dict[int, tuple[str, object]] = {}
    for line in results.split(b"\n"):
        number, _, body = line.partition(b" ")
        if not number.isdigit() or len(number) > 6 or int(number) in records:
            continue
        try:
            value = values.loads(body[1:])
        except values.Unplain as error:
            records[int(number)] = (str(error)[:200], None)
            continue
        said = "" if body[:1] == b"v" else str(value)[:200] or "an error"
        records[int(number)] = (said, value)
    return records


def _outcome(
    run: Run, num_passed: int, num_tests: int, wrong: str, last: int = 0, cpu_s: float = 0.0
) -> Outcome:
    """A run must also end well: by itself, with exit code 0, in time."""
    ending = Ending.PASSED
    note = ""
    where = f"test {last}: " if last else ""
    if run.timed_out:
        ending, note = Ending.TIMEOUT, f"{where}time limit"
    elif run.signal:
        ending, note = Ending.FAILED, f"{where}killed by signal {run.signal}"
    elif run.code != 0:
        ending, note = Ending.FAILED, f"{where}{_last_line(run.stderr) or f'exit code {run.code}'}"
    elif wrong:
        ending, note = Ending.FAILED, wrong
    if ending is not Ending.PASSED and num_passed == num_tests:
        num_passed -= 1
    return Outcome(
        ending=ending,
        num_passed=num_passed,
        num_tests=num_tests,
        note=note,
        cpu_s=cpu_s or run.cpu_s,
    )


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else ""
