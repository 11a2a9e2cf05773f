"""``cagg store``: where the store is and which version it has; bring it up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cagg.cli._output import Json, answer, facts, line

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["app"]

app = typer.Typer(help="See and migrate the store.", no_args_is_help=True)
"""The commands below ``cagg store``."""


@app.command("status")
def status(*, json: Json = False) -> int:
    """Show the store: address, version, entries, size. Exit status 1 when nothing has created it yet."""
    from cagg.cli._context import components, store_file, store_is_new
    from cagg.store.tables import SCHEMA_VERSION

    parts = components()
    if store_is_new(parts):
        document = {"url": parts.store.url, "exists": False, "schema": None, "known_schema": SCHEMA_VERSION}
        text = f"Nothing has created {parts.store.url} yet; the first gate does."
        return answer(document, lambda to: line(to, text), json=json, status=1)
    with parts.store.snapshot() as tx:
        origin, size, counts, schema = tx.origin(), tx.tree_size(), dict(tx.row_counts()), tx.schema_version()
    file = store_file(parts)
    document = {
        "url": parts.store.url,
        "exists": True,
        "schema": schema,
        "known_schema": SCHEMA_VERSION,
        "log": origin,
        "entries": size,
        "rows": counts,
        "bytes": None if file is None else file.stat().st_size,
    }

    def people(to: Console) -> None:
        size_text = "" if file is None else f"{file.stat().st_size / 1e6:.1f} MB"
        facts(
            to,
            [
                ("store", parts.store.url),
                ("schema", schema if schema == SCHEMA_VERSION else f"{schema} (this program knows {SCHEMA_VERSION})"),
                ("log", origin),
                ("entries", str(size)),
                ("size", size_text),
            ],
        )

    return answer(document, people, json=json)


@app.command("migrate")
def migrate(*, json: Json = False) -> int:
    """Create the store, or bring it to this version's schema; migrations only add."""
    from cagg.cli._context import components, store_is_new

    parts = components()
    created = store_is_new(parts)
    with parts.store.transaction() as tx:  # a writing transaction brings a SQLite file up to date
        schema = tx.schema_version()
    document = {"url": parts.store.url, "created": created, "schema": schema}
    text = f"{parts.store.url} {'was created with' if created else 'has'} schema {schema}."
    return answer(document, lambda to: line(to, text), json=json)
