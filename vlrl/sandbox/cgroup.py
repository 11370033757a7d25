"""A cgroup around each worker, where cgroups can be written: memory files and /tmp count too.

Optional, on top of the limits that every program has; version 2 and version 1 hierarchies.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MAX_PROCESSES = 128
EXTRA_MB = 512
"""For the worker itself, its /tmp and what a row of its own limits may ask for."""
REMOVE_S = 2.0

_log = logging.getLogger(__name__)
_numbers = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Cgroup:
    """One folder (version 2), or one for each controller (version 1)."""

    folders: tuple[Path, ...]

    def add(self, pid: int) -> None:
        """Move a process into it; its later children are born there."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Remove it once its last process has gone; one that stays is named in the log."""
        deadline = time.monotonic() + REMOVE_S
        for folder in self.folders:
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError as error:
                    if time.monotonic() > deadline:
                        _log.warning("a cgroup stays behind: %s", error)
                        break
                    time.sleep(0.01)


def make_cgroup(memory_mb: int) -> Cgroup | None:
    """A new one below this process's own; None, and a line in the log, where that can't be had."""
    name = f"vlrl-{os.getpid()}-{next(_numbers)}"
    made: list[Path] = []
    try:
        own = _own()
        values = _limits(memory_mb + EXTRA_MB, one=set(own) == {""})
        for controllers, folder in own.items():
            with suppress(OSError):  # in force already, or the limits' files will be missing
                if not controllers:
                    (folder / "cgroup.subtree_control").write_text("+memory +pids")
            (folder / name).mkdir()
            made.append(folder / name)
            for file, value in values[controllers].items():
                with (folder / name / file).open("r+") as limit:
                    limit.write(value)
        return Cgroup(folders=tuple(made))
    except OSError as error:
        _log.warning("no cgroup around sandbox workers: %s", error)
        Cgroup(folders=tuple(made)).remove()
        return None


def _own() -> dict[str, Path]:
    """This process's cgroup, by controller; version 2's has the name ""."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in ("memory", "pids"):
                found[controller] = ROOT / controller / path.lstrip("/")
            elif not controllers and (ROOT / "cgroup.controllers").exists():
                found[""] = ROOT / path.lstrip("/")
    if {"memory", "pids"} <= found.keys():
        found.pop("", None)
    elif not found:
        raise OSError(0, "no cgroup hierarchy with memory and pids controllers")
    return found


def _limits(memory_mb: int, one: bool) -> dict[str, dict[str, str]]:
    memory, processes = str(memory_mb << 20), str(MAX_PROCESSES)
    if one:
        return {"": {"memory.max": memory, "pids.max": processes}}
    return {"memory": {"memory.limit_in_bytes": memory}, "pids": {"pids.max": processes}}
