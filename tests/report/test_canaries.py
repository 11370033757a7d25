from __future__ import annotations

import pytest

from vlrl.report.canaries import canaries
from vlrl.tasks.coding import Coding
from vlrl.types import (
    Answer,
    Attempt,
    CallTest,
    CallTests,
    Completion,
    Finish,
    Group,
    Problem,
    Prompt,
    Status,
    Verdict,
)
from vlrl.verifiers.held_out import Refusals

TESTS = CallTests(function="f", tests=(CallTest(args=(1,), expected=2),))
OK = Verdict(status=Status.OK, correct=True, reward=1.0)
WRONG = Verdict(status=Status.OK, correct=False, reward=0.0, note="call 1: wrong value")
LATE = Verdict(status=Status.TIMEOUT, correct=False, reward=0.0)


def completion(text: str) -> Completion:
    return Completion(text=text, token_ids=(1,), logprobs=(0.0,), finish=Finish.STOP)


def group(answer: Answer, *attempts: tuple[str, Verdict]) -> Group:
    return Group(
        problem=Problem(id="p", domain="d", question="?", answer=answer),
        prompt=Prompt(token_ids=(1,)),
        attempts=[Attempt(completion=completion(text), verdict=v) for text, v in attempts],
    )


def test_rates_are_shares_of_attempts_and_of_programs() -> None:
    texts = group(
        "4",
        ("\\boxed{4}", OK),
        ("\\boxed{3} or \\boxed{4}", OK),
        ("<think>\\boxed{3} \\boxed{3}</think>\\boxed{4}", OK),
        ("import gc", LATE),
    )
    programs = group(
        TESTS,
        ("def f(x): return x + 1", OK),
        ("import gc, ctypes", WRONG),
        ("class A:\n    def __eq__(self, other): return True", WRONG),
        ("```python\nimport sys; sys._getframe(1)\n```", WRONG),
    )
    found = canaries([texts, programs])
    assert (found.timeouts, found.several_boxes, found.num_programs) == (1 / 8, 1 / 8, 4)
    assert found.suspicious == {"__eq__": 0.25, "ctypes": 0.25, "gc": 0.25, "sys._getframe": 0.25}
    assert found.exits_without_result == 0.0
    assert "timeouts 12%" in found.remark and "programs with gc 25%" in found.remark
    assert "exits" not in found.remark


def test_nothing_suspicious_has_no_remark() -> None:
    assert canaries([group("4", ("4", OK))]).remark == ""
    assert canaries([]).suspicious == {}


def test_the_held_out_gap_is_shown() -> None:
    refusals = Refusals(num_correct=4, num_refused=1, num_failed=0, gap=0.25)
    found = canaries([group("4", ("4", OK))], refusals)
    assert found.held_out == refusals
    assert found.remark == "canaries: refused by the held-out verifier 25%"


@pytest.mark.parametrize(
    ("program", "share"),
    [
        ("import os\nos._exit(0)", 1.0),
        ("raise SystemExit(3)", 1.0),
        ("def f(x): return 2 * x", 0.0),
        ("def f(x): return 5", 0.0),
        ("def f(x): return 1 / 0", 0.0),
        ("nonsense(", 0.0),
    ],
)
def test_exits_without_a_result_are_known_by_the_sandboxs_note(program: str, share: float) -> None:
    problem = Problem(id="p", domain="coding", question="?", answer=TESTS)
    verdict = Coding().grade(problem, completion(program))
    assert canaries([group(TESTS, (program, verdict))]).exits_without_result == share, verdict.note
