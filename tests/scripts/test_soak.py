"""What the soak says of a run that it watched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def soak() -> Any:
    sys.path.insert(0, str(SCRIPTS))
    try:
        import soak
    finally:
        sys.path.remove(str(SCRIPTS))
    return soak


def moments(soak: Any, memory_mib: list[float], tokens: int = 1000) -> list[Any]:
    return [
        soak.Moment(updates=2 * (i + 1), memory_mib=mib, step_s=1.0 + i / 1000, tokens=tokens)
        for i, mib in enumerate(memory_mib)
    ]


def test_what_grows_before_the_first_fifty_updates_does_not_count(soak: Any) -> None:
    found = soak.summary(moments(soak, [100.0 + i for i in range(25)] + [200.0] * 100))
    assert (found.updates, found.steps, found.window) == (250, 125, 20)
    assert found.memory_growth == 0


def test_a_leak_shows(soak: Any) -> None:
    found = soak.summary(moments(soak, [1000.0 + i for i in range(125)]))
    first, last = 1000 + 25 + 9.5, 1000 + 105 + 9.5
    assert found.memory_mib == (first, last)
    assert found.memory_growth == pytest.approx(last / first - 1, abs=1e-4)
    assert found.memory_growth > soak.MAX_MEMORY


def test_longer_responses_are_no_slower_steps(soak: Any) -> None:
    watched = moments(soak, [100.0] * 60) + [
        soak.Moment(updates=120 + 2 * i, memory_mib=100.0, step_s=2.12, tokens=2000)
        for i in range(1, 61)
    ]
    found = soak.summary(watched)
    assert found.step_s[1] > 1.9 * found.step_s[0]
    assert abs(found.time_growth) < 0.05


@pytest.mark.parametrize(
    ("mib_a_step", "seconds", "code"),
    [(0.0, 1.0, 0), (0.5, 1.0, 0), (1.0, 1.0, 1), (0.0, 1.1, 0), (0.0, 1.25, 1)],
)
def test_growth_decides_the_exit_code(
    soak: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mib_a_step: float,
    seconds: float,
    code: int,
) -> None:
    watched = [
        soak.Moment(
            updates=2 * i,
            memory_mib=1000.0 + mib_a_step * i,
            step_s=seconds if i > 75 else 1.0,
            tokens=1000,
        )
        for i in range(1, 126)
    ]
    monkeypatch.setattr(soak, "watch", lambda *_: watched)
    monkeypatch.setattr(sys, "argv", ["soak.py", "--json", str(tmp_path / "soak.json")])
    with pytest.raises(SystemExit) as ended:
        soak.main()
    assert ended.value.code == code
    written = json.loads((tmp_path / "soak.json").read_text())
    assert written["updates"] == 250
