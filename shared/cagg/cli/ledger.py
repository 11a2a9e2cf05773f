"""``cagg ledger``: the commands of the ledger, and the list of what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli import ledger_export, ledger_keys, ledger_logs, ledger_privacy, ledger_proofs, ledger_verify
from cagg.cli._entries import altered, showing
from cagg.cli._origins import commit_of
from cagg.cli._output import Json, answer, columns, line, when
from cagg.errors import InvalidInput, LedgerDamaged
from cagg.records import EntryKind

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.ports import LedgerRows, Transaction
    from cagg.records import Entry

__all__ = ["app", "entry_row", "outcome_of"]

app = typer.Typer(help="Read the ledger and verify it.", no_args_is_help=True)
"""The commands below ``cagg ledger``."""

app.command("verify")(ledger_verify.verify)
app.command("key")(ledger_keys.key)
app.command("checkpoint")(ledger_keys.checkpoint)
app.command("rotate-key")(ledger_keys.rotate_key)
app.command("revoke-key")(ledger_keys.revoke_key)
app.command("logs")(ledger_logs.logs)
app.command("roll")(ledger_logs.roll)
app.command("private")(ledger_privacy.private)
app.command("redact")(ledger_privacy.redact)
app.command("export")(ledger_export.export)
app.command("prove")(ledger_proofs.prove)
app.command("consistency")(ledger_proofs.consistency)
app.command("verify-proof")(ledger_proofs.verify_proof)


# ---- list ---------------------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    *,
    kind: Annotated[str | None, typer.Option(help="decision, measurement, settlement, correction, budget …")] = None,
    task: Annotated[str | None, typer.Option(help="Only entries of this task.")] = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 20,
    log: Annotated[str | None, typer.Option(help="Only entries of this log of the store; default: of all.")] = None,
    json: Json = False,
) -> int:
    """List entries, newest first."""
    from cagg.cli._context import components, store_is_new

    wanted = None if kind is None else _kind(kind)
    parts = components()
    rows: list[Mapping[str, Any]] = []
    total, several = 0, False
    if not store_is_new(parts):
        with parts.store.snapshot() as tx:
            names = [one.origin for one in tx.logs()]
            rows, several = _rows(tx, log, wanted, task, limit + 1), log is None and len(names) > 1
            counted = [tx.in_log(name) for name in (names if log is None else [log])]
            total = sum(one.tree_size() + one.queued() for one in counted)
    more, rows = len(rows) > limit, rows[:limit]

    def people(to: Console) -> None:
        if not total:
            line(to, "No entry yet; `cagg run -- CMD` makes the first.")
        elif not rows:
            line(to, f"None of the {total} entries {_filters(wanted, task)}; `cagg ledger list` shows the newest.")
        else:
            _table(to, rows, parts.settings.timezone, with_log=several)
        if more:
            filtered = wanted is not None or task is not None
            of = "the newest of more" if filtered else f"of {total}"
            line(to, f"{limit} {of}, --limit N shows more.", style="dim")

    return answer({"entries": rows, "more": more}, people, json=json)


def _rows(
    tx: Transaction, log: str | None, kind: EntryKind | None, task: str | None, limit: int
) -> list[Mapping[str, Any]]:
    from cagg.ledger.lineage import entries_of_all_logs

    if log is None:
        found = entries_of_all_logs(tx, kind=kind, task_key=task, newest_first=True, limit=limit)
    else:
        found = iter(tx.in_log(log).entries(kind=kind, task_key=task, newest_first=True, limit=limit))
    return [_row(tx, entry) for entry in found]


def _filters(kind: EntryKind | None, task: str | None) -> str:
    said = [*(() if kind is None else [f"is a {kind}"]), *(() if task is None else [f"is of the task {task!r}"])]
    return " and ".join(said)


def _row(tx: LedgerRows, entry: Entry) -> dict[str, Any]:
    """Return the row of an entry; one that cannot be shown does not hide the others."""
    from cagg.ledger.entry import read_body

    try:
        with showing(entry):
            return entry_row(entry, read_body(tx, entry))
    except LedgerDamaged:
        return {**entry_row(entry, {}), "outcome": "CANNOT BE SHOWN: run `cagg ledger verify`"}


def _kind(text: str) -> EntryKind:
    try:
        return EntryKind(text)
    except ValueError:
        raise InvalidInput(f"entry kind {text!r} is unknown; use one of {', '.join(EntryKind)}.") from None


def entry_row(entry: Entry, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list shows of one entry, as JSON values."""
    request = body.get("request") or {}
    return {
        "log": body.get("log"),
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
        "commit": commit_of(request),
        "inputs": len(body.get("inputs") or []),
        "outputs": len(body.get("outputs") or []),
        "altered": altered(entry),
    }


def outcome_of(body: Mapping[str, Any]) -> str:
    """Return the one word that says how an entry ended: the verdict with its reason, or the outcome."""
    verdict = body.get("verdict")
    if isinstance(verdict, Mapping):
        return f"{verdict.get('verdict', '')} ({verdict.get('reason', '')})"
    words = (body.get(name) for name in ("outcome", "what", "event", "decision", "mode"))
    return str(next((word for word in words if isinstance(word, str) and word), ""))


def _int(text: object) -> int | None:
    return int(text) if isinstance(text, str | int) and not isinstance(text, bool) else None


def _table(to: Console, rows: Sequence[Mapping[str, Any]], zone_name: str | None, *, with_log: bool) -> None:
    from cagg.quantities import CarbonMass, Energy

    shown = []
    for row in rows:
        used = []
        if row["energy_millijoules"] is not None:
            used.append(f"{Energy(millijoules=row['energy_millijoules'])} grade {row['grade']}")
        if row["carbon_micrograms"] is not None:
            used.append(str(CarbonMass(micrograms=row["carbon_micrograms"])))
        for name, one in (("inputs", "input"), ("outputs", "output")):
            if row[name]:
                used.append(f"{row[name]} {one if row[name] == 1 else name}")
        if row["commit"] is not None and row["kind"] in {"measurement", "correction"}:
            used.append(f"commit {row['commit']}")
        subject = row["task"] or row["budget_path"] or ""
        changed = "CHANGED AFTER IT WAS RECORDED:" if row["altered"] else ""
        what = " ".join(str(part) for part in (changed, row["kind"], subject, row["outcome"], *used) if part)
        place = "-" if row["index"] is None else str(row["index"])
        cells = (place, when(row["recorded_at"], zone_name)[:16], row["entry_id"][:18])
        shown.append((*cells, str(row["log"]), what) if with_log else (*cells, what))
    columns(to, shown, header=("#", "when", "id", *(["log"] if with_log else []), "what"))
