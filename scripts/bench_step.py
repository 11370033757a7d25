"""A whole training step (sample, grade, learn, sync) of vlrl beside one of TRL's GRPOTrainer.

Both train the same random Qwen3-VL on the same prompts and images in one process, in turn: TRL
runs its own `train()`, and after each of its rollout batches a callback runs one step of vlrl's
loop. Each side makes as many optimiser updates a batch. TRL samples with transformers' generate,
its only way on a CPU. Every step has new prompts and new images.

It wants the extra `bench`. TRL's gradient checkpointing, on by default there, is off unless asked
for: it only costs time at this size.

    export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=2000   # as `vlrl` does for itself (openmp.py)
    python scripts/bench_step.py --json bench.json --steps 5
    python scripts/bench_step.py --settings          # tokens/s of vLLM under several settings
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from bench_cases import (
    CASES,
    Case,
    Elapsed,
    Settings,
    Stopwatch,
    make_checkpoint,
    make_problems,
    reward,
)
from bench_trl import run_trl
from rich.console import Console
from rich.table import Table

from vlrl.chat import Chat
from vlrl.config import RunConfig, parse
from vlrl.images import ImageStore
from vlrl.learner import Learner
from vlrl.models.load import load_policy, load_processor
from vlrl.open_run import vllm_sampler
from vlrl.report.console import Progress
from vlrl.report.log import read_jsonl
from vlrl.rewards import PLAIN
from vlrl.rollout import Rollout
from vlrl.rollouts_ahead import RolloutsAhead
from vlrl.run import Run
from vlrl.samplers.base import SamplingParams
from vlrl.samplers.vllm_engine import VllmSampler
from vlrl.train import train_step
from vlrl.types import Completion, Problem, Prompt, Status, Verdict

PHASES = ("data", "render", "sample", "grade", "probe", "learn", "sync", "log")
"""Of a step of vlrl. grade: what is left of grading once sampling is done; most overlaps it."""
WARM_UP = 2
"""Steps of each side before the clock counts: vLLM's first calls are slow."""


class BenchTask:
    def problem(self, row: object) -> Problem:
        raise NotImplementedError("the bench makes its problems itself")

    def grade(self, problem: Problem, completion: Completion) -> Verdict:
        value = reward(completion.token_ids)
        return Verdict(status=Status.OK, correct=False, reward=value)


# --- vlrl ----------------------------------------------------------------------------------------


class BenchStream:
    """Gives the loop its next problems, as `ProblemStream` does."""

    def __init__(self, per_step: int) -> None:
        self.per_step = per_step
        self.problems: list[Problem] = []
        self.num_broken: dict[str, int] = {}

    def next_batch(self) -> list[Problem]:
        batch, self.problems = self.problems[: self.per_step], self.problems[self.per_step :]
        return batch


class VlrlSide:
    """The parts of a real run (run.py), and its real step."""

    def __init__(self, checkpoint: Path, settings: Settings, folder: Path) -> None:
        self.settings = settings
        cfg = run_config(checkpoint, settings, folder)
        self.chat = endless_chat(checkpoint, cfg)
        learner = Learner(
            load_policy(str(checkpoint), "float32"),
            config=cfg.learner,
            loss=cfg.loss,
            temperature=cfg.sampler.temperature,
            banned_token_ids=self.chat.banned_token_ids,
            max_response_tokens=cfg.sampler.max_tokens,
        )
        self.stream = BenchStream(settings.prompts)
        self.sampler = vllm_sampler(str(checkpoint), self.chat, cfg)
        self.sample_s = self.render_s = 0.0
        self.run = Run(
            config=cfg,
            folder=folder,
            chat=self.chat,
            sampler=self.sampler,
            rollout=Rollout(self.chat, self.sampler, {"bench": BenchTask()}),
            rules=PLAIN,
            held_out=None,
            learner=learner,
            stream=self.stream,  # type: ignore[arg-type]
            suites=[],
            check=lambda problem: None,
            progress=Progress(0, Console(quiet=True)),
            ahead=RolloutsAhead(cfg.max_staleness),
        )
        self._time_inside()

    def count_tokens(self, problem: Problem) -> int:
        return len(self.chat.expand(self.chat.render(problem)))

    def step(self) -> tuple[Elapsed, dict[str, float]]:
        """Run one step; its time, and its seconds by phase."""
        self.sample_s = self.render_s = 0.0
        self.run.step += 1
        watch = Stopwatch()
        train_step(self.run)
        elapsed = watch.elapsed()
        metrics = read_jsonl(self.run.folder / "metrics.jsonl")[-1]
        num_tokens = sum(update["num_response_tokens"] for update in metrics["updates"])
        assert num_tokens == self.settings.num_response_tokens, f"learned from {num_tokens} tokens"
        phases = split_phases(elapsed.wall_s, metrics["phases"], self.render_s, self.sample_s)
        return elapsed, phases

    def close(self) -> None:
        self.run.rollout.close()
        self.sampler.close()

    def _time_inside(self) -> None:
        """Rendering and sampling are one phase of the loop with grading: time them apart."""
        render, sample = self.chat.render, self.sampler.sample

        def timed_render(problem: Problem) -> Prompt:
            start = time.perf_counter()
            prompt = render(problem)
            self.render_s += time.perf_counter() - start
            return prompt

        def timed_sample(*args: Any, **kwargs: Any) -> list[list[Completion]]:
            start = time.perf_counter()
            completions = sample(*args, **kwargs)
            self.sample_s += time.perf_counter() - start
            return completions

        self.chat.render = timed_render  # type: ignore[method-assign]
        self.sampler.sample = timed_sample  # type: ignore[method-assign]


