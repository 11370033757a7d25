"""What processes tell each other: one process is a world of its own, three agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.processes import in_processes
from vlrl.config import ConfigError
from vlrl.distributed.totals import total
from vlrl.distributed.world import ALONE, OtherProcessError, World, join


@dataclass
class Sums:
    number: int = 0
    share: float | None = None
    seen: bool = False
    parts: list[int] = field(default_factory=list[int])
    by_layer: dict[int, torch.Tensor] = field(default_factory=dict[int, torch.Tensor])
    inner: Sums | None = None


def test_sums_add_up_field_by_field() -> None:
    one = Sums(number=1, seen=True, parts=[1], by_layer={0: torch.tensor([1, 2])})
    two = Sums(number=2, share=0.5, parts=[2, 3], inner=Sums(number=5))
    assert total([one]) is one
    both = total([one, two, Sums()])
    assert (both.number, both.share, both.seen, both.parts) == (3, 0.5, True, [1, 2, 3])
    assert both.by_layer[0].tolist() == [1, 2]
    assert both.inner == Sums(number=5)
    with pytest.raises(TypeError, match="a str can't be added up"):
        total(["a", "b"])


def test_one_process_is_a_world_without_connections() -> None:
    assert ALONE.is_main and list(ALONE.share(3)) == [0, 1, 2]
    assert ALONE.gather(5) == [5] and ALONE.sum(1, 2) == ALONE.max(1, 2) == [1, 2]
    assert ALONE.merge("ab", 2) == ["a", "b"] and not ALONE.any(False)
    assert ALONE.from_main(lambda: 7) == 7 and ALONE.beside() is ALONE


def exchange(world: World) -> dict[str, Any]:
    rank = world.rank
    found: dict[str, Any] = {
        "gather": world.gather(rank),
        "sum": world.sum(rank, 1),
        "max": world.max(rank, -rank),
        "any": world.any(rank == 1),
        "main": world.from_main(lambda: rank + 10),
        "merge": world.merge([f"{i}" for i in world.share(7)], 7),
        "beside": world.beside().gather(rank),
    }
    try:
        world.from_main(lambda: 1 // 0)
    except ZeroDivisionError:
        found["error"] = "its own"
    except OtherProcessError as error:
        found["error"] = str(error)
    found["after"] = world.sum(1)
    return found


@pytest.mark.slow
def test_three_processes_agree(tmp_path: Path) -> None:
    first, *others = in_processes(3, exchange, tmp_path)
    assert first == {
        "gather": [0, 1, 2],
        "sum": [3, 3],
        "max": [2, 0],
        "any": True,
        "main": 10,
        "merge": ["0", "1", "2", "3", "4", "5", "6"],
        "beside": [0, 1, 2],
        "error": "its own",
        "after": [3],
    }
    for other in others:
        assert "process 0: ZeroDivisionError" in other.pop("error")
        assert other == {key: value for key, value in first.items() if key != "error"}


def test_accelerate_with_cpu_would_start_one_process_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    with join() as world:  # of one process, as asked
        assert world is ALONE
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # as it sets for several
    with pytest.raises(ConfigError, match="add --multi_gpu"), join():
        pass
