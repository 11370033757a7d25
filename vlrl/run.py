"""Everything that a run has open: model, chat, sampler, learner, data, verifiers, its folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from vlrl import checkpoint, config
from vlrl.batch import learner_group
from vlrl.broken import Check
from vlrl.chat import Chat
from vlrl.config import ConfigError, LoraConfig, RunConfig
from vlrl.data import ProblemStream, StreamState
from vlrl.evaluate import evaluate, prompt_check
from vlrl.learner import Learner
from vlrl.models.load import dtype_name, load_policy, load_processor, resolve, save_policy
from vlrl.models.lora import ADAPTER_FOLDER, add_lora, load_adapter
from vlrl.plan.warn import misfits
from vlrl.report.canaries import Canaries, canaries
from vlrl.report.console import Progress
from vlrl.report.log import append_jsonl, drop_after, read_jsonl, scores_as_json
from vlrl.rewards import RewardRules, open_rules
from vlrl.rollout import Rollout
from vlrl.samplers.base import Sampler, SamplingParams, derive_seed
from vlrl.samplers.probe import Agreement, compare
from vlrl.sandbox import configure
from vlrl.scores import DomainScore
from vlrl.suites import Suite, load_suite
from vlrl.tasks import TASKS, Task
from vlrl.tasks.coding import Coding
from vlrl.types import Group
from vlrl.verifiers.held_out import HeldOut, open_held_out

MakeSampler = Callable[[str, Chat, RunConfig], Sampler]
"""(checkpoint folder or hub id, chat, config) -> a sampler that holds the checkpoint's weights."""


class SyncError(RuntimeError):
    """Sampler and learner don't hold the same policy."""


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
    """A run in progress; `step` counts the rollout batches done."""

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
    step: int = 0
    _image_work: ImageWork = ImageWork()

    def params(self) -> SamplingParams:
        """How this step's rollout is sampled."""
        sampler = self.config.sampler
        return SamplingParams(
            n=sampler.responses_per_prompt,
            temperature=sampler.temperature,
            max_tokens=sampler.max_tokens,
            seed=derive_seed(self.config.seed, "train", self.step),
        )

    def canaries(self, groups: Sequence[Group]) -> Canaries:
        """Signs that the policy games its verifiers, the held-out verifier's word among them."""
        return canaries(groups, self.held_out.refusals(groups) if self.held_out else None)

    def take_image_work(self) -> ImageWork:
        """What images cost since the last call."""
        store, before = self.chat.images, self._image_work
        self._image_work = ImageWork(
            num_decoded=store.num_decoded,
            num_processed=store.num_processed,
            num_tower_forwards=self.learner.vision.num_forwards,
        )
        return ImageWork(
            num_decoded=store.num_decoded - before.num_decoded,
            num_processed=store.num_processed - before.num_processed,
            num_tower_forwards=self.learner.vision.num_forwards - before.num_tower_forwards,
        )

    def sync(self) -> None:
        """Hand the learner's weights to the sampler; their version is the number of updates."""
        weights = self.learner.adapter if _adapter_alone(self.config) else self.learner.weights
        self.sampler.load_weights(weights(), version=self.learner.num_updates)

    def check_sync(self, groups: Sequence[Group]) -> Agreement:
        """Compare both sides' log-probs of one freshly sampled group of each domain.

        Raises:
            SyncError: they differ by more than `sampler.max_probe_kl`.
        """
        one_each = list({group.problem.domain: group for group in groups}.values())
        learner = self.learner.logprobs([learner_group(g, None, self.chat) for g in one_each])
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
        done = read_jsonl(self.folder / "evals.jsonl")
        return due and bool(self.suites) and self.step not in [line["step"] for line in done]

    def last_checkpoint(self) -> Path:
        """The newest checkpoint of this run."""
        return checkpoint.latest(self.folder / "checkpoints")

    def save(self) -> Path:
        """Write a checkpoint of this step; its folder."""
        state = checkpoint.TrainerState(
            step=self.step,
            learner=self.learner.state_dict(),
            stream=self.stream.state().model_dump(),
            rng=checkpoint.rng_state(),
        )
        return checkpoint.save(
            self.folder / "checkpoints",
            state,
            lambda folder: save_policy(self.learner.model, self.chat.processor, folder),
            keep=self.config.keep_checkpoints,
        )


