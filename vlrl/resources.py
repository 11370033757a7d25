"""Finds the package's data files, in a checkout and in an installed wheel alike.

In a checkout `data_recipes/` and `evals/` lie beside the package; a wheel carries them inside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from vlrl.config import ConfigError

PACKAGE = Path(__file__).resolve().parent


def resource_folder(name: Literal["data_recipes", "evals", "presets"]) -> Path:
    """The folder of that name.

    Raises:
        FileNotFoundError: neither inside the package nor beside it.
    """
    for folder in (PACKAGE / name, PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{name}/ is neither in {PACKAGE} nor beside it: install vlrl again")


def resource_names(name: Literal["data_recipes", "evals", "presets"]) -> list[str]:
    """The names, without `.yaml`, of what the folder holds."""
    return sorted(path.stem for path in resource_folder(name).glob("*.yaml"))


def find_yaml(name_or_path: str, folder: Literal["data_recipes", "evals", "presets"]) -> Path:
    """The YAML file that a name (`gsm8k`) or a path (`my/set.yaml`) means.

    Raises:
        ConfigError: no such name (with the nearest ones) or no such file.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise ConfigError(f"{path}: no such file")
        return path
    names = resource_names(folder)
    if name_or_path not in names:
        noun = {"data_recipes": "data recipe", "evals": "suite", "presets": "preset"}[folder]
        raise ConfigError(f"no {noun} is named {name_or_path!r}: {nearest(name_or_path, names)}")
    return resource_folder(folder) / f"{name_or_path}.yaml"


def nearest(name: str, names: Iterable[str]) -> str:
    """The tail of an error message about an unknown name."""
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    return f"there are {', '.join(known)}"
