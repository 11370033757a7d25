from __future__ import annotations

import threading

import pytest

from tests.builtin import make_chat
from vlrl import graders
from vlrl.rollout import Rollout
from vlrl.samplers.base import SamplingParams
from vlrl.samplers.scripted import ScriptedSampler
from vlrl.tasks import TASKS
from vlrl.tasks.base import Row
from vlrl.types import Completion, Problem, Status, Verdict


class Broken:
    """A verifier that raises on some responses, and on some never answers."""

    def problem(self, row: Row) -> Problem:
        raise NotImplementedError

    def grade(self, problem: Problem, completion: Completion) -> Verdict:
        if completion.text == "bad":
            raise ZeroDivisionError("oops")
        if completion.text == "endless":
            threading.Event().wait()
        return Verdict(status=Status.OK, correct=True, reward=1.0)


def problem(name: str, domain: str = "math_qa") -> Problem:
    return Problem(id=name, domain=domain, question=f"{name}: 2 + 2", answer="4")


@pytest.fixture(scope="module")
def sampler() -> ScriptedSampler:
    return ScriptedSampler(
        make_chat(), {"one": ["4", "5"], "two": ["good", "bad"], "three": [""], "four": ["endless"]}
    )


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


def test_verifiers_that_hang_cost_their_attempts_and_starve_no_other(
    sampler: ScriptedSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graders, "VERDICT_LIMIT_S", 0.2)
    rollout = Rollout(sampler.chat, sampler, {"math_qa": Broken()})
    params = SamplingParams(n=graders.NUM_GRADERS, max_tokens=8, seed=1)
    hung, graded = rollout([problem("four"), problem("two")], params)
    (after,) = rollout([problem("two")], params)
    rollout.close()
    assert {a.verdict.note for a in hung.attempts} == {"verifier did not answer within 0.2 s"}
    assert hung.scored == []
    assert len(graded.scored) == len(after.scored) == graders.NUM_GRADERS // 2
    # They hang for good: nothing but daemons may be left, or the process would never end.
    left = [t for t in threading.enumerate() if t.name == "verifier"]
    assert len(left) >= graders.NUM_GRADERS and all(t.daemon for t in left)
