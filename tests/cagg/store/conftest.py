"""A new SQLite store per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cagg.store.engine import open_store
from cagg.store.sqlite import SqliteStore
from cagg.testing import ManualClock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = open_store(f"sqlite:///{tmp_path}/store.db", clock=ManualClock(), origin="example.org/test")
    yield opened
    opened.close()
