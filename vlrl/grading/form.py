"""Golds that say themselves how they are judged: one function for each, chosen by type.

A new form is a dataclass in types.py, a pure function in a file of its own, and a line in each of
the functions here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never, cast

from vlrl.grading.box import read_boxes, same_boxes
from vlrl.grading.count import read_count
from vlrl.grading.json_fields import read_json, same_json
from vlrl.grading.literal import read_literal, same_literal
from vlrl.grading.math_answer import Match
from vlrl.grading.math_policy import same_math
from vlrl.grading.number import near_number, parse_number
from vlrl.grading.pattern import PatternError, matches
from vlrl.grading.point import read_points, same_points
from vlrl.grading.response import bare_answer, clean, final_answer, whole_answer
from vlrl.grading.similar import similar_to_one
from vlrl.types import (
    Boxes,
    Count,
    Form,
    JsonFields,
    Mask,
    MathText,
    NearNumber,
    Pattern,
    Points,
    PythonValue,
    SimilarText,
)

TOO_LONG = "comparing the answer took too long"


@dataclass(frozen=True, kw_only=True)
class Found:
    """`answer` is what was read of the response; `timed_out`: comparing it had no end."""

    answer: str
    correct: bool
    note: str = ""
    timed_out: bool = False


def judge_form(gold: Form, response: str) -> Found | None:
    """Whether a response gives what the gold asks for; None if it holds no such answer."""
    if isinstance(gold, Boxes | Points | JsonFields):
        text = whole_answer(response)
        return None if text is None else _judge_layout(gold, text)
    if isinstance(gold, PythonValue):
        text = whole_answer(response)
        if text is None or read_literal(text) is None:
            return None
        return Found(answer=text, correct=same_literal(gold.text, text))
    if isinstance(gold, Count):
        count = read_count(response)
        return None if count is None else Found(answer=str(count), correct=count == gold.value)
    if isinstance(gold, MathText):
        answer = final_answer(response)
        if answer is None:
            return None
        match = same_math(gold, answer)
        timed_out, correct = match is Match.TIMEOUT, match is Match.SAME
        return Found(answer=answer, correct=correct, note=TOO_LONG * timed_out, timed_out=timed_out)
    answer = final_answer(response) or bare_answer(response)
    if answer is None:
        return None
    if isinstance(gold, SimilarText):
        correct = similar_to_one(gold.texts, answer, gold.threshold)
        return Found(answer=answer, correct=correct, note=f"less than {gold.threshold:g} alike")
    if isinstance(gold, NearNumber):
        correct = near_number(gold.value, clean(answer).rstrip("."), gold.relative, gold.absolute)
        return Found(answer=answer, correct=correct)
    if isinstance(gold, Pattern):
        correct = matches(gold.pattern, clean(answer))
        return Found(answer=answer, correct=correct, note="not of the form that was asked for")
    assert_never(gold)


def written(gold: Form) -> str:
    """A response that the gold would be as an answer."""
    if isinstance(gold, Boxes):
        return json.dumps([{"bbox_2d": box} for box in gold.boxes])
    if isinstance(gold, Points):
        return json.dumps([{"point_2d": _point_in(region)} for region in gold.regions])
    if isinstance(gold, JsonFields):
        return json.dumps(gold.value, ensure_ascii=False)
    if isinstance(gold, SimilarText):
        return gold.texts[0] if gold.texts else ""
    if isinstance(gold, NearNumber | MathText):
        return gold.value
    if isinstance(gold, Count):
        return str(gold.value)
    return gold.text if isinstance(gold, PythonValue) else gold.example


def why_unfit(gold: Form) -> str | None:
    """Why a gold can't be judged at all, or None."""
    if isinstance(gold, Boxes):
        if read_boxes(written(gold), gold.size) is None:
            return f"the boxes {gold.boxes!r:.80} are empty, turned round or outside the image"
        if gold.measure not in ("iou", "giou") or not 0 < gold.threshold <= 1:
            return f"no threshold in (0, 1] of iou or giou: {gold.measure} {gold.threshold}"
    if isinstance(gold, JsonFields) and not _is_plain(gold.value):
        return "the value is not plain JSON"
    if isinstance(gold, SimilarText) and not 0 < gold.threshold <= 1:
        return f"the threshold {gold.threshold} is not in (0, 1]"
    if isinstance(gold, NearNumber):
        if parse_number(gold.value) is None:
            return f"{gold.value!r:.80} is no number"
        if not (0 <= gold.relative < 1 and 0 <= gold.absolute < float("inf")):
            return f"no tolerance: relative {gold.relative}, absolute {gold.absolute}"
    if isinstance(gold, PythonValue) and read_literal(gold.text) is None:
        return f"{gold.text!r:.80} is no Python literal"
    if isinstance(gold, MathText) and not gold.value.strip():
        return "the answer is empty"
    if isinstance(gold, Points) and not gold.regions:
        return "there are no regions to point at"
    if isinstance(gold, Pattern):
        try:
            fits = matches(gold.pattern, clean(gold.example))
        except PatternError as error:
            return str(error)
        return None if fits else f"the example {gold.example!r:.80} doesn't match {gold.pattern!r}"
    return None


def _judge_layout(gold: Boxes | Points | JsonFields, text: str) -> Found | None:
    shown = text if len(text) <= 200 else text[:197] + "..."
    if isinstance(gold, Boxes):
        boxes = read_boxes(text, gold.size)
        note = f"{len(boxes or ())} boxes for {len(gold.boxes)} targets, or too far off"
        return (
            None if not boxes else Found(answer=shown, correct=same_boxes(gold, boxes), note=note)
        )
    if isinstance(gold, Points):
        points = read_points(text)
        note = f"{len(points or ())} points for {len(gold.regions)} targets, or outside of them"
        return (
            None
            if not points
            else Found(answer=shown, correct=same_points(gold, points), note=note)
        )
    value = read_json(text)
    return (
        None
        if value is None
        else Found(answer=shown, correct=same_json(gold.value, value[0], gold.min_similarity))
    )


def _point_in(region: Mask | tuple[float, ...]) -> list[float]:
    """A point of the region: a box's middle, a mask's first pixel (that of its longest run)."""
    if not isinstance(region, Mask):
        return [(region[0] + region[2]) / 2, (region[1] + region[3]) / 2]
    inside = range(1, len(region.runs), 2)
    longest = max(inside, key=lambda number: region.runs[number], default=0)
    place = sum(region.runs[:longest])
    return [place // region.size[1] + 0.5, place % region.size[1] + 0.5]


def _is_plain(value: object, depth: int = 0) -> bool:
    """Whether json.dumps and back gives the same value."""
    if depth > 32:
        return False
    if isinstance(value, Mapping):
        fields = cast(Mapping[object, object], value)
        return all(isinstance(k, str) and _is_plain(v, depth + 1) for k, v in fields.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(item, depth + 1) for item in cast(list[object], value))
    if isinstance(value, float):
        return value == value and abs(value) != float("inf")
    return value is None or isinstance(value, str | int | bool)
