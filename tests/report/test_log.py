"""The run folder's lines: written, read and dropped whatever a response holds."""

from __future__ import annotations

from pathlib import Path

from vlrl.report.log import append_jsonl, drop_after, read_jsonl

TEXTS = ["plain", "line\u2028paragraph\u2029next\x85", "tab\tand\nnew line"]


def test_other_line_ends_in_a_response_end_no_line(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    append_jsonl(path, [{"step": step, "response": TEXTS[step]} for step in range(3)])
    assert [line["response"] for line in read_jsonl(path)] == TEXTS
    with path.open("a") as file:
        file.write('{"step": 1, "resp')  # a run that was killed
    drop_after(path, 1)
    assert [line["response"] for line in read_jsonl(path)] == TEXTS[:2]


def test_half_a_surrogate_pair_stops_no_run(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    append_jsonl(path, [{"step": 0, "note": "\ud800"}])
    assert read_jsonl(path) == [{"step": 0, "note": "?"}]
