"""Boxes (x1, y1, x2, y2): as many as there are targets, matched one to one, each near enough."""

from __future__ import annotations

from fractions import Fraction

from vlrl.grading.coordinates import Group, read_groups
from vlrl.grading.matching import all_matched
from vlrl.types import Boxes


def read_boxes(text: str, size: tuple[int, int] | None = None) -> tuple[Group, ...] | None:
    """The boxes in a text; None if one is empty, turned round or outside the image."""
    found = read_groups(text, 4)
    if not found or any(not _is_box(box, size) for box in found):
        return None
    return found


def same_boxes(gold: Boxes, found: tuple[Group, ...]) -> bool:
    """Whether every target has a box of its own with an overlap of at least the threshold."""
    if not gold.boxes or len(found) != len(gold.boxes):
        return False
    threshold = Fraction(str(gold.threshold))
    measure = giou if gold.measure == "giou" else iou
    targets = [exact_box(box) for box in gold.boxes]
    near = [
        [j for j, box in enumerate(found) if measure(target, box) >= threshold]
        for target in targets
    ]
    return all_matched(near)


def iou(one: Group, other: Group) -> Fraction:
    """Area of the intersection over that of the union; exact."""
    return _overlap(one, other) / _union(one, other)


def giou(one: Group, other: Group) -> Fraction:
    """IoU less the share of the smallest box around both that neither covers (arXiv:1902.09630)."""
    union = _union(one, other)
    hull = (max(one[2], other[2]) - min(one[0], other[0])) * (
        max(one[3], other[3]) - min(one[1], other[1])
    )
    return _overlap(one, other) / union - (hull - union) / hull


def exact_box(box: tuple[float, ...]) -> Group:
    """A gold's numbers as written: 0.1 is a tenth."""
    return tuple(Fraction(str(value)) for value in box)


def _overlap(one: Group, other: Group) -> Fraction:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else Fraction(0)


def _union(one: Group, other: Group) -> Fraction:
    return _area(one) + _area(other) - _overlap(one, other)


def _area(box: Group) -> Fraction:
    return (box[2] - box[0]) * (box[3] - box[1])


def _is_box(box: Group, size: tuple[int, int] | None) -> bool:
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return False
    return size is None or (x1 >= 0 and y1 >= 0 and x2 <= size[0] and y2 <= size[1])
