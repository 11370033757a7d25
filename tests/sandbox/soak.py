"""Many runs while workers are killed at random: none may be lost, nothing may be left behind.

python tests/sandbox/soak.py [RUNS [RUNS_BETWEEN_KILLS]]  prints what it found.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from vlrl.config import SandboxConfig
from vlrl.sandbox import Ending, Sandbox
from vlrl.types import AssertTests, CallTest, CallTests, StdioTests


@dataclass(frozen=True, kw_only=True)
class Soaked:
    """`lost`: runs without their right outcome. The rest: what is there after more than before."""

    runs: int
    kills: int
    lost: int
    descriptors: int
    processes: int
    files: int
    memory_mb: float
    seconds: float


def soak(runs: int, kill_every: float) -> Soaked:
    """`runs` programs of three kinds on two seats; every `kill_every` or so a worker is killed."""
    with tempfile.TemporaryDirectory() as folder:
        own, tempfile.tempdir = tempfile.tempdir, folder
        try:
            _soak(20, 1e9, Path(folder))  # what is made once in a process is no leak
            return _soak(runs, kill_every, Path(folder))
        finally:
            tempfile.tempdir = own


def _soak(runs: int, kill_every: float, folder: Path) -> Soaked:
    process = psutil.Process()
    gc.collect()
    descriptors, memory, start = process.num_fds(), process.memory_info().rss, time.monotonic()
    others = set(process.children(recursive=True))  # not this sandbox's: left alone, not counted
    sandbox = Sandbox(config=SandboxConfig(workers=2))
    kills, judged, lost = [0], [0], 0
    killer = threading.Thread(target=_kill_at_random, args=(judged, kill_every, kills, others))
    killer.start()
    with ThreadPoolExecutor(4) as threads:
        for right in threads.map(lambda n: _judge(sandbox, n), range(runs)):
            lost += not right
            judged[0] += 1
    judged[0] = -1
    killer.join()
    sandbox.close()
    seconds = time.monotonic() - start
    gc.collect()
    time.sleep(0.2)
    return Soaked(
        runs=runs,
        kills=kills[0],
        lost=lost,
        descriptors=process.num_fds() - descriptors,
        processes=len(set(process.children(recursive=True)) - others),
        files=len(list(folder.iterdir())),
        memory_mb=round((process.memory_info().rss - memory) / 1e6, 1),
        seconds=round(seconds, 1),
    )


def _judge(sandbox: Sandbox, number: int) -> bool:
    """Whether a program that is right passes, and every tenth, which is wrong, fails."""
    said = number + (number % 10 == 9)
    if number % 3 == 0:
        tests = StdioTests(tests=((str(number), str(number)),))
        source = f"open('/tmp/x', 'w').write('y' * 999)\nprint(input() and {said})"
        outcome = sandbox.run_stdio(source, tests)
    elif number % 3 == 1:
        calls = CallTests(function="f", tests=(CallTest(args=(1,), expected=number),))
        outcome = sandbox.run_calls(f"def f(x): return {said}", calls)
    else:
        asserts = AssertTests(code=f"assert f(1) == {number}", function="f")
        outcome = sandbox.run_asserts(f"def f(x): return {said}", asserts)
    return outcome.ending is (Ending.PASSED if said == number else Ending.FAILED)


def _kill_at_random(
    judged: list[int], every: float, kills: list[int], others: set[psutil.Process]
) -> None:
    rng = random.Random(0)
    target = rng.uniform(0, 2 * every)
    while judged[0] >= 0:
        time.sleep(rng.uniform(0, 0.02))
        if judged[0] < target:
            continue
        target = judged[0] + rng.uniform(0, 2 * every)
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            outer = [each for each in psutil.Process().children() if each not in others]
            processes = outer + [inner for each in outer for inner in each.children()]
            if processes:  # a worker's two; not a program's own, whose end is a failed run
                os.kill(rng.choice(processes).pid, signal.SIGKILL)
                kills[0] += 1


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *("10000", "40")[len(sys.argv) - 1 :]]
    found = soak(int(arguments[0]), float(arguments[1]))
    print(found)
    sys.exit(found.lost or found.descriptors or found.processes or found.files)
