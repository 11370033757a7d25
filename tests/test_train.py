"""The whole loop on a scripted sampler: real data, real verifiers, real updates, no vLLM."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.builtin import guesses, scripted, small_config
from tests.plain_task import PlainTask
from vlrl import tasks
from vlrl.config import ConfigError, load
from vlrl.models.load import load_policy
from vlrl.run import SyncError
from vlrl.samplers.scripted import ScriptedSampler
from vlrl.train import train
from vlrl.types import Completion, Problem, Prompt, Verdict


def some_answers(prompt: Prompt) -> list[str]:
    return list(guesses())


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def attempts(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def test_a_short_run_leaves_everything_that_was_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trimmed: list[None] = []
    monkeypatch.setattr("vlrl.run.TRIM_EVERY", 2)
    monkeypatch.setattr("vlrl.run.trim", lambda: trimmed.append(None))
    config = small_config(tmp_path / "run", "data.prompts_per_step=8")
    checkpoint = train(config, make_sampler=scripted(some_answers))
    assert load(tmp_path / "run" / "config.yaml") == config
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2]
    assert len(trimmed) == 1
    assert len(attempts(tmp_path / "run")) == 2 * 8 * 4
    for step in (1, 2):
        of_step = [a for a in attempts(tmp_path / "run") if a["step"] == step]
        assert Counter(a["domain"] for a in of_step) == dict.fromkeys(tasks.TASKS, 8)
    # What the metrics say of rewards is what the transcripts say.
    for name, domain in lines[0]["rollout"]["domains"].items():
        rewards = [a["reward"] for a in attempts(tmp_path / "run")[:32] if a["domain"] == name]
        assert domain["reward"] == pytest.approx(sum(rewards) / len(rewards))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["updates"] == sum(len(line["updates"]) for line in lines) > 0
    before = weights(tmp_path / "run" / "checkpoints" / "step-000000")
    after = weights(checkpoint)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert load_policy(str(checkpoint)).config.model_type == "qwen3_vl"


def test_each_image_is_decoded_and_processed_once(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", "data.prompts_per_step=8")
    train(config, make_sampler=scripted(some_answers))
    seen: set[str] = set()
    for line in metrics(tmp_path / "run"):
        groups = [a for a in attempts(tmp_path / "run") if a["step"] == line["step"]]
        new = {key for a in groups for key in a["images"]} - seen
        seen |= new
        probed = len(next(a["images"] for a in groups if a["domain"] == "image_qa"))
        in_updates = sum(update["num_tower_forwards"] for update in line["updates"])
        assert new and in_updates
        assert line["images"] == {
            "num_decoded": len(new),
            "num_processed": len(new),
            "num_tower_forwards": probed + in_updates,
        }
        for update in line["updates"]:
            assert update["num_tower_forwards"] == update["num_unique_images"]


def test_stopped_and_resumed_equals_never_stopped(tmp_path: Path) -> None:
    """Weights and metrics alike, bit for bit."""
    whole = train(small_config(tmp_path / "a", "steps=3"), make_sampler=scripted(some_answers))
    train(small_config(tmp_path / "b", "steps=1"), make_sampler=scripted(some_answers))
    config = load(tmp_path / "b" / "config.yaml", ["steps=3"])
    parts = train(config, resume=True, make_sampler=scripted(some_answers))
    first, second = weights(whole), weights(parts)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for one, other in zip(metrics(tmp_path / "a"), metrics(tmp_path / "b"), strict=True):
        for key in ("rollout", "updates", "agreement", "uniform_groups"):
            assert one[key] == other[key]
    assert attempts(tmp_path / "a") == attempts(tmp_path / "b")


def test_a_policy_that_answers_nothing_is_said_aloud_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = train(small_config(tmp_path / "run"), make_sampler=scripted(lambda prompt: [""]))
    assert {a["status"] for a in attempts(tmp_path / "run")} == {"unparsable"}
    assert [line["updates"] for line in metrics(tmp_path / "run")] == [[], []]
    assert "nothing to learn" in " ".join(capsys.readouterr().out.split())
    before = weights(tmp_path / "run" / "checkpoints" / "step-000000")
    assert all(torch.equal(before[n], t) for n, t in weights(checkpoint).items())


def test_a_verifier_that_raises_is_counted_and_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logic = tasks.TASKS["logic"]

    class Raises:
        problem = logic.problem

        def grade(self, problem: Problem, completion: Completion) -> Verdict:
            raise OSError("verifier is out of order")

    monkeypatch.setitem(tasks.TASKS, "logic", Raises())
    train(small_config(tmp_path / "run"), make_sampler=scripted(some_answers))
    logic_attempts = [a for a in attempts(tmp_path / "run") if a["domain"] == "logic"]
    assert {a["status"] for a in logic_attempts} == {"error"}
    assert "out of order" in logic_attempts[0]["note"]
    domains = metrics(tmp_path / "run")[0]["rollout"]["domains"]
    assert domains["logic"]["reward"] is None and domains["logic"]["error"] == 1
    assert domains["image_qa"]["error"] == 0
    assert "4 attempt(s) lost" in " ".join(capsys.readouterr().out.split())


def test_a_task_of_ones_own_is_trained_and_evaluated(tmp_path: Path) -> None:
    """Its domain, recipe and suite, with nothing of it in the package."""
    rows = [{"question": f"Say {word}.", "answer": word} for word in ("red", "blue") * 4]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "echo.yaml").write_text(
        "name: echo\ntask: echo\nfile: {}\nsplits: {train: rows.jsonl, eval: rows.jsonl}\n"
        "licence: none\n"
    )
    (tmp_path / "few.yaml").write_text(
        f"name: few\nproblems: [{{recipe: {tmp_path / 'echo.yaml'}, limit: 2}}]\nmax_tokens: 8\n"
    )
    config = small_config(
        tmp_path / "run",
        "steps=1",
        data={
            "mixture": {"echo": {"share": 1.0, "recipes": [str(tmp_path / "echo.yaml")]}},
            "prompts_per_step": 4,
        },
        eval={"suites": [str(tmp_path / "few.yaml")], "at_start": False},
    )
    sampler = scripted(lambda prompt: ["red", "blue"])
    train(config, make_sampler=sampler, tasks={"echo": PlainTask("echo")})
    rewards = [a["reward"] for a in attempts(tmp_path / "run") if a["domain"] == "echo"]
    assert len(rewards) == 16 and sum(rewards) == 8
    (line,) = metrics(tmp_path / "run")
    assert line["updates"]
    (scores,) = (tmp_path / "run" / "evals.jsonl").read_text().splitlines()
    assert list(json.loads(scores)["scores"]) == ["echo"]


class Presses(ScriptedSampler):
    """Presses Ctrl-C while it samples for the `at`-th time."""

    at = 2
    calls = 0

    def sample(self, *args: Any, **kwargs: Any) -> list[list[Completion]]:
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().sample(*args, **kwargs)


def test_ctrl_c_finishes_the_step_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(tmp_path / "run", "steps=9")
    checkpoint = train(config, make_sampler=lambda p, chat, c: Presses(chat, some_answers))
    assert checkpoint.name == "step-000002"
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2]
    said = capsys.readouterr().out.replace("\n", "")
    assert "stopped after step 2" in said and f"vlrl train {tmp_path / 'run'} --resume" in said
    assert not (tmp_path / "run" / "summary.json").exists()


def test_an_interrupted_evaluation_loses_no_step_and_is_made_up_for(tmp_path: Path) -> None:
    (tmp_path / "few.yaml").write_text(
        "name: few\nproblems: [{recipe: chain_sum, limit: 2}]\nk: 2\nmax_tokens: 8\n"
    )
    evaluation = {"suites": [str(tmp_path / "few.yaml")], "every": 1, "at_end": False}
    config = small_config(tmp_path / "run", "checkpoint_every=9", eval=evaluation)

    class PressesInEvaluation(Presses):
        at = 3  # evaluation, step 1, evaluation

    checkpoint = train(config, make_sampler=lambda p, c, _: PressesInEvaluation(c, some_answers))
    assert checkpoint.name == "step-000001"
    train(config, resume=True, make_sampler=scripted(some_answers))
    lines = (tmp_path / "run" / "evals.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2]


def test_a_run_that_cannot_be_opened_leaves_its_folder_free(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no suite is named"):
        train(
            small_config(tmp_path / "run", "eval.suites=[nosuch]"),
            make_sampler=scripted(some_answers),
        )
    assert not (tmp_path / "run").exists()


def test_sampler_and_learner_that_disagree_stop_the_run(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", "sampler.max_probe_kl=1e-3")
    with pytest.raises(SyncError, match=r"above sampler\.max_probe_kl=0\.001"):
        train(config, make_sampler=scripted(some_answers))


def test_an_older_run_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds a run already.*--resume"):
        train(small_config(tmp_path / "run"), make_sampler=scripted(some_answers))
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == "mine"


def test_a_missing_image_is_skipped_and_named(tmp_path: Path) -> None:
    rows = [
        {"q": "Which colour?", "a": "red", "image": f"{'none' if i == 3 else 'red'}.png"}
        for i in range(8)
    ]
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntask: image_qa\nfile: {}\nsplits: {train: rows.jsonl}\n"
        "fields: {question: q, answer: a, images: image}\nlicence: none\n"
    )
    recipes = {"image_qa": {"share": 1.0, "recipes": [str(tmp_path / "mine.yaml")]}}
    data = {"mixture": recipes, "prompts_per_step": 4, "max_broken": 0.2}
    config = small_config(tmp_path / "run", data=data)
    train(config, make_sampler=scripted(lambda prompt: ["red", "blue"]))
    (named,) = (tmp_path / "run" / "broken_rows.jsonl").read_text().splitlines()
    assert json.loads(named)["row"] == 3 and "none.png" in named
    strict = small_config(tmp_path / "strict", data=data | {"max_broken": 0.01})
    with pytest.raises(ValueError, match=r"recipe mine: 1 of 8 rows are broken.*none\.png"):
        train(strict, make_sampler=scripted(lambda prompt: ["red", "blue"]))
