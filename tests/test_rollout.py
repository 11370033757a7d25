from __future__ import annotations

import pytest

from tests.builtin import make_chat
from vlrl.rollout import Rollout
from vlrl.samplers.base import SamplingParams
from vlrl.samplers.scripted import ScriptedSampler
from vlrl.tasks import TASKS
from vlrl.tasks.base import Row
from vlrl.types import Completion, Problem, Status, Verdict


class Broken:
    """A verifier that raises on some responses."""

    def problem(self, row: Row) -> Problem:
        raise NotImplementedError

    def grade(self, problem: Problem, completion: Completion) -> Verdict:
        if completion.text == "bad":
            raise ZeroDivisionError("oops")
        return Verdict(status=Status.OK, correct=True, reward=1.0)


def problem(name: str, domain: str = "math_qa") -> Problem:
    return Problem(id=name, domain=domain, question=f"{name}: 2 + 2", answer="4")


@pytest.fixture(scope="module")
def sampler() -> ScriptedSampler:
    return ScriptedSampler(make_chat(), {"one": ["4", "5"], "two": ["good", "bad"], "three": [""]})


def test_groups_come_in_the_problems_order_with_all_attempts(sampler: ScriptedSampler) -> None:
    rollout = Rollout(sampler.chat, sampler, TASKS)
    names = ["three", "one", "one", "three"]
    groups = rollout([problem(n) for n in names], SamplingParams(n=4, max_tokens=8, seed=1))
    rollout.close()
    assert [g.problem.id for g in groups] == names
    assert [len(g.attempts) for g in groups] == [4] * 4
    for group in groups[1:3]:
        texts = {a.completion.text: a.verdict.correct for a in group.attempts}
        assert texts == {"4": True, "5": False}
    assert {a.verdict.status for a in groups[0].attempts} == {Status.UNPARSABLE}


def test_a_verifier_that_raises_costs_that_attempt_and_no_more(sampler: ScriptedSampler) -> None:
    rollout = Rollout(sampler.chat, sampler, {"math_qa": Broken()})
    (group,) = rollout([problem("two")], SamplingParams(n=4, max_tokens=8, seed=1))
    rollout.close()
    for attempt in group.attempts:
        bad = attempt.completion.text == "bad"
        assert attempt.verdict.status is (Status.ERROR if bad else Status.OK)
        assert ("ZeroDivisionError: oops" in attempt.verdict.note) == bad
    assert len(group.scored) == 2
