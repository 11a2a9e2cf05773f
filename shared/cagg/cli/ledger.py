"""``cagg ledger``: read what happened, check that nobody changed it, and show the key and the checkpoint to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._entries import altered
from cagg.cli._output import Json, answer, columns, line, when
from cagg.errors import ConfigurationError, InvalidInput, LedgerDamaged, StoreUnavailable
from cagg.records import EntryKind
from cagg.windows import parse_instant

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.composition import Components
    from cagg.ledger.verify import VerifyReport
    from cagg.ports import Checkpoint
    from cagg.records import Entry

__all__ = ["app", "entry_row", "outcome_of", "report_json", "trusted_keys"]

app = typer.Typer(help="Read the ledger and verify it.", no_args_is_help=True)
"""The commands below ``cagg ledger``."""

_MOST_FAILURES_SHOWN = 20


# ---- list ---------------------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    *,
    kind: Annotated[str | None, typer.Option(help="decision, measurement, settlement, correction, budget …")] = None,
    task: Annotated[str | None, typer.Option(help="Only entries of this task.")] = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 20,
    json: Json = False,
) -> int:
    """List entries, newest first."""
    from cagg.cli._context import components, store_is_new

    wanted = None if kind is None else _kind(kind)
    parts = components()
    rows: list[Mapping[str, Any]] = []
    if not store_is_new(parts):
        from cagg.ledger.entry import read_body

        with parts.store.snapshot() as tx:
            found = tx.entries(kind=wanted, task_key=task, newest_first=True, limit=limit)
            rows.extend(entry_row(entry, read_body(tx, entry)) for entry in found)

    def people(to: Console) -> None:
        if not rows:
            line(to, "No entry yet; `cagg run -- CMD` makes the first.")
            return
        _table(to, rows, parts.settings.timezone)

    return answer({"entries": rows}, people, json=json)


def _kind(text: str) -> EntryKind:
    try:
        return EntryKind(text)
    except ValueError:
        raise InvalidInput(f"entry kind {text!r} is unknown; use one of {', '.join(EntryKind)}.") from None


def entry_row(entry: Entry, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list shows of one entry, as JSON values."""
    request = body.get("request") or {}
    return {
        "index": entry.index,
        "entry_id": entry.entry_id,
        "kind": str(entry.kind),
        "recorded_at": entry.recorded_at,
        "task": request.get("task_key"),
        "host": request.get("host"),
        "budget_path": body.get("budget_path") or request.get("budget_path"),
        "outcome": outcome_of(body),
        "energy_millijoules": _int(body.get("energy_millijoules")),
        "carbon_micrograms": _int(body.get("carbon_micrograms")),
        "grade": body.get("grade"),
        "altered": altered(entry),
    }


def outcome_of(body: Mapping[str, Any]) -> str:
    """Return the one word that says how an entry ended: the verdict with its reason, or the outcome."""
    verdict = body.get("verdict")
    if isinstance(verdict, Mapping):
        return f"{verdict.get('verdict', '')} ({verdict.get('reason', '')})"
    return str(body.get("outcome") or body.get("what") or body.get("mode") or "")


def _int(text: object) -> int | None:
    return int(text) if isinstance(text, str | int) and not isinstance(text, bool) else None


def _table(to: Console, rows: Sequence[Mapping[str, Any]], zone_name: str | None) -> None:
    from cagg.quantities import CarbonMass, Energy

    shown = []
    for row in rows:
        used = []
        if row["energy_millijoules"] is not None:
            used.append(f"{Energy(millijoules=row['energy_millijoules'])} grade {row['grade']}")
        if row["carbon_micrograms"] is not None:
            used.append(str(CarbonMass(micrograms=row["carbon_micrograms"])))
        subject = row["task"] or row["budget_path"] or ""
        changed = "CHANGED AFTER IT WAS RECORDED:" if row["altered"] else ""
        what = " ".join(part for part in (changed, row["kind"], subject, row["outcome"], *used) if part)
        place = "-" if row["index"] is None else str(row["index"])
        shown.append((place, when(row["recorded_at"], zone_name)[:16], row["entry_id"][:18], what))
    columns(to, shown, header=("#", "when", "id", "what"))


# ---- verify -------------------------------------------------------------------------------------------------------


@app.command("verify")
def verify(
    *,
    key: Annotated[
        list[str] | None, typer.Option(help="Trusted key as text or in a file; default: keys/log.vkey in the home.")
    ] = None,
    since: Annotated[Path | None, typer.Option(help="An older checkpoint that was kept outside the store.")] = None,
    json: Json = False,
) -> int:
    """Check the whole ledger, and compare the tables beside it with its entries.

    Exit status 0 verified, 1 not verified or the tables beside it disagree, 2 it could not be checked.
    """
    from cagg.cli._context import components, store_is_new
    from cagg.cli._side_tables import SIDE_TABLES, side_table_problems

    parts = components()
    if store_is_new(parts):
        raise StoreUnavailable(f"there is no ledger at {parts.settings.store_url} yet; `cagg run -- CMD` begins one.")
    report = checked(parts, trusted_keys(parts, key), None if since is None else _checkpoint(since))
    with parts.store.snapshot() as tx:
        beside = side_table_problems(tx)

    def people(to: Console) -> None:
        line(to, f"{report.sentence[:1].upper()}{report.sentence[1:]}", style="green" if report.verified else "red")
        for failure in report.failures[:_MOST_FAILURES_SHOWN]:
            line(to, f"  [{failure.kind}] {failure.message}")
        if len(report.failures) > _MOST_FAILURES_SHOWN:
            line(to, f"  and {len(report.failures) - _MOST_FAILURES_SHOWN} more; --json lists all of them")
        line(
            to, f"Log {report.origin}, root {report.root.hex()[:16]}, assurance level {report.assurance}.", style="dim"
        )
        if not report.verified and not report.failures and report.size:
            line(to, "`cagg maintain` signs it; keep the key that `cagg ledger key` shows outside of the store.")
        if beside:
            line(to, f"NOT in agreement: {SIDE_TABLES}, which no signature covers:", style="red")
            for problem in beside[:_MOST_FAILURES_SHOWN]:
                line(to, f"  [side table] {problem}")
            if len(beside) > _MOST_FAILURES_SHOWN:
                line(to, f"  and {len(beside) - _MOST_FAILURES_SHOWN} more; --json lists all of them")
        else:
            line(
                to,
                f"Beside the ledger: {SIDE_TABLES} are tables that no signature covers; they agree with each other "
                "and with the ledger's budget entries.",
                style="dim",
            )

    document = {
        **report_json(report),
        "side_tables": {"covered_by_signature": False, "agree": not beside, "problems": beside},
    }
    return answer(document, people, json=json, status=0 if report.verified and not beside else 1)


