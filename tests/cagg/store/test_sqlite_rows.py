"""What is kept and what counts: forecasts for as long as a run may need their prices, each run once in the history."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cagg.ledger.entry import append
from cagg.ports import StoredForecast, Transaction
from cagg.quantities import Energy
from cagg.records import EntryDraft, EntryKind, Reservation, ReservationState
from cagg.store.sqlite import SqliteStore
from cagg.store.tables import SCHEMA_VERSION
from cagg.testing import ManualClock
from cagg.windows import format_instant

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


# ---- forecasts ------------------------------------------------------------------------------------------------------


def vintage(hours: float, *, reach_hours: float = 48, zone: str = "GB") -> StoredForecast:
    data = f"{hours}".encode()
    return StoredForecast(
        provider="neso",
        zone=zone,
        convention="c",
        fetched_at=at(hours),
        start=at(hours),
        end=at(hours + reach_hours),
        digest=hashlib.sha256(data).hexdigest(),
        data=data,
    )


def reserve(tx: Transaction, state: ReservationState, *, asked: float, started: float | None = None) -> None:
    begins = None if started is None else at(started)
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
            first_asked_at=at(asked),
            deadline=None,
            asks=1,
            deferrals=0,
            planning_intensity_milligrams_per_kwh=None,
            planning_basis="none",
            planned_start=at(asked),
            upper_energy=Energy(millijoules=1),
            holds=(),
            lease_until=None,
            lease_epoch=0,
            last_beat_at=None,
            started_at=begins,
            used_energy=Energy.ZERO,
            last_power_milliwatts=0,
            encloses_run=False,
            created_at=at(asked),
            updated_at=at(asked),
        )
    )


def kept(tx: Transaction, zone: str = "GB") -> list[float]:
    return [(item.fetched_at - NOON) / timedelta(hours=1) for item in reversed(tx.forecasts("neso", zone, at(-999)))]


@pytest.mark.parametrize("state", [ReservationState.WAITING, ReservationState.RUNNING])
def test_vintages_stay_while_a_run_may_be_priced_with_them(store: SqliteStore, state: ReservationState) -> None:
    with store.transaction() as tx:
        tx.put_forecast(vintage(-30))
        tx.put_forecast(vintage(-7, reach_hours=6))
        reserve(tx, state, asked=0)
        for hours in range(-6, 100, 6):
            tx.put_forecast(vintage(hours, reach_hours=30))
        # -30 was fetched too early to be looked for, -7 was over before the first ask
        assert kept(tx) == list(range(-6, 100, 6))
        assert tx.drop_forecasts(at(50)) == 0
        reserve(tx, ReservationState.SETTLED, asked=0)
        assert tx.drop_forecasts(at(50)) == 10
        assert kept(tx) == list(range(54, 100, 6))


def test_the_start_counts_where_it_lies_before_the_ask(store: SqliteStore) -> None:
    with store.transaction() as tx:
        reserve(tx, ReservationState.RUNNING, asked=40, started=0)
        tx.put_forecast(vintage(-12, reach_hours=24))
        tx.put_forecast(vintage(90))
        assert kept(tx) == [-12, 90]


def test_without_an_open_reservation_vintages_stay_for_a_day(store: SqliteStore) -> None:
    with store.transaction() as tx:
        reserve(tx, ReservationState.EXPIRED, asked=0)
        for hours in (0, 12, 25, 36.5):
            tx.put_forecast(vintage(hours))
            tx.put_forecast(vintage(hours, zone="DE") if hours == 0 else vintage(hours))
        assert kept(tx) == [25, 36.5]
        assert kept(tx, "DE") == [0]


# ---- history --------------------------------------------------------------------------------------------------------


def run(
    tx: Transaction, kind: EntryKind, outcome: str | None, *, key: str = "k", ordinal: int = 0, **body: Any
) -> None:
    fields: dict[str, Any] = {
        "request": {"task_key": "nightly"},
        "start": format_instant(at(0)),
        "end": format_instant(at(1)),
        "outcome": outcome,
        "energy_millijoules": "5",
        **body,
    }
    append(tx, EntryDraft(kind=kind, request_key=key, ordinal=ordinal, body=fields))


@pytest.fixture
def ticking(store: SqliteStore) -> Callable[..., None]:
    """Record one entry per second."""

    def record(*args: Any, **more: Any) -> None:
        clock = store._clock
        assert isinstance(clock, ManualClock)
        clock.advance(1)
        with store.transaction() as tx:
            run(tx, *args, **more)

    return record


def seen(tx: Transaction, limit: int = 100) -> list[tuple[int | None, bool]]:
    return sorted((point.energy_millijoules or 0, point.completed) for point in tx.history("nightly", limit))


def test_a_lost_run_that_completed_after_all_counts_once(store: SqliteStore) -> None:
    with store.transaction() as tx:
        run(tx, EntryKind.MEASUREMENT, "lost")
        assert seen(tx) == [(5, False)]
        later = format_instant(at(0.001))
        run(tx, EntryKind.CORRECTION, "completed", energy_millijoules="70", start=later)
        assert seen(tx) == [(70, True)]
        run(tx, EntryKind.MEASUREMENT, "lost", key="other")
        assert seen(tx) == [(5, False), (70, True)]


def test_a_late_run_that_never_began_counts(store: SqliteStore) -> None:
    with store.transaction() as tx:
        run(tx, EntryKind.CORRECTION, "completed", energy_millijoules="70")
        assert seen(tx) == [(70, True)]


def test_the_last_correction_of_a_run_stands(ticking: Callable[..., None], store: SqliteStore) -> None:
    ticking(EntryKind.MEASUREMENT, "completed")
    ticking(EntryKind.CORRECTION, "completed", energy_millijoules="6")
    ticking(EntryKind.CORRECTION, "completed", energy_millijoules="7", ordinal=1)
    ticking(EntryKind.CORRECTION, None, ordinal=2)  # of something else than the run
    with store.snapshot() as tx:
        assert seen(tx) == [(7, True)]


def test_several_runs_under_one_request_and_nested_runs_all_count(store: SqliteStore) -> None:
    with store.transaction() as tx:
        run(tx, EntryKind.MEASUREMENT, "failed")
        run(tx, EntryKind.MEASUREMENT, "completed", ordinal=1, start=format_instant(at(0.5)))
        run(tx, EntryKind.MEASUREMENT, "completed", key="nested", part_of="k")
        assert seen(tx) == [(5, False), (5, True), (5, True)]


def test_the_newest_come_first_over_both_kinds(ticking: Callable[..., None], store: SqliteStore) -> None:
    for number in range(4):
        kind = EntryKind.MEASUREMENT if number % 2 else EntryKind.CORRECTION
        ticking(kind, "completed", key=f"k{number}", energy_millijoules=str(number))
    with store.snapshot() as tx:
        found = tx.history("nightly", 3)
        assert [point.energy_millijoules for point in found] == [3, 2, 1]


# ---- version --------------------------------------------------------------------------------------------------------


def test_a_transaction_tells_the_stored_version(store: SqliteStore) -> None:
    with store.transaction() as tx:
        assert tx.schema_version() == SCHEMA_VERSION
        newer = f"{int(SCHEMA_VERSION) + 1:04}"
        tx.connection.exec_driver_sql("UPDATE cagg_schema_version SET version_num = ?", (newer,))  # type: ignore[attr-defined]
    with store.snapshot() as tx:
        assert tx.schema_version() == newer
