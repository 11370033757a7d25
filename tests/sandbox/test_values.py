from __future__ import annotations

import itertools
import json
import math
import time
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlrl.sandbox.compare import same_output, same_value
from vlrl.sandbox.guest.values import Unplain, dumps, loads

ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
ATOMS |= st.binary() | st.complex_numbers(allow_nan=False)
HASHABLE = st.integers() | st.text()
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.sets(HASHABLE)
        | st.dictionaries(HASHABLE, inner)
    ),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_plain_values_come_back_the_same(value: object) -> None:
    back = loads(dumps(value))
    assert back == value
    assert type(back) is type(value)


@given(
    st.binary(max_size=60) | st.text(alphabet='[]{}":,0123tsdifb\\', max_size=60).map(str.encode)
)
def test_any_bytes_are_a_value_or_unplain(line: bytes) -> None:
    try:
        loads(line)
    except Unplain:
        return


def test_other_values_are_refused() -> None:
    odd = [object(), print, itertools.count(), type("E", (int,), {})(1)]
    for value in [*odd, 1 << (1 << 21), "x" * (1 << 23)]:
        with pytest.raises(Unplain):
            dumps(value)


@pytest.mark.parametrize("tag", ["s", "z", "d"])
def test_keys_that_collide_are_refused_in_time(tag: str) -> None:
    keys = [{"i": hex(n * ((1 << 61) - 1))} for n in range(100_000)]
    body = [[key, None] for key in keys] if tag == "d" else keys
    start = time.process_time()
    with pytest.raises(Unplain, match="same hash"):
        loads(json.dumps({tag: body}).encode())
    assert time.process_time() - start < 3
    honest = dict.fromkeys(range(100_000))
    assert loads(dumps(honest)) == honest


def test_values_that_have_a_plain_form() -> None:
    point = namedtuple("point", "x y")(1, 2)
    for value, plain in [
        (point, (1, 2)),
        ((n for n in "ab"), ["a", "b"]),
        (map(abs, [-1]), [1]),
        ({1: 2}.items(), [(1, 2)]),
        (range(3), [0, 1, 2]),
        (np.eye(2), [[1.0, 0.0], [0.0, 1.0]]),
        (np.float64(0.5), 0.5),
    ]:
        back = loads(dumps(value))
        assert back == plain
        assert type(back) is type(plain)
    with pytest.raises(Unplain):
        dumps(np.array([object()]))


@pytest.mark.parametrize(
    "line",
    [
        b"1",
        b"NaN",
        b'{"x": 1}',
        b'{"i": "0x' + b"f" * 300_000 + b'"}',
        b"[" * 100_000,
        b'{"s": [[]]}',
        b'{"i": 3}',
        b'{"d": [1]}',
        b'{"c": []}',
        b'{"f": null}',
    ],
)
def test_forged_lines_are_refused(line: bytes) -> None:
    with pytest.raises(Unplain):
        loads(line)


def test_same_value() -> None:
    assert same_value((1, [2.0]), [1, (2,)])
    assert same_value({"a": 0.3}, {"a": 0.1 + 0.2}, tolerance=1e-9)
    assert same_value({1, 2}, {2, 1})
    for got, expected in [([1], {1}), ("1", 1), (b"a", "a"), ([1, 2], [1]), ({}, []), (None, 0)]:
        assert not same_value(got, expected)
    for bad in (math.nan, math.inf, 10**400):
        assert not same_value(bad, 1.0, tolerance=1e9)
    assert not same_value(0.31, 0.3, tolerance=1e-3)


def test_same_output() -> None:
    assert same_output("1 \n2\r\n \n\n", "1\n2\n")
    assert same_output("1\n\n2", "1\n \n2\n")
    for got in ("1\n\n2", "\n1\n2", "1\n2\u00a0", "1\n2\u200b", "1\x0b2"):
        assert not same_output(got, "1\n2")
    assert same_output("0.3000000001 ok", "0.3 ok", tolerance=1e-6)
    for got in ("1", "1 2", "1\n2\n3", "\uff11\n2", "1_0\n2"):
        assert not same_output(got, "1\n2", tolerance=1e-6)
    assert not same_output("nan", "1", tolerance=1e9)
    assert not same_output("1.0", "1")
