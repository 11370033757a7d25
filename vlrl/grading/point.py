"""Points: as many as there are regions, one in each; a region is a box or a mask."""

from __future__ import annotations

from vlrl.grading.box import exact_box
from vlrl.grading.coordinates import Group, read_groups
from vlrl.grading.matching import all_matched
from vlrl.types import Mask, Points


def read_points(text: str) -> tuple[Group, ...] | None:
    """The points in a text; None if there is none, or something else than points."""
    return read_groups(text, 2) or None


def same_points(gold: Points, found: tuple[Group, ...]) -> bool:
    """Whether each region has a point of its own; a box's edge belongs to it."""
    if not gold.regions or len(found) != len(gold.regions):
        return False
    inside = [
        [j for j, point in enumerate(found) if _holds(region, point)] for region in gold.regions
    ]
    return all_matched(inside)


def _holds(region: Mask | tuple[float, ...], point: Group) -> bool:
    x, y = point
    if not isinstance(region, Mask):
        x1, y1, x2, y2 = exact_box(region)
        return x1 <= x <= x2 and y1 <= y <= y2
    width, height = region.size
    if not (0 <= x < width and 0 <= y < height):
        return False
    place = int(x) * height + int(y)
    for number, length in enumerate(region.runs):
        place -= length
        if place < 0:
            return number % 2 == 1
    return False
