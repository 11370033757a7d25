"""The worked examples of docs/add_a_verifier.md run as printed, and pass the hostile check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vlrl.tasks.base import Row
from vlrl.tasks.function import FunctionTask
from vlrl.verifiers.check import check

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add_a_verifier.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_worked_examples_run() -> None:
    function, task, *rest = blocks("python")
    assert len(rest) == 3
    assert len(function.splitlines()) < 25 and 50 <= len(task.splitlines()) <= 70
    space: dict[str, object] = {"__name__": "example"}
    for block in (function, task, *rest):
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), space)
    assert "colour" in space["tasks"]  # type: ignore[operator]
    clock = FunctionTask("clock", space["same_time"])  # type: ignore[arg-type]
    row = Row(id="1", source="clocks", question="What time is it?", answer="9:05")
    assert clock.problem(row).domain == "clock"


def test_the_function_passes_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clock_of_docs.py").write_text(blocks("python")[0])
    (tmp_path / "clocks.jsonl").write_text(blocks("json")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parents[1]))
    report = check("clock_of_docs:same_time", tmp_path / "clocks.jsonl")
    assert report.findings == () and report.tried["your cases"] == 5


def test_the_task_passes_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "colour_of_docs.py").write_text(blocks("python")[1])
    (tmp_path / "colours.jsonl").write_text(
        '{"gold": "#ff8800", "response": "I would say \\\\boxed{#ff8000}.", "expect": true}\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parents[1]))
    assert check("colour_of_docs:Colour", tmp_path / "colours.jsonl").findings == ()
