"""One side of the learner bench, measured: runs in a process of its own."""

from __future__ import annotations

import statistics
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_cases import Elapsed
from learner_floor import floors
from learner_job import Job, make_groups, make_model
from learner_meter import Meter, PeakMemory, allocated_mib
from learner_sides import Side, make_side
from safetensors.torch import save_file

GROUP_SIZES = (2, 4, 8, 16, 32)
LENGTHS = (32, 64, 128, 256)


def measure_side(
    name: str, job: Job, gradients: Path | None
) -> Generator[None, None, dict[str, Any]]:
    """Medians of the job's steps; memory of the first; phases and counters of one more.

    It stops before each step after the first, so that sides can take turns.

    peak_memory_mib: of inputs, forward and backward, above the model and its optimiser; on a CPU
        what the process holds, free gaps between its tensors too.
    peak_allocated_mib: of tensors alone, in a whole step after the first.
    peak_step_mib: the same with the optimiser's first step, which makes its state.
    gradients: the file that the first step's gradients go to, by the parameters' names.
    """
    model = make_model(job)
    groups = make_groups(job)
    first = FirstStep(model, job.device, gradients)
    meter = Meter(model, job.device, first.before_optimiser)
    _warm_up(name, model, job)
    side = make_side(name, model, job)
    first.begin()
    side.prepare(groups)
    times = [_step(side, meter, job, detailed=False)]
    peak_step_mib = first.memory.mib()
    for _ in range(job.warm_up + job.steps - 1):
        yield
        times.append(_step(side, meter, job, detailed=False))
    timed = times[job.warm_up :] or times
    forward_backward_s = statistics.median(one.wall_s for one, _ in timed)
    peak_allocated_mib = allocated_mib(job.device, side.update)
    _, detailed = _step(side, meter, job, detailed=True)
    result = {
        "forward_backward_s": forward_backward_s,
        "forward_backward_cpu_s": statistics.median(one.cpu_s for one, _ in timed),
        "step_s": statistics.median(total.wall_s for _, total in timed),
        "forward_backwards_s": [round(one.wall_s, 4) for one, _ in timed],
        "tokens_per_s": job.num_response_tokens / forward_backward_s,
        "phases": meter.phases(detailed.wall_s),
        "peak_memory_mib": first.peak_mib,
        "peak_allocated_mib": peak_allocated_mib,
        "peak_step_mib": peak_step_mib,
        "counters": dict(meter.counters),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    return result | ({"floors": floors(job, model)} if name == "vlrl" else {})


def measure_scaling(job: Job) -> dict[str, Any]:
    """vlrl's seconds for one prompt by number of responses and by their length.

    On a CPU of all cores together: what a busy machine distorts less.
    """
    model = make_model(job)
    meter = Meter(model, job.device, lambda: None)

    def seconds(changed: Job) -> float:
        side = make_side("vlrl", model, changed)
        side.prepare(make_groups(changed))
        steps = [_step(side, meter, changed, detailed=False) for _ in range(1 + changed.steps)]
        return statistics.median(
            one.cpu_s if job.device == "cpu" else one.wall_s for one, _ in steps[1:]
        )

    seconds(job)
    return {
        "by_responses": {g: seconds(replace(job, responses=g)) for g in GROUP_SIZES},
        "by_length": {n: seconds(replace(job, response_tokens=n)) for n in LENGTHS},
        "responses": job.responses,
        "response_tokens": job.response_tokens,
        "prompt_tokens": job.prompt_tokens,
    }


class FirstStep:
    """Takes peak memory and gradients of one step, when its optimiser is about to step."""

    def __init__(self, model: Any, device: str, path: Path | None) -> None:
        self.model, self.device, self.path = model, device, path
        self.wanted = False
        self.peak_mib = 0.0

    def begin(self) -> None:
        self.wanted = True
        self.memory = PeakMemory(self.device)

    def before_optimiser(self) -> None:
        if not self.wanted:
            return
        self.wanted = False
        self.peak_mib = self.memory.mib()
        if self.path is not None:
            named = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
            save_file({n: g.contiguous().cpu() for n, g in named.items()}, self.path)


def _warm_up(name: str, model: Any, job: Job) -> None:
    """A few tokens through the same code: libraries load, kernels and threads start."""
    small = replace(job, prompts=1, response_tokens=4, image_side=64, text_tokens=4, lr=0.0)
    small = replace(small, vlrl_settings=(*job.vlrl_settings, "lr=1e-30"))
    side = make_side(name, model, small)
    side.prepare(make_groups(small))
    side.update()


def _step(side: Side, meter: Meter, job: Job, *, detailed: bool) -> tuple[Elapsed, Elapsed]:
    """The time of forward and backward, and of the whole step."""
    meter.reset(detailed=detailed)
    meter.begin_step()
    side.update()
    return meter.forward_backward, meter.since_begin()
