"""What rollouts that run ahead cost or save: seconds a step with max_staleness 0 and 1, in turn.

scripts/bench_ahead.py --json ahead.json                both share all cores and one process
scripts/bench_ahead.py --json ahead.json --own-cores    a server has half of the cores, the learner
                                                        the others

Trains the built-in model by the quickstart's preset without evaluations, in processes of their own,
0 1 0 1 ...; the median over the steps after the first few of all rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from vlrl.config import load
from vlrl.resources import find_yaml
from vlrl.samplers.fleet.launch import launches, running

WARM_UP = 3
"""Steps that don't count: vLLM's first calls are slow."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--own-cores", action="store_true", help="sample with a vLLM server")
    parser.add_argument("overrides", nargs="*", help="config keys to change")
    options = parser.parse_args()
    seconds: dict[int, list[float]] = {0: [], 1: []}
    if options.own_cores:
        with server_on_half_of_the_cores() as overrides:
            rounds(seconds, options.rounds, options.steps, [*overrides, *options.overrides])
    else:
        rounds(seconds, options.rounds, options.steps, options.overrides)
    medians = {str(ahead): round(median(found), 3) for ahead, found in seconds.items()}
    ratio = medians["1"] / medians["0"]
    figures = {
        "cores": os.cpu_count(),
        "own_cores": options.own_cores,
        "step_s": medians,
        "ratio": round(ratio, 3),
    }
    print(json.dumps(figures, indent=2))
    options.json.write_text(json.dumps(figures, indent=2) + "\n")


def rounds(seconds: dict[int, list[float]], num: int, steps: int, overrides: list[str]) -> None:
    """Runs in turn; adds each one's seconds."""
    for _ in range(num):
        for ahead, found in seconds.items():
            found += step_seconds(ahead, steps, overrides)


@contextmanager
def server_on_half_of_the_cores() -> Generator[list[str]]:
    """A server of the preset's model; the overrides that use it. What starts in here has the rest.

    What a process starts inherits the cores that it may use itself.
    """
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    with tempfile.TemporaryDirectory() as folder, socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = int(opened.getsockname()[1])
        opened.close()
        os.sched_setaffinity(0, cores[:half])
        config = load(find_yaml("quickstart", "presets"), [])
        plan = launches(config, 1, host="127.0.0.1", port=port, logs=Path(folder) / "logs")
        with running(plan, 300) as servers:
            os.sched_setaffinity(0, cores[half:])
            yield [
                f"sampler.servers=[{servers.urls[0]}]",
                f"sampler.snapshots={folder}/weights",
            ]


def step_seconds(ahead: int, steps: int, overrides: list[str]) -> list[float]:
    """Of each step of a short run."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "vlrl.cli", "train", "quickstart", f"out={run}"]
        command += ["eval.suites=[]", f"steps={steps}", f"max_staleness={ahead}", *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = (run / "metrics.jsonl").read_text().splitlines()
    # The last steps have nothing left to sample ahead of.
    return [json.loads(line)["seconds"] for line in lines][WARM_UP : steps - 1]


if __name__ == "__main__":
    main()
