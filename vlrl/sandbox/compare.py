"""What a program gave against what was expected; plain builtins only, outside the sandbox."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

BLANKS = " \t\r\n"
"""And no others: a no-break space is something else than was asked for."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?")


def same_value(got: object, expected: object, tolerance: float = 0.0) -> bool:
    """Equal, where a list may stand for a tuple and an int for an equal float.

    A tolerance is absolute below 1 and relative above; NaN and infinities are never within it.
    """
    if isinstance(expected, str | bytes) or isinstance(got, str | bytes):
        return type(got) is type(expected) and got == expected
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping) or len(got) != len(expected):
            return False
        return all(k in got and same_value(got[k], expected[k], tolerance) for k in expected)
    if isinstance(expected, Sequence):
        if not isinstance(got, Sequence) or len(got) != len(expected):
            return False
        return all(same_value(g, e, tolerance) for g, e in zip(got, expected, strict=True))
    if got == expected:
        return True
    if isinstance(got, int | float) and isinstance(expected, int | float) and tolerance > 0:
        return _close(got, expected, tolerance)
    return False


def same_output(got: str, expected: str, tolerance: float | None = None) -> bool:
    """Line by line; blanks at the ends of lines and blank lines at the end don't count.

    With a tolerance, tokens that are both plain decimal numbers may differ by it.
    """
    if got == expected:
        return True
    got_lines, expected_lines = _lines(got), _lines(expected)
    if tolerance is None or len(got_lines) != len(expected_lines):
        return got_lines == expected_lines
    return all(
        _same_line(g.split(), e.split(), tolerance)
        for g, e in zip(got_lines, expected_lines, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip(BLANKS) for line in text.rstrip(BLANKS).split("\n")]


def _same_line(got: Sequence[str], expected: Sequence[str], tolerance: float) -> bool:
    if len(got) != len(expected):
        return False
    return all(_same_token(g, e, tolerance) for g, e in zip(got, expected, strict=True))


def _same_token(got: str, expected: str, tolerance: float) -> bool:
    if got == expected:
        return True
    if not _NUMBER.fullmatch(got) or not _NUMBER.fullmatch(expected):
        return False
    return _close(float(got), float(expected), tolerance)


def _close(got: float, expected: float, tolerance: float) -> bool:
    try:
        if not (math.isfinite(got) and math.isfinite(expected)):
            return False
        return math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer beyond the floats: equal or not was decided before
        return False
