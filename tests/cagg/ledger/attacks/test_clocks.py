"""Clocks stand wrong, are corrected and run backwards: entries are kept as they were said, and the oddity is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cagg.ledger.entry import append
from cagg.ledger.report import Assurance, VerifyReport
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import verify
from cagg.ports import Store
from cagg.testing import ManualClock
from cagg.testing.stores import draft


def recorded(store: Store, name: str) -> None:
    with store.transaction() as tx:
        append(tx, draft(name))
        while sequence(tx):
            pass


def looked_at(store: Store) -> VerifyReport:
    with store.snapshot() as tx:
        report = verify(tx, [])
    assert report.failures == ()
    assert report.assurance is Assurance.CONSISTENT
    return report


def test_a_clock_that_runs_says_nothing(store: Store, clock: ManualClock) -> None:
    for name in "abc":
        recorded(store, name)
        clock.advance(3_600)
    assert looked_at(store).notes == ()


@pytest.mark.parametrize("by", [timedelta(hours=1), timedelta(days=365 * 10)])
def test_a_clock_that_is_set_back_is_told(store: Store, clock: ManualClock, by: timedelta) -> None:
    recorded(store, "a")
    clock.advance(1)
    clock.step_wall_clock(-by)
    recorded(store, "b")
    note = looked_at(store).notes[0]
    assert "entry 1" in note
    assert "before" in note


def test_a_clock_ten_years_ahead_is_told_once_it_was_corrected(store: Store, clock: ManualClock) -> None:
    recorded(store, "a")
    clock.step_wall_clock(timedelta(days=3_653))
    recorded(store, "b")
    assert looked_at(store).notes == ()  # who looks by the same clock sees nothing odd
    clock.step_wall_clock(-timedelta(days=3_653))
    recorded(store, "c")
    notes = "\n".join(looked_at(store).notes)
    assert "before that of the entry in front" in notes
    assert "in the future" in notes
    assert "entry 1" in notes


def test_a_correction_of_some_seconds_is_everyday_life(store: Store, clock: ManualClock) -> None:
    recorded(store, "a")
    clock.step_wall_clock(-timedelta(seconds=37))
    recorded(store, "b")
    assert looked_at(store).notes == ()


def test_the_instants_around_a_leap_second_are_kept(store: Store, clock: ManualClock) -> None:
    """Python's clock, as POSIX's, has no 23:59:60: the second before it comes twice, or is stretched."""
    clock.advance_to(datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
    recorded(store, "a")
    clock.step_wall_clock(-timedelta(seconds=1))
    recorded(store, "b")
    clock.advance(1)
    recorded(store, "c")
    with store.snapshot() as tx:
        assert [entry.recorded_at.second for entry in tx.entries()] == [59, 58, 59]
    assert looked_at(store).notes == ()
