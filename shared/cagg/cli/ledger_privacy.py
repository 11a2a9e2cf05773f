"""``cagg ledger private | redact``: personal values beside the ledger, shown with their proof, or deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._options import EntryName, InLog
from cagg.cli._output import Json, answer, facts, line, when
from cagg.errors import InvalidInput, StoreUnavailable

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.composition import Components
    from cagg.ports import Transaction
    from cagg.records import Entry

__all__ = ["private", "redact"]


def redact(
    entry: Annotated[
        str, typer.Argument(metavar="ENTRY", help="Id of the entry, or a unique beginning of it, or its number.")
    ],
    field: Annotated[str, typer.Argument(metavar="FIELD", help="Which personal value; `cagg ledger private` lists.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; stays in the ledger for ever, so it must not repeat the value.")],
    log: InLog = None,
    json: Json = False,
) -> int:
    """Delete a personal value and its salt; the entry, its proofs and `verify` stay as they are.

    What must be kept (who approved a release of risk high or critical, for `ledger.retention_years`) is refused.
    Backups hold the value until they are gone, too. Exit status 1 when it is refused, 2 when it could not be tried.
    """
    from cagg.cli._context import components
    from cagg.ledger.retention import redact as delete

    if entry == "latest":
        raise InvalidInput(
            "what is redacted is gone, and the newest entry may be another one by now; name the entry by its id, "
            "`cagg ledger list` shows it."
        )
    parts = _existing(components())
    with parts.store.snapshot() as tx:
        entry_id = _found(tx, entry, log).entry_id
    with parts.store.transaction() as tx:
        done = delete(tx, entry_id, field, reason=reason, retention_years=parts.settings.retention_years)
    remains = _remains(parts)
    document = {
        "entry_id": entry_id,
        "field": field,
        "deleted": done.deleted,
        "redaction": done.entry.entry_id,
        "remains": remains,
    }
    what = "was deleted with its salt" if done.deleted else "was deleted before; nothing was left to delete"

    def people(to: Console) -> None:
        line(to, f"The private value {field!r} of entry {entry_id} {what}. Recorded as {done.entry.entry_id}.")
        line(to, f"Left to do: {remains}.")

    return answer(document, people, json=json)


def _remains(parts: Components) -> str:
    """Return where the value may still stand; what a file's write-ahead log holds of it is removed here."""
    from cagg.cli._context import store_file
    from cagg.store.scrubbing import scrub_write_ahead_log

    file, backups = store_file(parts), "backups hold the value until they are gone"
    if file is None:
        return f"{backups}; the server frees its room with 'VACUUM cagg_private', run by the tables' owner"
    if scrub_write_ahead_log(file):
        return backups
    return f"{backups}; a program reads {file.name} for long, and until it ends {file.name}-wal may hold the value"


def private(entry: EntryName, *, log: InLog = None, json: Json = False) -> int:
    """Show the personal values of an entry and whether each is the one that the entry committed to.

    The commitment is SHA-256(salt || length of the field as 8 bytes || field || value): `--json` prints the salts, with
    which anybody can repeat it. Exit status 1 when a value is not the committed one, or is gone without a redaction.
    """
    from cagg.cli._context import components
    from cagg.ledger.entry import read_body
    from cagg.ledger.private import check_private

    parts = _existing(components())
    with parts.store.snapshot() as tx:
        found = _found(tx, entry, log)
        body = read_body(tx, found)
        rows = _rows(tx, found, body, parts.settings.retention_years)
        problems = check_private(tx, body).problems
    document = {"entry_id": found.entry_id, "kind": str(found.kind), "private": rows, "problems": problems}

    def people(to: Console) -> None:
        line(to, f"Entry {found.entry_id} ({found.kind}) of {when(found.recorded_at, parts.settings.timezone)}")
        if not rows:
            line(to, "It has no personal values.")
        facts(to, [(row["field"], _told(row, parts.settings.timezone)) for row in rows])
        for problem in problems:
            line(to, f"NOT intact: {problem}", style="red")

    return answer(document, people, json=json, status=1 if problems else 0)


def _existing(parts: Components) -> Components:
    from cagg.cli._context import store_is_new

    if store_is_new(parts):
        raise StoreUnavailable(f"there is no ledger at {parts.settings.store_url} yet; `cagg run -- CMD` begins one.")
    return parts


def _found(tx: Transaction, name: str, log: str | None) -> Entry:
    from cagg.cli._context import find_entry
    from cagg.records import EntryKind

    return find_entry(tx, name, kinds=frozenset(EntryKind), log=log)


def _rows(tx: Transaction, entry: Entry, body: Mapping[str, Any], retention_years: int) -> Sequence[dict[str, Any]]:
    from cagg.ledger.encoding import decode
    from cagg.ledger.private import fits, sealed_fields
    from cagg.ledger.retention import kept_until, redaction_of

    kept = {item.field: item for item in tx.private_values(entry.entry_id)}
    until = kept_until(body, entry.recorded_at, retention_years)
    rows = []
    for field, commitment in sealed_fields(body).items():
        value, redaction = kept.get(field), redaction_of(tx, entry.entry_id, field)
        rows.append(
            {
                "field": field,
                "commitment": commitment,
                "value": None if value is None else value.value,
                "salt": None if value is None else value.salt.hex(),
                "fits": value is not None and fits(value, commitment),
                "kept_until": until,
                "redaction": None
                if redaction is None
                else {
                    "entry_id": redaction.entry_id,
                    "at": redaction.recorded_at,
                    "reason": decode(redaction.body)["reason"],
                },
            }
        )
    return rows


def _told(row: Mapping[str, Any], zone_name: str | None) -> str:
    redaction = row["redaction"]
    if row["value"] is not None:
        fit = "is what the entry committed to" if row["fits"] else "is NOT what the entry committed to"
        until = "" if row["kept_until"] is None else f"; must be kept until {row['kept_until']:%Y-%m-%d}"
        return f"{row['value']} ({fit}: {row['commitment'][:16]}…{until})"
    if redaction is not None:
        return f"redacted on {when(redaction['at'], zone_name)[:10]}: {redaction['reason']}"
    return "gone, and no redaction says so"
