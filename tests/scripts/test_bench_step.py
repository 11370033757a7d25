"""The parts of the step bench that run neither TRL nor vLLM."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def bench() -> Any:
    sys.path.insert(0, str(SCRIPTS))
    try:
        import bench_step
    finally:
        sys.path.remove(str(SCRIPTS))
    return bench_step


def test_summary_takes_medians_and_their_ratio(bench: Any) -> None:
    def took(wall: float, cpu: float) -> Any:
        return bench.Elapsed(wall_s=wall, cpu_s=cpu)

    none = dict.fromkeys(bench.PHASES, 0.0)
    vlrl = [(took(s + 1, 2 * s), none | {"sample": s, "learn": 1.0}) for s in (1.0, 9.0, 2.0)]
    summary = bench.summarise(vlrl, [took(8.0, 1.0), took(6.0, 2.0), took(60.0, 3.0)])
    assert (summary["vlrl_s"], summary["trl_s"], summary["speedup"]) == (3.0, 8.0, 2.67)
    assert (summary["vlrl_cpu_s"], summary["trl_cpu_s"]) == (4.0, 2.0)
    assert summary["phases"] == none | {"sample": 2.0, "learn": 1.0}
    assert summary["vlrl_steps_s"] == [2.0, 10.0, 3.0]


def test_phases_add_up_to_the_step(bench: Any) -> None:
    loop = {"data": 0.1, "sample and grade": 2.0, "probe": 0.2, "learn": 1.0, "sync": 0.3}
    phases = bench.split_phases(4.0, loop, render_s=0.25, sample_s=1.5)
    assert tuple(phases) == bench.PHASES
    assert sum(phases.values()) == pytest.approx(4.0)
    assert phases["grade"] == pytest.approx(0.25) and phases["log"] == pytest.approx(0.4)


@pytest.mark.parametrize("case", [0, 1])
def test_prompts_have_the_length_and_images_of_their_case(
    bench: Any, case: int, tmp_path: Path
) -> None:
    assert 1_000_000 < bench.make_checkpoint(tmp_path) < 1_300_000
    wanted = bench.CASES[case]
    cfg = bench.run_config(tmp_path, bench.Settings(), tmp_path)
    chat = bench.endless_chat(tmp_path, cfg)
    assert chat.stop_token_ids == ()

    def count(problem: Any) -> int:
        return len(chat.expand(chat.render(problem)))

    problems = bench.make_problems(wanted, 3, count)
    assert [count(problem) for problem in problems] == [wanted.prompt_tokens] * 3
    assert len({problem.question for problem in problems}) == 3
    images = [image for problem in problems for image in problem.images]
    assert len(set(images)) == (3 if wanted.image_side else 0)
    for image in images:
        assert Image.open(io.BytesIO(image)).size == (512, 512)
        assert chat.features(chat.images.add(image)).num_tokens == 256


def test_trl_gets_the_same_reward_and_only_whole_responses(bench: Any) -> None:
    from bench_trl import trl_reward

    assert trl_reward([[1] * 64, [2] * 64]) == [bench.reward([1] * 64), bench.reward([2] * 64)]
    assert bench.reward([1] * 64) != bench.reward([2] * 64)
    with pytest.raises(AssertionError, match="63"):
        trl_reward([[1] * 63])
