"""The quickstart on two real servers, one of them killed on the way, and the same run in process.

The transcripts are the same to the token, so Pass@1 is. VLRL_FLEET_STEPS=140 is the whole preset.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from vlrl.config import RunConfig, load
from vlrl.resources import find_yaml
from vlrl.samplers.fleet import launch
from vlrl.samplers.fleet.launch import Servers, launches, running
from vlrl.train import train

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.timeout(1800)]
STEPS = int(os.environ.get("VLRL_FLEET_STEPS", "8"))
KILLED_AFTER = STEPS // 2


def _config(out: Path, *overrides: str) -> RunConfig:
    short = (f"steps={STEPS}", "sampler.max_num_seqs=128", f"out={out}")
    return load(find_yaml("quickstart", "presets"), [*short, *overrides])


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _pass_at_1(run: Path) -> list[dict[str, float]]:
    """By domain, before and after."""
    return [
        {domain: round(score["pass_at_1"]["mean"], 3) for domain, score in line["scores"].items()}
        for line in _lines(run / "evals.jsonl")
    ]


def _kill_and_start_again(servers: Servers, run: Path, killed: threading.Event) -> None:
    while len(_lines(run / "metrics.jsonl")) < KILLED_AFTER:
        time.sleep(0.2)
    time.sleep(1.0)  # some way into the next step
    os.killpg(servers.processes[0].pid, signal.SIGKILL)
    servers.processes[0].wait()
    killed.set()
    servers.processes[0] = launch._start(servers.launches[0])


def test_a_run_on_servers_is_the_run_in_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = int(opened.getsockname()[1])
    remote = _config(tmp_path / "remote", f"sampler.snapshots={tmp_path / 'weights'}")
    plan = launches(remote, 2, host="127.0.0.1", port=port, logs=tmp_path / "logs")
    killed = threading.Event()
    with running(plan, 300) as servers:
        arguments = (servers, remote.out, killed)
        threading.Thread(target=_kill_and_start_again, args=arguments, daemon=True).start()
        urls = f"sampler.servers=[{','.join(servers.urls)}]"
        train(_config(remote.out, urls, f"sampler.snapshots={tmp_path / 'weights'}"))
    said = capfd.readouterr().out
    assert killed.is_set() and plan[0].url in said and "is out" in said
    local = _config(tmp_path / "local")
    train(local)

    ours, theirs = (_lines(run.out / "rollouts.jsonl") for run in (remote, local))
    assert len(ours) == len(theirs) == STEPS * 64 * 8
    same = sum(a["response"] == b["response"] for a, b in zip(ours, theirs, strict=True))
    assert same / len(ours) > 0.99
    means = [_pass_at_1(run.out) for run in (remote, local)]
    with capfd.disabled():
        print(f"\n{same} of {len(ours)} responses are the same")
        for where, found in zip(("2 servers", "in process"), means, strict=True):
            print(f"Pass@1 before and after, {where}: {found}")
    for before_or_after in (0, 1):
        one, other = (found[before_or_after] for found in means)
        assert one == pytest.approx(other, abs=0.01)
