"""Tests that let other people's tools loose on our models; `make clients` runs them where those are installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_training import KINDS

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Their imports are not there unless they were asked for; then a missing one is an error."""
    return True if config.option.markexpr == "not clients" and HERE in collection_path.parents else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("clients")


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """One of the small models."""
    return request.param
