"""Choice, text, number, count, assignment."""

from __future__ import annotations

import pytest

from vlrl.grading.assignment import parse_assignment, same_assignment
from vlrl.grading.choice import choose, choose_several
from vlrl.grading.count import read_count
from vlrl.grading.number import parse_number, same_number
from vlrl.grading.text import same_text

CITIES = ("London", "Paris", "Rome", "Berlin")


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        "b",
        "(B)",
        "B.",
        "**B**",
        "option B",
        "B: Paris",
        "B) Paris",
        "Paris",
        "paris.",
        r"\textbf{(B)}",
        "[B]",
        "B is the correct answer.",
    ],
)
def test_choose_paris(answer: str) -> None:
    assert choose(CITIES, answer) == 1


@pytest.mark.parametrize(
    "answer",
    ["", "E", "2", "A or B", "A, B", "AB", "B: London", "Bananas", "not B", "All of these"],
)
def test_choose_nothing(answer: str) -> None:
    assert choose(CITIES, answer) is None


def test_the_text_of_an_option_comes_before_its_letter() -> None:
    assert choose(("B", "A"), "A") == 1
    assert choose(("4", "3"), "B") == 1


def test_two_options_with_one_text_are_told_apart_by_letter_only() -> None:
    assert choose(("red", "red"), "red") is None
    assert choose(("red", "red"), "B") == 1


def test_several_letters() -> None:
    assert choose_several(CITIES, "B, C") == choose_several(CITIES, "C and B") == {1, 2}
    assert choose_several(CITIES, "CB") == {1, 2}
    assert choose_several(CITIES, "B or C") is None


def test_text() -> None:
    assert same_text("Paris", " **paris.** ")
    assert same_text("a dog", "the dog", articles=True)
    assert not same_text("a dog", "the dog")
    for gold, answer in [("", ""), (".*", "x"), ("None", ""), ("C++", "C"), ("5%", "5")]:
        assert not same_text(gold, answer)


def test_number() -> None:
    assert same_number("0.5", "1/2")
    assert same_number("100", "101", tolerance=0.01)
    assert not same_number("100", "102", tolerance=0.01)
    assert not same_number("0", "nan", tolerance=1)
    for text in ("", "inf", "1_000", "1e99999", "12,34", "1/0", "9" * 1000, "0x10"):
        assert parse_number(text) is None


@pytest.mark.parametrize(
    ("response", "count"),
    [
        ("3", 3),
        ("three", 3),
        ("There are 3 cats.", 3),
        ("There are 3 (three) cats.", 3),
        ("There are twenty-one cats.", 21),
        ("two hundred and six", 206),
        ("1 000", 1000),
        ("3\u4e2a", 3),
        ("There are zero cats.", 0),
        *((text, None) for text in ("2 red, 1 blue", "3.5", "one cat and one dog", "two three")),
        *((f"{bound} 3", None) for bound in ("not", "at least", "about", "more than", ">", "~")),
        *((text, None) for text in ("3?", "3%", "3+", "3/1", "\u00b3", "3-4", "3 or more", "none")),
    ],
)
def test_count(response: str, count: int | None) -> None:
    assert read_count(response) == count


def test_assignment() -> None:
    gold = parse_assignment("Abigail is a knave, and Evelyn is a knight.")
    assert gold == {"abigail": "knave", "evelyn": "knight"}
    assert same_assignment(gold, "(1) Evelyn is a knight\n(2) Abigail is a knave")
    for answer in (
        "",
        "Abigail is a knave.",
        "Abigail is a knight, and Evelyn is a knight.",
        "Abigail is a knave, Evelyn is a knight, Evelyn is a knave.",
        "Abigail is a knave, Evelyn is a knight, Bob is a knight.",
        "Either Abigail is a knave, or Evelyn is a knight.",
    ):
        assert not same_assignment(gold, answer)
