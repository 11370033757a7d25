"""Rewards in a run: masked attempts are counted and not learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.builtin import scripted, small_config
from tests.plain_task import PlainTask
from vlrl.tasks import Row
from vlrl.train import train
from vlrl.types import Problem

SHORT, LONG = "4", "four or perhaps five, let me think about this for a good while"


class AlwaysFour(PlainTask):
    """Every problem's answer is the short one."""

    def problem(self, row: Row) -> Problem:
        return Problem(id=row.id, domain=self.domain, question=row.question, answer=SHORT)


def run(folder: Path, **rewards: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The metrics and the attempts of one step in which long responses are cut off."""
    config = small_config(
        folder,
        "steps=1",
        "sampler.max_tokens=6",
        data={
            "mixture": {"math_qa": {"share": 1.0, "recipes": ["chain_sum"]}},
            "prompts_per_step": 4,
        },
        rewards=rewards,
    )
    sampler = scripted(lambda prompt: [SHORT, "5", LONG])
    train(config, make_sampler=sampler, tasks={"math_qa": AlwaysFour("math_qa")})
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()
    lines = (folder / "rollouts.jsonl").read_text().splitlines()
    return json.loads(line), [json.loads(line) for line in lines]


def test_masked_attempts_are_counted_and_not_learned_from(tmp_path: Path) -> None:
    scored, before = run(tmp_path / "scored")
    masked, after = run(tmp_path / "masked", truncated="mask")
    cut = [a for a in after if a["finish"] == "length"]
    assert 0 < len(cut) < len(after)
    assert {a["masked"] for a in cut} == {True} == {a["response"] != SHORT for a in cut}
    assert masked["rollout"]["domains"]["math_qa"]["masked"] == len(cut) / len(after)
    assert scored["rollout"]["domains"]["math_qa"]["masked"] == 0
    # The same samples, judged the same; but nothing of the cut ones goes into an update.
    assert [(a["response"], a["correct"]) for a in before] == [
        (a["response"], a["correct"]) for a in after
    ]
    learned = sum(update["num_response_tokens"] for update in masked["updates"])
    assert 0 < learned < sum(update["num_response_tokens"] for update in scored["updates"])


def test_penalties_reach_the_learner(tmp_path: Path) -> None:
    metrics, attempts = run(tmp_path / "run", overlong=1.0, overlong_buffer=2)
    rewards = {(a["finish"], a["correct"]): a["reward"] for a in attempts}
    assert rewards == {("stop", True): 1.0, ("stop", False): 0.0, ("length", False): -1.0}
    domain = metrics["rollout"]["domains"]["math_qa"]
    assert domain["reward"] == pytest.approx(sum(a["reward"] for a in attempts) / len(attempts))
    assert domain["correct"] == sum(a["correct"] for a in attempts) / len(attempts)
