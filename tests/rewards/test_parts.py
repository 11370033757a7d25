from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlrl.rewards.language import mismatch
from vlrl.rewards.parts import PARTS, boxed, count_boxes, overlong, think
from vlrl.rewards.rules import Rule
from vlrl.types import Completion, Finish, Problem

PROBLEM = Problem(id="p", domain="math_qa", question="How many?", answer="4")
RULE = Rule(max_tokens=100, overlong_buffer=20)

ENGLISH = "The train leaves at nine and arrives two hours later in the town."
CHINESE = "火车九点出发,两个小时以后到达那个城市。请问什么时候到达"
JAPANESE = "電車は九時に出発して、二時間後に町に到着します。"
RUSSIAN = "Поезд отправляется в девять и прибывает через два часа в город на реке."


def completion(text: str, tokens: int = 1, finish: Finish = Finish.STOP) -> Completion:
    return Completion(text=text, token_ids=(7,) * tokens, logprobs=(-1.0,) * tokens, finish=finish)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("so \\boxed{4}.", 1),
        ("\\boxed{\\frac{1}{2}}", 1),
        ("\\boxed{\\{1, 2\\}}", 1),
        ("<think>\\boxed{3}?</think> \\fbox {4}", 1),
        ("4", 0),
        ("\\boxed{}", 0),
        ("\\boxed{ }", 0),
        ("\\boxed{4", 0),
        ("\\boxed{4\\}", 0),
        ("\\boxed 4", 0),
        ("\\boxed{3} \\boxed{4}", 0),
        ("<think> \\boxed{4}", 0),
        ("\\boxedness{4}", 0),
    ],
)
def test_one_closed_box(text: str, value: float) -> None:
    assert boxed(PROBLEM, completion(text), RULE) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>two and two</think>4", 1),
        ("two and two</think>\n4", 1),
        ("  <think>\na\n</think>\n\nb", 1),
        ("4", 0),
        ("<think>two and two 4", 0),
        ("<think></think>4", 0),
        ("<think>a</think>  ", 0),
        ("<think>a</think>b</think>c", 0),
        ("<think>a<think>b</think>c", 0),
        ("a <think>b</think><think>c", 0),
    ],
)
def test_one_reasoning_part(text: str, value: float) -> None:
    assert think(PROBLEM, completion(text), RULE) == value


def test_boxes_after_the_reasoning_are_counted() -> None:
    assert count_boxes("\\boxed{1}</think> \\boxed{2} or \\fbox{3} \\boxed") == 3
    assert count_boxes("<think>\\boxed{1} \\boxed{2}") == 0


@pytest.mark.parametrize(
    ("tokens", "value"), [(1, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (120, -1.0)]
)
def test_the_overlong_penalty_is_dapos(tokens: int, value: float) -> None:
    assert overlong(PROBLEM, completion("x", tokens), RULE) == pytest.approx(value)


def test_a_response_that_was_cut_is_overlong_however_long() -> None:
    """The model's own length may end it before sampler.max_tokens does."""
    assert overlong(PROBLEM, completion("x", 50, Finish.LENGTH), RULE) == -1.0


@pytest.mark.parametrize(
    ("question", "response", "found"),
    [
        (ENGLISH, ENGLISH, False),
        (ENGLISH, CHINESE, True),
        (ENGLISH, RUSSIAN, True),
        (CHINESE, ENGLISH, True),
        (CHINESE, CHINESE, False),
        (CHINESE, JAPANESE, True),
        (JAPANESE, JAPANESE, False),
        (RUSSIAN, RUSSIAN, False),
        # A mixture: a few words of another script are enough, Latin terms are not.
        (ENGLISH, ENGLISH + " 所以答案是", True),
        (CHINESE, CHINESE + " Answer: two GPU cores", False),
        # A question in two scripts may be answered in both.
        (ENGLISH + CHINESE * 2, CHINESE, False),
        # Too little to tell; formulas and code are no language.
        (CHINESE, "\\boxed{4}", False),
        (CHINESE, "$x = y$ \\frac{a}{b} x y z n k", False),
        (CHINESE, "```python\nwhile True: print('one two three four five six')\n```", False),
        ("2 + 2?", RUSSIAN, False),
        # Cannot be seen by script.
        (ENGLISH, "Le train part à neuf heures et arrive deux heures plus tard.", False),
    ],
)
def test_mismatch_by_script(question: str, response: str, found: bool) -> None:
    assert mismatch(question, response) is found


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_part_raises_and_all_keep_their_range(text: str) -> None:
    for name, part in PARTS.items():
        value = part(PROBLEM, completion(text), RULE)
        assert 0 <= value <= 1 if name in ("boxed", "think") else -1 <= value <= 0


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 200_000,
        "$" * 1_000_000,
        "`" * 1_000_001,
        "<" * 1_000_000,
        "<think>" * 100_000,
        "$`<" * 300_000,
        "a" * 1_000_000,
        "语" * 1_000_000,
        "\\" * 1_000_001,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_parts_are_linear_in_the_text(text: str) -> None:
    start = time.process_time()
    for part in PARTS.values():
        part(PROBLEM, completion(text), RULE)
    assert time.process_time() - start < 2
