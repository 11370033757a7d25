"""Each recipe's gold answer is correct by the task that judges it, and another row's is not."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import pytest

from vlrl.recipes import load_recipe, open_recipe, target
from vlrl.resources import resource_names
from vlrl.tasks import TASKS, Row
from vlrl.types import Completion, Finish


def _rows(name: str, shared: Path, count: int) -> list[Row]:
    recipe = load_recipe(name)[0]
    split = "train" if "train" in recipe.splits else "eval"
    if recipe.hub:
        split = "train"
    return list(islice(open_recipe(name, shared / "data").rows(split), count))


def _correct(row: Row, text: str, task: str) -> bool:
    judge = TASKS[task]
    answer = f"So it is \\boxed{{{text}}}." if "\\boxed" in row.question else text
    completion = Completion(text=answer, token_ids=(), logprobs=(), finish=Finish.STOP)
    return judge.grade(judge.problem(row), completion).correct


@pytest.mark.parametrize("name", resource_names("data_recipes"))
def test_the_target_is_correct_and_another_rows_is_not(name: str, shared: Path) -> None:
    task = load_recipe(name)[0].task
    rows = _rows(name, shared, 25)
    assert rows
    for row in rows:
        assert _correct(row, target(row), task), row.id
    for row, other in pairwise(rows):
        if target(other) != target(row) and not _is_another_name_of_it(row, target(other)):
            assert not _correct(row, target(other), task), (row.id, target(other))


def _is_another_name_of_it(row: Row, answer: str) -> bool:
    """A letter or number that stands for the right option of this row."""
    letters = [chr(ord("A") + i) for i in range(len(row.options))]
    right = {
        letter for letter, option in zip(letters, row.options, strict=True) if option == row.answer
    }
    return answer in right


def test_a_users_own_problems_from_a_jsonl_file(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text(
        '{"task": "Add two numbers with add(a, b).", "name": "add",'
        ' "calls": [{"args": [1, 2], "expected": 3}, {"args": [5, 5], "expected": 10}]}\n'
    )
    (tmp_path / "own.yaml").write_text(
        "name: own\ntask: coding\nlicence: mine\nfile: {}\nsplits: {train: own.jsonl}\n"
        "fields: {question: task, answer: null, extra: {function: name, calls: calls}}\n"
    )
    row = open_recipe(str(tmp_path / "own.yaml")).row("train", 0)
    assert _correct(row, "```python\ndef add(a, b):\n    return a + b\n```", "coding")
    assert not _correct(row, "```python\ndef add(a, b):\n    return 3\n```", "coding")
