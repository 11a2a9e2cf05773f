"""``cagg ledger verify``: check that nobody changed the ledger."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._ledger_keys import outside_checkpoint, trusted_keys
from cagg.cli._output import Json, answer, line
from cagg.errors import InvalidInput, StoreUnavailable

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.composition import Components
    from cagg.ledger.verify import Failure, VerifyReport
    from cagg.ports import Checkpoint

__all__ = ["checked", "report_json", "verify"]

_NO_ANCHORS = "none"
_MOST_FAILURES_SHOWN = 20
_MOST_WORKERS = 8
"""More helpers than this wait for the one process that reads the store; own choice."""


def verify(
    *,
    key: Annotated[
        list[str] | None, typer.Option(help="Trusted key as text or in a file; default: keys/log.vkey in the home.")
    ] = None,
    since: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint that was kept outside the store; may be repeated.")
    ] = None,
    anchors: Annotated[
        list[str] | None,
        typer.Option(
            help="A place that checkpoints are published to: a file, a folder, a git repository, a task's log. "
            "Default: the configured places that can be read; none = without them."
        ),
    ] = None,
    tree: Annotated[bool, typer.Option("--tree", help="Check signatures and hashes only, and read no entry.")] = False,
    log: Annotated[str | None, typer.Option(help="Name of the one log to check; default: all of the store.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that check a large log; default: one per processor.", min=1)
    ] = None,
    json: Json = False,
) -> int:
    """Check the whole ledger, and compare the tables beside it with its entries.

    Exit status 0 verified, 1 not verified, nothing to check, a place of --anchors that could not be compared, or the
    tables beside it disagree, 2 it could not be checked. In the JSON document `good` is true with status 0; `verified`
    is about the ledger alone.
    """
    from cagg.cli._context import components, store_is_new
    from cagg.cli._side_tables import side_table_problems
    from cagg.ledger.verify import verify as verify_ledger

    parts = components()
    if store_is_new(parts):
        raise StoreUnavailable(f"there is no ledger at {parts.settings.store_url} yet; `cagg run -- CMD` begins one.")
    keys = trusted_keys(parts, key)
    outside = [outside_checkpoint(path) for path in since or ()]
    with parts.store.snapshot() as tx:
        found = _collected(parts, anchors, [item.origin for item in tx.logs()], log)
        report = verify_ledger(
            tx, keys, [*outside, *found.checkpoints], tree_only=tree, log=log, workers=workers or _processors()
        )
        beside = None if tree else side_table_problems(tx)
    good = report.verified and not beside and not found.problems
    report = replace(report, notes=(*report.notes, *found.notes))
    document = {
        "good": good,
        **report_json(report),
        "sentence": _headline(report, found.problems, beside, report.sentence),
        "anchors": found.places,
        "anchor_problems": found.problems,
        "side_tables": None
        if beside is None
        else {"covered_by_signature": False, "agree": not beside, "problems": beside},
    }
    return answer(document, lambda to: _print(to, report, found.problems, beside), json=json, status=0 if good else 1)


def _processors() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_WORKERS)


@dataclass(frozen=True, slots=True)
class _Outside:
    """What the places outside of the store hold: checkpoints, what is wrong with the places, and what a person should
    know."""

    checkpoints: Sequence[Checkpoint]
    places: Sequence[str]
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()


def _collected(parts: Components, stated: Sequence[str] | None, origins: Sequence[str], log: str | None) -> _Outside:
    """Return the checkpoints of the store's logs, and of logs that it has forgotten, in the places to compare with.

    Those that were stated must be readable; configured ones are compared as far as they can be.
    """
    from cagg.ledger.anchors import collect, of_log
    from cagg.ledger.lineage import is_kin
    from cagg.ledger.notes import parse_note

    if stated and _NO_ANCHORS in stated and len(stated) > 1:
        raise InvalidInput("--anchors none leaves all places out; give it alone, or name the places.")
    configured = not stated
    places = [place for place in stated or parts.settings.anchors if place not in (_NO_ANCHORS, "log" * configured)]
    if not places:
        return _Outside((), ())
    wanted = [name for name in origins if log in (None, name)]
    collected = collect(places)
    found = [item for name in wanted for item in of_log(collected.checkpoints, name)]
    if log is None:
        heads = [(parse_note(item.note, ())[0].origin, item) for item in collected.checkpoints]
        found += [item for name, item in heads if name not in origins and is_kin(name, origins[0])]
    problems = list(collected.problems)
    if configured:
        notes = [f"compared with the configured anchors {', '.join(places)}; --anchors none leaves them out."]
        notes += [f"not compared with every configured anchor: {problem}" for problem in problems]
        return _Outside(found, places, (), notes if found else notes[1:])
    if not found and not problems:
        problems.append(f"no place holds a checkpoint of the log {' or '.join(wanted)}; name the right place.")
    return _Outside(found, places, problems)


# ---- for people -----------------------------------------------------------------------------------------------------


def _headline(report: VerifyReport, problems: Sequence[str], beside: Sequence[str] | None, said: str) -> str:
    """Return the verdict on all that was asked for; it says "verified" with exit status 0 only."""
    if not report.verified or not (problems or beside):
        return said
    why = [f"{len(problems)} problems with the places outside"] if problems else []
    why += [f"{len(beside)} contradictions in the tables beside the ledger"] if beside else []
    return f"NOT verified as asked: {' and '.join(why)}. The ledger alone: {said}"


def _print(to: Console, report: VerifyReport, anchor_problems: Sequence[str], beside: Sequence[str] | None) -> None:
    good = report.verified and not anchor_problems and not beside
    headline = _headline(report, anchor_problems, beside, report.headline)
    line(to, f"{headline[:1].upper()}{headline[1:]}", style="green" if good else "red")
    _print_some(to, [_failure_text(failure, several=bool(report.logs)) for failure in report.failures])
    for problem in anchor_problems:
        line(to, f"NOT compared with every anchor: {problem}", style="red")
    for note in report.notes:
        line(to, f"Note: {note}", style="yellow")
    for one in report.logs:
        line(to, f"  {one.origin}: {one.headline}", style="dim")
    line(to, f"Log {report.origin}, root {report.root.hex()[:16]}, assurance level {report.assurance}.", style="dim")
    if report.verified and report.unproven:
        line(
            to,
            "Keep what `cagg ledger checkpoint` prints outside of the store: with it (--since FILE, or "
            "--anchors PLACE) a later check sees whether entries were cut off.",
            style="dim",
        )
    if beside is not None:
        _print_beside(to, beside)
    advice = _advice(report, anchor_problems, beside)
    if advice:
        line(to, advice)


def _failure_text(failure: Failure, *, several: bool) -> str:
    """Return one failure with what tells the entry: its log where there are several, its id and its task."""
    about = [f"log {failure.log}"] if several and failure.log else []
    about += [f"entry {failure.entry_id}"] if failure.entry_id and failure.entry_id not in failure.message else []
    about += [f"task {failure.task}"] if failure.task else []
    told = f" ({', '.join(about)})" if about else ""
    return f"[{failure.kind}] {failure.message}{told}"


def _advice(report: VerifyReport, anchor_problems: Sequence[str], beside: Sequence[str] | None) -> str:
    """Return what to do now, in one line; empty when there is nothing."""
    if report.failures:
        return (
            "What to do: keep this store as it is; restore a backup elsewhere, compare it with `cagg ledger verify "
            '--since` and a checkpoint kept outside; see "Backup and restore" in docs/ledger.md.'
        )
    if not report.verified and report.size:
        return "`cagg maintain` signs it; keep the key that `cagg ledger key` shows outside of the store."
    if anchor_problems:
        return "What to do: name places that can be read, or leave them out with --anchors none."
    return "What to do: compare the tables with a backup; see docs/ledger.md." if beside else ""


def _print_beside(to: Console, beside: Sequence[str]) -> None:
    from cagg.cli._side_tables import SIDE_TABLES

    if beside:
        line(to, f"NOT in agreement: {SIDE_TABLES}, which no signature covers:", style="red")
        _print_some(to, [f"[side table] {problem}" for problem in beside])
    else:
        line(
            to,
            f"Beside the ledger: {SIDE_TABLES} are tables that no signature covers; they agree with each other "
            "and with the ledger's budget entries.",
            style="dim",
        )


def _print_some(to: Console, texts: Sequence[str]) -> None:
    for text in texts[:_MOST_FAILURES_SHOWN]:
        line(to, f"  {text}")
    if len(texts) > _MOST_FAILURES_SHOWN:
        line(to, f"  and {len(texts) - _MOST_FAILURES_SHOWN} more; --json lists all of them")


# ---- for others -----------------------------------------------------------------------------------------------------


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
        "checks": "tree" if report.tree_only else "everything",
        "origin": report.origin,
        "size": report.size,
        "root": report.root.hex(),
        "signed_size": report.signed_size,
        "anchored_size": report.anchored_size,
        "checkpoints": report.checkpoints,
        "queued": report.queued,
        "unsigned": report.unsigned,
        "unproven": report.unproven,
        "failures": [
            {
                "kind": str(item.kind),
                "index": item.index,
                "log": item.log or None,
                "entry_id": item.entry_id or None,
                "task": item.task or None,
                "message": item.message,
            }
            for item in report.failures
        ],
        "notes": list(report.notes),
        "logs": [report_json(one) for one in report.logs],
    }
