"""Runs as torchrun and accelerate start them, in processes of their own; one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import torch

from tests.distributed.runs import lines
from tests.distributed.test_shared_run import policy
from tests.faults.child import SAME

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
# Without --multi_gpu accelerate starts one process on a CPU; the flag is about the launcher alone.
ACCELERATE = (
    "accelerate.commands.launch",
    *("--multi_gpu", "--num_processes=2", "--num_machines=1", "--main_process_port=0"),
    *("--mixed_precision=no", "--dynamo_backend=no"),
)
STEPS = 8
PATIENCE_S = 120.0


def launched(launcher: Sequence[str], out: Path) -> subprocess.Popen[str]:
    """Two processes that train in `out`, or go on there."""
    overrides = (f"steps={STEPS}", "checkpoint_every=3", "data.prompts_per_step=8")
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "-m", "tests.distributed.launched", str(out), *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(run: subprocess.Popen[str]) -> str:
    said, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finished(launched(TORCHRUN, out))
    return out


def assert_same(one: Path, other: Path) -> None:
    """Weights, transcripts and metrics, bit for bit."""
    for a, b in zip(lines(one, "metrics.jsonl"), lines(other, "metrics.jsonl"), strict=True):
        assert {key: a[key] for key in SAME} == {key: b[key] for key in SAME}
    assert (one / "rollouts.jsonl").read_bytes() == (other / "rollouts.jsonl").read_bytes()
    last = f"checkpoints/step-{STEPS:06d}"
    assert (other / last / "shards").is_dir()
    first, second = policy(one / last), policy(other / last)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_accelerate_starts_the_processes_that_torchrun_does(tmp_path: Path, whole: Path) -> None:
    finished(launched(ACCELERATE, tmp_path / "run"))
    assert_same(whole, tmp_path / "run")


@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_is_killed_and_the_run_goes_on(tmp_path: Path, whole: Path, rank: int) -> None:
    """The other one ends soon and says so; what goes on is the run that was never killed."""
    out = tmp_path / "run"
    run = launched(TORCHRUN, out)
    metrics, deadline = out / "metrics.jsonl", time.monotonic() + PATIENCE_S
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 5:
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.02)
    os.kill(_pids(run)[rank], signal.SIGKILL)
    said, _ = run.communicate(timeout=40)
    assert run.returncode != 0 and "Signal 9 (SIGKILL)" in said
    assert f"LostProcessError: process {1 - rank} lost another process of this run" in said
    assert not (out / f"checkpoints/step-{STEPS:06d}").exists()
    finished(launched(TORCHRUN, out))
    assert_same(whole, out)


def _pids(run: subprocess.Popen[str]) -> dict[int, int]:
    """The processes of a launcher by rank."""
    children = psutil.Process(run.pid).children()
    return {int(c.environ()["RANK"]): c.pid for c in children if "RANK" in c.environ()}
