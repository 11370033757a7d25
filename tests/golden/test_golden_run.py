"""A pinned short run: three steps on real data with scripted responses, compared with a file.

What was asked, answered and judged must be the same to the letter; losses, gradients' norms and
gate statistics to 1e-4, because another processor adds up in another order. The learning rate is
small because AdamW's first step is the sign of the gradient, which turns rounding into steps of
full size: other instruction sets differ by 1.4e-5 at 1e-4, by 1.4e-4 at 1e-3. A change of this file
is a change of the algorithm or of the built-in checkpoint, and wants a reason. To write it anew:

    python -m tests.golden.test_golden_run
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.builtin import guesses, scripted, small_config
from vlrl.train import train

GOLDEN = Path(__file__).with_name("run.json")
NUMBERS = ("loss", "grad_norm", "lr", "kl", "entropy", "num_response_tokens", "num_images")


def short_run(folder: Path) -> dict[str, Any]:
    """What the run did, step by step."""
    overrides = ("steps=3", "data.prompts_per_step=8", "learner.lr=1e-4", "seed=7")
    config = small_config(folder, *overrides)
    train(config, make_sampler=scripted(lambda prompt: guesses("4", "0")))
    attempts = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]
    kept = ("step", "problem", "question", "response", "tokens", "status", "correct", "reward")
    text = json.dumps([[a[key] for key in kept] for a in attempts])
    steps: list[dict[str, Any]] = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        updates = [
            {key: update[key] for key in NUMBERS}
            | {
                sign: update[sign] and update[sign]["update_ratio"]
                for sign in ("positive", "negative")
            }
            for update in metrics["updates"]
        ]
        steps.append({"uniform_groups": metrics["uniform_groups"], "updates": updates})
    return {
        "attempts": len(attempts),
        "transcript_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "right": sum(a["correct"] for a in attempts),
        "steps": steps,
    }


def test_the_pinned_run(tmp_path: Path) -> None:
    found, pinned = short_run(tmp_path / "run"), json.loads(GOLDEN.read_text())
    assert {k: v for k, v in found.items() if k != "steps"} == {
        k: v for k, v in pinned.items() if k != "steps"
    }
    for step, (one, other) in enumerate(zip(found["steps"], pinned["steps"], strict=True), 1):
        assert one["uniform_groups"] == other["uniform_groups"], f"step {step}"
        for update, golden in zip(one["updates"], other["updates"], strict=True):
            assert update == pytest.approx(golden, rel=1e-4, abs=1e-7), f"step {step}"


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(short_run(Path(folder) / "run"), indent=1) + "\n")
