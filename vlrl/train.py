"""The loop: Soft Adaptive Policy Optimization (arXiv 2511.20347) on verifiable rewards.

    repeat: draw problems, sample G responses each, grade them, turn rewards into advantages,
            update the policy once per mini-batch, hand the new weights to the sampler

Left out on purpose: a reference model, a KL term, a value function.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlrl.advantage import group_advantages
from vlrl.batch import LearnerGroup, learner_group, minibatches
from vlrl.config import RunConfig
from vlrl.interrupt import Interrupt, Interrupted, on_interrupt
from vlrl.report.console import Progress
from vlrl.report.log import append_jsonl, transcript, write_metrics
from vlrl.report.stats import rollout_stats
from vlrl.report.summary import finish
from vlrl.run import MakeSampler, Run, open_run
from vlrl.sandbox import in_force
from vlrl.tasks import TASKS, Task
from vlrl.types import Group
from vlrl.update_stats import UpdateStats


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    make_sampler: MakeSampler | None = None,
    tasks: Mapping[str, Task] = TASKS,
) -> Path:
    """Train by a config, or go on with the run in `config.out`; the last checkpoint's folder.

    `make_sampler`: what samples, by default vLLM in this process. `tasks`: what judges each domain
    of `data.mixture` and of the suites.

    Raises:
        ConfigError, ModelError, CheckpointError: what can't be used, before anything starts.
        SyncError: sampler and learner came apart.
    """
    progress = Progress(config.steps)
    if config.learner.minibatches == 1:
        progress.warn("learner.minibatches=1: every ratio is 1 and the loss's gate does nothing")
    with (
        open_run(config, progress, resume=resume, make_sampler=make_sampler, tasks=tasks) as run,
        on_interrupt() as interrupt,
    ):
        try:
            _loop(run, interrupt)
        except Interrupted:
            progress.say(f"stopped after step {run.step}; go on: vlrl train {run.folder} --resume")
        else:
            finish(run)
        return run.last_checkpoint()


def _loop(run: Run, interrupt: Interrupt) -> None:
    config = run.config
    if run.step == 0:
        run.save()
    while True:
        if run.evaluation_due():
            run.evaluate(interrupt.check)
        if run.step >= config.steps:
            return
        run.step += 1
        train_step(run)
        ends = run.step == config.steps or interrupt.asked
        # Before an evaluation too: one that is interrupted loses no step.
        if ends or run.step % config.checkpoint_every == 0 or run.evaluation_due():
            run.save()
        interrupt.check()


def train_step(run: Run) -> None:
    """One rollout batch: sample and grade, learn, sync."""
    start = time.perf_counter()
    phase = run.progress.phase
    with phase("data"):
        problems = run.stream.next_batch()
    with phase("sample and grade"):
        groups = run.rollout(problems, run.params(), run.rules)
        canaries = run.canaries(groups)
    with phase("probe"):
        agreement = run.check_sync(groups)
    with phase("learn"):
        learnable = _learnable(run, groups)
        parts = minibatches(learnable, run.config.learner.minibatches) if learnable else []
        updates = run.learner.updates(parts)
    with phase("sync"):
        if updates:
            run.sync()
    seconds = time.perf_counter() - start
    stats = rollout_stats(groups)  # of all groups, those without spread included
    remarks = _remarks(groups, learnable, updates)
    if canaries.remark:
        remarks.append(canaries.remark)
    run.progress.step(run.step, stats, seconds, agreement.kl, remarks)
    append_jsonl(run.folder / "rollouts.jsonl", transcript(groups, run.step))
    write_metrics(
        run.folder,
        run.step,
        seconds=seconds,
        phases=run.progress.take_phases(),
        rollout=stats,
        canaries=canaries,
        uniform_groups=len(groups) - len(learnable),
        broken_rows=run.stream.num_broken,
        sandbox=in_force(),
        agreement=agreement,
        images=run.take_image_work(),
        updates=updates,
    )


def _learnable(run: Run, groups: Sequence[Group]) -> list[LearnerGroup]:
    """The groups whose rewards differ, with their advantages; the others teach nothing."""
    scale = run.config.loss.name != "dr_grpo"
    return [
        learner_group(group, advantages, run.chat)
        for group in groups
        if (advantages := group_advantages(group, scale=scale))
    ]


def _remarks(
    groups: Sequence[Group], learnable: Sequence[LearnerGroup], updates: Sequence[UpdateStats]
) -> list[str]:
    """What a person should know about a step."""
    remarks: list[str] = []
    if not learnable:
        remarks.append("every group's rewards are uniform: nothing to learn, update skipped")
    if skipped := sum(update.skipped for update in updates):
        remarks.append(f"{skipped} update(s) skipped: the gradient was not finite")
    if errors := sum(len(group.attempts) - len(group.scored) for group in groups):
        remarks.append(f"{errors} attempt(s) lost: their verifier failed (see rollouts.jsonl)")
    return remarks