def split_phases(
    seconds: float, phases: Mapping[str, float], render_s: float, sample_s: float
) -> dict[str, float]:
    """The step's seconds by PHASES, from the loop's own phases and what was timed inside."""
    known = {
        "data": phases["data"],
        "render": render_s,
        "sample": sample_s,
        "grade": phases["sample and grade"] - render_s - sample_s,
        "probe": phases["probe"],
        "learn": phases["learn"],
        "sync": phases["sync"],
    }
    return known | {"log": seconds - sum(known.values())}


def run_config(checkpoint: Path, settings: Settings, folder: Path) -> RunConfig:
    return parse(
        {
            "model": {"path": str(checkpoint)},
            "data": {
                "mixture": {"bench": {"share": 1, "recipes": ["bench"]}},
                "prompts_per_step": settings.prompts,
                "max_prompt_tokens": max(case.prompt_tokens for case in CASES),
            },
            "sampler": {
                "responses_per_prompt": settings.responses,
                "max_tokens": settings.response_tokens,
                "max_num_seqs": settings.prompts * settings.responses,
            },
            "learner": {
                "lr": settings.lr,
                "warmup_updates": 0,
                "minibatches": settings.updates,
            },
            "steps": 10**6,  # the bench ends it
            "out": str(folder),
        }
    )


def endless_chat(checkpoint: Path, cfg: RunConfig) -> Chat:
    """A chat in which nothing ends a response before `max_tokens`: all have the same length."""
    chat = Chat(load_processor(str(checkpoint)), cfg.images)
    chat.stop_token_ids = ()
    return chat


# --- side by side --------------------------------------------------------------------------------


def compare_case(
    case: Case, checkpoint: Path, settings: Settings, num_steps: int, folder: Path
) -> dict[str, Any]:
    """Both sides in turn on one case; medians over the steps after the warm-up."""
    side = VlrlSide(checkpoint, settings, folder / "vlrl")
    num = WARM_UP + num_steps
    problems = make_problems(case, num * settings.prompts, side.count_tokens)
    assert {side.count_tokens(problem) for problem in problems} == {case.prompt_tokens}
    # Counting has processed the images: forget them, so that each step does it itself.
    side.chat.images = ImageStore(side.chat.processor.image_processor, side.run.config.images)
    side.stream.problems = list(problems)
    vlrl: list[tuple[Elapsed, dict[str, float]]] = []
    trl, num_tokens = run_trl(
        checkpoint, problems, settings, folder / "trl", lambda: vlrl.append(side.step())
    )
    side.close()
    num_prompt_tokens = settings.prompts * settings.responses * case.prompt_tokens
    a_batch = num_prompt_tokens + settings.num_response_tokens
    assert num_tokens == num * a_batch, f"TRL saw {num_tokens} tokens, not {num * a_batch}"
    return summarise(vlrl[WARM_UP:], trl[WARM_UP:])


