from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.groups import group
from vlrl.cli import app
from vlrl.config import ConfigError, SandboxConfig
from vlrl.evaluate import MAX_PROMPT_TOKENS, default_out
from vlrl.report.log import append_jsonl, transcript
from vlrl.sandbox import configure


def vlrl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "vlrl.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", ["train", "eval", "compare", "play", "grade", "doctor"])
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert command == "doctor" or f"vlrl {command}" in result.output, "an example"


def test_mistakes_are_one_message_without_a_trace(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("steps: 1\nlerner: {}\n")
    for arguments, words in (
        (["train", str(config)], "unknown key 'lerner': did you mean 'learner'?"),
        (["train", "quikstart"], "did you mean 'quickstart'?"),
        (["train", str(tmp_path / "no.yaml")], "no.yaml: no such file"),
        (["train", str(tmp_path)], "add --resume"),
        (["train", str(tmp_path), "--resume"], "no run to go on with"),
        (["train", "quickstart", "data.root=/none", f"out={config}/r"], f"{config}"),
        (["train", "quickstart", "model.path=./none", f"out={tmp_path / 'r'}"], "no such folder"),
    ):
        result = vlrl(*arguments)
        assert result.returncode == 2
        assert words in result.stderr and "Traceback" not in result.stderr


def test_grade_says_what_became_of_the_rows(tmp_path: Path) -> None:
    cases, out = tmp_path / "cases.jsonl", tmp_path / "out.jsonl"
    good = '{"domain": "logic", "gold": "yes", "response": "yes"}\n'
    cases.write_text(good)
    result = CliRunner().invoke(app, ["grade", str(cases), "--out", str(out)])
    assert (result.exit_code, result.output) == (0, "rows: 1, correct: 1 (1 ok), bad lines: 0\n")
    cases.write_text(good + "{}\n")
    result = CliRunner().invoke(app, ["grade", str(cases), "--out", str(out)])
    assert result.exit_code == 1
    assert "bad lines: 1\n  line 2: domain" in result.output


def test_eval_writes_into_a_folder_of_the_model_and_has_room_for_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the model, which isn't there."""
    monkeypatch.chdir(tmp_path)
    assert default_out("Qwen/Qwen2.5-VL-3B-Instruct") == Path("runs/eval/Qwen2.5-VL-3B-Instruct")
    assert default_out("runs/a/checkpoints/step-000100/") == Path("runs/eval/a-step-000100")
    rooms: list[int] = []

    def opened(model: str, *, max_tokens: int, max_prompt_tokens: int) -> None:
        rooms.append(max_prompt_tokens)
        raise ConfigError("enough")

    monkeypatch.setattr("vlrl.evaluation.openers.open_rollout", opened)
    arguments = ["eval", "m", "--suite", "quickstart"]
    for more in ([], ["--max-prompt-tokens", "99"]):
        assert isinstance(CliRunner().invoke(app, arguments + more).exception, ConfigError)
    assert rooms == [MAX_PROMPT_TOKENS, 99]


def test_compare_prints_a_table_and_writes_a_file(tmp_path: Path) -> None:
    for name, right in (("a", [0, 1]), ("b", [1, 1])):
        append_jsonl(tmp_path / name / "s.jsonl", transcript([group("p", correct=right)], 0))
    arguments = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "won.csv")])
    assert result.exit_code == 0, result.output
    assert "s/math_qa" in result.output and "+0.500" in result.output
    assert (tmp_path / "won.csv").read_text().endswith("p,0.5,1.0,2,2,0.5,b\n")
    result = CliRunner().invoke(app, [*arguments, "won.txt"])
    assert "must end in .json or .csv" in str(result.exception)


def test_grade_takes_settings_of_the_sandbox(tmp_path: Path) -> None:
    cases, out = tmp_path / "cases.jsonl", tmp_path / "out.jsonl"
    tests = '{"type": "stdio", "tests": [{"stdin": "", "stdout": "1"}]}'
    cases.write_text(f'{{"id": "a", "program": "print(1)", "entry": {tests}}}\n')
    command = ["grade", str(cases), "--out", str(out), "--sandbox", "tier=b"]
    result = CliRunner().invoke(app, [*command, "--sandbox", "workers=1"])
    assert result.exit_code == 0, result.output
    assert "correct: 1" in result.output and "programs in tier B" in result.output
    result = CliRunner().invoke(app, [*command, "--sandbox", "teir=b"])
    assert "unknown key 'teir': did you mean 'tier'?" in str(result.exception)


def test_eval_takes_settings_of_the_sandbox_and_says_what_programs_ran_behind(
    tmp_path: Path,
) -> None:
    row = {"question": "Write f.", "code": "assert f(1) == 2"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntask: coding\nlicence: none\nfile: {}\nsplits: {eval: rows.jsonl}\n"
        "fields: {answer: null, extra: {code: code}}\n"
    )
    suite = tmp_path / "own.yaml"
    suite.write_text(f"name: own\nk: 1\nproblems: [{{recipe: {tmp_path / 'mine.yaml'}}}]\n")
    said = {"problem": "mine/eval/0", "response": "def f(x): return x + 1"}
    (tmp_path / "said.jsonl").write_text(json.dumps(said) + "\n")
    command = ["eval", "--responses", str(tmp_path / "said.jsonl"), "--suite", str(suite)]
    command += ["--out", str(tmp_path / "out"), "--sandbox", "tier=b"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, (result.output, result.exception)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["sandbox"] == "tier B"
    assert summary["macro"]["mean"] == 1.0
    assert "in a sandbox: tier B" in (tmp_path / "out" / "summary.md").read_text()
    configure(SandboxConfig())
