"""Recipe files: real rows through each, and what is said about wrong ones."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import datasets
import pytest
from PIL import Image

from vlrl.config import ConfigError
from vlrl.recipes import OpenRecipe, load_recipe, open_recipe, target
from vlrl.resources import resource_names
from vlrl.tasks.base import RowError

SHARED_RECIPES = {
    "gsm8k": 2000,
    "math": 1999,  # one is skipped
    "svamp": 700,
    "mbpp": 461,
    "mathvision": 1000,
    "tabmwp": 1000,
    "puzzlevqa": 484,
    "knights_knaves": 500,
    "aime": 967,
    "nlvr": 986,
    "sroie": 60,
    "sroie_total": 60,
    "cruxeval_output": 500,
    "mbpp_plus_inputs": 148,  # four are skipped
}


def _write(folder: Path, recipe: str, rows: list[dict[str, object]]) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    path = folder / "mine.yaml"
    path.write_text(recipe, encoding="utf-8")
    return str(path)


MINE = """
name: mine
task: math_qa
licence: none
file: {}
splits: {train: rows.jsonl}
"""


@pytest.mark.parametrize("name", resource_names("data_recipes"))
def test_every_recipe_file_is_valid_and_named_as_its_file(name: str) -> None:
    recipe, path = load_recipe(name)
    assert recipe.name == path.stem == name
    assert recipe.task in ("math_qa", "coding", "image_qa", "logic")
    assert recipe.licence and recipe.citation
    counted = recipe.generator or recipe.rows_unknown or recipe.rows.keys() == recipe.splits.keys()
    assert counted and not (recipe.rows and recipe.rows_unknown), "the expected number of rows"
    OpenRecipe(recipe, path)


@pytest.mark.parametrize("name", SHARED_RECIPES)
def test_every_real_row_comes_through(name: str, shared: Path) -> None:
    recipe = open_recipe(name, shared / "data")
    rows = list(recipe.rows("train"))
    assert len(rows) == SHARED_RECIPES[name]
    assert len({row.id for row in rows}) == len(rows)
    task = recipe.recipe.task
    for row in rows:
        assert row.question
        assert row.answer != ""
        assert len(row.images) == (task == "image_qa")
        assert row.question.count("<image>") <= 1
        assert not row.options or row.answer in row.options
        assert "Unit: None" not in row.question


def test_what_gold_answers_look_like(shared: Path) -> None:
    root = shared / "data"
    gsm8k = {r.answer for r in open_recipe("gsm8k", root).rows()}
    assert all(isinstance(a, str) and a.lstrip("-").replace(".", "").isdigit() for a in gsm8k)
    assert "145" in {r.answer for r in open_recipe("svamp", root).rows()}
    mbpp = next(open_recipe("mbpp", root).rows())
    assert "assert find_Min_Sum(105) == 15" in str(mbpp.extra["code"])
    assert "assert find_Min_Sum(12) == 7" in mbpp.question
    assert "(105)" not in mbpp.question, "the other asserts are hidden"
    exec(target(mbpp) + "\n" + str(mbpp.extra["code"]), {})


def test_prompts_do_not_tell_the_answer(shared: Path) -> None:
    """Fields such as a solution, a caption or a table's text stay out of the prompt."""
    for name, secrets in {
        "tabmwp": ("solution",),
        "puzzlevqa": ("caption", "explanation", "deduction"),
        "gsm8k": ("answer",),
        "knights_knaves": ("solution_text", "solution_text_format"),
    }.items():
        recipe = open_recipe(name, shared / "data")
        assert recipe.recipe.hub
        path = shared / "data" / recipe.recipe.hub.folder / "train.jsonl"
        raws = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for raw, row in zip(raws, recipe.rows(), strict=True):
            for secret in secrets:
                assert not raw.get(secret) or str(raw[secret]) not in row.question


def test_humaneval_from_its_package() -> None:
    rows = list(open_recipe("humaneval").rows("eval"))
    assert len(rows) == 164
    assert rows[0].extra["function"] == "has_close_elements"
    for row in rows[:5]:
        exec(f"{target(row)}\n{row.extra['code']}", {})


def test_easy_vqa_keeps_its_own_splits() -> None:
    recipe = open_recipe("easy_vqa")
    for split, expected in recipe.recipe.rows.items():
        assert recipe.num_rows(split) == expected
    train, test = recipe.row("train", 0), recipe.row("eval", 0)
    assert train.images != test.images
    path = test.images[0]
    assert isinstance(path, Path)
    with Image.open(path) as image:
        assert image.size == (64, 64)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_a_file_of_problems_in_any_format(tmp_path: Path, suffix: str) -> None:
    rows = [{"question": f"{i} + 1 = ?", "answer": str(i + 1)} for i in range(3)]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "jsonl":
        path.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
    elif suffix == "json":
        path.write_text(json.dumps(rows))
    elif suffix == "csv":
        path.write_text("question,answer\n" + "".join(f"{i} + 1 = ?,{i + 1}\n" for i in range(3)))
    else:
        datasets.Dataset.from_list(rows).to_parquet(str(path))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(MINE.replace("rows.jsonl", path.name))
    got = list(open_recipe(str(recipe)).rows())
    assert [(r.question, r.answer) for r in got] == [(r["question"], r["answer"]) for r in rows]
    assert got[1].id == "mine/train/1"


