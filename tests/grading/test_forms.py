"""Boxes, points, JSON, similar text, numbers with a tolerance, patterns: by form.py's dispatch."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from vlrl.grading.box import giou, iou
from vlrl.grading.coordinates import Group
from vlrl.grading.form import judge_form, why_unfit, written
from vlrl.grading.gold import GoldError, form_of
from vlrl.grading.matching import all_matched
from vlrl.grading.pattern import PatternError, matches
from vlrl.grading.similar import edit_distance, similarity
from vlrl.types import Boxes, Form, JsonFields, Mask, NearNumber, Pattern, Points, SimilarText

BOX = Boxes(boxes=((10, 10, 110, 110),), size=(640, 480))
TWO = Boxes(boxes=((10, 10, 110, 110), (200, 200, 300, 300)), size=(640, 480))
MASK = Mask(size=(4, 3), runs=(4, 2, 6))  # column 1, rows 1 and 2
POINTS = Points(regions=((10, 10, 20, 20), MASK))
RECEIPT = JsonFields(value={"total": 9, "date": "25/12/2018", "lines": ["a", "b"], "ok": True})


def correct(gold: Form, response: str) -> bool:
    found = judge_form(gold, response)
    return found is not None and found.correct


@pytest.mark.parametrize(
    "response",
    [
        "[10, 10, 110, 110]",
        "The cat is at [10.0, 10, 110, 110.5].",
        "The cat (a small one, 2 years old) is at [10, 10, 110, 110].",
        '```json\n[{"bbox_2d": [10, 10, 110, 110], "label": "cat"}]\n```',
        '{"x1": 10, "y1": 10, "x2": 110, "y2": 110}',
        "<|box_start|>(10,10),(110,110)<|box_end|>",
        "<|object_ref_start|>the cat<|object_ref_end|><|box_start|>(10,10),(110,110)<|box_end|>",
        "<box>10, 10, 110, 110</box>",
        "<box>[[10, 10, 110, 110]]</box>",
        "(10, 10), (110, 110)",
        "(10, 10, 110, 110)",
        r"\boxed{10, 10, 110, 110}",
        "<think>[0, 0, 1, 1]</think><answer>[10, 10, 110, 110]</answer>",
        r"First [0, 0, 9, 9], but no: \boxed{[10, 10, 110, 110]}",
        "[10, 10, 110, 60]",
    ],
)
def test_one_box(response: str) -> None:
    assert correct(BOX, response)


@pytest.mark.parametrize(
    "response",
    [
        "",
        "[]",
        "10 10 110 110",
        "[10, 10, 110]",
        "[10, 10, 110, 110, 0]",
        "[10, 10, 110, 59]",
        "[110, 110, 10, 10]",
        "[10, 10, 110, 110",
        '[{"bbox_2d": [10, 10, 110, 110], "label": "ca',
        '{"bbox_2d": [10, 10, 110, 110], "bbox_2d": [10, 10, 110, 110]}',
        "[[10, 10, 110, 110], [10, 10, 110, 110]]",
        "[10, 10, 110, 110] or (200, 200, 300, 300)",
        "[10, 10, 110, 110] [NaN, NaN, NaN, NaN]",
        "[nan, nan, nan, nan]",
        "[-inf, -inf, inf, inf]",
        "[10, 10, 1e2, 110]",
        "[-5, 10, 110, 110]",
        "[10, 10, 110, 9999]",
        '["10", "10", "110", "110"]',
        "<think>[10, 10, 110, 110]",
        r"[10, 10, 110, 110] \boxed{}",
        "[" * 100_000,
        "[10, 10, 110, 110]" * 50_000,
    ],
)
def test_no_box(response: str) -> None:
    assert not correct(BOX, response)


def test_boxes_are_matched_one_to_one() -> None:
    assert correct(TWO, "[[205, 200, 300, 300], [10, 10, 110, 110]]")
    assert not correct(TWO, "[[10, 10, 110, 110], [11, 11, 110, 110]]")
    assert not correct(TWO, "[10, 10, 110, 110]")
    near = Boxes(boxes=((0, 0, 10, 10), (0, 0, 10, 8)), threshold=0.8)
    # Only the first target takes the box that is too tall for the second.
    assert correct(near, "[[0, 0, 10, 8], [0, 0, 10, 11]]")
    assert correct(near, "[[0, 0, 10, 11], [0, 0, 10, 8]]")


def test_matching_agrees_with_trying_everything() -> None:
    chance = random.Random(0)
    for _ in range(300):
        choices = [[j for j in range(5) if chance.random() < 0.4] for _ in range(4)]
        orders = itertools.permutations(range(5), 4)
        brute = any(all(order[i] in choices[i] for i in range(4)) for order in orders)
        assert all_matched(choices) == brute


def test_overlap_by_hand() -> None:
    one, other = _box(0, 0, 2, 2), _box(1, 1, 3, 3)
    assert iou(one, other) * 7 == 1
    assert giou(one, other) == iou(one, other) - iou(_box(0, 0, 1, 2), _box(0, 0, 3, 3))
    assert giou(_box(0, 0, 1, 1), _box(2, 0, 3, 1)) * 3 == -1


def _box(*numbers: int) -> Group:
    from fractions import Fraction

    return tuple(Fraction(number) for number in numbers)


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("[[15, 15], [1, 2]]", True),
        ("(1.5, 1.2) and (20, 10)", True),
        ('[{"point_2d": [1, 1], "label": "a"}, {"point_2d": [12, 12]}]', True),
        ('<point x="15" y="15">a</point> <point x="1" y="1">b</point>', True),
        ("[[15, 15], [2, 2]]", False),
        ("[[15, 15], [16, 16]]", False),
        ("[15, 15]", False),
        ("[[15, 15], [1, 2], [1, 1]]", False),
        ("[[15, 15], [1, 3]]", False),
    ],
)
def test_points(response: str, right: bool) -> None:
    assert correct(POINTS, response) is right


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ('{"ok": true, "total": 9.0, "date": "25/12/2018", "lines": ["a", "b"]}', True),
        ('A:\n```\n{"total": 9, "date": "25/12/2018", "lines": ["a", "b"], "ok": true}\n```', True),
        ('It is {"total": 9, "date": "25/12/2018", "lines": ["a", "b"], "ok": true}.', True),
        ('\\boxed{{"total": 9, "date": "25/12/2018", "lines": ["a", "b"], "ok": true}}', True),
        ('{"total": 9, "date": "25/12/2018", "lines": ["a", "b"], "ok": 1}', False),
        ('{"total": "9", "date": "25/12/2018", "lines": ["a", "b"], "ok": true}', False),
        ('{"total": true, "date": "25/12/2018", "lines": ["a", "b"], "ok": true}', False),
        ('{"total": 8, "total": 9, "date": "25/12/2018", "lines": ["a", "b"], "ok": true}', False),
        ('{"total": 9, "date": "25/12/2018", "lines": ["b", "a"], "ok": true}', False),
        ('{"total": 9, "date": "25/12/2018", "lines": ["a", "b"], "ok": true} {}', False),
        ('{"total": 9, "date": "25/12/2018", "lines": ["a", "b"], "ok": true, "x": 1}', False),
        ('{"total": 1e999999999, "date": "", "lines": [], "ok": true}', False),
        ('{"a":' * 100_000, False),
        ("```json\n{", False),
        ("null", False),
    ],
)  # fmt: skip
def test_json(response: str, right: bool) -> None:
    assert correct(RECEIPT, response) is right


def test_texts_in_json_may_be_read_nearly_right() -> None:
    gold = JsonFields(value={"company": "BOOK TA .K SDN BHD", "total": 9}, min_similarity=0.9)
    assert correct(gold, '{"company": "BOOK TA.K SDN BHD", "total": 9}')
    assert not correct(gold, '{"company": "BOOK", "total": 9}')
    assert not correct(gold, '{"company": "BOOK TA .K SDN BHD", "total": 9.1}')


def test_edit_distance_agrees_with_the_table() -> None:
    chance = random.Random(0)
    for _ in range(500):
        one, other = ("".join(chance.choices("abc", k=chance.randrange(9))) for _ in "12")
        assert edit_distance(one, other) == _by_table(one, other) == edit_distance(other, one)


def _by_table(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


def test_similar_text() -> None:
    gold = SimilarText(texts=("Kuala Lumpur", "KL"), threshold=0.8)
    for text in ("kuala lumpur", "Kuala Lumpvr", "KL"):
        assert correct(gold, text)
    for text in ("", "K", "Kuala", "Kuala Lumpur Kuala Lumpur", "x" * 100_000):
        assert not correct(gold, text)
    assert similarity("", "") == 0.0


def test_near_numbers() -> None:
    gold = NearNumber(value="50", relative=0.02, absolute=0.5)
    assert [correct(gold, f"{n}") for n in ("49", "51", "48.9", "51.1", "nan")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert correct(NearNumber(value="0", absolute=0.1), r"\boxed{0.1}")


@pytest.mark.parametrize(
    "pattern",
    ["a*", "(a|b)*c", "a{2,3}b?", "[a-c]+", "[^a]b", "a|b|", "(?:ab)+", "(a|aa)*b", "a{0}b",
     "(a?){3}b", "a{2,}", r"\d+\.\d{2}", "a{0,2}", "(a|b){2}(c|)", "[]a]+",
     r"[\d.-]*", "((a*)*)*b"],
)  # fmt: skip
def test_patterns_agree_with_re(pattern: str) -> None:
    chance = random.Random(0)
    for _ in range(300):
        text = "".join(chance.choices("abc1.-]", k=chance.randrange(7)))
        assert matches(pattern, text) == bool(re.fullmatch(pattern, text)), text


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "[a", "a{", "a**", "*a", r"(a)\1", "(?=a)", "a{2,1}", "a{99}{99}", "^a$",
     "((a{50}){50}){50}", "(" * 5000, "a\\"],
)  # fmt: skip
def test_patterns_of_no_use(pattern: str) -> None:
    with pytest.raises(PatternError):
        matches(pattern, "a")
    assert why_unfit(Pattern(pattern=pattern, example="a"))


def test_golds_are_read_from_plain_data() -> None:
    assert form_of("boxes", [1, 2, 3, 4]) == Boxes(boxes=((1, 2, 3, 4),))
    assert form_of("boxes", {"boxes": [[1, 2, 3, 4]], "giou": 0.3, "size": [9, 9]}) == Boxes(
        boxes=((1, 2, 3, 4),), threshold=0.3, measure="giou", size=(9, 9)
    )
    assert form_of("similar_text", "Ipoh") == SimilarText(texts=("Ipoh",))
    assert form_of("points", {"masks": [{"size": [4, 3], "counts": [4, 2, 6]}]}) == Points(
        regions=(MASK,)
    )
    for gold in (BOX, TWO, POINTS, RECEIPT):
        assert why_unfit(gold) is None
        assert correct(gold, written(gold))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("boxes", []),
        ("boxes", {"boxes": [[3, 3, 1, 1]]}),
        ("boxes", {"boxes": [[0, 0, 9, 9]], "size": [5, 5]}),
        ("boxes", {"boxes": [[0, 0, 9, 9]], "iou": 0}),
        ("boxes", {"boxes": [[0, 0, 9, True]]}),
        ("boxes", {"boxes": [[0, 0, 9, 9]], "uio": 0.5}),
        ("points", {"boxes": []}),
        ("points", {"masks": [{"size": [4, 3], "counts": [4]}]}),
        ("json", {"x": float("nan")}),
        ("similar_text", ""),
        ("number", "many"),
        ("number", {"value": 1, "relative": -1}),
        ("count", 2.5),
        ("pattern", {"pattern": "(", "example": "a"}),
        ("pattern", {"pattern": "b", "example": "a"}),
        ("colour", "red"),
    ],
)
def test_golds_out_of_shape(kind: str, data: object) -> None:
    with pytest.raises(GoldError):
        form_of(kind, data)  # type: ignore[arg-type]
