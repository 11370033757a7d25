"""Opens everything that a run needs, or says what can't be had; closes it at the end."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from rich.markup import escape

from vlrl import checkpoints, config
from vlrl.chat import Chat
from vlrl.checkpoints.rng import restore_rng
from vlrl.config import ConfigError, RunConfig
from vlrl.data import ProblemStream, StreamState
from vlrl.distributed import sharded_checkpoint
from vlrl.distributed.sampling import Bystander, open_rollout
from vlrl.distributed.sharded_checkpoint import has_shards, is_whole
from vlrl.distributed.world import ALONE, World
from vlrl.evaluate import prompt_check
from vlrl.learner import Learner
from vlrl.models.load import dtype_name, load_policy, load_processor, resolve
from vlrl.models.lora import ADAPTER_FOLDER, add_lora, load_adapter
from vlrl.plan.warn import misfits
from vlrl.report.accounts import Accounts
from vlrl.report.console import Progress
from vlrl.report.log import drop_after
from vlrl.rewards import open_rules
from vlrl.rollouts_ahead import RolloutsAhead
from vlrl.run import MakeSampler, Run, adapter_alone
from vlrl.samplers.base import Sampler
from vlrl.samplers.vllm_arguments import most_tokens
from vlrl.sandbox import configure
from vlrl.suites import load_suites
from vlrl.tasks import TASKS, Task
from vlrl.tasks.coding import Coding
from vlrl.verifiers.held_out import open_held_out


@contextmanager
def open_run(
    cfg: RunConfig,
    progress: Progress,
    world: World = ALONE,
    *,
    resume: bool = False,
    make_sampler: MakeSampler | None,
    tasks: Mapping[str, Task] = TASKS,
) -> Generator[Run]:
    """Open everything a run needs, and close it at the end.

    make_sampler: None for vLLM in this process. tasks: what judges each domain. Each process of
    `world` opens its own, and process 0 alone has the run's folder.

    Raises:
        ConfigError, ModelError, CheckpointError: what can't be opened, and what to do.
        SandboxUnavailable: a domain's programs can't be run safely on this machine.
    """
    saved = world.from_main(lambda: _start(cfg.out, progress, resume=resume))
    # Before anything slow: a misspelt name is found at once.
    suites = load_suites(cfg.eval.suites, cfg.data.root)
    rules, held_out = open_rules(cfg), open_held_out(cfg.rewards.held_out)
    _prove(cfg, tasks, progress, world)
    path = str(saved) if saved and is_whole(saved) else resolve(cfg.model.path)
    folder = cfg.out if world.is_main else _scratch()
    with progress.phase("opening the data"):
        pixel_dtype = getattr(torch, dtype_name(cfg.model.dtype))
        chat = Chat(load_processor(path), cfg.images, pixel_dtype)
        check = prompt_check(chat, cfg.data.max_prompt_tokens)
        stream = ProblemStream(cfg.data, cfg.seed, tasks, check=check, folder=folder)
    with progress.phase("loading the policy", announce=True):
        learner = _open_learner(path, chat, cfg, saved, world)
    with progress.phase("starting the sampler", announce=True):
        make = make_sampler or partial(vllm_sampler, warn=lambda text: progress.warn(escape(text)))
        sampler = _open_sampler(make, path, chat, cfg, world)
    rollout = open_rollout(chat, sampler, tasks, world)
    ahead = RolloutsAhead(cfg.max_staleness)
    with ExitStack() as closing:
        for thing in (sampler, *([held_out] if held_out else []), rollout, ahead):
            closing.callback(thing.close)  # the last one first
        run = Run(
            config=cfg,
            folder=folder,
            chat=chat,
            sampler=sampler,
            rollout=rollout,
            rules=rules,
            held_out=held_out,
            learner=learner,
            stream=stream,
            suites=suites,
            check=check,
            progress=progress,
            ahead=ahead,
        )
        _begin(run, saved, resume=resume)
        yield run


def vllm_sampler(
    path: str, chat: Chat, cfg: RunConfig, warn: Callable[[str], None] = print
) -> Sampler:
    """vLLM in this process, or the servers of `sampler.servers`.

    Raises:
        ConfigError: what servers can't do.
    """
    lora, max_model_len = adapter_alone(cfg), most_tokens(cfg)
    if cfg.sampler.servers:
        from vlrl.samplers.vllm_server import ServerSampler

        if lora:
            raise ConfigError("servers take whole weights: set model.lora.sync=merged")
        return ServerSampler(path, chat, cfg.sampler, max_model_len=max_model_len, warn=warn)
    # vLLM takes seconds to import and is not there on every machine that only grades.
    from vlrl.samplers.vllm_engine import VllmSampler

    return VllmSampler(
        path,
        chat,
        cfg.sampler,
        max_model_len=max_model_len,
        dtype=dtype_name(cfg.model.dtype),
        lora=lora,
    )


def _scratch() -> Path:
    """What processes other than 0 write is thrown away at their end."""
    folder = Path(tempfile.mkdtemp(prefix="vlrl-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _open_sampler(
    make: MakeSampler, path: str, chat: Chat, cfg: RunConfig, world: World
) -> Sampler:
    """Each process has its own; but servers have one client, process 0."""
    if cfg.sampler.servers and not world.is_main:
        return Bystander()
    return make(resolve(cfg.model.path) if adapter_alone(cfg) else path, chat, cfg)


def _open_learner(
    path: str, chat: Chat, cfg: RunConfig, saved: Path | None, world: World
) -> Learner:
    lora = cfg.model.lora
    # A checkpoint's own weights have the adapters merged: these go on beside the model's.
    base = resolve(cfg.model.path) if lora else path
    model = load_policy(base, cfg.model.dtype)
    if lora:
        add_lora(model, lora, seed=cfg.seed, base=base)
        if saved and not has_shards(saved):
            load_adapter(model, saved / ADAPTER_FOLDER)
    return Learner(
        model,
        config=cfg.learner,
        loss=cfg.loss,
        temperature=cfg.sampler.temperature,
        banned_token_ids=chat.banned_token_ids,
        max_response_tokens=cfg.sampler.max_tokens,
        freeze_patterns=cfg.model.freeze,
        world=world,
    )


def _write_config(cfg: RunConfig, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config.dump(cfg, folder / "config.yaml")


def _prove(cfg: RunConfig, tasks: Mapping[str, Task], progress: Progress, world: World) -> None:
    """Before anything slow: that it fits, and that programs, if any are to be run, are shut in."""
    for problem in misfits(cfg) if world.size == 1 else []:  # several: vlrl plan --gpus
        progress.warn(f"this run may not fit: {problem}")
    configure(cfg.sandbox)
    for domain in cfg.data.mixture:
        task = tasks.get(domain)
        if isinstance(task, Coding) and (protection := task.protection()).plan.unsafe:
            progress.warn(f"programs run in a weaker sandbox: {protection.mark}")


def _start(folder: Path, progress: Progress, *, resume: bool) -> Path | None:
    """The checkpoint to go on from; a new run, or one that was killed before its first, has none.

    Raises:
        ConfigError: a new run's folder isn't empty; nothing of an older run is overwritten.
        CheckpointError: all checkpoints are damaged.
    """
    if resume:
        saved = checkpoints.newest_sound(folder / "checkpoints", progress.warn)
        if saved is None:
            progress.warn(f"{folder}: no checkpoint was written before it ended: from the start")
        return saved
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} holds a run already: go on with `vlrl train {folder} --resume`, "
            "choose another folder with out=FOLDER, or remove it"
        )
    return None


def _begin(run: Run, saved: Path | None, *, resume: bool) -> None:
    if saved:
        _restore(run, saved)
    elif resume:
        _drop_after(run.folder, -1)
    _write_config(run.config, run.folder)  # only now: what can't be opened leaves no folder


def _restore(run: Run, saved: Path) -> None:
    """Go on exactly after the step that a checkpoint was written at."""
    state = checkpoints.load_state(saved)
    run.step = state.step
    run.learner.load_state_dict(dict(state.learner))
    if has_shards(saved):
        sharded_checkpoint.read(run.learner, saved)
    run.stream.restore(StreamState.model_validate(state.stream))
    run.accounts = Accounts(**state.accounts)
    run.skips_in_a_row = state.skips_in_a_row
    limit = run.config.max_staleness  # may be smaller now than it was
    fresh = [batch for batch in state.ahead if batch.staleness <= limit]
    for batch in state.ahead[len(fresh) :]:
        run.accounts = run.accounts.after(stale=batch.groups)
    run.ahead.put_back(fresh)
    run.requested = run.step + len(fresh)
    for group in (group for batch in fresh for group in batch.groups):
        run.chat.render(group.problem)  # its images are in no cache yet
    run.take_image_work()
    run.sync()  # the sampler has the weights already, but not their version
    restore_rng(state.rng)
    _drop_after(run.folder, run.step)


def _drop_after(folder: Path, step: int) -> None:
    for name in ("metrics.jsonl", "rollouts.jsonl", "evals.jsonl"):
        drop_after(folder / name, step)
