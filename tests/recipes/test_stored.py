"""Rows through Parquet and back, and files that stay on the disk."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlrl import types
from vlrl.config import ConfigError
from vlrl.recipes.lazy import JsonlRows, ParquetRows
from vlrl.recipes.stored import restored, schema, stored
from vlrl.tasks.base import Row, RowError

GOLDS: list[object] = [
    "42",
    -3,
    0.5,
    ["assert f(1) == 2"],
    {"stdio": [{"stdin": "1\n", "stdout": "2\n"}]},
    types.CallTests(
        function="f",
        tests=(types.CallTest(args=((1, {2, 3}), b"x", None), expected={1: (2.5, True)}),),
        tolerance=1e-6,
    ),
    types.StdioTests(tests=(("1", "2"),), tolerance=None),
    types.AssertTests(code="assert f()", prefix="import math"),
    types.UnitTests(code="def test_f(): ..."),
    types.Boxes(boxes=((0.0, 1.0, 2.0, 3.5),), size=(9, 9)),
    types.Points(regions=((0.0, 0.0, 1.0, 1.0), types.Mask(size=(2, 2), runs=(1, 3)))),
    types.JsonFields(value={"a": [1, None, "é"]}),
    types.SimilarText(texts=("a", "b")),
    types.NearNumber(value="3", relative=0.05),
    types.Count(value=7),
    types.Pattern(pattern="a+", example="aa"),
]


@pytest.mark.parametrize("gold", GOLDS, ids=lambda gold: type(gold).__name__)
def test_a_row_comes_back_as_it_was(gold: object, tmp_path: Path) -> None:
    row = Row(
        id="a/train/1",
        source="a",
        question="<image>Wie heißt das?",
        answer=gold,
        options=("x", "y"),
        images=(b"\x89PNG", b"\xff"),
        extra={"function": "f", "calls": [{"args": [1]}]},
        bare="Wie heißt das?",
    )
    values = stored(row, [b"\x89PNG", b"\xff"], 0.25)
    pq.write_table(pa.Table.from_pylist([values], schema=schema()), tmp_path / "a.parquet")
    (raw,) = ParquetRows([tmp_path / "a.parquet"])
    assert restored(raw) == row
    assert raw["pass_rate"] == 0.25


def test_what_cannot_be_stored_is_a_broken_row() -> None:
    for change, message in (
        ({"answer": object()}, "can't be stored: a object is no plain value"),
        ({"extra": {"a": "x" * (1 << 23)}}, "can't be stored: a str of length"),
        ({"question": "half \ud800"}, "half a surrogate pair"),
    ):
        row = Row(**{"id": "a", "source": "a", "question": "q", "answer": "1", **change})
        with pytest.raises(RowError, match=message):
            stored(row, (), None)
    with pytest.raises(RowError, match="not a row that `vlrl data build` wrote"):
        restored({"id": "a"})


def test_jsonl_rows_stay_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    values = [{"n": i, "text": "é" * i} for i in range(50)]
    lines = [json.dumps(value, ensure_ascii=i % 2 == 0) for i, value in enumerate(values)]
    path.write_text("\n\n".join(lines) + "\r\n", encoding="utf-8")
    rows = JsonlRows(path)
    assert list(rows) == values and rows[49] == values[49] and rows[3:5] == values[3:5]
    with pytest.raises(IndexError):
        rows[50]


def test_parquet_rows_keep_few_groups(tmp_path: Path) -> None:
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for number, path in enumerate(paths):
        column = [bytes([number]) * 1000 + bytes([i]) for i in range(40)]
        pq.write_table(pa.table({"x": column, "y": [1] * 40}), path, row_group_size=8)
    rows = ParquetRows(paths, columns=["x"], cache_bytes=24_000)
    assert len(rows) == 80
    for index in (0, 79, 8, 39, 40, 7, 41):
        assert rows[index] == {"x": bytes([index // 40]) * 1000 + bytes([index % 40])}
        assert sum(table.nbytes for table in rows._cache.values()) <= 24_000
    assert len(rows._cache) == 2
    order = list(rows.shuffled(random.Random(1)))
    assert sorted(order) == list(range(80)) and order[:8] != sorted(order[:8])
    assert order == list(rows.shuffled(random.Random(1))) != list(rows.shuffled(random.Random(2)))
    groups = [index // 8 for index in order]
    assert all(len(set(groups[i : i + 8])) == 1 for i in range(0, 80, 8)), "one read a group"
    assert groups != sorted(groups)
    with pytest.raises(IndexError):
        rows[80]
    data = bytearray(paths[1].read_bytes())
    data[200:6000] = bytes(5800)  # the footer stays whole
    paths[1].write_bytes(data)
    with pytest.raises(ConfigError, match=r"b\.parquet, from row 40: not a readable Parquet"):
        ParquetRows(paths)[41]


@pytest.mark.parametrize("order", ["shuffled", "in turn", "any"])
def test_a_large_row_group_is_never_whole_in_memory(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rng = tmp_path / "a.parquet", random.Random(0)
    images = [rng.randbytes(20_000 + 100 * i) for i in range(400)]
    small = pa.table({"x": [b"small"] * 3})
    pages = {"write_batch_size": 4, "data_page_size": 1 << 16}  # a page is the least that is read
    with pq.ParquetWriter(path, small.schema, compression="none", **pages) as writer:
        writer.write_table(small)
        writer.write_table(pa.table({"x": images}))  # one row group of 16 MB
        writer.write_table(small)
    rows = ParquetRows([path], cache_bytes=1 << 20)
    wanted = [b"small"] * 3 + images + [b"small"] * 3
    indices = {
        "shuffled": list(rows.shuffled(random.Random(1))),
        "in turn": list(range(406)),
        "any": [401, 3, 402, 0, 405, 150, 149, 2, 300],
    }[order]
    kept: list[int] = []
    keep = rows._keep
    monkeypatch.setattr(rows, "_keep", lambda at, table: (kept.append(at), keep(at, table))[1])
    before, most = pa.total_allocated_bytes(), 0
    for index in indices:
        assert rows[index] == {"x": wanted[index]}
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 5 << 20
    if order != "any":
        assert sorted(indices) == list(range(406))
        assert len(kept) == len(set(kept)) == len(rows._pieces) > 100, "each is read once"
