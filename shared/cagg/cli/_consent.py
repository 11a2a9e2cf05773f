"""Tells what persons said (approvals, waivers) and what was deleted for them (redactions): never a personal value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cagg.cli._origins import listed
from cagg.cli._output import facts, line, when
from cagg.windows import parse_instant

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.ports import Transaction
    from cagg.records import Entry

__all__ = ["PrivateState", "private_states", "tell_consent", "tell_private"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateState:
    """What became of a personal value; never the value itself.

    Attributes:
        field: its name.
        kept: True while it is kept beside the entry.
        redacted_at: when it was deleted; None while it was not, as far as the ledger says.
        reason: why it was deleted.
        redaction: id of the entry that says so; None without one.
    """

    field: str
    kept: bool
    redacted_at: datetime | None = None
    reason: str = ""
    redaction: str | None = None

    def json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "field": self.field,
            "kept": self.kept,
            "redacted_at": self.redacted_at,
            "reason": self.reason,
            "redaction": self.redaction,
        }


def private_states(tx: Transaction, entry: Entry, body: Mapping[str, Any]) -> dict[str, PrivateState]:
    """Return what became of the entry's personal values, by field; empty when it has none.

    Raises:
        LedgerDamaged: the entry does not name them in the form of this version.
    """
    from cagg.ledger.encoding import decode
    from cagg.ledger.private import sealed_fields
    from cagg.ledger.retention import redaction_of

    named = sealed_fields(body)
    kept = set(tx.private_fields(entry.entry_id)) if named else set()
    states = {}
    for field in named:
        found = redaction_of(tx, entry.entry_id, field)
        states[field] = PrivateState(
            field=field,
            kept=field in kept,
            redacted_at=None if found is None else found.recorded_at,
            reason="" if found is None else str(decode(found.body).get("reason") or ""),
            redaction=None if found is None else found.entry_id,
        )
    return states


def tell_consent(
    to: Console, body: Mapping[str, Any], private: Mapping[str, PrivateState], zone_name: str | None
) -> None:
    """Print an approval, a waiver or a redaction in words."""
    reason, rows = str(body.get("reason") or ""), []
    match body.get("kind"):
        case "approval":
            subject = listed([body["subject"]])
            text = f"{str(body.get('decision', '')).upper()}: {subject}"
            rows = [("risk", str(body.get("risk") or "")), _person("approver", body, private, zone_name)]
        case "waiver":
            text = f"WAIVED until {when(parse_instant(body['expires_at']), zone_name)}: {body.get('scope', '')}"
            rows = [_person("owner", body, private, zone_name)]
        case _:
            gone = body["redacted"]
            text = f"REDACTED: the value {gone['field']!r} of the entry {gone['entry_id']} was deleted with its salt"
    line(to, text, style="bold")
    about = ", ".join(str(item) for item in body.get("parents") or [])
    facts(to, [*rows, ("reason", reason), ("refers to", about)])
    tell_private(to, body, {name: item for name, item in private.items() if name not in dict(rows)}, zone_name)


def tell_private(
    to: Console, body: Mapping[str, Any], private: Mapping[str, PrivateState], zone_name: str | None
) -> None:
    """Print what became of personal values, one line each."""
    facts(to, [_person(name, body, private, zone_name) for name in private])


def _person(
    name: str, body: Mapping[str, Any], private: Mapping[str, PrivateState], zone_name: str | None
) -> tuple[str, str]:
    state = private.get(name)
    if state is None:
        return name, str(body.get(name) or "")
    if state.redacted_at is not None:
        return name, f"redacted on {when(state.redacted_at, zone_name)[:10]}: {state.reason}"
    if state.kept:
        return name, f"a personal value, shown by `cagg ledger private {body.get('entry_id')}`"
    return name, "gone, and no redaction says so: run `cagg ledger verify`"
