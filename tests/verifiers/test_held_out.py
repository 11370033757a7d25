from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.builtin import scripted, small_config
from tests.groups import group
from vlrl.config import ConfigError
from vlrl.tasks.function import FunctionTask
from vlrl.train import train
from vlrl.types import Completion, Problem, Status, Verdict
from vlrl.verifiers.held_out import HeldOut, open_held_out


def test_only_what_was_judged_correct_is_asked_about() -> None:
    asked: list[str] = []

    def strict(gold: str, response: str) -> bool:
        asked.append(gold)
        return len(asked) % 2 == 1

    held_out = HeldOut(FunctionTask("d", strict))
    found = held_out.refusals([group("a", correct=[1, 0, 1, 0]), group("b", correct=[0, 0, 1, 1])])
    held_out.close()
    assert len(asked) == found.num_correct == 4
    assert (found.num_refused, found.num_failed, found.gap) == (2, 0, 0.5)


def test_a_held_out_verifier_that_fails_is_counted_and_refuses_nothing() -> None:
    def fails(gold: str, response: str) -> bool:
        raise OSError("down")

    held_out = HeldOut(FunctionTask("d", fails))
    found = held_out.refusals([group("a", correct=[1, 1])])
    held_out.close()
    assert (found.num_correct, found.num_refused, found.num_failed, found.gap) == (2, 0, 2, 0.0)


def test_none_is_configured() -> None:
    assert open_held_out(None) is None
    with pytest.raises(ConfigError, match="no module 'nowhere'"):
        open_held_out("nowhere:strict")


class Lenient:
    """Takes any answer that isn't empty."""

    def __init__(self, task: object) -> None:
        self.problem = task.problem  # type: ignore[attr-defined]

    def grade(self, problem: Problem, completion: Completion) -> Verdict:
        right = bool(completion.text)
        return Verdict(status=Status.OK, correct=right, reward=float(right))


def test_a_run_logs_canaries_and_rewards_by_parts(tmp_path: Path) -> None:
    from vlrl.tasks import TASKS

    config = small_config(
        tmp_path / "run",
        "steps=1",
        data={
            "mixture": {"math_qa": {"share": 1.0, "recipes": ["chain_sum"]}},
            "prompts_per_step": 4,
        },
        rewards={
            "overlong": 1.0,
            "recipes": {"chain_sum": {"boxed": 0.5}},
            "held_out": "vlrl.tasks.math_qa:MathQA",
        },
    )
    tasks = {"math_qa": Lenient(TASKS["math_qa"])}
    sampler = scripted(lambda prompt: ["\\boxed{77777}", ""])
    train(config, make_sampler=sampler, tasks=tasks)
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    held_out = json.loads(line)["canaries"]["held_out"]
    attempts = [
        json.loads(line) for line in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()
    ]
    right = [a for a in attempts if a["correct"]]
    assert held_out["num_correct"] == held_out["num_refused"] == len(right) > 0
    assert {(a["reward"], a["parts"]["boxed"]) for a in right} == {(1.5, 0.5)}
    assert {a["reward"] for a in attempts if not a["correct"]} == {0.0}
