"""Chooses the tier and proves it: hostile probes run in a new worker before any reward is given."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from vlrl.config import SandboxConfig
from vlrl.sandbox.errors import SandboxUnavailable
from vlrl.sandbox.guest.plan import Isolation, Plan
from vlrl.sandbox.limits import Limits
from vlrl.sandbox.worker import Job, Worker, WorkerDied

_log = logging.getLogger(__name__)

MENDS = {
    "unshare": "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
    "user.max_user_namespaces > 0, kernel.apparmor_restrict_unprivileged_userns=0; in a container "
    "a seccomp profile that lets unshare through)",
    "mount": "allow mounts in user namespaces (a container's AppArmor or seccomp profile)",
    "seccomp": "a kernel with CONFIG_SECCOMP_FILTER (every distribution's has it)",
    "landlock": "a kernel of 5.13 or newer, with landlock in /sys/kernel/security/lsm",
    "import": "install the package for this interpreter, or take it out of sandbox.packages",
    "system call table": "run on x86_64 or aarch64, or judge programs on another machine",
}
PROBE = r"""
import errno, json, mmap, os, resource, sys
def refused(what):
    try: what()
    except OSError as error: return errno.errorcode.get(error.errno, "?")
    return ""
def connect():
    import socket
    socket.socket()
def fork():
    if os.fork() == 0: os._exit(0)
found = {
    "fork": refused(fork),
    "exec": refused(lambda: os.execv("/nonexistent", ["x"])),
    "socket": refused(connect),
    "file": refused(lambda: open(sys.stdin.readline())),
    "memory": refused(lambda: mmap.mmap(-1, 1 << 34)),
    "cpu limit": "2 s" if resource.getrlimit(resource.RLIMIT_CPU)[1] == 2 else "",
}
print(json.dumps(found))
"""
SPIN = b"while True: pass"
WANTED = {
    "fork": "EPERM",
    "exec": "EPERM",
    "socket": "EPERM",
    "memory": "ENOMEM",
    "cpu limit": "2 s",
}


@dataclass(frozen=True, kw_only=True)
class Protection:
    """What programs run behind. `failed` are the probes that got through: unsafe mode only."""

    plan: Plan
    isolation: Isolation
    failed: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """For logs and reports: `tier A`, or `UNSAFE: ...` with what is missing."""
        if not self.plan.unsafe:
            return f"tier {self.plan.tier.upper()}"
        gaps = [f"{name} ({why})" for name, why in self.isolation.missing.items()]
        gaps += [f"{name} not refused" for name in self.failed]
        return f"UNSAFE: {'; '.join(gaps) or 'nothing missing'}"


_lock = threading.Lock()
_known: dict[SandboxConfig, Protection] = {}


def establish(config: SandboxConfig) -> Protection:
    """The strongest tier that the config allows and this machine gives; once a process.

    Raises:
        SandboxUnavailable: none passes; names for each the refused call, its errno and the mend.
    """
    key = SandboxConfig(tier=config.tier, unsafe=config.unsafe, packages=config.packages)
    with _lock:
        if key not in _known:
            _known[key] = _establish(config)
        return _known[key]


def _establish(config: SandboxConfig) -> Protection:
    tiers = ("a", "b") if config.tier == "auto" else (config.tier,)
    paths = package_folders(config.packages)
    reasons: list[str] = []
    for tier in tiers:
        plan = Plan(tier=tier, packages=list(config.packages), package_path=paths)
        try:
            return prove(plan)
        except (SandboxUnavailable, WorkerDied) as error:
            reasons.append(f"tier {tier.upper()}: {error}{_mend(str(error))}")
    if config.unsafe:
        plan = Plan(tier="b", unsafe=True, packages=list(config.packages), package_path=paths)
        found = prove(plan)
        _log.warning("untrusted programs run in an UNSAFE sandbox: %s", found.mark)
        return found
    raise SandboxUnavailable(
        "untrusted programs can't be run safely here. " + "; ".join(reasons) + ". To run them with "
        "what is left, knowing that they can harm this machine: sandbox.unsafe=true"
    )


def prove(plan: Plan) -> Protection:
    """Start a worker and attack it.

    Raises:
        SandboxUnavailable: a layer was refused, or a probe got through.
        WorkerDied: the worker did not come up or went away.
    """
    worker = Worker(plan)
    try:
        failed = _attack(worker)
    finally:
        worker.close()
    if failed and not plan.unsafe:
        raise SandboxUnavailable(f"the self-test failed: {', '.join(failed)} not refused")
    return Protection(plan=plan, isolation=worker.isolation, failed=tuple(failed))


def _attack(worker: Worker) -> list[str]:
    """What was not refused, of: fork, exec, sockets, a file, memory, time."""
    limits = Limits(time_s=1.0, memory_mb=256, wall_factor=5.0)
    with tempfile.TemporaryDirectory(prefix="vlrl-canary-") as folder:
        canary = Path(folder) / "canary"
        canary.write_text("canary")
        os.chmod(folder, 0o755)
        canary.chmod(0o644)
        job = Job(mode="script", program=PROBE.encode(), stdin=str(canary).encode())
        run = worker.run(job, limits)
    try:
        found = json.loads(run.stdout)
    except ValueError as error:
        said = run.stderr.decode("utf-8", "replace")[-300:]
        raise SandboxUnavailable(f"the self-test's probe failed: {said}") from error
    failed = [name for name, want in WANTED.items() if found[name] != want]
    failed += [] if found["file"] else ["file"]
    spin = Limits(time_s=0.1, wall_factor=1.0, memory_mb=256)
    if not worker.run(Job(mode="script", program=SPIN), spin).timed_out:
        failed.append("time")
    return failed


def package_folders(names: tuple[str, ...]) -> list[str]:
    """The packages' own folders, with the shared libraries that wheels put beside them.

    Raises:
        SandboxUnavailable: one is not installed.
    """
    folders: list[str] = []
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise SandboxUnavailable(f"import {name}: no such package{_mend('import')}")
        folder = Path(next(iter(spec.submodule_search_locations))).resolve()
        folders.append(str(folder))
        libraries = folder.with_name(f"{folder.name}.libs")
        if libraries.is_dir():
            folders.append(str(libraries))
    return folders


def _mend(message: str) -> str:
    found = next((mend for name, mend in MENDS.items() if name in message), "")
    return f" [mend: {found}]" if found else ""
