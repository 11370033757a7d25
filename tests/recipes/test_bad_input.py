"""Wrong recipes, splits, hubs, files and rows: the error names them, and nothing half is left."""

from __future__ import annotations

import json
import multiprocessing
import re
import time
from pathlib import Path

import datasets
import pytest
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from tests.plain_task import PLAIN_TASKS
from tests.recipes.build.sets import built, mixture, numbered, recipe
from vlrl.broken import BrokenRow, BrokenRows, problem_at
from vlrl.config import ConfigError
from vlrl.recipes import open_recipe
from vlrl.recipes.check import check_recipe, write_report
from vlrl.recipes.manifest import read_manifest
from vlrl.tasks import TASKS


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("no route"), r"gsm8k.*openai/gsm8k can't be reached.*data\.root=FOLDER"),
        (DatasetNotFoundError("not there"), r"gsm8k.*can't be reached \(not there\).*data\.root"),
        (RuntimeError("the client is closed"), r"gsm8k.*can't be reached.*data\.root"),
        (
            ValueError("Unknown split 'train'. Should be one of ['test']."),
            r"gsm8k: openai/gsm8k, split 'train': Unknown split.*one of \['test'\]",
        ),
        (DatasetGenerationError("cut off"), r"gsm8k: .*split 'train': its files can't be read"),
    ],
)
def test_what_the_hub_says_names_the_recipe(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(ConfigError, match=message):
        open_recipe("gsm8k").num_rows("train")


GOOD = {"q": "What is it?", "a": "red", "o": ["red", "blue"]}
FIELDS = "fields: {question: q, answer: a, options: o, images: i}\n"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"q": 7}, r"the question is 7, text is wanted \(field 'q'\)"),
        ({"q": ["What?"]}, r"the question is \['What\?'\], text is wanted \(field 'q'\)"),
        ({"q": " "}, r"the question is ' ', text is wanted \(field 'q'\)"),
        ({"a": None}, r"the answer is empty \(field 'a'\)"),
        ({"a": {"b": 1}}, r"the answer is a dict, not text or a number \(field 'a'\)"),
        ({"a": "green"}, r"'green' is none of the options .* \(field 'a', 'o'\)"),
        ({"o": "red"}, r"the options are 'red', a list is wanted \(field 'o'\)"),
        ({"o": {"A": "red"}}, r"the options are .*a list is wanted \(field 'o'\)"),
        ({"o": ["red", ""]}, r"an option is empty: .* \(field 'o'\)"),
        ({"i": 5}, r"the image is 5; .* \(field 'i'\)"),
        ({"i": ["a.png", None]}, "a.png is missing"),
        ({"i": "a.png"}, r"a.png is missing \(field 'i'\)"),
    ],
)
def test_rows_of_the_wrong_type_are_named(
    row: dict[str, object], message: str, tmp_path: Path
) -> None:
    good = {**GOOD, "i": None}
    of = recipe(tmp_path, "mine", [good, good | row], "image_qa", more=FIELDS)
    opened = open_recipe(of)
    assert not isinstance(problem_at(opened, "train", 0, TASKS["image_qa"], None), BrokenRow)
    found = problem_at(opened, "train", 1, TASKS["image_qa"], None)
    assert isinstance(found, BrokenRow)
    assert (found.recipe, found.split, found.row) == ("mine", "train", 1)
    lines = tmp_path / "broken_rows.jsonl"
    BrokenRows(1.0, lines).add(found, 1, 2)
    (line,) = [json.loads(text) for text in lines.read_text().splitlines()]
    assert line["recipe"] == "mine" and line["row"] == 1
    assert re.search(message, line["why"]), line["why"]