def summarise(
    vlrl: Sequence[tuple[Elapsed, Mapping[str, float]]], trl: Sequence[Elapsed]
) -> dict[str, Any]:
    """Medians of each side's steps, their ratio, and vlrl's median by phase."""

    def median(values: Iterable[float]) -> float:
        return round(statistics.median(values), 4)

    vlrl_s, trl_s = median(e.wall_s for e, _ in vlrl), median(e.wall_s for e in trl)
    return {
        "vlrl_s": vlrl_s,
        "trl_s": trl_s,
        "speedup": round(trl_s / vlrl_s, 2),
        "phases": {name: median(phases[name] for _, phases in vlrl) for name in PHASES},
        "vlrl_cpu_s": median(e.cpu_s for e, _ in vlrl),
        "trl_cpu_s": median(e.cpu_s for e in trl),
        "vlrl_steps_s": [round(e.wall_s, 4) for e, _ in vlrl],
        "trl_steps_s": [round(e.wall_s, 4) for e in trl],
    }


def show(results: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    table = Table(title="seconds a step (median), and vlrl's by phase")
    for column in ("case", "vlrl", "TRL", "TRL / vlrl", "cpu", *PHASES):
        table.add_column(column, justify="left" if column == "case" else "right")
    for name, result in results.items():
        times = [f"{result['vlrl_s']:.2f}", f"{result['trl_s']:.2f}", f"{result['speedup']:.1f}x"]
        times.append(f"{result['vlrl_cpu_s']:.2f} / {result['trl_cpu_s']:.2f}")
        table.add_row(name, *times, *(f"{result['phases'][phase]:.2f}" for phase in PHASES))
    console.print(table)


# --- vLLM's settings -----------------------------------------------------------------------------


def try_settings(checkpoint: Path, settings: Settings, console: Console) -> None:
    """Tokens/s of sampling the image case under several settings, eager ones first."""
    tried = [(64, True, 2), (64, True, 1), (32, True, 2), (16, True, 2), (256, True, 2)]
    for max_num_seqs, eager, num_threads in [*tried, (64, False, 2)]:
        torch.set_num_threads(num_threads)
        cfg = run_config(checkpoint, settings, checkpoint)
        chat = endless_chat(checkpoint, cfg)
        sampler_config = cfg.sampler.model_copy(
            update={"max_num_seqs": max_num_seqs, "eager": eager}
        )
        start = time.perf_counter()
        sampler = VllmSampler(
            checkpoint, chat, sampler_config, max_model_len=512, dtype=settings.dtype
        )
        start_s = time.perf_counter() - start
        rates = {case.name: sampling_rate(sampler, chat, case, settings) for case in CASES}
        sampler.close()
        shown = "  ".join(f"{name} {rate:6,.0f} tok/s" for name, rate in rates.items())
        console.print(
            f"max_num_seqs {max_num_seqs:>3}  {'eager' if eager else 'compiled':8}  "
            f"threads {num_threads}  {shown}  start {start_s:.1f} s"
        )


def sampling_rate(sampler: VllmSampler, chat: Chat, case: Case, settings: Settings) -> float:
    """Response tokens a second: the median of three calls after two to warm up."""
    params = SamplingParams(n=settings.responses, max_tokens=settings.response_tokens, seed=0)

    def count(problem: Problem) -> int:
        return len(chat.expand(chat.render(problem)))

    prompts = [chat.render(p) for p in make_problems(case, settings.prompts, count)]
    seconds: list[float] = []
    for _ in range(WARM_UP + 3):
        start = time.perf_counter()
        sampler.sample(prompts, params)
        seconds.append(time.perf_counter() - start)
    return settings.num_response_tokens / statistics.median(seconds[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--steps", type=int, default=5, help="steps that count, of each side")
    parser.add_argument("--cases", nargs="+", default=[case.name for case in CASES])
    parser.add_argument("--settings", action="store_true", help="try settings of vLLM instead")
    parser.add_argument("--trl-gradient-checkpointing", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    console, settings = (
        Console(highlight=False, width=140),
        Settings(trl_gradient_checkpointing=args.trl_gradient_checkpointing),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        num_parameters = make_checkpoint(folder / "model")
        console.print(f"{num_parameters:,} parameters, {torch.get_num_threads()} threads")
        if args.settings:
            try_settings(folder / "model", settings, console)
            return
        results = {
            case.name: compare_case(
                case, folder / "model", settings, args.steps, folder / case.name
            )
            for case in CASES
            if case.name in args.cases
        }
        show(results, console)
        facts = {"parameters": num_parameters, "threads": torch.get_num_threads()}
        for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
            facts[name.lower()] = os.environ.get(name, "default")
        facts |= asdict(settings) | {"steps": args.steps, "torch": torch.__version__}
        if args.json:
            text = json.dumps({**results, "settings": facts}, indent=2)
            args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
