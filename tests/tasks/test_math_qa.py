from __future__ import annotations

import pytest

from tests.tasks.responses import grade, row
from vlrl.tasks import TASKS, RowError
from vlrl.types import Status


@pytest.mark.parametrize(
    "text", ["42", "$42$", r"\boxed{42}", "The answer is 42.", "84/2", "#### 42"]
)
def test_right(text: str) -> None:
    verdict = grade("math_qa", row("42"), text)
    assert (verdict.correct, verdict.reward, verdict.parts) == (True, 1.0, {"correct": 1.0})


@pytest.mark.parametrize("text", ["I count 42 of them.", "", "Perhaps 42", r"<think>\boxed{42}"])
def test_no_answer(text: str) -> None:
    verdict = grade("math_qa", row("42"), text)
    assert (verdict.status, verdict.reward) == (Status.UNPARSABLE, 0.0)
    assert verdict.note


@pytest.mark.parametrize("text", ["40 + 2", r"\boxed{40 + 2}", "41", r"\boxed{6 \times 7}"])
def test_wrong_or_left_undone(text: str) -> None:
    verdict = grade("math_qa", row("42"), text)
    assert (verdict.status, verdict.correct) == (Status.OK, False)
    assert verdict.parsed is not None


def test_worked_solutions_and_numbers_as_golds() -> None:
    task = TASKS["math_qa"]
    assert task.problem(row("6 * 7 = 42\n#### 42")).answer == "42"
    assert task.problem(row(145.0)).answer == "145"


@pytest.mark.parametrize("answer", ["", "  ", None, True, [1], "\0"])
def test_rows_without_an_answer(answer: object) -> None:
    with pytest.raises(RowError):
        TASKS["math_qa"].problem(row(answer))


def test_a_row_without_a_question() -> None:
    with pytest.raises(RowError, match="question"):
        TASKS["math_qa"].problem(row("42", question=" "))
