"""Starts vLLM servers on this machine, set up as the sampler counts on, and ends them together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2
import torch

from vlrl.chat import Chat
from vlrl.config import ConfigError, RunConfig
from vlrl.models.load import dtype_name, load_processor, resolve
from vlrl.native_memory import bound_caches
from vlrl.openmp import set_waiting
from vlrl.samplers.vllm_arguments import engine_arguments, most_tokens

STOP_S = 15.0
"""For a server to end by itself when asked to."""
RESTART_S = 5.0
"""Before one that ended by itself is started again."""
_LOG_LINES = 15


class ServeError(RuntimeError):
    """Servers can't be started: which one, and the end of its log."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One server: its command, environment and log."""

    url: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path


@dataclass(kw_only=True)
class Servers:
    """Running servers; `processes` in the order of `launches`."""

    launches: Sequence[Launch]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list[Any])

    @property
    def urls(self) -> list[str]:
        """Their addresses."""
        return [launch.url for launch in self.launches]


def launches(cfg: RunConfig, num: int, *, host: str, port: int, logs: Path) -> list[Launch]:
    """How `num` servers of a config's model are started, on ports from `port` on.

    This machine's GPUs are dealt out among them, or else its cores.

    Raises:
        ConfigError: fewer GPUs than servers.
    """
    on_cpu = not torch.cuda.is_available()
    model = resolve(cfg.model.path)
    chat = Chat(load_processor(model), cfg.images)
    eager = on_cpu if cfg.sampler.eager is None else cfg.sampler.eager
    arguments = engine_arguments(
        model,
        cfg.sampler,
        chat.images,
        max_model_len=most_tokens(cfg),
        dtype=dtype_name(cfg.model.dtype),
        on_cpu=on_cpu,
        eager=eager,
    )
    shares = _shares(_cores() if on_cpu else _gpus(), num, can_share=on_cpu)
    arguments |= {
        "enable_scale_out": True,
        "worker_extension_cls": "vlrl.samplers.fleet.worker.FleetWorker",
        "disable_uvicorn_access_log": True,
    }
    if not on_cpu:
        arguments["weight_transfer_config"] = {"backend": "nccl"}
        arguments["tensor_parallel_size"] = len(shares[0])
    return [
        Launch(
            url=f"http://{host}:{port + index}",
            command=[
                *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
                *as_flags({**arguments, "host": host, "port": port + index}),
            ],
            environment=_environment(share, on_cpu=on_cpu, eager=eager),
            log=logs / f"{port + index}.log",
        )
        for index, share in enumerate(shares)
    ]


def as_flags(arguments: Mapping[str, Any]) -> list[str]:
    """vLLM's arguments as its command line takes them."""
    flags: list[str] = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            text = json.dumps(value) if isinstance(value, dict) else str(value)
            flags += [f"--{flag}", text]
    return flags


@contextmanager
def running(plan: Sequence[Launch], wait_s: float) -> Generator[Servers]:
    """Servers that answer; they are ended on the way out, with all that they started.

    Raises:
        ServeError: one ended, or didn't answer within `wait_s`.
    """
    servers = Servers(launches=plan)
    try:
        for launch in plan:
            servers.processes.append(_start(launch))
        _wait(servers, wait_s)
        yield servers
    finally:
        _stop(servers.processes)


@contextmanager
def ended_by_sigterm() -> Generator[None]:
    """SIGTERM ends what is in here as Ctrl-C does: servers must not be left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def keep_running(servers: Servers, say: Callable[[str], None]) -> None:
    """Start again what ends by itself, until Ctrl-C."""
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            for index, launch in enumerate(servers.launches):
                if (code := servers.processes[index].poll()) is None:
                    continue
                say(f"{launch.url} ended ({code}); starting it again")
                _stop([servers.processes[index]])  # what it left behind
                time.sleep(RESTART_S)
                servers.processes[index] = _start(launch)


def _start(launch: Launch) -> subprocess.Popen[bytes]:
    launch.log.parent.mkdir(parents=True, exist_ok=True)
    with launch.log.open("ab") as log:
        return subprocess.Popen(
            launch.command,
            env=launch.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us: we end them, with their engines
        )


def _wait(servers: Servers, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    for launch, process in zip(servers.launches, servers.processes, strict=True):
        while not _answers(launch.url):
            if (code := process.poll()) is not None:
                raise ServeError(f"{launch.url} ended ({code}):\n{_tail(launch.log)}")
            if time.monotonic() > deadline:
                raise ServeError(
                    f"{launch.url} did not answer within {wait_s:g} s:\n{_tail(launch.log)}"
                )
            time.sleep(0.5)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End each process group: the server, its engine and its workers."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # the whole group is gone
        os.killpg(process.pid, number)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:]) + f"\n(all of it: {log})"


def _environment(share: Sequence[str], *, on_cpu: bool, eager: bool) -> dict[str, str]:
    environment = dict(os.environ)
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    environment |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if not on_cpu:
        return environment | {"CUDA_VISIBLE_DEVICES": ",".join(share)}
    environment["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(share)
    set_waiting(environment)
    bound_caches(environment)
    if eager:  # or else one helper is compiled, which wants a C++ compiler
        environment["TORCHDYNAMO_DISABLE"] = "1"
    return environment


def _shares(items: Sequence[str], num: int, *, can_share: bool) -> list[list[str]]:
    """`num` equal shares; fewer items than shares: some are shared, where they can be."""
    size = len(items) // num
    if size:
        return [list(items[index * size : (index + 1) * size]) for index in range(num)]
    if not can_share:
        raise ConfigError(f"{num} servers for {len(items)} GPUs: each wants one or more")
    return [[items[index % len(items)]] for index in range(num)]


def _cores() -> list[str]:
    known = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return [str(core) for core in sorted(known or range(os.cpu_count() or 1))]


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
