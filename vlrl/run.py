"""Everything that a run has open: model, chat, sampler, learner, data, verifiers, its folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import torch

from vlrl import checkpoints
from vlrl.broken import Check
from vlrl.chat import Chat
from vlrl.checkpoints.rng import rng_state
from vlrl.config import LoraConfig, RunConfig
from vlrl.data import ProblemStream
from vlrl.distributed import dealing
from vlrl.distributed.sampling import load_all
from vlrl.distributed.sharded_checkpoint import save_together
from vlrl.distributed.totals import total
from vlrl.evaluate import evaluate
from vlrl.learner import Learner
from vlrl.models.load import save_policy
from vlrl.native_memory import TRIM_EVERY, trim
from vlrl.report.accounts import Accounts
from vlrl.report.canaries import Canaries, canaries
from vlrl.report.console import Progress
from vlrl.report.log import append_jsonl, read_jsonl, scores_as_json
from vlrl.rewards import RewardRules
from vlrl.rollout import Rollout
from vlrl.rollouts_ahead import RolloutBatch, RolloutsAhead
from vlrl.samplers.base import Sampler, SamplingParams, derive_seed
from vlrl.samplers.probe import Agreement, compare
from vlrl.scores import DomainScore
from vlrl.suites import Suite
from vlrl.types import Group
from vlrl.update_stats import UpdateStats
from vlrl.verifiers.held_out import HeldOut

MakeSampler = Callable[[str, Chat, RunConfig], Sampler]
"""(checkpoint folder or hub id, chat, config) -> a sampler that holds the checkpoint's weights."""


class SyncError(RuntimeError):
    """Sampler and learner don't hold the same policy."""


class DivergedError(RuntimeError):
    """Updates in a row had gradients that were not finite; where their batch is kept."""


@dataclass(frozen=True, kw_only=True)
class ImageWork:
    """What images cost in a step: decoded, run through the processor, through the vision tower.

    The tower's are those of the probe and of all updates.
    """

    num_decoded: int = 0
    num_processed: int = 0
    num_tower_forwards: int = 0


