"""The core's tests never leave this machine, and run on a PostgreSQL server of their own."""

from __future__ import annotations

import contextlib
import ipaddress
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from cagg.ports import Store
from cagg.store.engine import open_store
from cagg.testing import ManualClock
from cagg.testing.postgresql import LocalPostgres


def _is_loopback(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host)).is_loopback
    except ValueError:
        return False


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple) and not _is_loopback(arguments[1][0]):
        raise RuntimeError(f"a test wanted to connect to {arguments[1]!r}; tests use recorded answers or loopback")
    if event == "socket.getaddrinfo" and not _is_loopback(arguments[0]):
        raise RuntimeError(f"a test wanted to look up {arguments[0]!r}; tests use recorded answers or loopback")


def pytest_configure() -> None:
    """Watch the interpreter's own audit events: no library gets around them."""
    sys.addaudithook(_refuse_network)


@pytest.fixture(scope="session")
def postgres() -> Iterator[LocalPostgres]:
    """One server per test process."""
    with LocalPostgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: LocalPostgres) -> Iterator[str]:
    """The address of a new store on PostgreSQL, migrated and empty."""
    url = postgres.new_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new store, once on each backend."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def named_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AbstractContextManager[Store]]:
    """Open a new store on ``sqlite`` or ``postgresql`` whose log has the given name."""

    @contextlib.contextmanager
    def opened(backend: str, *, origin: str, clock: ManualClock | None = None) -> Iterator[Store]:
        clock = clock or ManualClock()
        if backend == "sqlite":
            store = open_store(str(tmp_path_factory.mktemp("store") / "store.db"), clock=clock, origin=origin)
            yield store
            store.close()
            return
        server: LocalPostgres = request.getfixturevalue("postgres")
        url = server.empty_database()
        store = open_store(url, clock=clock, origin=origin)
        store.migrate()
        yield store
        store.close()
        server.drop_database(url)

    return opened
