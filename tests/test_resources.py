from __future__ import annotations

from pathlib import Path

import pytest

from vlrl import resources
from vlrl.config import ConfigError


def test_resources_lie_beside_the_package_or_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a checkout beside vlrl/, in a wheel inside it."""
    assert resources.resource_folder("data_recipes") == resources.PACKAGE.parent / "data_recipes"
    installed = tmp_path / "site-packages" / "vlrl"
    (installed / "evals").mkdir(parents=True)
    (installed / "evals" / "mine.yaml").write_text("name: mine\n")
    monkeypatch.setattr(resources, "PACKAGE", installed)
    assert resources.find_yaml("mine", "evals") == installed / "evals" / "mine.yaml"
    with pytest.raises(FileNotFoundError, match="install vlrl again"):
        resources.resource_folder("data_recipes")


def test_a_name_is_no_path_and_a_path_no_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no suite is named 'gsm9k': did you mean 'gsm8k'"):
        resources.find_yaml("gsm9k", "evals")
    with pytest.raises(ConfigError, match=r"gsm8k\.yaml: no such file"):
        resources.find_yaml(str(tmp_path / "gsm8k.yaml"), "evals")