@contextmanager
def open_run(
    cfg: RunConfig,
    progress: Progress,
    *,
    resume: bool = False,
    make_sampler: MakeSampler | None,
    tasks: Mapping[str, Task] = TASKS,
) -> Generator[Run]:
    """Open everything a run needs, and close it at the end.

    make_sampler: None for vLLM in this process. tasks: what judges each domain.

    Raises:
        ConfigError, ModelError, CheckpointError: what can't be opened, and what to do.
        SandboxUnavailable: a domain's programs can't be run safely on this machine.
    """
    folder, saved = cfg.out, _start(cfg.out, resume=resume)
    # Before anything slow: a misspelt name is found at once.
    suites = [load_suite(name, cfg.data.root) for name in cfg.eval.suites]
    rules, held_out = open_rules(cfg), open_held_out(cfg.rewards.held_out)
    _prove_sandbox(cfg, tasks, progress)
    path = str(saved) if saved else resolve(cfg.model.path)
    for problem in misfits(cfg):
        progress.warn(f"this run may not fit: {problem}")
    with progress.phase("loading the policy", announce=True):
        pixel_dtype = getattr(torch, dtype_name(cfg.model.dtype))
        chat = Chat(load_processor(path), cfg.images, pixel_dtype)
        learner = _open_learner(path, chat, cfg, saved)
    with progress.phase("starting the sampler", announce=True):
        base = resolve(cfg.model.path) if _adapter_alone(cfg) else path
        sampler = (make_sampler or vllm_sampler)(base, chat, cfg)
    rollout = Rollout(chat, sampler, tasks)
    try:
        check = prompt_check(chat, cfg.data.max_prompt_tokens)
        run = Run(
            config=cfg,
            folder=folder,
            chat=chat,
            sampler=sampler,
            rollout=rollout,
            rules=rules,
            held_out=held_out,
            learner=learner,
            stream=ProblemStream(cfg.data, cfg.seed, tasks, check=check, folder=folder),
            suites=suites,
            check=check,
            progress=progress,
        )
        if saved:
            _restore(run, saved)
        # Only now: a run that could not be opened leaves no folder that looks like one.
        folder.mkdir(parents=True, exist_ok=True)
        config.dump(cfg, folder / "config.yaml")
        yield run
    finally:
        rollout.close()
        if held_out:
            held_out.close()
        sampler.close()


def vllm_sampler(path: str, chat: Chat, cfg: RunConfig) -> Sampler:
    """vLLM in this process."""
    # vLLM takes seconds to import and is not there on every machine that only grades.
    from vlrl.samplers.vllm_engine import VllmSampler

    suites = [load_suite(name, cfg.data.root) for name in cfg.eval.suites]
    longest = max([cfg.sampler.max_tokens, *(suite.file.max_tokens for suite in suites)])
    room = cfg.data.max_prompt_tokens + longest
    return VllmSampler(
        path,
        chat,
        cfg.sampler,
        max_model_len=cfg.sampler.max_model_len or room,
        dtype=dtype_name(cfg.model.dtype),
        lora=_adapter_alone(cfg),
    )


def _open_learner(path: str, chat: Chat, cfg: RunConfig, saved: Path | None) -> Learner:
    lora = cfg.model.lora
    # A checkpoint's own weights have the adapters merged: these go on beside the model's.
    base = resolve(cfg.model.path) if lora else path
    model = load_policy(base, cfg.model.dtype)
    if lora:
        add_lora(model, lora, seed=cfg.seed, base=base)
        if saved:
            load_adapter(model, saved / ADAPTER_FOLDER)
    return Learner(
        model,
        config=cfg.learner,
        loss=cfg.loss,
        temperature=cfg.sampler.temperature,
        banned_token_ids=chat.banned_token_ids,
        max_response_tokens=cfg.sampler.max_tokens,
        freeze_patterns=cfg.model.freeze,
    )


def _prove_sandbox(cfg: RunConfig, tasks: Mapping[str, Task], progress: Progress) -> None:
    """Before anything slow, and before the first reward, where programs are to be run."""
    configure(cfg.sandbox)
    for domain in cfg.data.mixture:
        task = tasks.get(domain)
        if isinstance(task, Coding) and (protection := task.protection()).plan.unsafe:
            progress.warn(f"programs run in a weaker sandbox: {protection.mark}")


def _adapter_alone(cfg: RunConfig) -> LoraConfig | None:
    """The adapters' config if a sync hands over them alone."""
    lora = cfg.model.lora
    return lora if lora and lora.sync == "adapter" else None


def _start(folder: Path, *, resume: bool) -> Path | None:
    """The checkpoint to go on from; a new run has none.

    Raises:
        ConfigError: a new run's folder isn't empty; nothing of an older run is overwritten.
    """
    if resume:
        return checkpoint.latest(folder / "checkpoints")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} holds a run already: go on with `vlrl train {folder} --resume`, "
            "choose another folder with out=FOLDER, or remove it"
        )
    return None


def _restore(run: Run, saved: Path) -> None:
    """Go on exactly after the step that a checkpoint was written at."""
    state = checkpoint.load_state(saved)
    run.step = state.step
    run.learner.load_state_dict(dict(state.learner))
    run.stream.restore(StreamState.model_validate(state.stream))
    run.sync()  # the sampler has the weights already, but not their version
    checkpoint.restore_rng(state.rng)
    for name in ("metrics.jsonl", "rollouts.jsonl", "evals.jsonl"):
        drop_after(run.folder / name, run.step)
