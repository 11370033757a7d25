"""The sandbox against honest and dishonest programs; its own failures."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from vlrl.config import SandboxConfig
from vlrl.sandbox import Ending, Limits, Sandbox, SandboxBroken
from vlrl.sandbox.worker import Job
from vlrl.types import AssertTests, CallTest, CallTests, StdioTests, UnitTests

ADD = CallTests(
    function="add",
    tests=(CallTest(args=(1, 2), expected=3), CallTest(args=(2,), kwargs={"b": 5}, expected=7)),
)
GOOD = "def add(a, b):\n    return a + b"
TIGHT = Limits(time_s=1.0)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(workers=1)
    yield sandbox
    sandbox.close()


def ending(sandbox: Sandbox, program: str) -> Ending:
    return sandbox.run_calls(program, ADD, TIGHT).ending


def script(sandbox: Sandbox, program: str) -> str:
    run = sandbox.run(Job(mode="script", program=program.encode()), TIGHT)
    assert run.clean, run.stderr
    return run.stdout.decode().strip()


HONEST = {
    "plain": GOOD,
    "prints": "def add(a, b):\n    print('hi')\n    return a + b\n"
    "if __name__ == '__main__': input()",
    "recursion": "import sys\nsys.setrecursionlimit(9**6)\n"
    "def r(n): return n and 1 + r(n - 1)\ndef add(a, b): return a + b + r(9000) - 9000",
    "dataclass": "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    "@dataclass\nclass P:\n    x: int\ndef add(a, b): return P(a + b).x",
    "stdlib": "import collections, math, typing, re, json, decimal, asyncio, sqlite3, unittest\n"
    "def add(a: typing.Optional[int], b): return math.gcd(a + b, 0)",
    "lambda": "add = lambda a, b: a + b",
    "float": "def add(a, b): return float(a + b)",
    "kilobytes of comments": "#" * 60_000 + "\n" + GOOD,
}
LYING = {
    "empty": "",
    "prose": "The answer is 3.",
    "wrong": "def add(a, b): return 3",
    "arity": "def add(a): return a",
    "raises": "def add(a, b): raise KeyError(a)",
    "exit": "def add(a, b): raise SystemExit(0)",
    "os._exit": "import os\ndef add(a, b): os._exit(0)",
    "patched os._exit": "import os\nos._exit = lambda code: None\ndef add(a, b): return 0",
    "exit at import": "import sys\nsys.exit(0)\n" + GOOD,
    "equal to everything": "class E:\n def __eq__(s, o): return True\ndef add(a, b): return E()",
    "int subclass": "class E(int):\n def __eq__(s, o): return True\ndef add(a, b): return E(9)",
    "patched json": "import json\njson.dumps = lambda *a: '3'\ndef add(a, b): return 0",
    "endless value": "import itertools\ndef add(a, b): return itertools.count()",
    "recursive value": "def add(a, b):\n    x = []\n    x.append(x)\n    return x",
    "huge value": "def add(a, b): return 1 << 40_000_000",
    "memory": "x = b'x' * (3 << 30)\n" + GOOD,
    "syntax": "def add(a, b:\n    return a + b",
    "nul": "def add(a, b):\n    return a + b\0",
    "surrogate": "x = '\ud800'\n" + GOOD,
    "brackets": "x = " + "(" * 5000 + ")" * 5000 + "\n" + GOOD,
    "forged": "import os\nfor fd in range(3, 40):\n    try: os.write(fd, b'0 v3\\n1 v7\\n')\n"
    "    except OSError: pass\nos._exit(0)",
    "abort": "import os\ndef add(a, b): os.abort()",
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_pass(sandbox: Sandbox, name: str) -> None:
    outcome = sandbox.run_calls(HONEST[name], ADD)
    assert outcome.ending is Ending.PASSED, outcome
    assert (outcome.num_passed, outcome.num_tests, outcome.note) == (2, 2, "")


@pytest.mark.parametrize("name", LYING)
def test_dishonest_programs_fail(sandbox: Sandbox, name: str) -> None:
    outcome = sandbox.run_calls(LYING[name], ADD)
    assert outcome.ending is Ending.FAILED
    assert outcome.note


@pytest.mark.parametrize(
    "program",
    ["while True: pass", "import time; time.sleep(99)", "import os; os.kill(os.getpid(), 19)"],
)
def test_a_slow_program_is_a_timeout(sandbox: Sandbox, program: str) -> None:
    start = time.perf_counter()
    assert ending(sandbox, program) is Ending.TIMEOUT
    assert time.perf_counter() - start < 6
    assert ending(sandbox, GOOD) is Ending.PASSED


def test_stdio(sandbox: Sandbox) -> None:
    tests = StdioTests(tests=(("1 2\n", "3\n"), ("x" * 300_000 + " y", "bad\n")))
    program = (
        "import sys\na, b = sys.stdin.read().split()\n"
        "print(int(a) + int(b) if len(a) < 9 else 'bad')"
    )
    assert sandbox.run_stdio(program, tests).ending is Ending.PASSED
    for bad in ("print(3)", "", "print(3, 'x')", program + "\nexit(1)", "import os; os._exit(0)"):
        assert sandbox.run_stdio(bad, tests).ending is Ending.FAILED


def test_output_is_bounded(sandbox: Sandbox) -> None:
    program = b"import sys\nfor _ in range(999): sys.stdout.write('9' * (1 << 20))"
    run = sandbox.run(Job(mode="script", program=program), Limits(output_mb=2))
    assert not run.clean
    assert len(run.stdout) <= 2 << 20


def test_expected_values_never_enter_the_sandbox(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Job] = []
    real = sandbox.run

    def spy(job: Job, limits: Limits | None = None) -> object:
        seen.append(job)
        return real(job, limits)

    monkeypatch.setattr(sandbox, "run", spy)
    tests = CallTests(function="f", tests=(CallTest(args=("in",), expected="s3cret"),))
    sandbox.run_calls("def f(x): return 's3cr' + 'et'", tests)
    sandbox.run_stdio("print(1)", StdioTests(tests=(("in", "s3cret"),)))
    assert len(seen) == 2
    assert not any("s3cret" in repr(job) for job in seen)


def test_no_tests_is_an_error_and_no_pass(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="no tests"):
        sandbox.run_calls(GOOD, CallTests(function="add", tests=()))
    with pytest.raises(ValueError, match="no tests"):
        sandbox.run_stdio("", StdioTests(tests=()))
    with pytest.raises(ValueError, match="no test code"):
        sandbox.run_asserts(GOOD, AssertTests(code=" "))
    with pytest.raises(ValueError, match="no test code"):
        sandbox.run_unittests(GOOD, UnitTests(code=""))


def test_what_the_program_sees(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLRL_CANARY", "secret")
    assert "CANARY" not in script(sandbox, "import os; print(dict(os.environ))")
    fds = (
        "import os, fcntl\n"
        "def is_open(fd):\n    try: fcntl.fcntl(fd, fcntl.F_GETFD)\n"
        "    except OSError: return False\n"
        "    return True\n"
        "print([fd for fd in range(64) if is_open(fd)])"
    )
    assert script(sandbox, fds) == "[0, 1, 2, 3, 4, 5]"


def test_a_killed_worker_is_replaced(sandbox: Sandbox) -> None:
    assert ending(sandbox, GOOD) is Ending.PASSED
    seat = sandbox._seats.get()
    sandbox._seats.put(seat)
    assert seat.worker is not None
    os.kill(seat.worker.pid, signal.SIGKILL)
    assert ending(sandbox, GOOD) is Ending.PASSED


def test_a_sandbox_that_can_not_start_is_an_exception(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.protection()  # once proven, a worker that does not come up is a failure, not a lack
    monkeypatch.setattr("sys.executable", "/bin/false")
    monkeypatch.setattr("vlrl.sandbox.pool.RETRY_S", 0)
    with pytest.raises(SandboxBroken):
        Sandbox(workers=1).run_calls(GOOD, ADD)


def test_canaries_of_an_outcome(sandbox: Sandbox) -> None:
    early = sandbox.run_calls("import os, gc\nos._exit(0)", ADD)
    assert early.exited_early
    assert early.touches == {"os._exit", "gc"}
    for program in (GOOD, "def add(a, b): return 3", "exit(1)"):
        outcome = sandbox.run_calls(program, ADD)
        assert not outcome.exited_early
        assert not outcome.touches
    assert sandbox.run_stdio("exit()", StdioTests(tests=(("", "1"),))).exited_early


def test_submit_waits_for_room_and_gives_every_outcome() -> None:
    sandbox = Sandbox(config=SandboxConfig(workers=1, queue=2))
    slow = "import time; time.sleep(0.2); print(1)"
    start = time.perf_counter()
    futures = [sandbox.submit(slow, StdioTests(tests=(("", "1"),))) for _ in range(5)]
    assert time.perf_counter() - start > 0.3  # the fifth had to wait for two to end
    assert [f.result().ending for f in futures] == [Ending.PASSED] * 5
    sandbox.close()


def test_waiting_for_a_worker_costs_no_limit() -> None:
    sandbox = Sandbox(workers=1)
    tight = Limits(time_s=0.5, wall_factor=1.0)
    program = "import time; time.sleep(0.7); print(1)"
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(
            lambda _: sandbox.run_stdio(program, StdioTests(tests=(("", "1"),)), tight), range(4)
        )
        assert {outcome.ending for outcome in found} == {Ending.PASSED}
    sandbox.close()


def test_whoever_waits_longest_is_next(sandbox: Sandbox) -> None:
    """A busy thread must not take its worker again and again while others wait."""
    ended: list[str] = []

    def several() -> None:
        for _ in range(30):
            sandbox.run_calls(GOOD, ADD)
        ended.append("busy")

    def one() -> None:
        sandbox.run_calls(GOOD, ADD)
        ended.append("one")

    with ThreadPoolExecutor(2) as threads:
        threads.submit(several)
        time.sleep(0.05)
        threads.submit(one)
    assert ended == ["one", "busy"]


def test_threads_share_workers_and_no_descriptor_is_left() -> None:
    sandbox = Sandbox(workers=2)
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda _: sandbox.run_calls(GOOD, ADD), range(20)))
        before = len(os.listdir("/proc/self/fd"))
        outcomes += list(threads.map(lambda _: sandbox.run_calls(GOOD, ADD), range(100)))
    assert len(os.listdir("/proc/self/fd")) == before
    assert {outcome.ending for outcome in outcomes} == {Ending.PASSED}
    sandbox.close()
    with pytest.raises(SandboxBroken, match="closed"):
        sandbox.run_calls(GOOD, ADD)
