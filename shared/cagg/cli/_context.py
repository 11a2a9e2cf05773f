"""What most commands begin with: the settings, the parts that they describe, and small questions to the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cagg.errors import InvalidInput, StoreUnavailable

if TYPE_CHECKING:
    from cagg.composition import Components
    from cagg.ports import Transaction
    from cagg.records import Entry, EntryKind
    from cagg.store.postgresql import PostgresqlStore

__all__ = [
    "cached_forecasts",
    "components",
    "find_entry",
    "other_logs",
    "server_facts",
    "server_store",
    "store_file",
    "store_is_new",
]


_ID_SHAPE = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
"""Where an entry's id has digits and where it has hyphens."""


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


def find_entry(tx: Transaction, name: str, *, kinds: frozenset[EntryKind], log: str | None = None) -> Entry:
    """Return an entry by its id, by a unique beginning of it, or the newest for ``latest``.

    Args:
        tx: where to look.
        name: id, beginning of an id, position in the log, or ``latest``.
        kinds: what ``latest`` counts.
        log: which log's positions, and newest entry; None = the log that grows, and the newest of all logs.

    Raises:
        InvalidInput: there is none, or several begin like that.
    """
    from cagg.ledger.lineage import entries_of_all_logs

    rows = tx if log is None else tx.in_log(log)
    if name == "latest":
        for entry in entries_of_all_logs(tx, newest_first=True) if log is None else rows.entries(newest_first=True):
            if entry.kind in kinds:
                return entry
        raise InvalidInput("the ledger has no such entry yet; `cagg run -- CMD` makes some.")
    is_number = name.isascii() and name.isdecimal() and len(name) < 8 and name == str(int(name))
    if is_number:
        for entry in rows.entries(start=int(name), limit=1):
            if entry.index == int(name):
                return entry
    exact = tx.entry(name)
    if exact is not None:
        return exact
    found = _beginning_with(tx, name.lower())
    if len(found) > 1:
        raise InvalidInput(f"several entries begin with {name!r}; give more of the id.")
    if not found and is_number:
        raise InvalidInput(
            f"the log {rows.origin()} has {rows.tree_size()} entries, counted from 0, and none with the number {name}"
            f"{other_logs(tx, rows.origin())}; `cagg ledger list` shows them."
        )
    if not found:
        raise InvalidInput(f"no entry has the id {name!r}; `cagg ledger list` shows them.")
    return found[0]


def other_logs(tx: Transaction, origin: str) -> str:
    """Return how to name an entry or checkpoint of another log, to be put behind a sentence; empty for one log."""
    others = [one.origin for one in tx.logs() if one.origin != origin]
    return f"; numbers of another log need --log ({', '.join(others)})" if others else ""


def _beginning_with(tx: Transaction, wanted: str) -> Sequence[Entry]:
    """Return at most two entries whose ids begin like that: ids are of one length, so they lie between two ids."""
    shape = "".join("x" if c in "0123456789abcdef" else c for c in wanted)
    if not wanted or not _ID_SHAPE.startswith(shape):
        return ()
    rest = _ID_SHAPE[len(wanted) :]
    return tx.entries_between(wanted + rest.replace("x", "0"), wanted + rest.replace("x", "f"), 2)
