from __future__ import annotations

from tests.sandbox.soak import soak


def test_killed_workers_lose_no_run_and_leave_nothing() -> None:
    found = soak(runs=200, kill_every=20)
    assert found.kills > 0
    assert (found.lost, found.descriptors, found.processes, found.files) == (0, 0, 0, 0)
    assert found.memory_mb < 20
