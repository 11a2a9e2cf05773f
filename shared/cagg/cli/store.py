"""``cagg store``: where the store is and which version it has; migrate it, back it up; who may do what in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._output import Json, answer, facts, line
from cagg.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from cagg.composition import Components

__all__ = ["app"]

app = typer.Typer(help="See, migrate and back up the store, and say who may do what in it.", no_args_is_help=True)
"""The commands below ``cagg store``."""

_RIGHTS = {
    "owner": "owner: may do everything; let gates use a role of their own, see `cagg store grants`",
    "maintainer": "maintainer: gates, sequencing, signing and budgets",
    "writer": "writer: gates; `cagg maintain` and `cagg budget set` need a maintainer",
    "reader": "reader: looks and verifies",
    "nothing": "no right to read it; see `cagg store grants`",
}


@app.command("status")
def status(*, json: Json = False) -> int:
    """Show the store: address, version, entries, size. Exit status 1 when nothing has created it yet."""
    from cagg.cli._context import components, server_facts, server_store, store_file, store_is_new
    from cagg.store.tables import SCHEMA_VERSION

    parts = components()
    if store_is_new(parts) or ((server := server_store(parts)) is not None and server.version() is None):
        document = {"url": parts.store.url, "exists": False, "schema": None, "known_schema": SCHEMA_VERSION}
        text = f"Nothing has created {parts.store.url} yet; {_creator(parts)}."
        return answer(document, lambda to: line(to, text), json=json, status=1)
    with parts.store.snapshot() as tx:
        origin, size, counts, schema = tx.origin(), tx.tree_size(), dict(tx.row_counts()), tx.schema_version()
        waiting, oldest, now = tx.queued(), tx.oldest_queued_at(), tx.now()
        logs = [{"origin": log.origin, "state": str(log.state)} for log in tx.logs()]
    about = dict(server_facts(parts))
    taken = _taken(store_file(parts), about)
    document = {
        "url": parts.store.url,
        "exists": True,
        "schema": schema,
        "known_schema": SCHEMA_VERSION,
        "log": origin,
        "logs": logs,
        "entries": size,
        "waiting": waiting,
        "oldest_waiting_at": oldest,
        "rows": counts,
        "bytes": taken,
        "server": about or None,
    }

    def people(to: Console) -> None:
        from cagg.windows import format_duration

        since = "" if oldest is None else f", the oldest for {format_duration(now - oldest)}; run `cagg maintain`"
        rows = [
            ("store", parts.store.url),
            ("schema", schema if schema == SCHEMA_VERSION else f"{schema} (this program knows {SCHEMA_VERSION})"),
            ("log", origin if len(logs) == 1 else f"{origin}, after {len(logs) - 1} frozen before it"),
            ("entries", str(size)),
            ("waiting", f"{waiting} for their place{since}" if waiting else ""),
            ("size", "" if taken is None else f"{taken / 1e6:.1f} MB"),
            *_server_rows(about),
        ]
        facts(to, [row for row in rows if row[1]])

    return answer(document, people, json=json)


def _taken(file: Path | None, server: dict[str, Any]) -> int | None:
    if file is not None:
        return file.stat().st_size
    return int(server["bytes"]) if "bytes" in server else None


def _server_rows(server: dict[str, Any]) -> list[tuple[str, str]]:
    if not server:
        return []
    encrypted = "encrypted" if server["encrypted"] else "not encrypted"
    return [
        ("server", f"PostgreSQL {server['server']}, {encrypted}"),
        ("database", f"{server['database']}, schema {server['schema']}"),
        ("role", f"{server['role']}; {_RIGHTS[server['rights']]}"),
    ]


def _creator(parts: Components) -> str:
    from cagg.cli._context import store_file

    return "the first gate does" if store_file(parts) is not None else "`cagg store migrate` does"


@app.command("migrate")
def migrate(*, json: Json = False) -> int:
    """Create the store, or bring it to this version's schema; migrations only add.

    On PostgreSQL run it as the role that shall own the tables; gates work with a role of their own (`cagg store
    grants`). Programs of the version before go on with the migrated store.
    """
    from cagg.cli._context import components

    parts = components()
    created = parts.store.migrate()
    with parts.store.snapshot() as tx:
        schema = tx.schema_version()
    document = {"url": parts.store.url, "created": created, "schema": schema}
    text = f"{parts.store.url} {'was created with' if created else 'has'} schema {schema}."
    return answer(document, lambda to: line(to, text), json=json)


@app.command("backup")
def backup(
    file: Annotated[
        str, typer.Argument(help="New file for the copy; nothing is ever overwritten.", show_default=False)
    ],
    *,
    json: Json = False,
) -> int:
    """Copy the store to a new file while gates go on; the copy is one consistent state, for its owner only.

    It holds the personal values that were not redacted until then, and no signing key: keep both with care, and keep
    the latest checkpoint elsewhere. To restore it, stop the gates, put the file in the store's place without a -wal and
    -shm file beside it, and run `cagg ledger verify`.
    """
    from pathlib import Path

    from cagg.cli._context import components, server_store
    from cagg.store.sqlite import SqliteStore

    parts = components()
    server = server_store(parts)
    if server is not None:
        raise InvalidInput(f"the store {parts.store.url} is on a server; back it up with: {server.dump_command(file)}")
    if not isinstance(parts.store, SqliteStore):
        raise InvalidInput(f"the store {parts.store.url} is no file that can be copied; back it up by its own means.")
    target = Path(file).absolute()
    taken = parts.store.backup(target)
    document = {"url": parts.store.url, "backup": str(target), "bytes": taken}
    text = f"{parts.store.url} was copied to {target} ({taken / 1e6:.1f} MB)."
    return answer(document, lambda to: line(to, text), json=json)


@app.command("grants")
def grants(
    *,
    writer: Annotated[str | None, typer.Option(help="Role of gates: append entries, hold and settle budgets.")] = None,
    maintainer: Annotated[
        str | None, typer.Option(help="Role of `cagg maintain` and of who sets budgets: also sequence and sign.")
    ] = None,
    reader: Annotated[str | None, typer.Option(help="Role that looks and verifies.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Execute the statements instead of showing them.")] = False,
    json: Json = False,
) -> int:
    """Show the SQL that gives roles on PostgreSQL exactly the rights they need; `--apply` executes it.

    A role that gates use can append and read. It can change no counter, limit or recorded row itself: budgets change
    through functions that keep them consistent. The roles must exist.
    """
    from cagg.cli._context import components, server_store

    parts = components()
    store = server_store(parts)
    if store is None:
        raise InvalidInput(
            f"the store {parts.store.url} is a file, whose permissions say who may use it; grants are for PostgreSQL."
        )
    statements = store.grants(writer=writer, maintainer=maintainer, reader=reader)
    if apply:
        store.apply(statements)
    document = {"url": parts.store.url, "applied": apply, "statements": statements}

    def people(to: Console) -> None:
        if apply:
            line(to, f"Applied {len(statements)} statements to {parts.store.url}.")
            return
        for statement in statements:
            to.print(f"{statement};", soft_wrap=True, markup=False, highlight=False)

    return answer(document, people, json=json)