def test_hub_rows_keep_images_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client is replaced by a local table with the same types; no hub was asked."""
    buffer = BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, format="PNG")
    table = datasets.Dataset.from_dict(
        {
            "id": ["7"],
            "question": ["What?\n<image1>"],
            "options": [["a", "b"]],
            "answer": ["B"],
            "image": ["images/7.jpg"],
            "decoded_image": [{"bytes": buffer.getvalue(), "path": None}],
        }
    ).cast_column("decoded_image", datasets.Image())
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    row = open_recipe("mathvision").row("eval", 0)
    assert row.images == (buffer.getvalue(),)
    assert row.answer == "b"
    assert row.question.startswith("What?\n<image>\n(A) a\n(B) b")


def test_an_unreachable_hub_says_how_to_use_a_local_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        ConfigError, match=r"gsm8k.*can't be reached.*data\.root=FOLDER.*math/gsm8k"
    ):
        open_recipe("gsm8k").num_rows("train")
    with pytest.raises(ConfigError, match=r"tabmwp wants a local copy: clone.*data\.root"):
        open_recipe("tabmwp").num_rows("train")


def test_a_split_that_is_not_there_names_those_that_are(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gsm8k: there is no eval split.*there is train"):
        open_recipe("gsm8k", shared / "data").num_rows("eval")
    with pytest.raises(ConfigError, match=r"data\.root holds no folder .*math/gsm8k"):
        open_recipe("gsm8k", tmp_path).num_rows("train")
    with pytest.raises(ConfigError, match="humaneval: there is no train split, only eval"):
        open_recipe("humaneval").num_rows("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("task: math_qa", "tsak: math_qa"), "unknown key 'tsak': did you mean 'task'"),
        (("file: {}", "file: {formt: csv}"), "unknown key 'file.formt': did you mean 'format'"),
        (("file: {}", ""), "one of hub, file, package, generator, built is wanted, not none"),
        (("file: {}", "file: {}\npackage: easy_vqa"), "not file and package"),
        (("licence: none", "licence: none\nanswer: [upper]"), r"key 'answer.0': .*upper"),
        (("licence: none", "licence: none\nprompt: '{{ question'"), "'prompt' is not a Jinja2"),
        (("licence: none", "licence: none\nprompt: '{{ qestion }}'"), "no field 'qestion'"),
        (("licence: none", "licence: none\nfields: {answer: anser}"), "'anser'.*mean 'answer'"),
        (("rows.jsonl", "rosw.jsonl"), "rosw.jsonl: no such file"),
        (("rows.jsonl", "rows.txt"), "unknown suffix"),
    ],
)
def test_wrong_recipes_say_what_is_wrong(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    path = _write(tmp_path, MINE.replace(*change), [{"question": "1 + 1", "answer": "2"}])
    with pytest.raises(ConfigError, match=message) as caught:
        open_recipe(path).num_rows("train")
    assert "mine" in str(caught.value) or str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{nonsense", "line 2: not JSON"),
        ("[1, 2]", "line 2: an object is wanted"),
    ],
)
def test_a_damaged_file_names_the_line(tmp_path: Path, line: str, message: str) -> None:
    path = _write(tmp_path, MINE, [{"question": "1 + 1", "answer": "2"}])
    with (tmp_path / "rows.jsonl").open("a") as lines:
        lines.write(line + "\n")
    with pytest.raises(ConfigError, match=message):
        open_recipe(path).num_rows("train")


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    datasets.Dataset.from_list([{"question": "q", "answer": "a"}] * 50).to_parquet(str(file))
    file.write_bytes(file.read_bytes()[:-40])
    path = _write(tmp_path, MINE.replace("rows.jsonl", "rows.parquet"), [])
    with pytest.raises(ConfigError, match=r"rows\.parquet: not a readable Parquet file"):
        open_recipe(path).num_rows("train")


def test_unknown_recipes_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no data recipe is named 'gsm8': did you mean 'gsm8k'"):
        open_recipe("gsm8")
    with pytest.raises(ConfigError, match=r"my/set\.yaml: no such file"):
        open_recipe("my/set.yaml")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "answer": ""}, "the answer is empty"),
        ({"question": "q", "answer": None}, "the answer is empty"),
        ({"question": 3, "answer": "x"}, "the question is 3, text is wanted"),
        ({"answer": "x"}, "no field 'question'.*'answer'"),
        ({"question": "q", "answer": "x", "image": "gone.png"}, r"gone\.png is missing"),
        ({"question": "q", "answer": "x", "image": 7}, "the image is 7"),
        ({"question": "q", "answer": "x", "options": "a b"}, "the options are 'a b'"),
    ],
)
def test_broken_rows_say_why(tmp_path: Path, row: dict[str, object], message: str) -> None:
    good = {"question": "q", "answer": "a", "image": None, "options": None}
    recipe = MINE + "fields: {images: image, options: options}\n"
    path = _write(tmp_path, recipe, [good, {"image": None, "options": None} | row])
    opened = open_recipe(path)
    assert opened.row("train", 0).answer == "a"
    with pytest.raises(RowError, match=message):
        opened.row("train", 1)


def test_a_prompt_cannot_reach_out_of_its_sandbox(tmp_path: Path) -> None:
    attack = MINE + 'prompt: "{{ question.__class__.__mro__[1].__subclasses__() }}"\n'
    path = _write(tmp_path, attack, [{"question": "q", "answer": "a"}])
    with pytest.raises(RowError, match="unsafe"):
        open_recipe(path).row("train", 0)
    path = _write(tmp_path, MINE, [{"question": "{{ 6 * 7 }}", "answer": "a"}])
    assert open_recipe(path).row("train", 0).question == "{{ 6 * 7 }}"
