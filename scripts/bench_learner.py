"""The learner's forward, backward and step beside plain transformers and TRL's own loss path.

The same random model, prompts, images, responses and advantages go through (a) `padded`: whole
sequences, one at a time, plain transformers (`padded_group`: a group's at once); (b) `trl`: TRL
1.16.0's GRPOTrainer, its SAPO loss; (c) `vlrl`: the Learner. Each runs in a process of its own, so
that peak memory doesn't mix; on a CPU they take turns, a step each, so that a slow moment of the
machine hits all of them. The gradients of (a) must be (c)'s, so that the work is the same.
`vlrl_lean` is (c) with less memory, by learner_sides.LEAN's settings.
TRL wants the extra `bench`.

    python scripts/bench_learner.py --json bench.json              # this machine's devices
    python scripts/bench_learner.py --device cpu --scaling         # cost by G and by length
    python scripts/bench_learner.py --device cuda --prompts 4      # Qwen3-VL-2B's shape, bfloat16
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from learner_job import Job, cpu_job, cuda_job, job_from_json
from learner_measure import measure_scaling, measure_side
from learner_sides import LEAN, SIDES
from learner_tables import show_device, show_scaling
from rich.console import Console
from safetensors.torch import load_file

from vlrl.openmp import set_waiting

OURS = ("vlrl", "vlrl_lean")
WAITING = "ready for the next step"
TOLERANCE = {"float32": 1e-5}
"""Of a parameter's gradient, relative to its norm. bfloat16 has none: gradients aren't compared."""


class OwnProcess:
    """One side, or vlrl's scaling, in a process of its own that works when it has its turn.

    Raises:
        RuntimeError: that process failed; its last words.
    """

    def __init__(self, job: Job, what: str, folder: Path) -> None:
        command = [sys.executable, __file__, "--measure", what, "--job", json.dumps(asdict(job))]
        command += ["--folder", str(folder)]
        environment = dict(os.environ)
        set_waiting(environment)  # as `vlrl` does: the same for every side
        self.what, self.device = what, job.device
        self._errors = folder / f"{what}.log"
        self._result = folder / f"{what}.json"
        with self._errors.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
        self.is_done = False
        self._wait()

    def turn(self) -> None:
        """Its next step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._wait()

    def result(self) -> dict[str, Any]:
        """What `measure` wrote."""
        return json.loads(self._result.read_text(encoding="utf-8"))

    def kill(self) -> None:
        with self._process:  # closes the pipes and waits
            self._process.kill()

    def _wait(self) -> None:
        """Until it stands before its next step or has ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.rstrip("\n") == WAITING:
                return
        self.is_done = True
        if self._process.wait():
            lines = self._errors.read_text(encoding="utf-8").strip().splitlines()
            tail = "\n".join(lines[-15:])
            raise RuntimeError(f"{self.what} on {self.device} failed:\n{tail}")


def in_own_processes(job: Job, names: Sequence[str], folder: Path) -> dict[str, dict[str, Any]]:
    """What was measured of each, in turns: as many for one as for another."""
    processes: list[OwnProcess] = []
    try:
        for name in names:
            processes.append(OwnProcess(job, name, folder))
        while not all(process.is_done for process in processes):
            for process in processes:
                if not process.is_done:
                    process.turn()
    finally:
        for process in processes:
            process.kill()
    return {process.what: process.result() for process in processes}


def measure(what: str, job: Job, folder: Path) -> None:
    """In the process of its own: one side, or vlrl's scaling."""
    if what == "scaling":
        result = measure_scaling(job)
    else:
        gradients = folder / f"{what}.safetensors" if job.dtype in TOLERANCE else None
        result = in_turns(measure_side(what, job, gradients))
    (folder / f"{what}.json").write_text(json.dumps(result), encoding="utf-8")


