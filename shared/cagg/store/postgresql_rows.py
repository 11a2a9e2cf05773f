"""What a transaction on PostgreSQL does otherwise with budgets: their rows change through functions.

A gate may hold no right to change a counter, so every change of a budget row is a call of one of the functions that
the migration created (``migrations/functions_0002.py``). What this transaction has locked nobody else can change, so
it is remembered here and not read again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection

from cagg.errors import InvalidInput, ReservationConflict
from cagg.ports import JournalRow
from cagg.quantities import Unit
from cagg.records import Allotment, Budget, Period, Reservation
from cagg.store._budget_values import allotment_of, budget_of, hold_of, in_lock_order, reservation_of, values_of
from cagg.store._instants import to_us
from cagg.store._postgresql_values import posted, refusal
from cagg.store.postgresql_ledger import PostgresqlLedger
from cagg.windows import Window

__all__ = ["PostgresqlSnapshot", "PostgresqlTransaction"]

_BUDGETS_ON = (
    'SELECT DISTINCT ON (b.path COLLATE "C", b.unit COLLATE "C", b.period COLLATE "C") to_jsonb(b) '
    "FROM cagg_budget b WHERE b.path = ANY (%s) "
    'ORDER BY b.path COLLATE "C", b.unit COLLATE "C", b.period COLLATE "C", b.version DESC'
)
_OPENED = (
    "SELECT w.place, to_jsonb(a) FROM jsonb_to_recordset(%s::jsonb) "
    "AS w(place integer, path text, unit text, period text, starts_us bigint, ends_us bigint) "
    "JOIN cagg_allotment a ON a.path = w.path AND a.unit = w.unit AND a.period = w.period "
    "AND a.starts_us < w.ends_us AND a.ends_us > w.starts_us ORDER BY w.place, a.starts_us"
)
_RESERVATION = (
    "SELECT to_jsonb(r) || jsonb_build_object('holds', (SELECT "
    "coalesce(jsonb_agg(jsonb_build_array(h.allotment_id, h.unit, h.amount) ORDER BY h.allotment_id), '[]') "
    "FROM cagg_hold h WHERE h.request_key = r.request_key)) FROM cagg_reservation r WHERE r.request_key = %s"
)

_POST = "SELECT cagg_post(%s::jsonb, %s::bigint[])"
# a function that writes is called once and before what depends on its answer
_BOOK = (
    "SELECT p.refused, CASE WHEN p.refused IS NULL THEN cagg_put_reservation(%s::jsonb)::text END "
    "FROM (SELECT cagg_post(%s::jsonb, %s::bigint[]) AS refused OFFSET 0) AS p"
)

_Place = tuple[str, Unit, Period, datetime]


class PostgresqlSnapshot(PostgresqlLedger):
    """Reads of one consistent state, without a single row lock."""

    def reservation(self, request_key: str) -> Reservation | None:
        """Return a reservation with its holds, as it was when the snapshot began."""
        row = self._row(_RESERVATION, (request_key,))
        return None if row is None else _reservation(row[0])

    def budgets_on(self, paths: Collection[str]) -> Sequence[Budget]:
        """Current budgets of any of these paths, ordered by path, unit, period."""
        return [budget_of(SimpleNamespace(**row[0])) for row in self._rows(_BUDGETS_ON, (sorted(set(paths)),))]

    def opened(self, wanted: Sequence[tuple[Budget, Window]]) -> Sequence[Sequence[Allotment]]:
        """Opened allotments that share an instant with the window, for each of several budgets."""
        found: list[list[Allotment]] = [[] for _ in wanted]
        periods = [{"place": place, **_period(rule, window)} for place, (rule, window) in enumerate(wanted)]
        for place, row in self._rows(_OPENED, (json.dumps(periods),)):
            found[place].append(allotment_of(SimpleNamespace(**row), wanted[place][0]))
        return found

    def allotments_overlapping(self, budget: Budget, window: Window) -> Sequence[Allotment]:
        """Opened allotments of the budget that share an instant with the window, earliest first, not locked."""
        return self.opened([(budget, window)])[0]


class PostgresqlTransaction(PostgresqlSnapshot):
    """One writing transaction; READ COMMITTED, so each statement sees what others committed before it."""

    def __init__(self, *, connection: Connection, now: datetime, log_id: int, origin: str) -> None:
        super().__init__(connection=connection, now=now, log_id=log_id, origin=origin)
        self._locked: dict[int, Allotment] = {}
        self._places: dict[_Place, int] = {}
        self._reservations: dict[str, Reservation | None] = {}
        self._rules: dict[str, list[Budget]] = {}

    # ---- budgets ------------------------------------------------------------------------------------------------

    def budgets(self, path: str | None = None) -> Sequence[Budget]:
        """Current budgets of exactly this path; all of them for None; read once, with those above it."""
        if path is None:
            return super().budgets(None)
        return self.budgets_on((path,))

    def budgets_on(self, paths: Collection[str]) -> Sequence[Budget]:
        """Current budgets of any of these paths; what stands above them is read along, because it is asked next."""
        if any(path not in self._rules for path in paths):
            whole = {above for path in paths for above in _upwards(path)} - self._rules.keys()
            self._rules.update((path, []) for path in whole)
            for rule in super().budgets_on(whole):
                self._rules[rule.path].append(rule)
        return [rule for path in sorted(set(paths)) for rule in self._rules[path]]

    def put_budget(self, budget: Budget, at: datetime) -> None:
        """Insert a budget or its next version."""
        self._rules.clear()
        value = {
            "path": budget.path,
            "unit": budget.unit.value,
            "period": budget.period.value,
            "version": budget.version,
            "time_zone": budget.time_zone,
            "limit_amount": budget.limit,
            "mode": budget.mode.value,
            "unknown_intensity_milligrams_per_kwh": budget.unknown_intensity_milligrams_per_kwh,
            "created_us": to_us(at),
        }
        if not self._row("SELECT cagg_put_budget(%s::jsonb)", (json.dumps(value),))[0]:
            raise ReservationConflict(
                f"budget {budget.path} was changed by somebody else at the same moment; look at it and set it again."
            )
        for which, one in self._locked.items():
            if (one.budget.path, one.budget.unit, one.budget.period) == (budget.path, budget.unit, budget.period):
                self._locked[which] = replace(one, budget=budget)

    # ---- allotments ---------------------------------------------------------------------------------------------

    def allotment(self, budget: Budget, window: Window) -> Allotment:
        """Return the allotment of the period, created with the budget's limit when new, locked."""
        return self.lock_allotments([(budget, window)])[0]

    def allotment_by_id(self, allotment_id: int) -> Allotment:
        """Return an allotment, locked; raises InvalidInput when there is none with this id."""
        found = self.lock_allotments((), (allotment_id,))
        if not found:
            raise InvalidInput(f"allotment {allotment_id} does not exist; open it through its budget and period.")
        return found[0]

    def allotments_by_id(self, allotment_ids: Collection[int]) -> Sequence[Allotment]:
        """Return these allotments, ascending by id, not locked; those that are locked here already are not read."""
        if all(which in self._locked for which in allotment_ids):
            return [self._locked[which] for which in sorted(set(allotment_ids))]
        return super().allotments_by_id(allotment_ids)

    def lock_allotments(
        self, wanted: Sequence[tuple[Budget, Window]], held: Collection[int] = ()
    ) -> Sequence[Allotment]:
        """Open and lock in one call whatever is not locked yet; return all of them in the global order."""
        places = {_place(rule, window): (rule, window) for rule, window in wanted}
        new = [pair for place, pair in places.items() if place not in self._places]
        further = sorted(which for which in set(held) if which not in self._locked)
        if new or further:
            periods = json.dumps([_period(rule, window) for rule, window in new])
            row = self._row("SELECT cagg_lock_allotments(%s::jsonb, %s::bigint[])", (periods, further))
            for item in row[0]:
                rule = budget_of(SimpleNamespace(**item.pop("budget")))
                allotment = allotment_of(SimpleNamespace(**item), rule)
                self._locked[allotment.allotment_id] = allotment
                self._places[_place(rule, allotment.window)] = allotment.allotment_id
        asked = {self._places[place] for place in places} | {which for which in held if which in self._locked}
        return in_lock_order(self._locked[which] for which in asked)

    def set_allotment_limit(self, allotment_id: int, limit: int) -> None:
        """Change the limit of an open period."""
        self._row("SELECT cagg_set_limit(%s::bigint, %s::bigint)", (allotment_id, limit))
        if allotment_id in self._locked:
            self._locked[allotment_id] = replace(self._locked[allotment_id], limit=limit)

    # ---- journal ------------------------------------------------------------------------------------------------

    def post_all(self, rows: Sequence[JournalRow], *, allow_over: Collection[int] = ()) -> None:
        """Insert journal rows and change the allotments' counters by them, in one call."""
        if not rows:
            return
        self._kept(rows, self._row(_POST, (posted(rows), sorted(allow_over))))

    def _kept(self, rows: Sequence[JournalRow], answer: Sequence[Any]) -> None:
        """Remember what was posted; raises what was refused."""
        if answer[0] is not None:
            raise refusal(answer[0])
        for row in rows:
            before = self._locked.get(row.allotment_id)
            if before is not None:
                self._locked[row.allotment_id] = replace(
                    before,
                    held=before.held + row.d_held,
                    spent=before.spent + row.d_spent,
                    overrun=before.overrun + row.d_overrun,
                )

    # ---- reservations -------------------------------------------------------------------------------------------

    def reservation(self, request_key: str) -> Reservation | None:
        """Return a reservation with its holds, locked; where there is none, its name is locked."""
        if request_key not in self._reservations:
            row = self._row("SELECT cagg_lock_reservation(%s)", (request_key,))[0]
            self._reservations[request_key] = None if row is None else _reservation(row)
        return self._reservations[request_key]

    def due(
        self,
        now: datetime,
        waiting_grace_seconds: float,
        limit: int,
        *,
        open_ended_grace_seconds: float | None = None,
        paths: Collection[str] | None = None,
    ) -> Sequence[Reservation]:
        """Open reservations whose time is over, oldest first, locked, skipping what others have locked."""
        now_us = to_us(now)
        longer = waiting_grace_seconds if open_ended_grace_seconds is None else open_ended_grace_seconds
        values = (
            now_us,
            now_us - round(waiting_grace_seconds * 1_000_000),
            now_us - round(longer * 1_000_000),
            limit,
            None if paths is None else sorted(paths),
        )
        call = "SELECT cagg_due(%s::bigint, %s::bigint, %s::bigint, %s::integer, %s::text[])"
        found = [_reservation(row) for row in self._row(call, values)[0]]
        self._reservations.update((one.request_key, one) for one in found)
        return found

    def put_reservation(self, reservation: Reservation) -> None:
        """Insert or replace a reservation and its holds, in one call."""
        value, stored = self._to_put(reservation)
        self._row("SELECT cagg_put_reservation(%s::jsonb)", (value,))
        self._reservations[reservation.request_key] = stored

    def book(self, reservation: Reservation, rows: Sequence[JournalRow], *, allow_over: Collection[int] = ()) -> None:
        """Post rows, then insert or replace the reservation, in one call; neither when the rows are refused."""
        if not rows:
            self.put_reservation(reservation)
            return
        value, stored = self._to_put(reservation)
        self._kept(rows, self._row(_BOOK, (value, posted(rows), sorted(allow_over))))
        self._reservations[reservation.request_key] = stored

    def _to_put(self, reservation: Reservation) -> tuple[str, Reservation]:
        """Return what the function takes, the holds only where they changed, and the reservation as it is stored."""
        key = reservation.request_key
        holds = tuple(sorted(reservation.holds, key=lambda hold: hold.allotment_id))
        value: dict[str, Any] = {"request_key": key, **values_of(reservation)}
        before = self._reservations.get(key)
        if before is None or before.holds != holds:
            value["holds"] = [
                {"allotment_id": hold.allotment_id, "unit": hold.unit.value, "amount": hold.amount} for hold in holds
            ]
        return json.dumps(value), replace(reservation, holds=holds)

    # ---- forecasts ----------------------------------------------------------------------------------------------

    def drop_forecasts(self, before: datetime) -> int:
        """Delete series fetched before an instant, except what open reservations may be priced with."""
        return self._drop(None, None, before)

    def _drop_of(self, provider: str, zone: str, before: datetime) -> None:
        self._drop(provider, zone, before)

    def _drop(self, provider: str | None, zone: str | None, before: datetime) -> int:
        row = self._row("SELECT cagg_drop_forecasts(%s, %s, %s::bigint)", (provider, zone, to_us(before)))
        return int(row[0])


def _reservation(value: dict[str, Any]) -> Reservation:
    holds = [hold_of(item) for item in value.pop("holds")]
    return reservation_of(SimpleNamespace(**value), holds)


def _period(rule: Budget, window: Window) -> dict[str, str | int]:
    return {
        "path": rule.path,
        "unit": rule.unit.value,
        "period": rule.period.value,
        "starts_us": to_us(window.start),
        "ends_us": to_us(window.end),
    }


def _place(rule: Budget, window: Window) -> _Place:
    return rule.path, rule.unit, rule.period, window.start


def _upwards(path: str) -> Iterable[str]:
    parts = path.split("/")
    return ("/".join(parts[:length]) for length in range(1, len(parts) + 1))
