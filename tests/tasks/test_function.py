from __future__ import annotations

import asyncio
import time

import pytest

from tests.builtin import make_chat
from tests.verifiers import mine
from vlrl.graders import judge
from vlrl.rollout import Rollout
from vlrl.samplers.base import SamplingParams
from vlrl.samplers.scripted import ScriptedSampler
from vlrl.tasks import Row, RowError
from vlrl.tasks.function import FunctionTask, gold_of
from vlrl.types import CallTests, Choice, Completion, Count, Finish, Problem, Status


def completion(text: str) -> Completion:
    return Completion(text=text, token_ids=(), logprobs=(), finish=Finish.STOP)


def row(answer: object) -> Row:
    return Row(id="1", source="s", question="Which?", answer=answer)


@pytest.mark.parametrize("verifier", [mine.same, mine.same_later, mine.partly])
def test_a_function_is_a_task(verifier: object) -> None:
    task = FunctionTask("which", verifier)  # type: ignore[arg-type]
    problem = task.problem(row("red"))
    assert (problem.domain, problem.answer, problem.source) == ("which", "red", "s")
    assert task.grade(problem, completion("\\boxed{Red}")).correct
    wrong = task.grade(problem, completion("blue"))
    assert not wrong.correct
    assert wrong.reward == (0.1 if verifier is mine.partly else 0.0)


@pytest.mark.parametrize(
    ("verifier", "words"),
    [
        (mine.always, "'' would be correct"),
        (mine.contains, "would be correct for it"),
        (mine.number, "the verifier raised ValueError"),
        (lambda gold, response: False, "not correct by its own judge"),
    ],
)
def test_a_gold_that_anything_satisfies_is_a_broken_row(verifier: object, words: str) -> None:
    with pytest.raises(RowError, match=words):
        FunctionTask("which", verifier).problem(row("5"))  # type: ignore[arg-type]


def test_golds_come_as_the_data_set_has_them() -> None:
    seen: list[object] = []

    def spy(gold: object, response: str) -> bool:
        seen.append(gold)
        return response == str(gold) or response.startswith("{")

    problem = FunctionTask("d", spy).problem(row({"a": [1, 2]}))
    FunctionTask("d", spy).grade(problem, completion(""))
    assert {str(gold) for gold in seen} == {"{'a': [1, 2]}"}
    assert gold_of(Choice(options=("a", "b"), answer="b")) == "b"
    assert gold_of(Count(value=3)) == "3"
    with pytest.raises(TypeError, match="can't judge programs"):
        gold_of(CallTests(function="f", tests=()))


def test_another_return_value_is_the_verifiers_failure() -> None:
    task = FunctionTask("d", mine.says_one)  # type: ignore[arg-type]
    problem = Problem(id="1", domain="d", question="?", answer="1")
    verdict = judge({"d": task}, problem, completion("1"))
    assert verdict.status is Status.ERROR
    assert "returns a bool or a Verdict, not int" in verdict.note


def test_async_verdicts_are_waited_for_side_by_side() -> None:
    """And with a limit: 12 that take 0.2 s each, 6 at once, take 0.4 s."""
    now, most = 0, 0

    async def slow(gold: str, response: str) -> bool:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.2)
        now -= 1
        return True

    sampler = ScriptedSampler(make_chat(), {"q": ["4"]})
    rollout = Rollout(sampler.chat, sampler, {"d": FunctionTask("d", slow, concurrency=6)})
    start = time.monotonic()
    problem = Problem(id="q", domain="d", question="q", answer="4")
    (group,) = rollout([problem], SamplingParams(n=12, max_tokens=8, seed=1))
    rollout.close()
    assert all(a.verdict.correct for a in group.attempts)
    assert most == 6
    assert time.monotonic() - start >= 0.4
