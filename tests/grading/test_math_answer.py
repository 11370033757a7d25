from __future__ import annotations

import pytest

from vlrl.grading import cas
from vlrl.grading.math_answer import Match, same_answer

EXACT = [
    ("5", "5.0"),
    ("1234", "1,234"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", r"\dfrac12"),
    (r"1\frac{1}{2}", "1.5"),
    ("0.75", r"75\%"),
    ("1500", r"1.5\cdot 10^3"),
    ("12", r"12\text{ cm}"),
    (r"12\text{ cm}", "12"),
    ("5", "x = 5"),
    ("(1,2)", r"\left(1, 2\right)"),
    (r"\{1,2\}", r"\{2,1\}"),
    (r"\text{east}", "East"),
    (r"10^{10^{10}}", r"10^{10^{10}}"),
]
ALGEBRA = [
    ("2x+2", "2(x+1)"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"\frac{\pi}{4}", r"0.25\pi"),
    (r"\{1,\sqrt{8}\}", r"\{2\sqrt{2},1\}"),
    (r"\gcd(12,18)", "6"),
]
WRONG = [
    ("5", "6"),
    (r"\frac{1}{3}", "0.333333333"),
    ("(1,2)", r"\{1,2\}"),
    ("(1,2)", "[1,2]"),
    ("(1,2)", "(2,1)"),
    (r"12\text{ cm}", r"12\text{ m}"),
    ("5", "1=2=3=4=5"),
    ("5", "6=5"),
    ("3", r"1 \text{ or } 3"),
    ("3", r"\{1,2,3\}"),
    ("7", "1+2+4"),
    ("42", r"6 \cdot 7"),
    ("6", r"\gcd(12,18)"),
    (r"2\pi", r"\max(2,3)"),
    ("2", r"\pm 2"),
    ("22,500", r"\{22,500\}"),
    ("5", "5 if True else 6"),
    ("5", "5\0"),
    ("5", "__import__('os').getpid() or 5"),
    ("5", ""),
    ("", ""),
    ("", "5"),
    ("X^2+a", "x^2+A"),
]


@pytest.mark.parametrize(("gold", "answer"), EXACT)
def test_exact_answers_need_no_algebra(
    gold: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cas, "default_pool", lambda: pytest.fail("asked the CAS"))
    assert same_answer(gold, answer) is Match.SAME


@pytest.mark.parametrize(("gold", "answer"), ALGEBRA)
def test_algebra(gold: str, answer: str) -> None:
    assert same_answer(gold, answer) is Match.SAME


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_wrong_answers(gold: str, answer: str) -> None:
    assert same_answer(gold, answer) is Match.DIFFERENT
