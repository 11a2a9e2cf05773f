"""A new store per test, on each backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cagg.ports import Store
from cagg.store.engine import open_store
from cagg.store.sqlite import SqliteStore
from cagg.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """The clock of the test's store."""
    return ManualClock()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(
    request: pytest.FixtureRequest, named_store: Callable[..., AbstractContextManager[Store]], clock: ManualClock
) -> Iterator[Store]:
    """A new store, once on each backend."""
    with named_store(request.param, origin="example.org/test", clock=clock) as opened:
        yield opened


@pytest.fixture
def file_store(tmp_path: Path, clock: ManualClock) -> Iterator[SqliteStore]:
    """A new SQLite store, for what only a file suffers."""
    opened = open_store(f"sqlite:///{tmp_path}/store.db", clock=clock, origin="example.org/test")
    assert isinstance(opened, SqliteStore)
    yield opened
    opened.close()
