from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlrl.grading.file import grade_file
from vlrl.grading.file_answers import LineError
from vlrl.grading.file_programs import program_judge
from vlrl.types import Status

ROWS = [
    {"id": "a", "domain": "math", "gold": "5", "response": "The answer is 5."},
    {"id": "b", "domain": "count", "gold": 3, "response": "four"},
    {"id": "c", "domain": "bbox", "gold": {}, "response": ""},
    {
        "id": "d",
        "domain": "choice",
        "gold": {"answer": "B", "options": {"A": "x", "B": "y"}},
        "response": "y",
    },
    {"id": "e", "domain": "text", "gold": "", "response": ""},
    {"id": "f", "program": "print(1)", "entry": {"type": "stdio", "tests": []}},
    {
        "id": "g",
        "program": "def f(x): return (x, 1)",
        "entry": {
            "type": "call",
            "fn": "f",
            "tests": [{"args": [2], "expected": {"__tuple__": [2, 1]}}],
        },
    },
    {"id": "h", "domain": "math", "gold": "5"},
]


def test_rows_are_judged_and_bad_lines_named(tmp_path: Path) -> None:
    cases, out = tmp_path / "cases.jsonl", tmp_path / "out.jsonl"
    cases.write_text("\n".join(json.dumps(row) for row in ROWS) + '\n{"id": \n[1]\n\n')
    summary = grade_file(cases, out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["id"], row["correct"], row["reward"]) for row in rows] == [
        ("a", True, 1.0),
        ("b", False, 0.0),
        ("d", True, 1.0),
        ("e", False, 0.0),
        ("g", True, 1.0),
    ]
    assert (summary.num_rows, summary.num_correct) == (5, 3)
    assert summary.by_status == {Status.OK: 4, Status.UNPARSABLE: 1}
    assert [line.split(":")[0] for line in summary.bad_lines] == [
        "line 3",
        "line 6",
        "line 8",
        "line 9",
        "line 10",
    ]
    assert "bbox" in summary.bad_lines[0]
    assert set(tmp_path.iterdir()) == {cases, out}


def test_tasks_judge_as_in_training(tmp_path: Path) -> None:
    options = {"answer": "B", "options": {"A": "red", "B": "blue"}}
    said = [
        ("math_qa", "1/2", "\\boxed{0.5}", True),
        ("math_qa", "1/2", "\\boxed{0.6}", False),
        ("image_qa", "2", "two", True),
        ("image_qa", options, "blue", True),
        ("image_qa", options, "A", False),
        ("logic", "Ann is a knight, and Bob is a knave.", "Bob is a knave, Ann is a knight", True),
        ("logic", options, "(b)", True),
        ("image_qa", options | {"answer": "pink"}, "pink", None),
        ("math_qa", "", "5", None),
        ("coding", "5", "5", None),
    ]
    cases, out = tmp_path / "cases.jsonl", tmp_path / "out.jsonl"
    rows = [{"domain": d, "gold": gold, "response": response} for d, gold, response, _ in said]
    cases.write_text("\n".join(json.dumps(row) for row in rows))
    summary = grade_file(cases, out)
    graded = [json.loads(line)["correct"] for line in out.read_text().splitlines()]
    assert graded == [correct for *_, correct in said if correct is not None]
    shown = str(summary).splitlines()
    assert shown[0] == "rows: 7, correct: 5 (7 ok), bad lines: 3"
    assert [line.split(":")[0].strip() for line in shown[1:]] == ["line 8", "line 9", "line 10"]


def test_a_judge_that_fails_is_an_error_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(gold: str, answer: str) -> None:
        raise RuntimeError("broken judge")

    monkeypatch.setattr("vlrl.grading.file_answers.same_answer", broken)
    cases, out = tmp_path / "cases.jsonl", tmp_path / "out.jsonl"
    cases.write_text(json.dumps(ROWS[0]) + "\n")
    assert grade_file(cases, out).by_status == {Status.ERROR: 1}
    assert "broken judge" in json.loads(out.read_text())["note"]


def test_nothing_is_left_behind_when_out_can_not_be_written(tmp_path: Path) -> None:
    cases = tmp_path / "cases.jsonl"
    cases.write_text("")
    with pytest.raises(OSError, match="missing"):
        grade_file(cases, tmp_path / "missing" / "out.jsonl")


def test_shared_answers(shared: Path, tmp_path: Path) -> None:
    """Every adversarial answer of the supported domains gets its label."""
    cases = shared / "cases" / "answers.jsonl"
    labels = {r["id"]: r["expect"] for r in map(json.loads, cases.open(encoding="utf-8"))}
    grade_file(cases, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").open()]
    assert len(rows) == 330
    assert [row for row in rows if row["correct"] != labels[row["id"]]] == []


def test_shared_programs(shared: Path, tmp_path: Path) -> None:
    """Adversarial programs get their labels; tests/sandbox runs more of them, with host checks."""
    lines = (shared / "cases" / "programs.jsonl").read_text(encoding="utf-8").splitlines()
    slow = ("atk-time-", "atk-out-then-hang", "atk-mem-catch", "hon-slow")
    chosen = [
        line
        for line in lines
        if '"danger"' not in line and not json.loads(line)["id"].startswith(slow)
    ]
    cases = tmp_path / "cases.jsonl"
    chosen = chosen[::3]
    cases.write_text("\n".join(chosen))
    labels = {r["id"]: r["expect"] == "pass" for r in map(json.loads, chosen)}
    grade_file(cases, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").open()]
    assert len(rows) == len(chosen)
    assert {row["id"] for row in rows if row["correct"] != labels[row["id"]]} == set()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"tests": [{"stdin": "", "stdout": 1}]}, "`stdin` and `stdout` are texts"),
        ({"tests": [{"stdin": None, "stdout": "1"}]}, "`stdin` and `stdout` are texts"),
        ({"tests": [{"stdout": "1"}]}, "no 'stdin'"),
        ({"tests": {"stdin": "", "stdout": "1"}}, "`tests` is a list of objects"),
        ({"time_limit_s": -1}, "`time_limit_s` is -1"),
        ({"time_limit_s": float("nan")}, "`time_limit_s` is nan"),
        ({"memory_mb": 10**15}, "`memory_mb` is 1000000000000000"),
        ({"compare": "exact"}, "compare 'exact' is none of lines, float"),
        ({"compare": "float", "tol": "x"}, "`tol` is 'x'"),
        ({"type": "call", "fn": 5, "tests": [{"args": [], "expected": 1}]}, "`fn` is the name"),
        ({"type": "call", "fn": "f", "tests": [{"args": 1, "expected": 1}]}, "`args` is a list"),
        ({"type": "assert", "code": "assert f(1) == ("}, "`code` is no Python"),
    ],
)
def test_a_programs_entry_is_named_where_it_is_wrong(entry: dict[str, Any], said: str) -> None:
    whole = {"type": "stdio", "tests": [{"stdin": "", "stdout": "1"}], **entry}
    with pytest.raises(LineError, match=said):
        program_judge({"program": "print(1)", "entry": whole})
