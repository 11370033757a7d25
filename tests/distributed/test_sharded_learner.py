"""Two processes compute what one does: loss, gradient, log-probs, updates, their statistics."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.cases import Case, Outcome, Skipped, outcome, outcomes
from tests.distributed.processes import in_processes

SMALL_ROWS = {"tokens_per_microbatch": 40}
CASES = {
    "one process without an image": Case(),
    "one process without a group": Case(places=((0, 1, 2, 3), ())),
    "uneven rows": Case(places=((0, 1, 2), (3,)), config=SMALL_ROWS),
    "embeddings and low layers frozen": Case(
        places=((0,), (1, 2, 3)),
        freeze=("*embed_tokens*", "model.language_model.layers.0.*"),
    ),
}
MORE_CASES = {
    "no image at all": Case(places=((0,), (3,)), tied=False),
    "adapters": Case(lora=True, config=SMALL_ROWS),
    "frozen tower": Case(freeze=("model.visual.*",), places=((1,), (0, 2, 3))),
    "layers computed again": Case(config={"gradient_checkpointing": True, **SMALL_ROWS}),
    "float32 between products": Case(family="qwen3_vl_moe", config={"activations": "float32"}),
    "the learner's own pi_old": Case(
        places=((0, 1, 2), (3,)),
        loss={"old_logprobs": "learner", "tis_cap": 2.0, "mask_negative": 0.5, "kl_coef": 0.1},
    ),
    "experts, replayed": Case(
        family="qwen3_vl_moe", places=((0, 1, 2, 3), ()), config={"routing_replay": "learner"}
    ),
} | {
    family: Case(family=family, config=SMALL_ROWS)
    for family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
}
CUTS = ("num_microbatches", "padding_share", "num_images", "num_prompt_tokens")
"""What an update's statistics say of rows, which two processes cut otherwise."""


Found = tuple[dict[str, list[Outcome]], list[Skipped]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each of two processes found: by case, and when an update is skipped."""
    return run_cases(CASES, tmp_path_factory.mktemp("shared"))


def run_cases(cases: dict[str, Case], folder: Path) -> Found:
    by_rank = in_processes(2, outcomes, folder, list(cases.values()))
    found = {name: [own[i] for own, _ in by_rank] for i, name in enumerate(cases)}
    return found, [skipped for _, skipped in by_rank]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_does(name: str, shared: Found) -> None:
    check(CASES[name], shared[0][name])


def test_a_gradient_that_isnt_finite_in_one_process_is_left_out_by_all(shared: Found) -> None:
    for own in shared[1]:
        assert [update.skipped for update in own.updates] == [True, False]
        assert own.num_skipped == 1
        assert own.untouched


@pytest.mark.slow
def test_so_do_other_families_and_options(tmp_path: Path) -> None:
    for name, found in run_cases(MORE_CASES, tmp_path)[0].items():
        check(MORE_CASES[name], found)


def check(case: Case, found: list[Outcome]) -> None:
    expected = outcome(case)
    for own in found:
        assert own.loss == pytest.approx(expected.loss, rel=1e-5)
        assert own.gradients.keys() == expected.gradients.keys()
        for name, gradient in expected.gradients.items():
            near(own.gradients[name], gradient, 1e-5, name)
        for place, logprobs in own.logprobs.items():
            for one, other in zip(logprobs, expected.logprobs[place], strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
        for one, other in zip(own.updates, expected.updates, strict=True):
            same_statistics(asdict(one), asdict(other))
        for name, weight in expected.weights.items():
            near(own.weights[name], weight, 1e-4, name)
    assert sorted(place for own in found for place in own.logprobs) == sorted(expected.logprobs)


def near(found: torch.Tensor, expected: torch.Tensor, share: float, name: str) -> None:
    """Within a share of the norm; gradients that are zero but for rounding have no direction."""
    assert float((found - expected).norm()) <= share * float(expected.norm()) + 1e-8, name


def same_statistics(one: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict):
            same_statistics(one[key], value)
        elif value is None or key in CUTS:
            assert (one[key] is None) == (value is None), key
        else:
            assert one[key] == pytest.approx(value, rel=1e-3, abs=1e-6), key
