"""Redaction: what may be deleted is deleted once and recorded, what must be kept is refused until its time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cagg.entries import Entry, EntryDraft, EntryKind
from cagg.errors import InvalidInput, MustBeKept
from cagg.ledger.encoding import decode
from cagg.ledger.entry import append
from cagg.ledger.events import ApprovalDecision, approval_body, waiver_body
from cagg.ledger.kinds import check_kind
from cagg.ledger.private import check_private
from cagg.ledger.retention import Redaction, kept_until, redact, redaction_of
from cagg.ports import Store
from cagg.testing import ManualClock
from cagg.testing.stores import draft

NAME = "Ada Lovelace-Example"
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def approved(store: Store, *, risk: str | None = "limited", key: str = "release-1") -> Entry:
    body = approval_body(
        subject={"name": "model", "digest": None}, decision=ApprovalDecision.APPROVED, approver=None, risk=risk
    )
    wanted = EntryDraft(
        kind=EntryKind.APPROVAL, request_key=key, ordinal=0, body=body, private={"approver": NAME, "deputy": NAME}
    )
    with store.transaction() as tx:
        return append(tx, wanted)


def redacted(
    store: Store, entry: Entry, field: str = "approver", *, reason: str = "asked to", years: int = 10
) -> Redaction:
    with store.transaction() as tx:
        return redact(tx, entry.entry_id, field, reason=reason, retention_years=years)


def fields_kept(store: Store, entry: Entry) -> list[str]:
    with store.snapshot() as tx:
        return [item.field for item in tx.private_values(entry.entry_id)]


# ---- redacting ------------------------------------------------------------------------------------------------------


def test_a_redaction_deletes_one_value_and_says_so_without_it(store: Store) -> None:
    entry = approved(store)
    done = redacted(store, entry, reason="  the person asked \n for it ")
    assert done.deleted == 1
    assert fields_kept(store, entry) == ["deputy"]
    body = decode(done.entry.body)
    check_kind(body)
    assert body["kind"] == "redaction"
    assert body["redacted"] == {"entry_id": entry.entry_id, "field": "approver"}
    assert (body["reason"], body["deleted"]) == ("the person asked for it", 1)
    assert NAME.encode() not in done.entry.body
    with store.snapshot() as tx:
        assert check_private(tx, decode(entry.body)).problems == ()


def test_repeating_a_redaction_is_harmless_whatever_the_reason(store: Store) -> None:
    entry = approved(store)
    first = redacted(store, entry)
    again = redacted(store, entry, reason="another reason")
    assert (again.entry.entry_id, again.deleted) == (first.entry.entry_id, 0)
    with store.snapshot() as tx:
        assert tx.tree_size() + tx.queued() == 2


def test_a_value_that_a_backup_brought_back_is_deleted_again(store: Store) -> None:
    entry = approved(store)
    with store.snapshot() as tx:
        kept = list(tx.private_values(entry.entry_id))
    first = redacted(store, entry)
    with store.transaction() as tx:
        tx.put_private(kept)
    again = redacted(store, entry)
    assert (again.entry.entry_id, again.deleted) == (first.entry.entry_id, 1)
    assert fields_kept(store, entry) == ["deputy"]


def test_a_value_that_somebody_deleted_behind_our_back_is_recorded_as_gone_before(store: Store) -> None:
    entry = approved(store)
    with store.transaction() as tx:
        tx.drop_private(entry.entry_id, "approver")
    done = redacted(store, entry)
    assert (done.deleted, decode(done.entry.body)["deleted"]) == (0, 0)


def test_a_rollback_keeps_the_value(store: Store) -> None:
    entry = approved(store)
    try:
        with store.transaction() as tx:
            redact(tx, entry.entry_id, "approver", reason="asked to", retention_years=10)
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert fields_kept(store, entry) == ["approver", "deputy"]
    with store.snapshot() as tx:
        assert redaction_of(tx, entry.entry_id, "approver") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entry_id": "01a00000-0000-7000-8000-000000000000"}, "no entry has the id"),
        ({"field": "owner"}, "no private value 'owner'; it has approver, deputy"),
        ({"reason": " \n "}, "--reason"),
    ],
)
def test_what_cannot_be_redacted_is_refused_with_the_remedy(store: Store, change: dict[str, str], message: str) -> None:
    entry = approved(store)
    wanted = {"entry_id": entry.entry_id, "field": "approver", "reason": "asked to", **change}
    with store.transaction() as tx, pytest.raises(InvalidInput, match=message):
        redact(tx, wanted["entry_id"], wanted["field"], reason=wanted["reason"], retention_years=10)
    assert fields_kept(store, entry) == ["approver", "deputy"]


def test_an_entry_without_personal_values_says_so(store: Store) -> None:
    with store.transaction() as tx:
        entry = append(tx, draft())
        with pytest.raises(InvalidInput, match="it has none"):
            redact(tx, entry.entry_id, "approver", reason="asked to", retention_years=10)


# ---- what must be kept ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("risk", ["high", "critical"])
def test_approvers_of_high_and_critical_releases_stay_for_the_retention_time(
    store: Store, clock: ManualClock, risk: str
) -> None:
    entry = approved(store, risk=risk)
    due = entry.recorded_at.replace(year=entry.recorded_at.year + 10)
    with pytest.raises(MustBeKept, match=f"until {due:%Y-%m-%d}.*risk {risk}.*retention_years is 10"):
        redacted(store, entry)
    assert fields_kept(store, entry) == ["approver", "deputy"]
    with store.snapshot() as tx:
        passed = due - tx.now()
        if not tx.sequences_inline:
            return  # the server's own clock counts there
    clock.advance((passed - timedelta(seconds=1)).total_seconds())
    with pytest.raises(MustBeKept):
        redacted(store, entry)
    clock.advance(1)
    assert redacted(store, entry).deleted == 1


@pytest.mark.parametrize("risk", ["minimal", "limited", None])
def test_other_approvers_may_be_forgotten_at_once(store: Store, risk: str | None) -> None:
    assert redacted(store, approved(store, risk=risk)).deleted == 1


def test_with_a_retention_of_zero_years_nothing_is_kept(store: Store) -> None:
    assert redacted(store, approved(store, risk="critical"), years=0).deleted == 1


def test_owners_of_waivers_are_not_among_those_who_are_kept(store: Store) -> None:
    body = waiver_body(owner=None, reason="r", scope="s", expires_at=AT)
    with store.transaction() as tx:
        wanted = EntryDraft(kind=EntryKind.WAIVER, request_key="w", ordinal=0, body=body, private={"owner": NAME})
        entry = append(tx, wanted)
    assert redacted(store, entry, "owner").deleted == 1


@pytest.mark.parametrize(
    ("body", "years", "until"),
    [
        ({"kind": "approval", "risk": "high"}, 10, datetime(2038, 2, 28, 12, tzinfo=UTC)),
        ({"kind": "approval", "risk": "critical"}, 4, datetime(2032, 2, 29, 12, tzinfo=UTC)),
        ({"kind": "approval", "request": {"risk": "high"}}, 1, datetime(2029, 2, 28, 12, tzinfo=UTC)),
        ({"kind": "approval", "risk": "limited", "request": {"risk": "high"}}, 1, None),
        ({"kind": "approval", "risk": "high"}, 0, None),
        ({"kind": "decision", "risk": "high"}, 10, None),
        ({"kind": "approval", "risk": None, "request": None}, 10, None),
    ],
)
def test_the_time_is_counted_in_calendar_years(body: dict[str, Any], years: int, until: datetime | None) -> None:
    assert kept_until(body, datetime(2028, 2, 29, 12, tzinfo=UTC), years) == until


def test_a_time_beyond_the_calendar_never_ends() -> None:
    until = kept_until({"kind": "approval", "risk": "high"}, AT, 10_000)
    assert until is not None
    assert until.year == 9999
