"""Rows of the forecast cache."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, or_, select

from cagg.ports import StoredForecast
from cagg.records import ReservationState
from cagg.store._instants import from_us, to_us
from cagg.store._statement import Statement, Value
from cagg.store.tables import forecast, reservation

__all__ = ["ForecastRowsSql"]

_KEPT = timedelta(days=1)
"""How long an older vintage stays beside a newer one, and how far back before an instant its prices are looked for."""
_KEPT_US = 86_400_000_000

_c = forecast.c
_SAME = Statement(
    select(_c.forecast_id).where(
        _c.provider == bindparam("provider"),
        _c.zone == bindparam("zone"),
        _c.convention == bindparam("convention"),
        _c.fetched_us == bindparam("fetched_us"),
        _c.digest == bindparam("digest"),
    )
)
_INSERT = Statement(
    insert(forecast).values({column.name: bindparam(column.name) for column in _c if column.name != "forecast_id"})
)
_OPEN = (ReservationState.WAITING.value, ReservationState.RUNNING.value)
_OLDEST_OPEN = Statement(
    select(func.min(reservation.c.first_asked_us), func.min(reservation.c.started_us)).where(
        or_(*(reservation.c.state == state for state in _OPEN))
    )
)
_NOT_NEEDED = and_(
    _c.fetched_us < bindparam("before_us"),
    # a run is priced from its first ask on, by what was fetched since a day before that
    or_(_c.end_us <= bindparam("needed_us"), _c.fetched_us < bindparam("reach_us")),
)
_DROP_OLDER = Statement(
    delete(forecast).where(_c.provider == bindparam("provider"), _c.zone == bindparam("zone"), _NOT_NEEDED)
)
_SINCE = Statement(
    select(_c.provider, _c.zone, _c.convention, _c.fetched_us, _c.start_us, _c.end_us, _c.digest, _c.data)
    .where(_c.provider == bindparam("provider"), _c.zone == bindparam("zone"), _c.fetched_us >= bindparam("since_us"))
    .order_by(_c.fetched_us.desc(), _c.forecast_id.desc())
)
_DROP = Statement(delete(forecast).where(_NOT_NEEDED))
_ENDLESS_US = 2**63 - 1


class ForecastRowsSql:
    """Implements :class:`cagg.ports.ForecastRows`."""

    connection: Connection

    def put_forecast(self, forecast: StoredForecast) -> None:
        """Store a series; vintages of the same provider and zone older than a day before it are dropped, unless a
        reservation that waits or runs may be priced with them."""
        fetched_us = to_us(forecast.fetched_at)
        where: dict[str, Value] = {"provider": forecast.provider, "zone": forecast.zone}
        key: dict[str, Value] = {"convention": forecast.convention, "fetched_us": fetched_us, "digest": forecast.digest}
        if _SAME.row(self.connection, **where, **key) is None:
            _INSERT.run(
                self.connection,
                **where,
                **key,
                start_us=to_us(forecast.start),
                end_us=to_us(forecast.end),
                data=forecast.data,
            )
        self._drop_of(forecast.provider, forecast.zone, forecast.fetched_at - _KEPT)

    def forecasts(self, provider: str, zone: str, since: datetime) -> Sequence[StoredForecast]:
        """Series fetched at or after ``since``, newest first."""
        return [
            StoredForecast(
                provider=row[0],
                zone=row[1],
                convention=row[2],
                fetched_at=from_us(row[3]),
                start=from_us(row[4]),
                end=from_us(row[5]),
                digest=row[6],
                data=bytes(row[7]),
            )
            for row in _SINCE.rows(self.connection, provider=provider, zone=zone, since_us=to_us(since))
        ]

    def drop_forecasts(self, before: datetime) -> int:
        """Delete series fetched before an instant, except what open reservations may be priced with."""
        return int(_DROP.run(self.connection, **self._bounds(before)).rowcount)

    def _drop_of(self, provider: str, zone: str, before: datetime) -> None:
        _DROP_OLDER.run(self.connection, provider=provider, zone=zone, **self._bounds(before))

    def _bounds(self, before: datetime) -> dict[str, Value]:
        """What may go: fetched before the instant, and over or too old for the oldest open reservation."""
        oldest = [value for value in _OLDEST_OPEN.row(self.connection) if value is not None]
        needed_us = min(oldest, default=_ENDLESS_US)
        return {"before_us": to_us(before), "needed_us": needed_us, "reach_us": needed_us - _KEPT_US}
