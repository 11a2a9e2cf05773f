"""The contract that every store keeps, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cagg.ports import Store
from cagg.store.engine import open_store
from cagg.testing import ManualClock
from cagg.testing.stores import StoreContract


class TestPostgresqlStore(StoreContract):
    @pytest.fixture
    def store(self, clock: ManualClock, postgres_url: str) -> Iterator[Store]:
        opened = open_store(postgres_url, clock=clock)
        yield opened
        opened.close()
