"""The process in which `vlrl verifier check` calls a user's verifier; killed when it hangs.

Reads a JSON line a case from the socket whose number is its first argument, writes one back. The
verifier is called in a thread, as in training: one that needs signals fails here too.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vlrl.config import ConfigError
from vlrl.tasks.base import Row, RowError, Task
from vlrl.tasks.function import FunctionTask
from vlrl.types import Completion, Finish, Problem, Verdict
from vlrl.verifiers.dotted import load_task

MEMORY = 2 << 30
"""Bytes that a verifier may take beyond what its imports took."""


def main() -> None:
    """Load the verifier, say so, then judge until the other side hangs up."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    stream = connection.makefile("rwb")

    def say(**found: Any) -> None:
        stream.write(json.dumps(found).encode() + b"\n")
        stream.flush()

    try:
        task = load_task(sys.argv[2])
    except ConfigError as error:
        say(cannot=str(error))
        return
    _limit_memory()
    say(ready=True)
    with ThreadPoolExecutor(1) as thread:
        for line in stream:
            say(**thread.submit(_judge, task, json.loads(line)).result())


def _limit_memory() -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():  # not Linux: nothing says how much is used
        return
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))


def _judge(task: Task, case: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        verdict = _verdict(task, case)
    except RowError as error:
        return {"status": "refused", "note": f"the gold can't be used: {error}"}
    # What users' code raises is what is looked for here.
    except BaseException as error:  # noqa: BLE001
        said = f"{type(error).__name__}: {error}"
        return {"raised": said[:300], "seconds": time.perf_counter() - start}
    return {
        "correct": verdict.correct,
        "reward": verdict.reward,
        "status": verdict.status.value,
        "note": verdict.note[:300],
        "seconds": time.perf_counter() - start,
    }


def _verdict(task: Task, case: dict[str, Any]) -> Verdict:
    row = Row(
        id="case",
        source="cases",
        question=case["question"],
        answer=case["gold"],
        options=tuple(case["options"]),
    )
    # A function is asked directly: a gold that it would reward for nothing shows in the suite.
    if isinstance(task, FunctionTask):
        return task.ask(row.answer, case["response"])
    problem: Problem = task.problem(row)
    text = case["response"]
    return task.grade(problem, Completion(text=text, token_ids=(), logprobs=(), finish=Finish.STOP))


if __name__ == "__main__":
    main()