def checked(parts: Components, keys: Sequence[str], since: Checkpoint | None = None) -> VerifyReport:
    """Verify the store's ledger with the keys.

    Raises:
        StoreUnavailable: the store cannot be read.
        InvalidInput: a key is no key.
    """
    from cagg.ledger.verify import verify as verify_ledger

    with parts.store.snapshot() as tx:
        return verify_ledger(tx, keys, since)


def report_json(report: VerifyReport) -> dict[str, Any]:
    """Return a verification as JSON values."""
    return {
        "verified": report.verified,
        "assurance": str(report.assurance),
        "sentence": report.sentence,
        "origin": report.origin,
        "size": report.size,
        "root": report.root.hex(),
        "signed_size": report.signed_size,
        "checkpoints": report.checkpoints,
        "queued": report.queued,
        "unproven": report.unproven,
        "failures": [
            {"kind": str(item.kind), "index": item.index, "message": item.message} for item in report.failures
        ],
    }


def key_file(parts: Components) -> Path:
    """Return where ``maintain`` leaves the public key."""
    return parts.settings.home / "keys" / "log.vkey"


def trusted_keys(parts: Components, stated: Sequence[str] | None = None) -> list[str]:
    """Return the keys to trust: those that were stated, else the one in the home; none when there is none yet.

    Raises:
        ConfigurationError: a key file cannot be read.
    """
    if stated:
        return [found for text in stated for found in _key_lines(text)]
    default = key_file(parts)
    return _read_keys(default) if _exists(default) else []


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ConfigurationError(
            f"the key {path} cannot be looked for ({error.strerror}); make its folder readable, or give the key "
            "with --key."
        ) from None


def _key_lines(text: str) -> list[str]:
    if text.count("+") >= 2 and not Path(text).is_file():
        return [text]
    return _read_keys(Path(text))


def _read_keys(path: Path) -> list[str]:
    from cagg.ledger.notes import VerifierKey

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(
            f"the key {str(path)!r} cannot be read ({reason}); name a file or give the key."
        ) from None
    keys = [item.strip() for item in lines if item.strip() and not item.startswith("#")]
    if not keys:
        raise ConfigurationError(f"the key file {path} is empty; copy the key that `cagg ledger key` shows.")
    for text in keys:
        try:
            VerifierKey.parse(text)
        except InvalidInput as error:
            raise ConfigurationError(
                f"the key file {path} cannot be used: {str(error).rstrip('.')}; a broken log.vkey in the home may be "
                "removed, `cagg maintain` writes it again."
            ) from None
    return keys


def _checkpoint(path: Path) -> Checkpoint:
    from cagg.ledger.checkpoint import checkpoint_of_note

    try:
        note = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(
            f"the checkpoint {str(path)!r} cannot be read ({reason}); name another file."
        ) from None
    try:
        return checkpoint_of_note(note, parse_instant("1970-01-01T00:00:00+00:00"))
    except LedgerDamaged as error:
        raise InvalidInput(
            f"the file {str(path)!r} holds no checkpoint ({str(error).rstrip('.')}); give one that "
            "`cagg ledger checkpoint` printed."
        ) from None


# ---- what to keep outside -----------------------------------------------------------------------------------------


@app.command("key")
def key(*, json: Json = False) -> int:
    """Show the public key that checkpoints are verified with; keep it outside of the store."""
    from cagg.cli._context import components

    parts = components()
    place = key_file(parts)
    if not _exists(place):
        raise ConfigurationError(
            f"there is no key at {place} yet; `cagg maintain` makes one with its first checkpoint."
        )
    keys = _read_keys(place)

    def people(to: Console) -> None:
        for text in keys:
            to.print(text, soft_wrap=True)

    return answer({"keys": keys, "file": str(place)}, people, json=json)


@app.command("checkpoint")
def checkpoint(*, json: Json = False) -> int:
    """Print the newest signed checkpoint; kept elsewhere, it shows later that nothing was cut off (verify --since)."""
    from cagg.cli._context import components, store_is_new

    parts = components()
    last = None
    if not store_is_new(parts):
        with parts.store.snapshot() as tx:
            last = tx.last_checkpoint()
    if last is None:
        raise StoreUnavailable("there is no signed checkpoint yet; `cagg maintain` signs one.")
    document = {"size": last.size, "root": last.root.hex(), "note": last.note, "created_at": last.created_at}
    return answer(document, lambda to: to.print(last.note, end="", soft_wrap=True), json=json)
