"""A long run of the built-in model: does memory grow, does a step take longer as it goes on?

scripts/soak.py --updates 500 --json soak.json

Trains by the quickstart's preset without evaluations, as a process of its own, and watches its
memory (resident, with that of its sandbox workers) from outside. What is said of growth compares
the medians of the windows after the first 50 updates and at the end. A step's seconds depend on how
long responses are, so those per 1,000 response tokens stand beside them. Exit 1 if memory grew by
5% or more, or the time per token by 20%: a busy machine is as noisy as that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil

WARM_UP = 50
"""Updates before anything counts: caches fill, and torch's allocator finds its size."""
MAX_MEMORY, MAX_TIME = 0.05, 0.20


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The run at the end of one step."""

    updates: int
    memory_mib: float
    step_s: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Soak:
    """What the windows say; growth as a share, 0.01 for 1%."""

    updates: int
    steps: int
    window: int
    memory_mib: tuple[float, float]
    memory_growth: float
    step_s: tuple[float, float]
    s_per_1000_tokens: tuple[float, float]
    time_growth: float

    @property
    def grew(self) -> bool:
        """Whether memory or the time of a token did, by more than a run that is as it should be."""
        return self.memory_growth >= MAX_MEMORY or self.time_growth >= MAX_TIME


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("overrides", nargs="*", help="config keys to change: max_staleness=1")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        moments = watch(Path(folder) / "run", options.updates, options.overrides)
    found = summary(moments)
    print(json.dumps(asdict(found), indent=2))
    options.json.write_text(json.dumps(asdict(found), indent=2) + "\n")
    sys.exit(1 if found.grew else 0)


def watch(run: Path, updates: int, overrides: Sequence[str]) -> list[Moment]:
    """Train until so many updates are done; the run at each step."""
    command = [sys.executable, "-m", "vlrl.cli", "train", "quickstart", f"out={run}"]
    command += ["eval.suites=[]", "steps=1000000", "checkpoint_every=50", *overrides]
    process = subprocess.Popen(command)
    moments: list[Moment] = []
    seen = 0
    while not moments or moments[-1].updates < updates:
        if process.poll() is not None:
            sys.exit(f"the run ended by itself, with {process.returncode}")
        lines = _lines(run / "metrics.jsonl")
        for line in lines[seen:]:
            metrics = json.loads(line)
            before = moments[-1].updates if moments else 0
            moments.append(
                Moment(
                    updates=before + len(metrics["updates"]),
                    memory_mib=_memory_mib(process.pid),
                    step_s=metrics["seconds"],
                    tokens=metrics["rollout"]["response_tokens"],
                )
            )
        seen = len(lines)
        time.sleep(0.2)
    process.terminate()  # it finishes its step and saves
    process.wait()
    return moments


def summary(moments: Sequence[Moment]) -> Soak:
    """The first window after the warm-up against the last."""
    warm = [moment for moment in moments if moment.updates > WARM_UP]
    window = max(1, len(warm) // 5)
    first, last = warm[:window], warm[-window:]

    def pair(values: Sequence[Sequence[float]]) -> tuple[float, float]:
        return round(median(values[0]), 3), round(median(values[1]), 3)

    memory = pair([[m.memory_mib for m in part] for part in (first, last)])
    seconds = pair([[m.step_s for m in part] for part in (first, last)])
    rates = pair([[1000 * m.step_s / m.tokens for m in part] for part in (first, last)])
    return Soak(
        updates=moments[-1].updates,
        steps=len(moments),
        window=window,
        memory_mib=memory,
        memory_growth=round(memory[1] / memory[0] - 1, 4),
        step_s=seconds,
        s_per_1000_tokens=rates,
        time_growth=round(rates[1] / rates[0] - 1, 4),
    )


def _lines(path: Path) -> list[str]:
    text = path.read_text() if path.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _memory_mib(pid: int) -> float:
    process = psutil.Process(pid)
    resident = 0
    for one in (process, *process.children(recursive=True)):
        try:
            resident += one.memory_info().rss
        except psutil.NoSuchProcess:  # a program in the sandbox has just ended
            continue
    return resident / 2**20


if __name__ == "__main__":
    main()
