from __future__ import annotations

import pytest

from vlrl.recipes.transforms import TransformName, transformed
from vlrl.tasks.base import RowError


@pytest.mark.parametrize(
    ("names", "answer", "gold"),
    [
        (["after_hashes", "strip_commas"], "so 5 #### wrong\n#### 1,234 ", "1234"),
        (["strip_commas"], "(1,2), 12,345,678.5", "(1,2), 12345678.5"),
        (["number"], 145.0, "145"),
        (["number"], "1,000.5", "1000.5"),
        (["boxed"], r"\boxed{1} or \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (["letter_to_option"], "(B)", "blue"),
        (["letter_to_option"], "red", "red"),
        (["truth"], True, "yes"),
        (["truth"], "false", "no"),
        (["lower"], " Yes ", "yes"),
        ([], {"kept": 1}, {"kept": 1}),
    ],
)
def test_transforms(names: list[TransformName], answer: object, gold: object) -> None:
    assert transformed(answer, names, ["red", "blue"]) == gold


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("after_hashes", "no mark"),
        ("number", "many"),
        ("boxed", r"\boxed{1"),
        ("boxed", "none"),
        ("letter_to_option", "C"),
        ("truth", "maybe"),
    ],
)
def test_a_transform_that_does_not_apply_is_a_broken_row(name: TransformName, answer: str) -> None:
    with pytest.raises(RowError):
        transformed(answer, [name], ["red", "blue"])
