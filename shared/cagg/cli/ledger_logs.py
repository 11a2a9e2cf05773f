"""``cagg ledger logs | roll``: the logs of the store, and the end of one with the beginning of the next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._output import Json, answer, columns, line, when
from cagg.errors import InvalidInput, StoreUnavailable

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.ledger.lineage import LogFacts
    from cagg.ledger.succession import RollReason

__all__ = ["logs", "roll"]


def logs(*, json: Json = False) -> int:
    """List the logs of the store, oldest first: one grows, those before it are frozen.

    Exit status 1 when they do not fit together.
    """
    from cagg.cli._context import components, store_is_new
    from cagg.ledger.lineage import succession

    parts = components()
    if store_is_new(parts):
        raise StoreUnavailable(f"there is no ledger at {parts.settings.store_url} yet; `cagg run -- CMD` begins one.")
    with parts.store.snapshot() as tx:
        found = succession(tx)
    document = {"logs": [_log_json(one) for one in found.logs], "problems": found.problems, "breaks": found.breaks}

    def people(to: Console) -> None:
        rows = [_log_row(one, parts.settings.timezone) for one in found.logs]
        columns(to, rows, header=("begun", "newest", "entries", "signed", "state", "log"))
        for text in found.breaks:
            line(to, f"{text[:1].upper()}{text[1:]}", style="yellow")
        for text in found.problems:
            line(to, f"NOT in agreement: {text}", style="red")

    return answer(document, people, json=json, status=1 if found.problems else 0)


def _log_json(one: LogFacts) -> Mapping[str, Any]:
    before, lost = one.predecessor, one.lost
    return {
        "origin": one.log.origin,
        "state": str(one.log.state),
        "created_at": one.log.created_at,
        "last_at": one.last_at,
        "size": one.size,
        "waiting": one.waiting,
        "signed_size": one.signed_size,
        "reason": one.reason or None,
        "predecessor": None
        if before is None
        else {"origin": before.origin, "size": before.size, "root": before.root.hex()},
        "lost": None if lost is None else {"origin": lost.origin, "size": lost.size, "root": lost.root.hex()},
        "predecessor_signed_size": one.broken_at,
    }


def _log_row(one: LogFacts, zone_name: str | None) -> tuple[str, ...]:
    begun = when(one.log.created_at, zone_name)[:10]
    last = "-" if one.last_at is None else when(one.last_at, zone_name)[:10]
    before = "" if one.predecessor is None else f", goes on from {one.predecessor.origin} ({one.predecessor.size})"
    entries = str(one.size) if not one.waiting else f"{one.size}+{one.waiting}"
    return begun, last, entries, str(one.signed_size), str(one.log.state), f"{one.log.origin}{before}"


def roll(
    *,
    name: Annotated[
        str | None, typer.Option(help="Name of the next log; default: the first log's name and the year.")
    ] = None,
    reason: Annotated[
        str, typer.Option(help="yearly, requested, restored (after a backup) or key_lost (it cannot be signed).")
    ] = "requested",
    lost: Annotated[
        Path | None,
        typer.Option(
            help="With restored: file of the checkpoint that is lost; default: the newest beside the key or anchored."
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Freeze the log and begin the next one, which names the end of the frozen one in its first entry.

    Runs that are under way are settled in the new log. Keep the new log's public key outside of the store, as you did
    with the first one.
    """
    from cagg.cli._context import components, store_is_new
    from cagg.steps.rolling import roll_log

    why = _reason(reason)
    parts = components()
    if store_is_new(parts):
        raise StoreUnavailable(f"there is no ledger at {parts.settings.store_url} yet; `cagg run -- CMD` begins one.")
    done = roll_log(parts, name=name, reason=why, lost=None if lost is None else _note(lost))
    head = done.rolled.predecessor
    document = {
        "frozen": {"origin": head.origin, "size": head.size, "root": head.root.hex()},
        "begun": done.rolled.origin,
        "reason": str(why),
        "key": done.key,
        "problems": done.problems,
    }

    def people(to: Console) -> None:
        line(to, f"The log {head.origin} is frozen at {head.size} entries; {done.rolled.origin} goes on from it.")
        if why.breaks:
            line(to, "It could not be signed to its end; `cagg ledger logs` and `verify` state the break.")
        line(to, "Public key of the new log, to be kept outside of the store:")
        to.print(done.key, soft_wrap=True)
        for problem in done.problems:
            line(to, f"Not done yet, `cagg maintain` tries again: {problem}", style="red")

    return answer(document, people, json=json, status=1 if done.problems else 0)


def _reason(text: str) -> RollReason:
    from cagg.ledger.succession import RollReason

    try:
        return RollReason(text.replace("-", "_"))
    except ValueError:
        raise InvalidInput(f"the reason {text!r} is unknown; use one of {', '.join(RollReason)}.") from None


def _note(path: Path) -> str:
    from cagg.cli._ledger_keys import outside_checkpoint

    return outside_checkpoint(path).note
