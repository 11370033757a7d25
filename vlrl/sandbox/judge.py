"""From what a program's process gave to an Outcome; expected values are compared here, outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from vlrl.sandbox.canaries import suspicious
from vlrl.sandbox.compare import same_output, same_value
from vlrl.sandbox.guest import values
from vlrl.sandbox.worker import Job, Run
from vlrl.types import CallTests, StdioTests


class Ending(StrEnum):
    """How the judging of a program ended."""

    PASSED = "passed"
    FAILED = "failed"
    TIMEOUT = "timeout"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`Outcome(ending=FAILED, num_passed=2, num_tests=3, note="call 3: wrong value")`.

    Two canaries, for logs only: `exited_early` is an end of its own accord and without an error,
    but without the results that were asked for; `touches` is `suspicious(program)`.
    """

    ending: Ending
    num_passed: int
    num_tests: int
    note: str = ""
    cpu_s: float = 0.0
    exited_early: bool = False
    touches: frozenset[str] = frozenset()


RunJob = Callable[[Job], Run]


def calls(run_job: RunJob, program: str, tests: CallTests) -> Outcome:
    """Every call in one process; a value for each, and a good end."""
    num_tests = _counted(tests.tests)
    inputs = values.dumps([(list(t.args), dict(t.kwargs)) for t in tests.tests])
    job = Job(mode="calls", program=source(program), inputs=inputs, function=tests.function)
    run = run_job(job)
    wrong, num_passed = "", 0
    records = _records(run.results)
    for number, test in enumerate(tests.tests):
        said, value = records.get(number, ("no value", None))
        if not said and same_value(value, test.expected, tests.tolerance):
            num_passed += 1
        else:
            wrong = wrong or f"call {number + 1}: {said or 'wrong value'}"
    early = run.clean and len(records) < num_tests
    return _outcome(run, program, num_passed, num_tests, wrong, early=early)


def stdio(run_job: RunJob, program: str, tests: StdioTests) -> Outcome:
    """A process for each test, until one fails."""
    num_tests = _counted(tests.tests)
    cpu_s = 0.0
    outcome = None
    for number, (stdin, expected) in enumerate(tests.tests):
        run = run_job(Job(mode="script", program=source(program), stdin=source(stdin)))
        cpu_s += run.cpu_s
        right = _right_output(run.stdout, expected, tests.tolerance)
        early = run.clean and not run.stdout and not right
        said = "ended without a result" if early else "wrong output"
        wrong = "" if right else f"test {number + 1}: {said}"
        outcome = _outcome(
            run, program, number + right, num_tests, wrong, number + 1, early=early, cpu_s=cpu_s
        )
        if outcome.ending is not Ending.PASSED:
            return outcome
    assert outcome is not None
    return outcome


def _right_output(stdout: bytes, expected: str, tolerance: float | None) -> bool:
    try:
        return same_output(stdout.decode("utf-8"), expected, tolerance)
    except UnicodeDecodeError:
        return False


def suite(
    kind: str, code: str, prefix: str = "", function: str = "", module: str = "solution"
) -> bytes:
    """What the tester's process is told.

    Raises:
        ValueError: there is no test code.
    """
    if not code.strip():
        raise ValueError("no test code: nothing to judge by")
    told = {"kind": kind, "code": code, "prefix": prefix, "function": function, "module": module}
    return values.dumps(told)


def tested(runs: tuple[Run, Run], program: str) -> Outcome:
    """The tester's verdict; both processes must also end well."""
    run, tester = runs
    passed, total, wrong = _verdict(tester.results)
    if not tester.clean:
        said = _last_line(tester.stderr) or f"exit code {tester.code}"
        wrong = "time limit in the test code" if tester.timed_out else f"the tests: {said}"
        total = max(total, passed + 1)
    elif passed < total:
        wrong = wrong or "a test failed"
    early = run.clean and "without a result" in wrong
    outcome = _outcome(run, program, passed, total, wrong, early=early)
    if tester.timed_out and outcome.ending is Ending.FAILED:
        return replace(outcome, ending=Ending.TIMEOUT)
    return outcome


def source(text: str) -> bytes:
    """Bytes of a text; a lone surrogate goes through and fails as bad UTF-8 in the program."""
    return text.encode("utf-8", "surrogatepass")


def _verdict(results: bytes) -> tuple[int, int, str]:
    """(passed, run, what went wrong) as the tester wrote it; none is a failed test."""
    try:
        read = values.loads(results)
    except values.Unplain:
        read = None
    if isinstance(read, list) and len(read) == 3:
        passed, total, wrong = read
        if isinstance(passed, int) and isinstance(total, int) and 0 <= passed <= total and total:
            return passed, total, str(wrong)
    return 0, 1, "the tests gave no verdict"


def _counted(tests: tuple[object, ...]) -> int:
    if not tests:
        raise ValueError("no tests: nothing to judge by")
    return len(tests)


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
    run: Run,
    program: str,
    num_passed: int,
    num_tests: int,
    wrong: str,
    last: int = 0,
    *,
    early: bool = False,
    cpu_s: float = 0.0,
) -> Outcome:
    """A run must also end well: by itself, with exit code 0, in time."""
    ending, note = Ending.PASSED, ""
    where = f"test {last}: " if last else ""
    if run.timed_out:
        ending, note = Ending.TIMEOUT, f"{where}time limit"
    elif run.too_large:
        ending, note = Ending.FAILED, f"{where}too many or too large files"
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
        exited_early=early,
        touches=suspicious(program),
    )


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else ""
