from __future__ import annotations

import pytest

from tests.tasks.responses import grade, row
from vlrl.tasks import TASKS, RowError
from vlrl.types import Boxes, Choice, NearNumber, Status

OPTIONS = ("red", "blue", "green")


@pytest.mark.parametrize("domain", ["image_qa", "logic"])
@pytest.mark.parametrize(
    ("text", "correct"),
    [
        ("blue", True),
        ("Blue.", True),
        ("The answer is blue.", True),
        (r"\boxed{blue}", True),
        ("<think>red?</think> blue", True),
        ("red", False),
        ("red or blue", False),
        ("red blue", False),
        ("red, blue", False),
        ("blue\nred", False),
        ("not blue", False),
        ("", False),
    ],
)
def test_one_word(domain: str, text: str, correct: bool) -> None:
    assert grade(domain, row("blue"), text).correct is correct
    assert grade(domain, row("blue", options=OPTIONS), text).correct is correct


@pytest.mark.parametrize("domain", ["image_qa", "logic"])
def test_options(domain: str) -> None:
    problem = TASKS[domain].problem(row("B", options=OPTIONS))
    assert problem.answer == Choice(options=OPTIONS, answer="blue")
    assert grade(domain, row("B", options=OPTIONS), "(B)").correct
    assert not grade(domain, row("B", options=OPTIONS), "A").correct
    with pytest.raises(RowError, match="none of the options"):
        TASKS[domain].problem(row("pink", options=OPTIONS))


@pytest.mark.parametrize(
    ("gold", "text", "correct"),
    [
        ("yes", "yes", True),
        ("yes", "yes no", False),
        ("a dog", "The dog.", True),
        ("3", "three", True),
        ("3", "3.0", True),
        ("3", "4", False),
        (r"\frac{1}{2}", "0.5", True),
        (r"2\sqrt{2}", r"\boxed{\sqrt{8}}", True),
        ("1,234", "1234", True),
    ],
)
def test_image_qa_reads_numbers_and_latex(gold: str, text: str, correct: bool) -> None:
    assert grade("image_qa", row(gold), text).correct is correct


def test_logic_assignments() -> None:
    gold = row("Zoey is a knight, and Riley is a knave.")
    assert grade("logic", gold, "Riley is a knave, and Zoey is a knight.").correct
    assert grade("logic", gold, r"So \boxed{Zoey is a knight and Riley is a knave}.").correct
    assert not grade("logic", gold, "Zoey is a knight, and Riley is a knight.").correct
    assert not grade("logic", gold, "Zoey is a knight.").correct
    assert grade("logic", gold, "").status is Status.UNPARSABLE


def test_logic_evaluates_nothing() -> None:
    assert grade("logic", row("42"), "42.0").correct
    assert not grade("logic", row("42"), "6*7").correct


@pytest.mark.parametrize("domain", ["image_qa", "logic"])
@pytest.mark.parametrize(
    "answer",
    ["0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, yes, no, A, B, C, D", "\u200b", "}{\n{", "."],
)
def test_golds_that_mean_nothing(domain: str, answer: str) -> None:
    with pytest.raises(RowError):
        TASKS[domain].problem(row(answer))


@pytest.mark.parametrize("domain", ["image_qa", "logic"])
@pytest.mark.parametrize("answer", ["0", "zero", "0.0", "yes", "] ) }", "a b c", "(A)", "C++"])
def test_golds_that_can_be_judged(domain: str, answer: str) -> None:
    assert TASKS[domain].problem(row(answer)).answer == answer


@pytest.mark.parametrize("domain", ["image_qa", "logic"])
def test_forms_are_judged_alike_in_every_task(domain: str) -> None:
    gold = Boxes(boxes=((10, 10, 110, 110),))
    assert grade(domain, row(gold), "[10, 10, 110, 112]").correct
    assert "too far off" in grade(domain, row(gold), "[60, 10, 110, 112]").note
    assert grade(domain, row(gold), "There is no cat.").status is Status.UNPARSABLE
    with pytest.raises(RowError, match="0 would be correct"):
        TASKS[domain].problem(row(NearNumber(value="0.1", absolute=1)))
