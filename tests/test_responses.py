from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.plain_task import PLAIN_TASKS
from vlrl.cli import app
from vlrl.compare import compare
from vlrl.recorded import EvalFileError
from vlrl.report.eval_summary import write_summary
from vlrl.responses import evaluate_responses
from vlrl.sandbox import Sandbox, SandboxUnavailable

IDS = [f"mine/eval/{i}" for i in range(4)]


def suite(folder: Path) -> str:
    rows = [json.dumps({"question": f"q{i}", "answer": str(i)}) + "\n" for i in range(4)]
    (folder / "rows.jsonl").write_text("".join(rows))
    (folder / "mine.yaml").write_text(
        "name: mine\ntask: math_qa\nlicence: none\nfile: {}\nsplits: {eval: rows.jsonl}\n"
    )
    (folder / "suite.yaml").write_text(
        f"name: own\nk: 2\nproblems: [{{recipe: {folder / 'mine.yaml'}}}]\n"
    )
    return str(folder / "suite.yaml")


def file(folder: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path = folder / "given.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def two_each(right: Sequence[int]) -> list[dict[str, object]]:
    """Two responses a problem, as many right as `right` says, the last problem first."""
    return [
        {"problem": name, "response": name[-1] if i < num else "no"}
        for i in range(2)
        for name, num in reversed(list(zip(IDS, right, strict=True)))
    ]


def test_a_file_of_responses_is_judged_by_suite(tmp_path: Path) -> None:
    """2, 1, 1 and 0 of 2 right: Pass@1 1/2, pass@2 3/4."""
    rows = two_each([2, 1, 1, 0])
    rows[-1]["finish"] = "length"
    out = tmp_path / "out"
    (done,) = evaluate_responses(
        file(tmp_path, rows), [suite(tmp_path)], out=out, tasks=PLAIN_TASKS
    )
    score = done.scores["math_qa"]
    assert (score.pass_at_1.mean, score.pass_at_k, score.truncated) == (0.5, 0.75, 1 / 8)
    summary = json.loads((out / "summary.json").read_text())
    (domain,) = summary["domains"]
    assert [(p["k"], p["chance"]["mean"]) for p in domain["pass_at"]] == [(1, 0.5), (2, 0.75)]
    low, high = domain["exact"]
    assert 0 < low < 0.5 < high < 1
    assert summary["macro"]["mean"] == 0.5 and summary["sampling"] is None
    text = (out / "summary.md").read_text()
    assert "| own | math_qa | 4 | 8 | 0.500 (" in text and "| @2 0.750 | 12.5% |" in text
    write_summary(tmp_path, "a model", [done])
    sampling = json.loads((tmp_path / "summary.json").read_text())["sampling"]
    assert sampling == {"own": {"k": 2, "temperature": 1.0, "top_p": 1.0, "max_tokens": 2048}}
    assert "- own: k 2, temperature 1, top_p 1" in (tmp_path / "summary.md").read_text()
    # Its own transcript can be judged anew, and nothing is won against itself.
    again = tmp_path / "again"
    evaluate_responses(out / "own.jsonl", [suite(tmp_path)], out=again, tasks=PLAIN_TASKS)
    assert (again / "own.jsonl").read_text() == (out / "own.jsonl").read_text()
    found = compare(out, again)
    assert (found.domains[0].ties, found.domains[0].p_value) == (4, 1.0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "mine/eval/9", "response": ""}, r"line 9, problem mine/eval/9: .* did you m"),
        ({"response": "1"}, r"line 9: key 'problem' is missing"),
        ({"problem": IDS[0], "response": 3}, r"line 9, problem mine/eval/0: key 'response' is int"),
        ({"problem": IDS[0], "response": "\ud800"}, r"line 9, problem mine/eval/0: .* surrogate"),
        ({"problem": IDS[0], "response": "", "finish": "len"}, r"finish 'len' is none of stop"),
    ],
)
def test_wrong_lines_are_named_and_nothing_is_written(
    tmp_path: Path, row: Mapping[str, object], message: str
) -> None:
    path = file(tmp_path, [*two_each([0] * 4), row])
    with pytest.raises(EvalFileError, match=message):
        evaluate_responses(path, [suite(tmp_path)], out=tmp_path / "out", tasks=PLAIN_TASKS)
    assert not (tmp_path / "out").exists()


def test_problems_without_a_response_are_named(tmp_path: Path) -> None:
    path = file(tmp_path, [{"problem": IDS[1], "response": "1"}])
    with pytest.raises(EvalFileError, match=r"3 of 4 problems have no response: mine/eval/0, mi"):
        evaluate_responses(path, [suite(tmp_path)], out=tmp_path / "out", tasks=PLAIN_TASKS)


def test_the_command_judges_with_the_real_tasks(tmp_path: Path) -> None:
    path, out = file(tmp_path, two_each([2, 2, 2, 0])), tmp_path / "out"
    given = ["eval", "--suite", suite(tmp_path), "--responses", str(path), "--out", str(out)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert json.loads((out / "summary.json").read_text())["macro"]["mean"] == 0.75
    for wrong in (["eval", "--suite", "math"], [*given, "tiny-qwen3-vl"], [*given, "--k", "2"]):
        assert CliRunner().invoke(app, wrong).exit_code == 2


def test_no_sandbox_is_one_error_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Sandbox) -> None:
        raise SandboxUnavailable("unshare(NEWUSER): refused")

    monkeypatch.setattr(Sandbox, "protection", refuse)
    (tmp_path / "suite.yaml").write_text(
        "name: own\nk: 1\nproblems: [{recipe: short_functions, limit: 1}]\n"
    )
    given = file(
        tmp_path, [{"problem": "short_functions/eval/0", "response": "def f(x): return x"}]
    )
    with pytest.raises(SandboxUnavailable, match="unshare"):
        evaluate_responses(given, [str(tmp_path / "suite.yaml")], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
