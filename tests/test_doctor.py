"""The doctor sees what is there and says the mend of what isn't."""

from __future__ import annotations

import importlib.metadata

import pytest
from rich.console import Console

from vlrl import doctor


def test_this_machine_can_run_the_tests() -> None:
    findings = {f.name: f for f in doctor.examine()}
    for name in ("python", "torch", "transformers", "processor"):
        assert findings[name].ok, findings[name]
    assert findings["torch"].detail == importlib.metadata.version("torch")


def test_what_is_missing_is_said_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    findings = {f.name: f for f in doctor.examine()}
    assert not findings["vllm"].ok and "vlrl[cpu]" in findings["vllm"].mend
    assert not findings["torch"].ok and "scripts/setup" in findings["torch"].mend
    console = Console(width=200, record=True)
    assert not doctor.show(list(findings.values()), console)
    assert "scripts/setup" in console.export_text()


def test_all_well_needs_no_mend() -> None:
    fine = doctor.Finding(name="python", ok=True, detail="3.11", mend="never shown")
    console = Console(width=100, record=True)
    assert doctor.show([fine], console)
    assert "never shown" not in console.export_text()
