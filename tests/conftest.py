"""Fixtures that many tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets and adversarial cases beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(
            "the folder ../shared (data sets, adversarial cases) is not beside this checkout"
        )
    return SHARED