def in_turns(steps: Generator[None, None, dict[str, Any]]) -> dict[str, Any]:
    """Each step when the parent process says so."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value
        print(WAITING, flush=True)
        sys.stdin.readline()


def compare(job: Job, sides: list[str], folder: Path) -> dict[str, Any]:
    """All sides on one device, what they cost, and their ratios to vlrl.

    The first figures are those of one side, `vlrl_lean` where it was measured, with its settings;
    those of vlrl's defaults are under `default`.
    """
    # A GPU's memory wouldn't hold all sides, and its steps take the same time every time.
    at_once = [sides] if job.device == "cpu" else [[name] for name in sides]
    results: dict[str, dict[str, Any]] = {}
    for names in at_once:
        results |= in_own_processes(job, names, folder)
    vlrl = results["vlrl"]
    others = {name: results[name] for name in sides if name not in OURS}
    default = figures(vlrl, others, job.vlrl_settings)
    summary: dict[str, Any] = default
    if "vlrl_lean" in results:
        settings = (*LEAN, *job.vlrl_settings)
        summary = figures(results["vlrl_lean"], others, settings) | {"default": default}
    summary["counters"] = {name: side.pop("counters") for name, side in results.items()}
    summary["floors"] = vlrl.pop("floors")
    summary["sides"] = results
    summary["gradient_errors"] = gradient_errors(job, sides, folder)
    summary["job"] = asdict(job)
    return summary


def figures(
    own: dict[str, Any], others: dict[str, dict[str, Any]], settings: Sequence[str]
) -> dict[str, Any]:
    """Of one of vlrl's sides."""
    found: dict[str, Any] = {"settings": list(settings), "tokens_per_s": own["tokens_per_s"]}
    return found | ratios(own, others)


def ratios(own: dict[str, Any], others: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How much faster one of vlrl's sides is than others, and how much of their memory it takes.

    memory: of tensors, as torch.cuda.max_memory_allocated counts; resident: of the process.
    """
    found: dict[str, float] = {}
    for name, side in others.items():
        found[f"speedup_vs_{name}"] = side["forward_backward_s"] / own["forward_backward_s"]
        cpu = side["forward_backward_cpu_s"] / own["forward_backward_cpu_s"]
        found[f"cpu_time_vs_{name}"] = cpu
        for kind, key in (("memory", "peak_allocated_mib"), ("resident", "peak_memory_mib")):
            found[f"peak_{kind}_vs_{name}"] = own[key] / side[key]
    return {name: round(value, 3) for name, value in found.items()}


def gradient_errors(job: Job, sides: list[str], folder: Path) -> dict[str, float]:
    """Each side's largest difference to vlrl's gradient: of a parameter, relative to its norm.

    Raises:
        RuntimeError: more than TOLERANCE for `padded`: the sides don't do the same work.
    """
    if job.dtype not in TOLERANCE:
        return {}
    ours = load_file(folder / "vlrl.safetensors")
    errors: dict[str, float] = {}
    for name in sides:
        if name == "vlrl":
            continue
        theirs = load_file(folder / f"{name}.safetensors")
        errors[name] = worst_error(ours, theirs)
        if name == "padded" and not errors[name] <= TOLERANCE[job.dtype]:
            raise RuntimeError(f"gradients differ from {name}'s by {errors[name]:.1e}")
    return errors


def worst_error(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Norms under 1e-6 of the largest count as that: gradients that are zero but for rounding."""
    if found.keys() != expected.keys():
        raise RuntimeError(f"gradients of other parameters: {found.keys() ^ expected.keys()}")
    floor = 1e-6 * max(float(g.norm()) for g in expected.values())
    return max(
        float((found[n] - expected[n]).norm()) / max(float(expected[n].norm()), floor)
        for n in expected
    )


def jobs(args: argparse.Namespace) -> list[Job]:
    """One for each device asked for, or for each that there is."""
    devices = args.device or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    names = ("prompts", "responses", "response_tokens", "image_side", "trl_rows")
    changes = {name: getattr(args, name) for name in (*names, "steps", "model")}
    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= {
        "trl_gradient_checkpointing": args.trl_gradient_checkpointing,
        "vlrl_settings": tuple(args.set),
    }
    return [cpu_job(**changes) if device == "cpu" else cuda_job(**changes) for device in devices]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--device", nargs="+", choices=["cpu", "cuda"], help="default: all")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--scaling", action="store_true", help="also vlrl's cost by G and length")
    parser.add_argument("--model", help="tiny, or a shape of vlrl (vlrl/plan/shapes)")
    for name in ("prompts", "responses", "response-tokens", "image-side", "steps"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--trl-rows", type=int, help="sequences at once of `trl` (8, its default)")
    parser.add_argument("--trl-gradient-checkpointing", action="store_true", help="its default")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="learner keys")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    args = parser().parse_args()
    if args.measure:
        measure(args.measure, job_from_json(args.job), args.folder)
        return
    sides = [name for name in SIDES if name in {*args.sides, "vlrl"}]
    console = Console(highlight=False, width=130)
    results: dict[str, Any] = {}
    for job in jobs(args):
        with tempfile.TemporaryDirectory() as name:
            results[job.device] = compare(job, sides, Path(name))
            show_device(job, results[job.device], console)
            if args.scaling:
                alone = replace(job, prompts=1)
                scaling = in_own_processes(alone, ["scaling"], Path(name))["scaling"]
                results[job.device]["scaling"] = scaling
                show_scaling(scaling, console)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
