"""What every store keeps and what counts: forecasts while a run may need their prices, each run once in the history."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cagg.ledger.entry import append
from cagg.ports import Store, StoredForecast, Transaction
from cagg.quantities import Energy
from cagg.records import EntryDraft, EntryKind, Reservation, ReservationState
from cagg.store.tables import SCHEMA_VERSION
from cagg.testing.clock import ManualClock
from cagg.testing.kinds import reading_body
from cagg.windows import format_instant

__all__ = ["KeepingContract", "record_run"]

_NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def _at(hours: float) -> datetime:
    return _NOON + timedelta(hours=hours)


def _vintage(hours: float, *, reach_hours: float = 48, zone: str = "GB") -> StoredForecast:
    data = f"{hours}".encode()
    return StoredForecast(
        provider="neso",
        zone=zone,
        convention="c",
        fetched_at=_at(hours),
        start=_at(hours),
        end=_at(hours + reach_hours),
        digest=hashlib.sha256(data).hexdigest(),
        data=data,
    )


def _reserve(tx: Transaction, state: ReservationState, *, asked: float, started: float | None = None) -> None:
    tx.put_reservation(
        Reservation(
            request_key="k",
            series_key="s",
            host="local",
            root_run_id="r",
            task_key="t",
            attempt=1,
            budget_path=None,
            state=state,
            first_asked_at=_at(asked),
            deadline=None,
            asks=1,
            deferrals=0,
            planning_intensity_milligrams_per_kwh=None,
            planning_basis="none",
            planned_start=_at(asked),
            upper_energy=Energy(millijoules=1),
            holds=(),
            lease_until=None,
            lease_epoch=0,
            last_beat_at=None,
            started_at=None if started is None else _at(started),
            used_energy=Energy.ZERO,
            last_power_milliwatts=0,
            encloses_run=False,
            created_at=_at(asked),
            updated_at=_at(asked),
            run_reference="task-run-7",
        )
    )


def _kept(tx: Transaction, zone: str = "GB") -> list[float]:
    return [(item.fetched_at - _NOON) / timedelta(hours=1) for item in reversed(tx.forecasts("neso", zone, _at(-999)))]


def record_run(
    tx: Transaction, kind: EntryKind, outcome: str | None, *, key: str = "k", ordinal: int = 0, **body: Any
) -> None:
    fields = reading_body(
        start=body.pop("start", format_instant(_at(0))),
        end=format_instant(_at(1)),
        energy=body.pop("energy_millijoules", "5"),
        outcome=outcome,
        **body,
    )
    append(tx, EntryDraft(kind=kind, request_key=key, ordinal=ordinal, body=fields))


def _seen(tx: Transaction, limit: int = 100) -> list[tuple[int, bool]]:
    return sorted((point.energy_millijoules or 0, point.completed) for point in tx.history("nightly", limit))


class KeepingContract:
    """Tests of forecast retention, of the history, and of what the store says of itself."""

    # ---- forecasts ----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", [ReservationState.WAITING, ReservationState.RUNNING])
    def test_vintages_stay_while_a_run_may_be_priced_with_them(self, store: Store, state: ReservationState) -> None:
        with store.transaction() as tx:
            tx.put_forecast(_vintage(-30))
            tx.put_forecast(_vintage(-7, reach_hours=6))
            _reserve(tx, state, asked=0)
            for hours in range(-6, 100, 6):
                tx.put_forecast(_vintage(hours, reach_hours=30))
            # -30 was fetched too early to be looked for, -7 was over before the first ask
            assert _kept(tx) == list(range(-6, 100, 6))
            assert tx.drop_forecasts(_at(50)) == 0
            _reserve(tx, ReservationState.SETTLED, asked=0)
            assert tx.drop_forecasts(_at(50)) == 10
            assert _kept(tx) == list(range(54, 100, 6))

    def test_the_start_counts_where_it_lies_before_the_ask(self, store: Store) -> None:
        with store.transaction() as tx:
            _reserve(tx, ReservationState.RUNNING, asked=40, started=0)
            tx.put_forecast(_vintage(-12, reach_hours=24))
            tx.put_forecast(_vintage(90))
            assert _kept(tx) == [-12, 90]

    def test_without_an_open_reservation_vintages_stay_for_a_day(self, store: Store) -> None:
        with store.transaction() as tx:
            _reserve(tx, ReservationState.EXPIRED, asked=0)
            for hours in (0, 12, 25, 36.5):
                tx.put_forecast(_vintage(hours))
                tx.put_forecast(_vintage(hours, zone="DE") if hours == 0 else _vintage(hours))
            assert _kept(tx) == [25, 36.5]
            assert _kept(tx, "DE") == [0]

    def test_forecasts_come_newest_first_and_old_ones_go(self, store: Store) -> None:
        with store.transaction() as tx:
            for item in (_vintage(0), _vintage(2), _vintage(1), _vintage(1), _vintage(0, zone="DE")):
                tx.put_forecast(item)
        with store.snapshot() as tx:
            assert tx.forecasts("neso", "GB", _NOON) == [_vintage(2), _vintage(1), _vintage(0)]
            assert tx.forecasts("neso", "GB", _NOON + timedelta(hours=1)) == [_vintage(2), _vintage(1)]
            assert tx.forecasts("other", "GB", _NOON) == []
        with store.transaction() as tx:
            tx.put_forecast(_vintage(24.5))
            assert tx.forecasts("neso", "GB", _NOON) == [_vintage(24.5), _vintage(2), _vintage(1)]
            assert tx.forecasts("neso", "DE", _NOON) == [_vintage(0, zone="DE")]
            assert tx.drop_forecasts(_NOON + timedelta(hours=2)) == 2
            assert tx.forecasts("neso", "GB", _NOON) == [_vintage(24.5), _vintage(2)]

    # ---- reservations -------------------------------------------------------------------------------------------

    def test_a_reservation_comes_back_as_it_was_put(self, store: Store) -> None:
        with store.transaction() as tx:
            _reserve(tx, ReservationState.RUNNING, asked=1, started=2)
        with store.snapshot() as tx:
            (found,) = tx.reservations(host="local", root_run_id="r", open_only=True)
        assert (found.first_asked_at, found.started_at, found.deadline) == (_at(1), _at(2), None)
        assert found.run_reference == "task-run-7"
        with store.transaction() as tx:
            assert tx.reservation("k") == found
            tx.put_reservation(found)
            assert tx.reservations(series_key="s") == [found]
            assert tx.reservations(series_key="t") == []

    # ---- history ------------------------------------------------------------------------------------------------

    def _record(self, store: Store, clock: ManualClock, *args: Any, **more: Any) -> None:
        clock.advance(1)
        with store.transaction() as tx:
            record_run(tx, *args, **more)

    def test_a_lost_run_that_completed_after_all_counts_once(self, store: Store) -> None:
        with store.transaction() as tx:
            record_run(tx, EntryKind.MEASUREMENT, "lost")
            assert _seen(tx) == [(5, False)]
            later = format_instant(_at(0.001))
            record_run(tx, EntryKind.CORRECTION, "completed", energy_millijoules="70", start=later)
            assert _seen(tx) == [(70, True)]
            record_run(tx, EntryKind.MEASUREMENT, "lost", key="other")
            assert _seen(tx) == [(5, False), (70, True)]

    def test_a_late_run_that_never_began_counts(self, store: Store) -> None:
        with store.transaction() as tx:
            record_run(tx, EntryKind.CORRECTION, "completed", energy_millijoules="70")
            assert _seen(tx) == [(70, True)]

    def test_the_last_correction_of_a_run_stands(self, store: Store, clock: ManualClock) -> None:
        self._record(store, clock, EntryKind.MEASUREMENT, "completed")
        self._record(store, clock, EntryKind.CORRECTION, "completed", energy_millijoules="6")
        self._record(store, clock, EntryKind.CORRECTION, "completed", energy_millijoules="7", ordinal=1)
        self._record(store, clock, EntryKind.CORRECTION, None, ordinal=2)  # of something else than the run
        with store.snapshot() as tx:
            assert _seen(tx) == [(7, True)]

    def test_several_runs_under_one_request_and_nested_runs_all_count(self, store: Store) -> None:
        with store.transaction() as tx:
            record_run(tx, EntryKind.MEASUREMENT, "failed")
            record_run(tx, EntryKind.MEASUREMENT, "completed", ordinal=1, start=format_instant(_at(0.5)))
            record_run(tx, EntryKind.MEASUREMENT, "completed", key="nested", part_of="k")
            assert _seen(tx) == [(5, False), (5, True), (5, True)]

    def test_the_newest_come_first_over_both_kinds(self, store: Store, clock: ManualClock) -> None:
        for number in range(4):
            kind = EntryKind.MEASUREMENT if number % 2 else EntryKind.CORRECTION
            self._record(store, clock, kind, "completed", key=f"k{number}", energy_millijoules=str(number))
        with store.snapshot() as tx:
            found = tx.history("nightly", 3)
            assert [point.energy_millijoules for point in found] == [3, 2, 1]

    # ---- version ------------------------------------------------------------------------------------------------

    def test_a_transaction_tells_the_stored_version(self, store: Store) -> None:
        with store.transaction() as tx:
            assert tx.schema_version() == SCHEMA_VERSION
        with store.snapshot() as tx:
            assert tx.schema_version() == SCHEMA_VERSION
