"""Opens a store by its address."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from cagg.errors import MissingExtra
from cagg.masking import masked
from cagg.ports import Clock
from cagg.store._addresses import is_postgresql
from cagg.store.sqlite import CreateMode, SqliteStore, path_of_url

if TYPE_CHECKING:
    from cagg.store.postgresql import PostgresqlStore

__all__ = ["CreateMode", "is_postgresql", "masked", "open_store"]


def open_store(
    url: str,
    *,
    clock: Clock,
    create: CreateMode = CreateMode.IF_MISSING,
    origin: str | None = None,
    lock_timeout_seconds: float = 10.0,
) -> SqliteStore | PostgresqlStore:
    """Return the store at an address; nothing is opened before the first transaction or snapshot.

    Args:
        url: ``sqlite:////absolute/path``, a plain path of a SQLite file, or
            ``postgresql://user@host:port/database``, there with ``?schema=NAME`` for a schema other than the role's
            own and ``?pool=N`` for the number of idle connections that a process keeps.
        clock: where the store's time comes from. PostgreSQL's own clock takes the place of the computer's, so that
            all machines agree; any other clock stays.
        create: whether the first writing transaction creates a missing file and folder; a PostgreSQL store is only
            created by ``migrate()``.
        origin: the log's name in its checkpoints when a new ledger is created, without spaces and ``+``;
            None = a random one. An existing ledger keeps its name.
        lock_timeout_seconds: how long a writer waits for its turn.

    Raises:
        ConfigurationError: the address names no store that this version can open.
        MissingExtra: the driver of PostgreSQL is not installed.
    """
    if is_postgresql(url):
        if find_spec("psycopg") is None:
            raise MissingExtra("a PostgreSQL store needs psycopg; run: pip install 'cagg[postgres]'.")
        from cagg.store.postgresql import PostgresqlStore  # loads what only this backend needs

        return PostgresqlStore(url=url, clock=clock, origin=origin, lock_timeout_seconds=lock_timeout_seconds)
    path = path_of_url(url)
    return SqliteStore(path=path, clock=clock, create=create, origin=origin, lock_timeout_seconds=lock_timeout_seconds)
