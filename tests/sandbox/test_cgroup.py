from __future__ import annotations

from pathlib import Path

import pytest

from vlrl.config import SandboxConfig
from vlrl.sandbox import Ending, Limits, Sandbox
from vlrl.sandbox.cgroup import make_cgroup
from vlrl.types import StdioTests

PRINTS = StdioTests(tests=(("", "1"),))


def test_a_worker_lives_in_its_cgroup_and_takes_it_along() -> None:
    trial = make_cgroup(512)
    if trial is None:
        pytest.skip("cgroups can't be written here")
    trial.remove()
    sandbox = Sandbox(config=SandboxConfig(workers=1, cgroup=True))
    assert sandbox.run_stdio("print(1)", PRINTS).ending is Ending.PASSED
    seat = sandbox._seats.get()
    sandbox._seats.put(seat)
    assert seat.worker is not None and seat.worker._cgroup is not None
    folders = seat.worker._cgroup.folders
    for folder in folders:
        members = (folder / "cgroup.procs").read_text().split()
        assert str(seat.worker.pid) in members
        assert len(members) == 2  # the outer process and the fork server
    greedy = "x = bytearray(1200 << 20)\nprint(1)"
    outcome = sandbox.run_stdio(greedy, PRINTS, Limits(memory_mb=4096))
    assert outcome.ending is Ending.FAILED, "more than the cgroup's limit, though not the program's"
    assert sandbox.run_stdio("print(1)", PRINTS).ending is Ending.PASSED
    sandbox.close()
    assert not [folder for folder in folders if folder.exists()]


def test_without_cgroups_workers_run_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlrl.sandbox.cgroup.ROOT", Path("/proc/nothing"))
    assert make_cgroup(512) is None
    sandbox = Sandbox(config=SandboxConfig(workers=1, cgroup=True))
    assert sandbox.run_stdio("print(1)", PRINTS).ending is Ending.PASSED
    sandbox.close()
