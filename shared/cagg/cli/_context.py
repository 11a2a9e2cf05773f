"""What most commands begin with: the settings, the parts that they describe, and small questions to the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cagg.errors import InvalidInput, StoreUnavailable

if TYPE_CHECKING:
    from cagg.composition import Components
    from cagg.ports import Transaction
    from cagg.records import Entry, EntryKind
    from cagg.store.postgresql import PostgresqlStore

__all__ = ["cached_forecasts", "components", "find_entry", "server_facts", "server_store", "store_file", "store_is_new"]


def components(arguments: Mapping[str, Any] | None = None) -> Components:
    """Collect the settings and put the parts together; nothing is opened yet.

    Raises:
        ConfigurationError: the settings cannot be read.
    """
    from cagg.composition import compose

    return compose(arguments=arguments or {})


def store_file(parts: Components) -> Path | None:
    """Return the file of a SQLite store; None for a store that is no file."""
    path = getattr(parts.store, "path", None)
    return path if isinstance(path, Path) else None


def store_is_new(parts: Components) -> bool:
    """True when the store is a file that nothing has created yet: there is nothing to read, and nothing is wrong."""
    path = store_file(parts)
    return path is not None and not path.exists()


def server_store(parts: Components) -> PostgresqlStore | None:
    """Return the store when it is one on a database server; None for a file."""
    if store_file(parts) is not None:
        return None
    from cagg.store.postgresql import PostgresqlStore

    return parts.store if isinstance(parts.store, PostgresqlStore) else None


def server_facts(parts: Components) -> Mapping[str, Any]:
    """Return what a database server says of itself and of our role; empty for a file."""
    store = server_store(parts)
    return {} if store is None else store.facts()


def cached_forecasts(parts: Components, zone_name: str) -> list[Any]:
    """Return the cached forecasts that the zone's sources can use; none when the store cannot be read."""
    from datetime import timedelta

    since = parts.clock.now() - timedelta(hours=24)
    found: list[Any] = []
    try:
        with parts.store.snapshot() as tx:
            for provider, zone in parts.grid.cache_keys(zone_name):
                found.extend(tx.forecasts(provider, zone, since))
    except StoreUnavailable:
        return []
    return found


def find_entry(tx: Transaction, name: str, *, kinds: frozenset[EntryKind]) -> Entry:
    """Return an entry by its id, by a unique beginning of it, or the newest for ``latest``.

    Args:
        tx: where to look.
        name: id, beginning of an id, position in the log, or ``latest``.
        kinds: what ``latest`` counts.

    Raises:
        InvalidInput: there is none, or several begin like that.
    """
    if name == "latest":
        for entry in tx.entries(newest_first=True):
            if entry.kind in kinds:
                return entry
        raise InvalidInput("the ledger has no decision yet; ask for one with `cagg run -- CMD`.")
    if name.isascii() and name.isdecimal() and len(name) < 8 and name == str(int(name)):
        for entry in tx.entries(start=int(name), limit=1):
            if entry.index == int(name):
                return entry
    exact = tx.entry(name)
    if exact is not None:
        return exact
    wanted = name.lower()
    found = []
    for entry in tx.entries(newest_first=True):
        if entry.entry_id.startswith(wanted):
            found.append(entry)
            if len(found) > 1:
                raise InvalidInput(f"several entries begin with {name!r}; give more of the id.")
    if not found:
        raise InvalidInput(f"no entry has the id {name!r}; `cagg ledger list` shows them.")
    return found[0]