@pytest.mark.parametrize(
    ("task", "more", "row", "message"),
    [
        ("math_qa", "fields: {question: q, answer: a}\nanswer: [after_hashes]\n", {}, "'a'"),
        ("image_qa", "fields: {question: q, answer: a}\ngold: {kind: boxes}\n", {}, "'a'"),
        ("coding", "fields: {question: q, answer: a}\n", {"a": 5}, "'a'"),
        (
            "coding",
            "fields: {question: q, answer: a, extra: {calls: t}}\n",
            {"t": [1]},
            "'t'",
        ),
    ],
)
def test_answers_and_tests_out_of_shape_name_their_field(
    task: str, more: str, row: dict[str, object], message: str, tmp_path: Path
) -> None:
    of = recipe(tmp_path, "mine", [{**GOOD, **row}], task, more=more)
    found = problem_at(open_recipe(of), "train", 0, TASKS[task], None)
    assert isinstance(found, BrokenRow)
    assert found.why.endswith(f" (field {message})"), found.why


def test_a_wrong_field_names_recipe_row_and_field(tmp_path: Path) -> None:
    of = recipe(tmp_path, "mine", [GOOD], "image_qa", more="fields: {answer: a}\n")
    told = r"recipe mine, split train, row 0: there is no field 'question' \(.*'fields\.question'"
    for use in (
        lambda: open_recipe(of).num_rows("train"),
        lambda: check_recipe(open_recipe(of)),
        lambda: built(_all_of(of, 1), tmp_path / "out"),
    ):
        with pytest.raises(ConfigError, match=told):
            use()
    assert not (tmp_path / "out").exists()


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    of = recipe(tmp_path, "mine", numbered(3), split="eval")
    with pytest.raises(ConfigError, match="recipe mine: there is no train split, only eval"):
        built(_all_of(of, 1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_cut_off_parquet_file_names_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.parquet"
    datasets.Dataset.from_list([dict(row) for row in numbered(50)]).to_parquet(str(file))
    file.write_bytes(file.read_bytes()[:-40])
    of = tmp_path / "mine.yaml"
    of.write_text(
        "name: mine\ntask: math_qa\nlicence: none\nfile: {}\nsplits: {train: mine.parquet}\n"
    )
    with pytest.raises(ConfigError, match=r"recipe mine: .*mine\.parquet: not a readable Parquet"):
        check_recipe(open_recipe(str(of)))
    with pytest.raises(ConfigError, match=r"recipe mine: .*mine\.parquet: not a readable Parquet"):
        built(_all_of(str(of), 5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _all_of(of: str, rows: int) -> object:
    task = "image_qa" if "image_qa" in Path(of).read_text() else "math_qa"
    return mixture(rows=rows, domains={task: {"share": 1.0, "recipes": [of]}})


def test_a_build_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    of = recipe(tmp_path, "mine", numbered(200))

    def interrupt(domain: str, done: int, wanted: int) -> None:
        if done == 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(_all_of(of, 200), tmp_path / "out", progress=interrupt)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.yaml", "mine.jsonl"}


def test_a_build_that_is_killed_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    of = recipe(tmp_path, "mine", numbered(200))
    out = tmp_path / "out"
    context = multiprocessing.get_context("fork")
    there = context.Event()

    def hang(domain: str, done: int, wanted: int) -> None:
        if done == 150:
            there.set()
            time.sleep(60)

    process = context.Process(target=built, args=(_all_of(of, 200), out), kwargs={"progress": hang})
    process.start()
    assert there.wait(60)
    process.kill()
    process.join()
    assert not out.exists()
    (half,) = (path for path in tmp_path.iterdir() if ".part-" in path.name)
    assert half.name.startswith(".out.part-")
    with pytest.raises(ConfigError, match="no folder that `vlrl data build` wrote"):
        read_manifest(half)
    built(_all_of(of, 200), out)
    assert read_manifest(out).domains["math_qa"].rows == 200


def test_a_report_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = check_recipe(open_recipe(recipe(tmp_path, "mine", numbered(3))), tasks=PLAIN_TASKS)
    target = tmp_path / "report.json"

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "write_text", full)
        write_report(report, target)
    assert not target.exists()
