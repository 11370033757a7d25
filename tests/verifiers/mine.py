"""Verifiers as users write them, good and bad."""

from __future__ import annotations

import asyncio
import os
import re
import time

from vlrl.grading.response import bare_answer, final_answer
from vlrl.tasks.math_qa import MathQA
from vlrl.types import Status, Verdict


def same(gold: str, response: str) -> bool:
    """Good: one answer, compared as text."""
    answer = final_answer(response) or bare_answer(response)
    return answer is not None and answer.strip().casefold() == gold.casefold()


async def same_later(gold: str, response: str) -> bool:
    await asyncio.sleep(0)
    return same(gold, response)


def partly(gold: str, response: str) -> Verdict:
    right = same(gold, response)
    return Verdict(status=Status.OK, correct=right, reward=1.0 if right else 0.1)


def contains(gold: str, response: str) -> bool:
    """Bad: a list of guesses is right."""
    return gold in response


def always(gold: str, response: str) -> bool:
    return True


def number(gold: str, response: str) -> bool:
    """Bad: raises for what is no number."""
    return float(response) == float(gold)


def backtracks(gold: str, response: str) -> bool:
    """Bad: exponential in the length of a run of a's."""
    return bool(re.fullmatch(r"(a|aa)*b?", response[:64])) and response == gold


def sleeps(gold: str, response: str) -> bool:
    if len(response) > 100_000:
        time.sleep(60)
    return same(gold, response)


def dies(gold: str, response: str) -> bool:
    if not response.strip():
        os._exit(3)
    return same(gold, response)


def says_one(gold: str, response: str) -> int:
    return 1


def one_argument(response: str) -> bool:
    return True


math = MathQA()
not_callable = 5


class Needs:
    """A task that can't be made without arguments."""

    def __init__(self, allowed: int) -> None: ...

    problem = math.problem
    grade = math.grade
