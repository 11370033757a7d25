"""The learner bench on an update small enough for a test."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def bench() -> Generator[Any]:
    sys.path.insert(0, str(SCRIPTS))
    try:
        import bench_learner

        yield bench_learner
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def job(bench: Any) -> Any:
    del bench
    from learner_job import cpu_job

    return cpu_job(
        prompts=2, responses=4, response_tokens=6, image_side=64, text_tokens=5, trl_rows=4, steps=1
    )


def gradients(name: str, job: Any) -> dict[str, torch.Tensor]:
    """Of one update by a side, caught at the optimiser's step."""
    from learner_job import make_groups, make_model
    from learner_sides import make_side

    model, found = make_model(job), {}
    side = make_side(name, model, job)
    side.prepare(make_groups(job))

    def catch(*_: Any) -> None:
        found.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    owner = side.learner._optimizer if name.startswith("vlrl") else side.optimizer
    owner.register_step_pre_hook(catch)
    side.update()
    return found


@pytest.fixture(scope="module")
def ours(job: Any) -> dict[str, torch.Tensor]:
    return gradients("vlrl", job)


@pytest.mark.filterwarnings("ignore:TRL currently supports vLLM")
@pytest.mark.parametrize("name", ["padded", "padded_group", "trl", "vlrl_lean"])
def test_every_side_does_the_same_work(
    bench: Any, job: Any, ours: dict[str, torch.Tensor], name: str
) -> None:
    if name == "trl":
        pytest.importorskip("trl")
    theirs = gradients(name, job)
    assert max(float(g.norm()) for g in ours.values()) > 0.01
    assert bench.worst_error(ours, theirs) < 1e-5


def test_worst_error_sees_one_wrong_parameter(bench: Any) -> None:
    right = {"a": torch.ones(4), "b": torch.full((4,), 1e-9)}
    wrong = {"a": torch.ones(4), "b": torch.zeros(4)}
    assert bench.worst_error(right, wrong) == pytest.approx(1e-3)  # b is 0 but for rounding
    assert bench.worst_error({**right, "a": torch.tensor([1.0, 1, 1, 3])}, right) == 1.0
    with pytest.raises(RuntimeError, match="other parameters"):
        bench.worst_error(right, {"a": torch.ones(4)})


def test_sides_are_measured_in_their_own_processes(
    bench: Any, job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS.parent))
    results = bench.in_own_processes(replace(job, steps=3), ["vlrl", "vlrl_lean"], tmp_path)
    assert [len(side["forward_backwards_s"]) for side in results.values()] == [3, 3]
    found = results["vlrl"]
    assert (tmp_path / "vlrl.safetensors").is_file()
    counters = found["counters"]
    assert counters["images_through_vision"] == 2
    assert counters["patches_through_vision"] == 2 * 16
    assert counters["positions_through_text"] == 2 * (4 + 2 + 5 + 4 * 6)
    assert 0 < found["forward_backward_s"] < found["step_s"]
    assert sum(found["phases"].values()) > 0 and min(found["phases"].values()) >= 0
    assert 0 < found["peak_memory_mib"] <= found["peak_step_mib"]
    assert found["peak_allocated_mib"] > 0
    assert found["floors"]["operations_s"] > 0 and found["floors"]["bytes_s"] > 0


def test_a_side_that_fails_says_why(bench: Any, job: Any, tmp_path: Path) -> None:
    broken = replace(job, vlrl_settings=("no_such_key=1",))
    with pytest.raises(RuntimeError, match=r"vlrl on cpu failed:\n(.|\n)*no_such_key"):
        bench.in_own_processes(broken, ["vlrl"], tmp_path)


def test_ratios_by_hand(bench: Any) -> None:
    def side(seconds: float, mib: float) -> dict[str, float]:
        times = {"forward_backward_s": seconds, "forward_backward_cpu_s": 2 * seconds}
        return times | {"peak_memory_mib": 3 * mib, "peak_allocated_mib": mib}

    own = side(1.0, 10.0) | {"peak_memory_mib": 60.0}
    found = bench.ratios(own, {"trl": side(4.0, 40.0)})
    assert found["speedup_vs_trl"] == found["cpu_time_vs_trl"] == 4.0
    assert found["peak_memory_vs_trl"] == 0.25
    assert found["peak_resident_vs_trl"] == 0.5


def test_the_first_figures_are_one_sides_with_its_settings(
    bench: Any, job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"padded": 8.0, "vlrl_lean": 2.0, "vlrl": 1.0}

    def measured(job: Any, names: list[str], folder: Path) -> dict[str, Any]:
        keys = ("forward_backward_s", "forward_backward_cpu_s", "tokens_per_s")
        keys += ("peak_memory_mib", "peak_allocated_mib")
        more = {"counters": {}, "floors": {}}
        return {name: dict.fromkeys(keys, seconds[name]) | more for name in names}

    monkeypatch.setattr(bench, "in_own_processes", measured)
    monkeypatch.setattr(bench, "gradient_errors", lambda *_: {})
    found = bench.compare(job, list(seconds), tmp_path)
    assert "gradient_checkpointing=true" in found["settings"]
    assert (found["speedup_vs_padded"], found["peak_memory_vs_padded"]) == (4.0, 0.25)
    default = found["default"]
    assert default["settings"] == []
    assert (default["speedup_vs_padded"], default["peak_memory_vs_padded"]) == (8.0, 0.125)
    alone = bench.compare(job, ["padded", "vlrl"], tmp_path)
    assert alone["settings"] == [] and alone["speedup_vs_padded"] == 8.0


def test_a_job_survives_its_way_to_the_other_process(bench: Any, job: Any) -> None:
    assert bench.job_from_json(json.dumps(asdict(job))) == job
    assert (job.prompt_tokens, job.group_tokens) == (4 + 2 + 5, 11 + 24)
    from learner_job import cpu_job, cuda_job

    assert cpu_job().image_tokens == 256 and cpu_job().prompt_tokens == 304
    assert cuda_job().image_tokens == 1024 and cuda_job().media.image == 151655


def test_operations_by_hand(bench: Any, job: Any) -> None:
    """Doubling responses adds their tokens and no patch."""
    del bench
    from learner_floor import needed_operations
    from learner_job import TINY, make_model

    model = make_model(job)
    one, two = (needed_operations(replace(job, prompts=n), model) for n in (1, 2))
    assert two == 2 * one
    layers = model.model.language_model.layers
    weights = sum(p.numel() for p in layers.parameters() if p.ndim == 2)
    query_size = 32 * TINY.num_heads
    tokens = job.responses * job.response_tokens
    pairs = job.responses * (job.prompt_tokens * 6 + 6 * 6 / 2)
    more = 2 * tokens * (weights + TINY.vocab_size * TINY.hidden)
    more += 4 * TINY.num_layers * query_size * pairs
    doubled = needed_operations(replace(job, prompts=1, responses=8), model)
    assert doubled - one == pytest.approx(3 * more)


def test_growth_of_straight_lines_and_powers(bench: Any) -> None:
    del bench
    from learner_tables import exponent, line_through

    assert exponent({2: 1.0, 8: 4.0}) == pytest.approx(1)
    assert exponent({2: 1.0, 4: 1.2, 32: 4.0}) == pytest.approx(0.5)
    assert line_through({1: 3.0, 2: 5.0, 4: 9.0}) == pytest.approx((1.0, 2.0, 1.0))
    assert line_through({1: 3.0, 2: 9.0, 3: 3.0})[2] == pytest.approx(0)
