from __future__ import annotations

import time

import pytest

from vlrl.sandbox.canaries import suspicious


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("print(1)", set()),
        ("import gc", {"gc"}),
        ("import os, gc\nos._exit(0)", {"gc", "os._exit"}),
        ("from gc import get_objects as g", {"gc"}),
        ("x = __import__('gc')", {"gc"}),
        ("import sys\nf = sys._getframe(1)", {"sys._getframe"}),
        ("tb.tb_frame.f_back", {"sys._getframe"}),
        ("import ctypes", {"ctypes"}),
        ("class A:\n    def __eq__(self, o): return True", {"__eq__"}),
        ("import posix; posix._exit(0)", {"os._exit"}),
        ("gcd = 3; import math; sys.exit(0)", set()),
    ],
)
def test_signs(program: str, found: set[str]) -> None:
    assert suspicious(program) == found


def test_a_long_program_takes_no_time() -> None:
    start = time.process_time()
    for hostile in ("import " * 40_000, "\0" * 10**6, "f_" * 10**5, "import" + " a" * 10**5):
        suspicious(hostile)
    assert time.process_time() - start < 2
