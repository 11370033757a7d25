"""scripts/bench_data.py on a few rows: every part runs, and says how much it held."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_data.py"


@pytest.mark.slow
def test_every_part_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [sys.executable, str(SCRIPT), "--json", str(out), "--rows", "600", "--side", "64"]
    subprocess.run([*command, "--folder", str(tmp_path)], check=True)
    report = json.loads(out.read_text())
    rows = {"build": 600, "read_in_turn": 600, "read_as_training": 600, "load_as_training": 12}
    for part, wanted in rows.items():
        assert report[part]["rows"] == wanted
        assert report[part]["rows_per_s"] > 0 and 50 < report[part]["peak_mib"] < 8000
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
