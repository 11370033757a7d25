"""Threads that wait for verifiers: one that never answers costs its attempt, not the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread

from vlrl.tasks.base import Task, Waiting
from vlrl.types import Completion, Problem, Status, Verdict

NUM_GRADERS = 4
"""Verdicts that are waited for at once; the work itself is done in the verifiers' processes. A task
with a `concurrency` of its own has its own graders."""
VERDICT_LIMIT_S = 120.0
"""Seconds that a verifier may take over one response, waiting for a free sandbox included, and
counted from its own start. Tasks bound their work to far less; this is for those that fail to."""

Judge = Callable[[], Verdict]


class Graders:
    """Calls verifiers in the background, each for VERDICT_LIMIT_S at most.

    All threads are daemons, so that a verifier that hangs can't keep the process from ending. It
    runs on in its thread: Python can't stop one. (Nor can this help against a verifier that hangs
    in C code without letting go of the interpreter.)
    """

    def __init__(self, num: int = NUM_GRADERS) -> None:
        self._jobs: SimpleQueue[tuple[Judge, Future[Verdict]] | None] = SimpleQueue()
        self._num = num
        for number in range(num):
            Thread(target=self._work, name=f"grader_{number}", daemon=True).start()

    def submit(self, judge: Judge) -> Future[Verdict]:
        """The verdict to come of a call that doesn't raise."""
        verdict: Future[Verdict] = Future()
        self._jobs.put((judge, verdict))
        return verdict

    def close(self) -> None:
        """Drop what hasn't begun and stop the threads."""
        with suppress(Empty):
            while True:
                self._jobs.get_nowait()
        for _ in range(self._num):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            judge, verdict = job
            verdict.set_result(_bounded(judge))


class Judges:
    """The tasks' verdicts, in the background; a task that waits for others has its own threads."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = tasks
        self._graders: dict[str | None, Graders] = {}  # by domain; None: shared by the others

    def later(self, problem: Problem, completion: Completion) -> Future[Verdict]:
        """The verdict to come."""
        task = self.tasks.get(problem.domain)
        concurrency = task.concurrency if isinstance(task, Waiting) else None
        lane = problem.domain if concurrency else None
        if lane not in self._graders:
            self._graders[lane] = Graders(concurrency or NUM_GRADERS)
        return self._graders[lane].submit(partial(judge, self.tasks, problem, completion))

    def close(self) -> None:
        """Stop the threads."""
        for graders in self._graders.values():
            graders.close()


def judge(tasks: Mapping[str, Task], problem: Problem, completion: Completion) -> Verdict:
    """The verdict on one response; a verifier that raises costs this attempt and no more."""
    try:
        verdict = tasks[problem.domain].grade(problem, completion)
        if not math.isfinite(verdict.reward):
            raise ValueError(f"the reward is {verdict.reward}")
        return verdict
    # Users' code: its failure must not end the run, nor a sys.exit() this thread.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return failed(f"verifier raised {type(error).__name__}: {error}")


def failed(note: str) -> Verdict:
    """The verdict when the verifier, not the response, is at fault."""
    return Verdict(status=Status.ERROR, correct=False, reward=0.0, note=note)


def _bounded(judge: Judge) -> Verdict:
    """The verdict of a call in a thread of its own, which is left behind when time is up."""
    answer: SimpleQueue[Verdict] = SimpleQueue()
    Thread(target=lambda: answer.put(judge()), name="verifier", daemon=True).start()
    try:
        return answer.get(timeout=VERDICT_LIMIT_S)
    except Empty:
        return failed(f"verifier did not answer within {VERDICT_LIMIT_S:g} s")
