"""Opens a store by its address."""

from __future__ import annotations

from cagg.errors import ConfigurationError
from cagg.ports import Clock
from cagg.store.sqlite import CreateMode, SqliteStore, path_of_url

__all__ = ["CreateMode", "open_store"]


def open_store(
    url: str,
    *,
    clock: Clock,
    create: CreateMode = CreateMode.IF_MISSING,
    origin: str | None = None,
    lock_timeout_seconds: float = 10.0,
) -> SqliteStore:
    """Return the store at an address; nothing is opened before the first transaction or snapshot.

    Args:
        url: ``sqlite:////absolute/path``, or a plain path of a SQLite file.
        clock: where the store's time comes from.
        create: whether the first writing transaction creates a missing file and folder.
        origin: the log's name in its checkpoints when a new ledger is created, without spaces and ``+``;
            None = a random one. An existing ledger keeps its name.
        lock_timeout_seconds: how long a writer waits for its turn.

    Raises:
        ConfigurationError: the address names no store that this version can open.
    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme.startswith("postgres"):
        raise ConfigurationError(
            "a PostgreSQL store is not supported by this version; use 'sqlite:////absolute/path' or a plain path."
        )
    path = path_of_url(url)
    return SqliteStore(path=path, clock=clock, create=create, origin=origin, lock_timeout_seconds=lock_timeout_seconds)
