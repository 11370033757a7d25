"""The worked example of docs/add_a_verifier.md runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add_a_verifier.md"


def test_the_worked_example_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    assert 50 <= len(blocks[0].splitlines()) <= 70, "the page says a file of about 60 lines"
    space: dict[str, object] = {"__name__": "example"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), space)
    assert "colour" in space["tasks"]  # type: ignore[operator]