@dataclass(kw_only=True)
class Run:
    """A run in progress; of several processes each has one, and all make the same calls.

    folder: what it writes to; that of the run in process 0 alone. step: rollout batches trained on,
    or the one in hand. requested: those that the sampler was asked for; up to `max_staleness` more.
    """

    config: RunConfig
    folder: Path
    chat: Chat
    sampler: Sampler
    rollout: Rollout
    rules: RewardRules
    held_out: HeldOut | None
    learner: Learner
    stream: ProblemStream
    suites: Sequence[Suite]
    check: Check
    progress: Progress
    ahead: RolloutsAhead
    step: int = 0
    requested: int = 0
    accounts: Accounts = field(default_factory=Accounts)
    skips_in_a_row: int = 0
    _snapshots: dict[int, list[torch.Tensor]] = field(default_factory=dict[int, list[torch.Tensor]])
    _image_work: ImageWork = ImageWork()

    def params(self, step: int) -> SamplingParams:
        """How a step's rollout is sampled."""
        sampler = self.config.sampler
        return SamplingParams(
            n=sampler.responses_per_prompt,
            temperature=sampler.temperature,
            max_tokens=sampler.max_tokens,
            seed=derive_seed(self.config.seed, "train", step),
        )

    def request_rollouts(self) -> None:
        """Draw the problems of the step in hand and of those ahead of it; have them sampled."""
        last = min(self.step + self.config.max_staleness, self.config.steps)
        while self.requested < last:
            self.requested += 1
            problems = self.stream.next_batch()
            self.accounts = replace(self.accounts, drawn=self.accounts.drawn + len(problems))
            if self.config.max_staleness and self.learner.num_updates not in self._snapshots:
                self._snapshots[self.learner.num_updates] = self.learner.snapshot()
            params = self.params(self.requested)
            self.ahead.request(
                self.requested,
                self.step - 1,
                self.learner.num_updates,
                len(problems),
                partial(self.rollout, problems, params, self.rules),
            )

    def take_rollouts(self) -> RolloutBatch:
        """The step's groups, once all are sampled and graded."""
        return self.ahead.take()

    def probe(self, batch: RolloutBatch) -> Agreement:
        """The sampler against the learner as it was when it sampled.

        Raises:
            SyncError: see `check_sync`.
        """
        if batch.agreement:
            return batch.agreement
        self._snapshots = {v: s for v, s in self._snapshots.items() if v >= batch.version}
        then = self._snapshots.get(batch.version)
        moved = batch.version != self.learner.num_updates
        with self.learner.rewound(then) if then and moved else nullcontext():
            return self.check_sync(batch.groups)

    def settled(self) -> list[RolloutBatch]:
        """What was sampled ahead, probed, once nothing is under way: the sampler is free."""
        return self.ahead.settle(lambda batch: replace(batch, agreement=self.probe(batch)))

    def canaries(self, groups: Sequence[Group]) -> Canaries:
        """Signs that the policy games its verifiers, the held-out verifier's word among them."""
        return self.learner.world.from_main(
            lambda: canaries(groups, self.held_out.refusals(groups) if self.held_out else None)
        )

    def take_image_work(self) -> ImageWork:
        """What images cost since the last call, in all processes."""
        store, before = self.chat.images, self._image_work
        self._image_work = ImageWork(
            num_decoded=store.num_decoded,
            num_processed=store.num_processed,
            num_tower_forwards=self.learner.vision.num_forwards,
        )
        since = ImageWork(
            num_decoded=store.num_decoded - before.num_decoded,
            num_processed=store.num_processed - before.num_processed,
            num_tower_forwards=self.learner.vision.num_forwards - before.num_tower_forwards,
        )
        return total(self.learner.world.gather(since))

    def sync(self) -> None:
        """Hand the learner's weights to the sampler; their version is the number of updates."""
        adapter = adapter_alone(self.config)
        weights = self.learner.adapter() if adapter else self.learner.weights()
        version = self.learner.num_updates
        if self.config.max_staleness:  # the sampler may be at work, and the learner goes on
            weights = iter([(name, tensor.detach().clone()) for name, tensor in weights])
        self.ahead.publish(partial(load_all, self.sampler, weights, version))

    def check_sync(self, groups: Sequence[Group]) -> Agreement:
        """Compare both sides' log-probs of one freshly sampled group of each domain.

        Raises:
            SyncError: they differ by more than `sampler.max_probe_kl`.
        """
        one_each = list({group.problem.domain: group for group in groups}.values())
        learner = dealing.logprobs(self.learner, one_each, self.chat)
        agreement = compare(
            [a.completion.logprobs for g in one_each for a in g.attempts],
            [logprobs_T.numpy() for responses in learner for logprobs_T in responses],
        )
        limit = self.config.sampler.max_probe_kl
        if not agreement.kl <= limit:
            raise SyncError(
                f"KL(sampler || learner) is {agreement.kl:.2e} nats a token, above "
                f"sampler.max_probe_kl={limit:g}: the weight sync failed, or the two engines "
                "compute differently"
            )
        return agreement

    def evaluate(self, stop: Callable[[], None]) -> None:
        """Pass@1 of the live policy on every suite, into the run folder.

        `stop` is called now and then and may raise.
        """
        start = time.perf_counter()
        self.settled()  # the sampler has one user at a time
        scores: dict[str, DomainScore] = {}
        for suite in self.suites:
            done = evaluate(
                suite,
                self.rollout,
                self.progress,
                seed=self.config.seed,
                folder=self.folder / "evals" / f"step-{self.step:06d}",
                step=self.step,
                check=self.check,
                max_broken=self.config.data.max_broken,
                stop=stop,
                world=self.learner.world,
            )
            if suite.file.top_p == 1 and suite.file.temperature == self.config.sampler.temperature:
                self.check_sync(done.groups)
            prefix = f"{suite.name}/" if len(self.suites) > 1 else ""
            scores |= {prefix + domain: found for domain, found in done.scores.items()}
        seconds = time.perf_counter() - start
        line = {"step": self.step, "seconds": seconds, "scores": scores_as_json(scores)}
        append_jsonl(self.folder / "evals.jsonl", [line])
        self.progress.take_phases()

    def evaluation_due(self) -> bool:
        """Whether the policy of this step is to be evaluated and hasn't been yet."""
        wanted = self.config.eval
        if self.step == 0:
            due = wanted.at_start
        elif self.step >= self.config.steps:
            due = wanted.at_end
        else:
            due = wanted.every > 0 and self.step % wanted.every == 0
        if not (due and self.suites):
            return False
        done = self.learner.world.from_main(lambda: read_jsonl(self.folder / "evals.jsonl"))
        return self.step not in [line["step"] for line in done]

    def last_checkpoint(self) -> Path:
        """The newest checkpoint of this run."""
        return checkpoints.latest(self.config.out / "checkpoints")

    def save(self) -> Path:
        """Write a checkpoint of this step; its folder.

        Raises:
            CheckpointError: it can't be written; the one before it stays.
        """
        state = checkpoints.TrainerState(
            step=self.step,
            learner=self.learner.state_dict(),
            stream=self.stream.state().model_dump(),
            rng=rng_state(),
            ahead=self.settled(),
            accounts=self.accounts.as_dict(),
            skips_in_a_row=self.skips_in_a_row,
        )

        def save(save_model: Callable[[Path], None]) -> Path:
            return checkpoints.save(
                self.folder / "checkpoints",
                state,
                save_model,
                keep=self.config.keep_checkpoints,
                also=self._best(),
            )

        if self.learner.world.size == 1:
            model, processor = self.learner.model, self.chat.processor
            return save(lambda folder: save_policy(model, processor, folder))
        export = self.chat.processor if self.config.export_checkpoints else None
        return save_together(self.learner, save, export=export)

    def book(self, batch: RolloutBatch, num_learnable: int, updates: Sequence[UpdateStats]) -> None:
        """Close a step: account for its groups, count updates left out, let old memory go."""
        self.accounts = self.accounts.after(
            fresh=batch.fresh, num_learnable=num_learnable, stale=batch.stale, updates=updates
        )
        for update in updates:
            self.skips_in_a_row = self.skips_in_a_row + 1 if update.skipped else 0
        self.chat.images.step_done(recent=self.config.max_staleness + 2)
        if self.step % TRIM_EVERY == 0:
            trim()

    def stop_if_diverged(self, batch: RolloutBatch) -> None:
        """After too many updates in a row without a finite gradient.

        Raises:
            DivergedError: `learner.max_skipped` of them; the step's groups are kept in a file.
        """
        if self.skips_in_a_row >= self.config.learner.max_skipped:
            kept = self.folder / f"diverged-{self.step:06d}.pt"
            torch.save(batch, kept)
            raise DivergedError(
                f"step {self.step}: {self.skips_in_a_row} updates in a row had a gradient that is "
                f"not finite (learner.max_skipped={self.config.learner.max_skipped}). The step's "
                f"groups are in {kept}; the last good checkpoint is {self.last_checkpoint()}. Try "
                f"a smaller learner.lr: vlrl train {self.folder} --resume learner.lr=..."
            )

    def _best(self) -> list[str]:
        """The name of the checkpoint with the best macro Pass@1, if there was an evaluation."""
        lines = read_jsonl(self.folder / "evals.jsonl")
        means = {
            line["step"]: fmean(score["pass_at_1"]["mean"] for score in line["scores"].values())
            for line in lines
            if line["scores"]
        }
        return [checkpoints.name(max(means, key=lambda step: means[step]))] if means else []


def adapter_alone(cfg: RunConfig) -> LoraConfig | None:
    """The adapters' config if a sync hands over them alone."""
    lora = cfg.model.lora
    return lora if lora and lora.sync == "adapter" else None
