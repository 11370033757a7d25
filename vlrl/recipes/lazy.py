"""Rows that stay on the disk: JSONL and Parquet files of any size, read a row at a time."""

from __future__ import annotations

import json
import random
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

from vlrl.config import ConfigError

Raw = Mapping[str, object]
CACHE_BYTES = 128 << 20
"""Parquet row groups that are kept decoded, at least one of them."""
PIECES = 4
"""So many pieces of a large row group fill half of what is kept."""


class JsonlRows(Sequence[Raw]):
    """A JSONL file's rows; in memory is only where each begins.

    Raises:
        ConfigError: not UTF-8, or a line that is no JSON object: all are looked at, once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = array("q")
        start = 0
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    self._parsed(line, f"line {number}")
                    self._starts.append(start)
                start += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Raw: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Raw]: ...
    def __getitem__(self, index: int | slice) -> Raw | Sequence[Raw]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with self._path.open("rb") as lines:
            lines.seek(self._starts[index])
            return self._parsed(lines.readline(), f"row {index}")

    def _parsed(self, line: bytes, where: str) -> Raw:
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self._path}, {where}: not UTF-8 text: {error}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self._path}, {where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{self._path}, {where}: an object is wanted, not {line[:40]!r}")
        return cast(Raw, row)


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Rows that are read at once: a row group, or a part of a large one.

    number: which part of its row group; rows: of each of its parts but the last; first: its first
    row among all; bytes: as the file counts, about.
    """

    path: Path
    group: int
    number: int
    whole: bool
    rows: int
    first: int
    bytes: int


class ParquetRows(Sequence[Raw]):
    """The rows of Parquet files, one after the other; in memory are the last row groups read.

    Any row costs the reading of its row group: in random order that is quick with groups of a few
    MiB, as `vlrl data build` writes them, and in the order of `shuffled` with any. A row group of
    more than half of `cache_bytes` is never whole in memory: it is read from its beginning, in
    pieces. `columns`: those that are read; None: all.

    Raises:
        ConfigError: a file is missing, cut off or no Parquet.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        columns: Sequence[str] | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._columns = list(columns) if columns is not None else None
        self._pieces: list[_Piece] = []
        self._len = 0
        self._window = cache_bytes // 2
        self._file: tuple[Path, Any] | None = None
        for path in paths:
            metadata = self._opened(path).metadata
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                self._add(path, number, group.num_rows, group.total_byte_size)
        self._firsts = [piece.first for piece in self._pieces]
        self._cache: OrderedDict[int, Any] = OrderedDict()
        self._cached_bytes = 0
        self._cache_bytes = cache_bytes
        self._batches: Iterator[Any] | None = None
        self._next = 0  # the piece that `_batches` gives next

    def __len__(self) -> int:
        return self._len

    @overload
    def __getitem__(self, index: int) -> Raw: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Raw]: ...
    def __getitem__(self, index: int | slice) -> Raw | Sequence[Raw]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._len))]
        if not 0 <= index < self._len:
            raise IndexError(f"row {index} of {self._len}")
        place = bisect_right(self._firsts, index) - 1
        table = self._table(place)
        return cast(Raw, table.slice(index - self._firsts[place], 1).to_pylist()[0])

    def shuffled(self, rng: random.Random) -> Iterator[int]:
        """All rows' numbers in an order by chance in which each row group is read once.

        Row groups come in an order by chance, the pieces of a large one after each other; rows are
        mixed among as many as are kept.
        """
        groups = [place for place, piece in enumerate(self._pieces) if piece.number == 0]
        after = dict(zip(groups, [*groups[1:], len(self._pieces)], strict=True))
        rng.shuffle(groups)
        ends = [*self._firsts[1:], self._len]
        window: list[int] = []
        num_bytes = 0
        for place in (place for group in groups for place in range(group, after[group])):
            size = self._pieces[place].bytes
            if window and num_bytes + size > self._window:
                rng.shuffle(window)
                yield from window
                window, num_bytes = [], 0
            window.extend(range(self._firsts[place], ends[place]))
            num_bytes += size
        rng.shuffle(window)
        yield from window

    def _add(self, path: Path, group: int, num_rows: int, num_bytes: int) -> None:
        """The pieces of a row group."""
        if not num_rows:
            return
        whole = num_bytes <= self._window or num_rows == 1
        wanted = 1 if whole else -(-num_bytes * PIECES // self._window)
        rows = max(1, num_rows // wanted)
        for number, start in enumerate(range(0, num_rows, rows)):
            self._pieces.append(
                _Piece(
                    path=path,
                    group=group,
                    number=number,
                    whole=whole,
                    rows=rows,
                    first=self._len + start,
                    bytes=num_bytes * rows // num_rows,
                )
            )
        self._len += num_rows

    def _table(self, place: int) -> Any:
        """The Arrow table of a piece."""
        if place in self._cache:
            self._cache.move_to_end(place)
            return self._cache[place]
        piece = self._pieces[place]
        file = self._opened(piece.path)
        try:
            if not piece.whole:
                return self._read_on(file, place)
            table = file.read_row_group(piece.group, columns=self._columns, use_threads=False)
        except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError
            where = f"{piece.path}, from row {piece.first}"
            raise ConfigError(f"{where}: not a readable Parquet file: {error}") from error
        return self._keep(place, table)

    def _read_on(self, file: Any, place: int) -> Any:
        """A piece of a large row group, read from where the last reading stopped, if it can be."""
        import pyarrow as pa

        piece = self._pieces[place]
        start = place - piece.number
        batches, self._batches = self._batches, None  # after an error, where it stands is not known
        if batches is None or not start < self._next <= place:
            self._next = start
            batches = file.iter_batches(
                piece.rows, row_groups=[piece.group], columns=self._columns, use_threads=False
            )
        while self._next < place:
            self._keep(self._next, pa.Table.from_batches([next(batches)]))
            self._next += 1
        table = self._keep(place, pa.Table.from_batches([next(batches)]))
        self._batches, self._next = batches, place + 1
        return table

    def _keep(self, place: int, table: Any) -> Any:
        if place in self._cache:
            self._cached_bytes -= self._cache.pop(place).nbytes
        self._cache[place] = table
        self._cached_bytes += table.nbytes
        while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return table

    def _opened(self, path: Path) -> Any:
        import pyarrow as pa  # comes with datasets; slow to import, so only where it is wanted
        import pyarrow.parquet as pq

        if self._file and self._file[0] == path:
            return self._file[1]
        if not path.is_file():
            raise ConfigError(f"{path}: no such file")
        try:
            # pyarrow's own way, to buffer ahead, reads all of a row group.
            file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{path}: not a readable Parquet file: {error}") from error
        self._file = path, file
        return file
