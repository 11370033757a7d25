"""A task out of one pure function of the gold and the response, plain or async.

def same_colour(gold: str, response: str) -> bool: ...

TASKS = {..., "colour": FunctionTask("colour", same_colour)}
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from vlrl.grading.form import written
from vlrl.grading.gold import why_useless
from vlrl.tasks.base import Row, RowError
from vlrl.tasks.common import judged, question_of, text_answer
from vlrl.types import Answer, Choice, Completion, JsonFields, Problem, Tests, Verdict

Said = bool | Verdict
Verifier = Callable[[Any, str], Said | Awaitable[Said]]
"""(gold, response) -> whether it is correct, or a Verdict. The gold is the data set's: a text, or
plain JSON. It may be called from several threads at once."""

ASYNC_LIMIT_S = 100.0
"""Of one async verdict; below graders.VERDICT_LIMIT_S."""
ASYNC_CONCURRENCY = 32


class FunctionTask:
    """Judges by a function. Where that is async, `concurrency` verdicts are waited for at once."""

    def __init__(self, domain: str, verifier: Verifier, *, concurrency: int | None = None) -> None:
        self.domain = domain
        self._verifier = verifier
        is_async = inspect.iscoroutinefunction(verifier)
        self.concurrency = concurrency or (ASYNC_CONCURRENCY if is_async else None)

    def problem(self, row: Row) -> Problem:
        """`row.answer`: a text, a number, or plain JSON.

        Raises:
            RowError: no question or answer, or a gold that a plain function would reward for
                nothing: "", 0 or a list of guesses is correct, or the gold itself isn't.
        """
        plain = isinstance(row.answer, str | int | float)
        answer = text_answer(row) if plain else JsonFields(value=row.answer)
        if not inspect.iscoroutinefunction(self._verifier):
            self._refuse_useless(gold_of(answer))
        return Problem(
            id=row.id,
            domain=self.domain,
            question=question_of(row),
            answer=answer,
            images=row.images,
            source=row.source,
        )

    def grade(self, problem: Problem, completion: Completion) -> Verdict:
        """The function's word. Whatever it raises is the verifier's failure, and raised here too.

        Raises:
            TypeError: it returned neither a bool nor a Verdict.
            TimeoutError: an async function took longer than ASYNC_LIMIT_S.
        """
        return self.ask(gold_of(problem.answer), completion.text)

    def ask(self, gold: object, response: str) -> Verdict:
        """`grade` for a bare gold and response."""
        said = self._verifier(gold, response)
        if inspect.iscoroutine(said):
            said = _wait_for(said)
        if isinstance(said, Verdict):
            return said
        if not isinstance(said, bool):
            raise TypeError(f"a verifier returns a bool or a Verdict, not {type(said).__name__}")
        return replace(judged(said, ""), parsed=None)  # what it read is not known

    def _refuse_useless(self, gold: object) -> None:
        text = gold if isinstance(gold, str) else written(JsonFields(value=gold))
        forms = (text, rf"\boxed{{{text}}}", f"The answer is {text}.")
        try:
            own = next((form for form in forms if self.ask(gold, form).correct), text)
            reason = why_useless(own, lambda response: self.ask(gold, response).correct)
        # Users' code: a row that it fails on is a broken row, with the reason.
        except Exception as error:
            raise RowError(f"the verifier raised {type(error).__name__}: {error}") from error
        if reason:
            raise RowError(reason)


def gold_of(answer: Answer) -> object:
    """A problem's answer as a verifier function gets it; of a choice, the right option's text.

    Raises:
        TypeError: it is tests, which only running a program can judge.
    """
    if isinstance(answer, str):
        return answer
    if isinstance(answer, Choice):
        return answer.answer
    if isinstance(answer, JsonFields):
        return answer.value
    if isinstance(answer, Tests):
        raise TypeError("a verifier function can't judge programs by their tests")
    return written(answer)


_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _wait_for(coroutine: Coroutine[Any, Any, Said]) -> Said:
    """The result of a coroutine, run in the one loop that all async verifiers share.

    One loop, so that they can keep a client with its connections.
    """
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="verifiers", daemon=True).start()
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop)
    try:
        return future.result(timeout=ASYNC_LIMIT_S)
    except TimeoutError:
        future.cancel()
        raise
