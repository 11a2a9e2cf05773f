"""``cagg explain``: the story of one request, from what was asked to what was charged, out of the ledger alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._consent import PrivateState, private_states, tell_consent, tell_private
from cagg.cli._entries import altered, showing
from cagg.cli._options import InLog
from cagg.cli._origins import code_of, engine_of, tell_occurrence
from cagg.cli._output import Json, answer, facts, line, when
from cagg.cli._story import decision_json, tell_decision, tell_measurement, tell_settlement
from cagg.errors import InvalidInput, StoreUnavailable
from cagg.records import EntryKind
from cagg.windows import parse_instant

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.evidence import Recomputed
    from cagg.ports import Transaction
    from cagg.records import Entry

__all__ = ["explain"]

_OF_REQUESTS = frozenset(
    {
        EntryKind.DECISION,
        EntryKind.MEASUREMENT,
        EntryKind.CORRECTION,
        EntryKind.SETTLEMENT,
        EntryKind.OVERRIDE,
        EntryKind.INFERENCE,
        EntryKind.REGENERATION,
        EntryKind.VALIDATION,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chapter:
    """One entry with its decoded body, and what became of its personal values, by field; without any value."""

    entry: Entry
    body: Mapping[str, Any]
    private: Mapping[str, PrivateState]


def _chapter(tx: Transaction, entry: Entry) -> _Chapter:
    from cagg.ledger.entry import read_body

    body = read_body(tx, entry)
    return _Chapter(entry=entry, body=body, private=private_states(tx, entry, body))


def explain(
    *,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ENTRY",
            help="Id of an entry, a unique beginning of it, its number in the log, or latest: the newest decision, "
            "hence the newest request.",
        ),
    ],
    log: InLog = None,
    recompute: Annotated[bool, typer.Option("--recompute", help="Decide again from the recorded inputs.")] = False,
    json: Json = False,
) -> int:
    """Tell the story of a request: what was asked, why it was decided so, what was used and charged.

    Exit status 1 when --recompute gives another verdict than the one that was recorded.
    """
    from cagg.cli._context import components, find_entry, store_is_new
    from cagg.ledger.lineage import entries_of_all_logs

    parts = components()
    if store_is_new(parts):
        raise StoreUnavailable(f"there is no ledger at {parts.settings.store_url} yet; `cagg run -- CMD` begins one.")
    with parts.store.snapshot() as tx:
        entry = find_entry(tx, name, kinds=frozenset({EntryKind.DECISION}), log=log)
        with showing(entry):
            chapters = [_chapter(tx, entry)]
            if entry.kind in _OF_REQUESTS:
                key = str(chapters[0].body["request_key"])
                found = entries_of_all_logs(tx, request_key=key)
                chapters = [_chapter(tx, item) for item in found] or chapters
            again = _recomputed(tx, entry, chapters) if recompute else []
    with showing(entry):
        same = all(item.same for _, item in again)
        document = {
            "entry_id": entry.entry_id,
            "request": chapters[0].body.get("request"),
            "entries": [_chapter_json(item) for item in chapters],
            "recomputed": [_recomputed_json(item, result) for item, result in again] if recompute else None,
        }

    def people(to: Console) -> None:
        with showing(entry):
            _tell(to, chapters, parts.settings.timezone)
            for item, result in again:
                _tell_recomputed(to, item, result)

    return answer(document, people, json=json, status=0 if same else 1)


def _recomputed(tx: Transaction, entry: Entry, chapters: Sequence[_Chapter]) -> list[tuple[_Chapter, Recomputed]]:
    from cagg.evidence import forecast_digest, recompute

    decisions = [item for item in chapters if item.entry.kind is EntryKind.DECISION and "question" in item.body]
    if entry.kind is EntryKind.DECISION:
        decisions = [item for item in decisions if item.entry.entry_id == entry.entry_id]
    if not decisions:
        raise InvalidInput("this entry has no recorded inputs to decide from again; name a decision.")
    results = []
    for item in decisions:
        digest = forecast_digest(item.body)
        results.append((item, recompute(item.body, None if digest is None else tx.blob(digest))))
    return results


def _chapter_json(item: _Chapter) -> dict[str, Any]:
    document: dict[str, Any] = {
        "index": item.entry.index,
        "entry_id": item.entry.entry_id,
        "kind": str(item.entry.kind),
        "recorded_at": item.entry.recorded_at,
        "altered": altered(item.entry),
        "body": item.body,
    }
    if item.private:
        document["private"] = [state.json() for state in item.private.values()]
    if item.entry.kind is EntryKind.DECISION:
        document["decision"] = decision_json(item.body)
    return document


def _recomputed_json(item: _Chapter, result: Recomputed) -> dict[str, Any]:
    return {
        "entry_id": item.entry.entry_id,
        "same": result.same,
        "planner": result.planner,
        "stored": dict(result.stored),
        "again": dict(result.again),
    }


# ---- for people ---------------------------------------------------------------------------------------------------


def _tell(to: Console, chapters: Sequence[_Chapter], zone_name: str | None) -> None:
    request = chapters[0].body.get("request")
    if isinstance(request, Mapping):
        _tell_request(to, request)
    for item in chapters:
        line(to)
        stamp = when(item.entry.recorded_at, zone_name, seconds=True)
        place = "queued" if item.entry.index is None else f"#{item.entry.index}"
        line(to, f"{stamp}  {place} {item.entry.kind} {item.entry.entry_id}", style="dim")
        if altered(item.entry):
            line(to, "CHANGED AFTER IT WAS RECORDED: run `cagg ledger verify`.", style="bold red")
        match item.entry.kind:
            case EntryKind.DECISION:
                tell_decision(to, item.body, zone_name)
            case EntryKind.MEASUREMENT | EntryKind.CORRECTION:
                tell_measurement(to, item.body, zone_name)
            case EntryKind.SETTLEMENT:
                tell_settlement(to, item.body)
            case EntryKind.VALIDATION | EntryKind.INFERENCE | EntryKind.REGENERATION:
                tell_occurrence(to, item.body)
            case EntryKind.APPROVAL | EntryKind.WAIVER | EntryKind.REDACTION:
                tell_consent(to, item.body, item.private, zone_name)
            case _:
                _tell_fields(to, item.body)
                tell_private(to, item.body, item.private, zone_name)


def _tell_request(to: Console, request: Mapping[str, Any]) -> None:
    scheduled = request.get("scheduled_start")
    labels = "; ".join(f"{item['name']} {item['value']}" for item in request.get("labels") or [])
    facts(
        to,
        [
            ("task", f"{request.get('task_key')} on {request.get('host')}, attempt {request.get('attempt')}"),
            ("run", str(request.get("root_run_id") or "")),
            ("zone", str(request.get("zone") or "")),
            ("charged to", str(request.get("budget_path") or "")),
            ("purpose", ", ".join(str(request[name]) for name in ("kind", "purpose", "risk") if request.get(name))),
            ("work item", str(request.get("work_item") or "")),
            ("scheduled", when(parse_instant(scheduled), None) if isinstance(scheduled, str) else ""),
            ("engine", engine_of(request)),
            ("code", code_of(request)),
            ("labels", labels),
        ],
    )


_ENVELOPE = {
    *("v", "kind", "log", "entry_id", "idempotency_key", "request_key", "ordinal", "recorded_at", "request"),
    "private",  # told in words
}


def _tell_fields(to: Console, body: Mapping[str, Any]) -> None:
    facts(to, [(name, str(value)) for name, value in body.items() if name not in _ENVELOPE and value is not None])


def _tell_recomputed(to: Console, item: _Chapter, result: Recomputed) -> None:
    line(to)
    if result.same:
        line(
            to,
            f"Recomputed with planner {result.planner}: the recorded inputs give the same verdict "
            f"({result.again['verdict']}, {result.again['reason']}).",
            style="green",
        )
        return
    line(
        to,
        f"Recomputed with planner {result.planner}: ANOTHER verdict for {item.entry.entry_id}: recorded "
        f"{result.stored['verdict']} ({result.stored['reason']}), recomputed {result.again['verdict']} "
        f"({result.again['reason']}); run `cagg ledger verify`.",
        style="red",
    )
