from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.verifiers import mine
from vlrl.cli import app
from vlrl.config import ConfigError
from vlrl.verifiers.cases import Case, read_cases
from vlrl.verifiers.check import CheckReport, check
from vlrl.verifiers.check_process import CheckProcess
from vlrl.verifiers.hostile import FRAMES, Frame, about, at_large, decoys, frame_of

MINE = "tests.verifiers.mine"
CASES = [
    {"gold": "red", "response": "\\boxed{Red}", "expect": True},
    {"gold": "red", "response": "\\boxed{blue}", "expect": False},
    {"gold": "5", "response": "I count 5", "expect": False, "id": 3, "tag": "prose"},
]


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return path


def run(
    tmp_path: Path, verifier: str, limit_s: float = 10.0, lines: Sequence[object] = CASES[:2]
) -> CheckReport:
    cases = write(tmp_path / "cases.jsonl", *lines)
    return check(f"{MINE}:{verifier}", cases, limit_s=limit_s)


def wrongs(report: CheckReport) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for finding in report.findings:
        found.setdefault(finding.kind, set()).add(finding.wrong)
    return found


@pytest.mark.parametrize("verifier", ["same", "same_later"])
def test_nothing_gets_through_a_good_verifier(tmp_path: Path, verifier: str) -> None:
    report = run(tmp_path, verifier, lines=CASES)
    assert report.findings == ()
    assert report.tried.keys() >= {
        *("your cases", "empty", "constant", "guess list", "unicode", "markup"),
        *("huge", "nested", "time bomb"),
    }
    assert sum(report.tried.values()) > 400


def test_a_verifier_that_looks_for_the_gold_is_found_out(tmp_path: Path) -> None:
    found = wrongs(run(tmp_path, "contains", lines=CASES))
    assert found["guess list"] == {"got through"}
    assert "got through" in found["markup"]
    assert found["your cases"] == {"got through", "refused"}
    assert "constant" not in found and "empty" not in found


def test_one_that_takes_everything_gets_every_kind(tmp_path: Path) -> None:
    report = run(tmp_path, "always")
    assert wrongs(report).keys() == report.tried.keys()


def test_exceptions_are_shown(tmp_path: Path) -> None:
    report = run(tmp_path, "number")
    assert {"raised"} == set().union(*wrongs(report).values())
    assert "ValueError: could not convert" in report.findings[0].why


def test_a_reward_for_nothing_is_shown(tmp_path: Path) -> None:
    for_nothing = [f for f in run(tmp_path, "partly").findings if f.kind == "empty"]
    assert for_nothing and "reward 0.1 for nothing" in for_nothing[0].why


def test_a_time_bomb_is_killed_and_the_rest_goes_on(tmp_path: Path) -> None:
    report = run(tmp_path, "backtracks", 1.0)
    hung = [finding for finding in report.findings if finding.wrong == "hung or died"]
    assert {f.kind for f in hung} == {"time bomb"}
    assert hung[0].why == "no answer in 1 s"
    assert report.tried["time bomb"] > 50


def test_a_process_that_ends_is_replaced() -> None:
    case = Case(gold="red", response="", expect=False)
    process = CheckProcess(f"{MINE}:dies", 30.0)
    try:
        assert process.ask(case, " ").died == "the process ended with code 3"
        assert process.ask(case, "red").correct
    finally:
        process.close()


def test_what_is_no_verdict_is_an_exception() -> None:
    case = Case(gold="red", response="", expect=False)
    process = CheckProcess(f"{MINE}:says_one", 30.0)
    try:
        assert "not int" in process.ask(case, "red").raised
    finally:
        process.close()


def test_after_three_hangs_the_rest_of_a_kind_is_left_out(tmp_path: Path) -> None:
    report = run(tmp_path, "sleeps", 0.3)
    hung = [f for f in report.findings if f.kind == "huge" and f.wrong == "hung or died"]
    assert len(hung) == 3 and report.num_left_out > 10


def test_the_command(tmp_path: Path) -> None:
    explained = CliRunner().invoke(app, ["verifier", "check", "--help"])
    assert "vlrl verifier check my_module:my_verifier cases.jsonl" in explained.output
    cases, out = write(tmp_path / "cases.jsonl", *CASES[:2]), tmp_path / "out.jsonl"
    good = CliRunner().invoke(app, ["verifier", "check", f"{MINE}:same", str(cases)])
    assert good.exit_code == 0 and "nothing got through" in good.output
    arguments = ["verifier", "check", f"{MINE}:contains", str(cases), "--out", str(out)]
    bad = CliRunner().invoke(app, arguments)
    assert bad.exit_code == 1
    assert "got through" in bad.output and "guess list" in bad.output
    assert len(out.read_text().splitlines()) > 50


def test_a_task_of_the_package_passes(tmp_path: Path) -> None:
    """The law of tests/laws, from outside; options and questions come from the cases."""
    cases = write(
        tmp_path / "cases.jsonl",
        {"gold": "7", "response": "\\boxed{7}", "expect": True},
        {"gold": "", "response": "", "expect": False},
        {"gold": "b", "options": ["a", "b"], "response": "(B)", "expect": True, "question": "?"},
    )
    assert check("vlrl.tasks.logic:Logic", cases).findings == ()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not valid JSON"),
        ("[1]", "line 2: a case is a JSON object"),
        ({"gold": "a", "response": "b"}, "line 2: key 'expect' is missing"),
        ({"gold": "a", "response": 5, "expect": True}, "line 2: key 'response'"),
        ({"gold": "a", "response": "b", "expect": "yes"}, "line 2: key 'expect'"),
        ({"gold": "a", "respons": "b", "expect": True}, "did you mean 'response'?"),
    ],
)
def test_lines_that_are_no_cases_are_named(tmp_path: Path, line: object, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_cases(write(tmp_path / "cases.jsonl", CASES[0], line))
    assert words in str(error.value) and "cases.jsonl" in str(error.value)


def test_cases_need_one_right_answer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a verifier that refuses everything would pass"):
        read_cases(write(tmp_path / "cases.jsonl", CASES[1]))


def test_a_verifier_that_cannot_be_loaded_is_named_before_anything_runs(tmp_path: Path) -> None:
    for reference, words in (
        ("no_such:thing", "no module 'no_such'"),
        (f"{MINE}:one_argument", "a verifier is a function of"),
    ):
        with pytest.raises(ConfigError, match=words):
            CheckProcess(reference, 1.0)


def test_the_suite_is_made_for_each_gold() -> None:
    assert frame_of("red", "It is red, I say") == Frame(before="It is ", after=", I say")
    assert frame_of("5", "5 and 5") is None
    assert decoys("5", ["5", "5.5", "90", "x"]) == ["30", "90", "x"]
    for gold in ("red", "5", '{"a": [1]}', "\u4e94"):
        suite = [
            *about(gold, "wrong", FRAMES),
            *(at_large(gold, "?", FRAMES[:1]) if gold == "5" else ()),
        ]
        right = {gold, f"\\boxed{{{gold}}}", f"The answer is {gold}."}
        for hostile in suite:
            if hostile.expect is False:
                assert hostile.response not in right, hostile.kind
                assert not mine.same(gold, hostile.response), hostile
