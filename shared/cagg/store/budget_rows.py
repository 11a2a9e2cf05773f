"""Rows of budgets, allotments, reservations and holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from cagg.errors import InvalidInput, StoreUnavailable
from cagg.ports import JournalRow
from cagg.quantities import Unit
from cagg.records import Allotment, Budget, Hold, Period, Reservation, ReservationState
from cagg.store import tables as t
from cagg.store._budget_values import (
    allotment_of,
    budget_of,
    hold_of,
    in_lock_order,
    named,
    reservation_of,
    values_of,
)
from cagg.store._instants import to_us
from cagg.store._statement import Statement, insert_if_absent
from cagg.store.journal_rows import JournalRowsSql
from cagg.windows import Window

__all__ = ["BudgetRowsSql"]

_b, _a, _r, _h = t.budget.c, t.allotment.c, t.reservation.c, t.hold.c
_OPEN = (ReservationState.WAITING.value, ReservationState.RUNNING.value)

_newest = select(func.max(_b.version)).where(
    _b.path == bindparam("path"), _b.unit == bindparam("unit"), _b.period == bindparam("period")
)
_other = t.budget.alias("newer")
_IS_CURRENT = ~(
    select(_other.c.version)
    .where(
        _other.c.path == _b.path,
        _other.c.unit == _b.unit,
        _other.c.period == _b.period,
        _other.c.version > _b.version,
    )
    .exists()
)
_ORDER = (_b.path, _b.unit, _b.period)
_BUDGETS = Statement(select(*t.budget.c).where(_IS_CURRENT).order_by(*_ORDER))
_BUDGETS_OF = Statement(select(*t.budget.c).where(_IS_CURRENT, _b.path == bindparam("path")).order_by(*_ORDER))
_BUDGET = Statement(
    select(*t.budget.c).where(
        _b.path == bindparam("path"),
        _b.unit == bindparam("unit"),
        _b.period == bindparam("period"),
        _b.version == _newest.scalar_subquery(),
    )
)
_INSERT_BUDGET = Statement(insert(t.budget).values({column.name: bindparam(column.name) for column in t.budget.c}))

_OF_BUDGET = and_(_a.path == bindparam("path"), _a.unit == bindparam("unit"), _a.period == bindparam("period"))
_OPEN_ALLOTMENT = insert_if_absent(t.allotment, without="allotment_id")
_LOCK_PERIOD = Statement(
    select(*t.allotment.c).where(_OF_BUDGET, _a.starts_us == bindparam("starts_us")).with_for_update()
)
_LOCK_ALLOTMENT = Statement(
    select(*t.allotment.c).where(_a.allotment_id == bindparam("allotment_id")).with_for_update()
)
_OVERLAPPING = Statement(
    select(*t.allotment.c)
    .where(_OF_BUDGET, _a.starts_us < bindparam("ends_us"), _a.ends_us > bindparam("starts_us"))
    .order_by(_a.starts_us)
)
_NEWEST_FIRST = (_a.starts_us.desc(), _a.path, _a.unit, _a.period)
_SET_LIMIT = Statement(
    update(t.allotment).where(_a.allotment_id == bindparam("which")).values(limit_amount=bindparam("amount"))
)
_RESERVATION = Statement(select(*t.reservation.c).where(_r.request_key == bindparam("request_key")).with_for_update())
_HOLDS = Statement(
    select(_h.allotment_id, _h.unit, _h.amount)
    .where(_h.request_key == bindparam("request_key"))
    .order_by(_h.allotment_id)
)
_INSERT_RESERVATION = Statement(
    insert(t.reservation).values({column.name: bindparam(column.name) for column in t.reservation.c})
)
_UPDATE_RESERVATION = Statement(
    update(t.reservation)
    .where(_r.request_key == bindparam("which"))
    .values({column.name: bindparam(column.name) for column in t.reservation.c if column.name != "request_key"})
)
_DROP_HOLDS = Statement(delete(t.hold).where(_h.request_key == bindparam("request_key")))
_INSERT_HOLD = Statement(insert(t.hold).values({column.name: bindparam(column.name) for column in t.hold.c}))


class BudgetRowsSql(JournalRowsSql):
    """Implements :class:`cagg.ports.BudgetRows`. Translates rows and holds no budget rule.

    The locks that the docstrings name are row locks of PostgreSQL, released at the end of the transaction (see
    :mod:`cagg.store.postgresql_rows`). A SQLite transaction holds the whole file instead.
    """

    connection: Connection

    # ---- budgets ----

    def budgets(self, path: str | None = None) -> Sequence[Budget]:
        """Current budgets of exactly this path; all of them for None; ordered by path, unit, period."""
        if path is None:
            return [budget_of(named(t.budget, row)) for row in _BUDGETS.rows(self.connection)]
        return [budget_of(named(t.budget, row)) for row in _BUDGETS_OF.rows(self.connection, path=path)]

    def budgets_on(self, paths: Collection[str]) -> Sequence[Budget]:
        """Current budgets of any of these paths, ordered by path, unit, period."""
        return [rule for path in sorted(set(paths)) for rule in self.budgets(path)]

    def put_budget(self, budget: Budget, at: datetime) -> None:
        """Insert a budget or its next version."""
        _INSERT_BUDGET.run(
            self.connection,
            path=budget.path,
            unit=budget.unit.value,
            period=budget.period.value,
            version=budget.version,
            time_zone=budget.time_zone,
            limit_amount=budget.limit,
            mode=budget.mode.value,
            unknown_intensity_milligrams_per_kwh=budget.unknown_intensity_milligrams_per_kwh,
            created_us=to_us(at),
        )

    # ---- allotments ----

    def allotment(self, budget: Budget, window: Window) -> Allotment:
        """Return the allotment of the period, created with the budget's limit when new, locked."""
        key: dict[str, str | int] = {
            "path": budget.path,
            "unit": budget.unit.value,
            "period": budget.period.value,
            "starts_us": to_us(window.start),
        }
        row = _LOCK_PERIOD.row(self.connection, **key)
        if row is None:
            _OPEN_ALLOTMENT.run(
                self.connection,
                **key,
                ends_us=to_us(window.end),
                limit_amount=budget.limit,
                extra=0,
                held=0,
                spent=0,
                overrun=0,
            )
            row = _LOCK_PERIOD.row(self.connection, **key)
        return allotment_of(named(t.allotment, row), budget)

    def lock_allotments(
        self, wanted: Sequence[tuple[Budget, Window]], held: Collection[int] = ()
    ) -> Sequence[Allotment]:
        """Open what is wanted and new; return these and those already held in the global order, locked."""
        found = {one.allotment_id: one for one in (self.allotment(rule, window) for rule, window in wanted)}
        found.update((one.allotment_id, one) for one in self.allotments_by_id(set(held) - set(found)))
        return in_lock_order(found.values())

    def allotment_by_id(self, allotment_id: int) -> Allotment:
        """Return an allotment, locked; raises InvalidInput when there is none with this id."""
        found = _LOCK_ALLOTMENT.row(self.connection, allotment_id=allotment_id)
        if found is None:
            raise InvalidInput(f"allotment {allotment_id} does not exist; open it through its budget and period.")
        row = named(t.allotment, found)
        return allotment_of(row, self._budget_of(row))

    def allotments(self, path: str | None = None) -> Sequence[Allotment]:
        """Allotments of a path (all for None), newest period first, not locked."""
        query = select(*t.allotment.c).order_by(*_NEWEST_FIRST)
        return self._allotments(query if path is None else query.where(_a.path == path), path)

    def allotments_by_id(self, allotment_ids: Collection[int]) -> Sequence[Allotment]:
        """Return these allotments, ascending by id, not locked."""
        if not allotment_ids:
            return []
        wanted = sorted(allotment_ids)
        return self._allotments(
            select(*t.allotment.c).where(_a.allotment_id.in_(wanted)).order_by(_a.allotment_id), None
        )

    def allotments_overlapping(self, budget: Budget, window: Window) -> Sequence[Allotment]:
        """Opened allotments of the budget that share an instant with the window, earliest first, not locked."""
        rows = _OVERLAPPING.rows(
            self.connection,
            path=budget.path,
            unit=budget.unit.value,
            period=budget.period.value,
            starts_us=to_us(window.start),
            ends_us=to_us(window.end),
        )
        return [allotment_of(named(t.allotment, row), budget) for row in rows]

    def opened(self, wanted: Sequence[tuple[Budget, Window]]) -> Sequence[Sequence[Allotment]]:
        """:meth:`allotments_overlapping` for each of several budgets, in the same order."""
        return [self.allotments_overlapping(rule, window) for rule, window in wanted]

    def set_allotment_limit(self, allotment_id: int, limit: int) -> None:
        """Change the limit of an open period."""
        _SET_LIMIT.run(self.connection, which=allotment_id, amount=limit)

    def _allotments(self, query: Select[Any], path: str | None) -> Sequence[Allotment]:
        rows = self.connection.execute(query).all()
        if len(rows) <= 4 and path is None:
            return [allotment_of(row, self._budget_of(row)) for row in rows]
        rules = {(rule.path, rule.unit, rule.period): rule for rule in self.budgets(path)}
        return [allotment_of(row, rules[row.path, Unit(row.unit), Period(row.period)]) for row in rows]

    def _budget_of(self, row: Any) -> Budget:
        found = _BUDGET.row(self.connection, path=row.path, unit=row.unit, period=row.period)
        if found is None:
            raise StoreUnavailable(
                f"the budget of allotment {row.allotment_id} ({row.path}) is missing; restore a backup of the store."
            )
        return budget_of(named(t.budget, found))

    # ---- reservations ----

    def reservation(self, request_key: str) -> Reservation | None:
        """Return a reservation with its holds, locked."""
        row = _RESERVATION.row(self.connection, request_key=request_key)
        if row is None:
            return None
        return reservation_of(named(t.reservation, row), self._holds(request_key))

    def reservations(
        self,
        *,
        series_key: str | None = None,
        host: str | None = None,
        root_run_id: str | None = None,
        open_only: bool = False,
    ) -> Sequence[Reservation]:
        """Reservations, oldest first, not locked."""
        wanted: list[ColumnElement[bool]] = []
        if series_key is not None:
            wanted.append(_r.series_key == series_key)
        if host is not None:
            wanted.append(_r.host == host)
        if root_run_id is not None:
            wanted.append(_r.root_run_id == root_run_id)
        if open_only:
            wanted.append(_r.state.in_(_OPEN))
        query = select(*t.reservation.c).where(*wanted).order_by(_r.created_us, _r.request_key)
        rows = self.connection.execute(query).all()
        of_these = select(_r.request_key).where(*wanted)
        found = self.connection.execute(
            select(_h.request_key, _h.allotment_id, _h.unit, _h.amount)
            .where(_h.request_key.in_(of_these))
            .order_by(_h.allotment_id)
        )
        holds: dict[str, list[Hold]] = defaultdict(list)
        for row in found:
            holds[row[0]].append(hold_of(row[1:]))
        return [reservation_of(row, holds[row.request_key]) for row in rows]

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
        over = or_(
            and_(_r.state == ReservationState.RUNNING.value, _r.lease_until_us <= now_us),
            and_(
                _r.state == ReservationState.WAITING.value,
                or_(
                    _r.deadline_us <= now_us - round(waiting_grace_seconds * 1_000_000),
                    and_(_r.deadline_us.is_(None), _r.planned_start_us <= now_us - round(longer * 1_000_000)),
                ),
            ),
        )
        query = select(*t.reservation.c).where(over)
        if paths is not None:
            from_them = (
                select(_h.request_key)
                .join(t.allotment, _a.allotment_id == _h.allotment_id)
                .where(_h.request_key == _r.request_key, _a.path.in_(sorted(paths)))
            )
            query = query.where(from_them.exists())
        query = query.order_by(_r.created_us, _r.request_key).limit(limit).with_for_update(skip_locked=True)
        rows = self.connection.execute(query).all()
        return [reservation_of(row, self._holds(row.request_key)) for row in rows]

    def book(self, reservation: Reservation, rows: Sequence[JournalRow], *, allow_over: Collection[int] = ()) -> None:
        """Post rows, then insert or replace the reservation; neither when the rows are refused."""
        self.post_all(rows, allow_over=allow_over)
        self.put_reservation(reservation)

    def put_reservation(self, reservation: Reservation) -> None:
        """Insert or replace a reservation and its holds."""
        key = reservation.request_key
        values = values_of(reservation)
        if _UPDATE_RESERVATION.run(self.connection, which=key, **values).rowcount == 0:
            _INSERT_RESERVATION.run(self.connection, request_key=key, **values)
        holds = tuple(sorted(reservation.holds, key=lambda hold: hold.allotment_id))
        if tuple(self._holds(key)) != holds:
            _DROP_HOLDS.run(self.connection, request_key=key)
            _INSERT_HOLD.run_many(
                self.connection,
                [
                    {
                        "request_key": key,
                        "allotment_id": hold.allotment_id,
                        "unit": hold.unit.value,
                        "amount": hold.amount,
                    }
                    for hold in holds
                ],
            )

    def _holds(self, request_key: str) -> Sequence[Hold]:
        return [hold_of(row) for row in _HOLDS.rows(self.connection, request_key=request_key)]
