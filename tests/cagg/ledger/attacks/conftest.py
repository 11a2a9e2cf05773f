"""The log of 300 entries, filled once on each backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from cagg.ports import Store
from cagg.testing.tampering import ORIGIN, AttackedLog, fill


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def log(
    request: pytest.FixtureRequest, named_store: Callable[..., AbstractContextManager[Store]]
) -> Iterator[AttackedLog]:
    """The filled log, once on each backend; attacks on it are taken back."""
    with named_store(request.param, origin=ORIGIN) as store:
        yield fill(store)


@pytest.fixture(scope="module")
def file_log(named_store: Callable[..., AbstractContextManager[Store]]) -> Iterator[AttackedLog]:
    """The filled log in a file, for what only a file suffers."""
    with named_store("sqlite", origin=ORIGIN) as store:
        yield fill(store)
