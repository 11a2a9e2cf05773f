"""The contract that every store keeps, on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cagg.ports import Store
from cagg.store.engine import open_store
from cagg.testing import ManualClock
from cagg.testing.stores import StoreContract


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, clock: ManualClock, tmp_path: Path) -> Iterator[Store]:
        opened = open_store(f"sqlite:///{tmp_path}/store.db", clock=clock)
        yield opened
        opened.close()
