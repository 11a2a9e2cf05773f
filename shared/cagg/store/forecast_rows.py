"""Rows of the forecast cache."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, insert, select

from cagg.ports import StoredForecast
from cagg.store._instants import from_us, to_us
from cagg.store._statement import Statement, Value
from cagg.store.tables import forecast

__all__ = ["ForecastRowsSql"]

_KEPT = timedelta(days=1)
"""How long an older vintage stays beside a newer one: decisions of the last day can be looked at again."""

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
_DROP_OLDER = Statement(
    delete(forecast).where(
        _c.provider == bindparam("provider"), _c.zone == bindparam("zone"), _c.fetched_us < bindparam("before_us")
    )
)
_SINCE = Statement(
    select(_c.provider, _c.zone, _c.convention, _c.fetched_us, _c.start_us, _c.end_us, _c.digest, _c.data)
    .where(_c.provider == bindparam("provider"), _c.zone == bindparam("zone"), _c.fetched_us >= bindparam("since_us"))
    .order_by(_c.fetched_us.desc(), _c.forecast_id.desc())
)
_DROP = Statement(delete(forecast).where(_c.fetched_us < bindparam("before_us")))


class ForecastRowsSql:
    """Implements :class:`cagg.ports.ForecastRows`."""

    connection: Connection

    def put_forecast(self, forecast: StoredForecast) -> None:
        """Store a series; vintages of the same provider and zone older than a day before it are dropped."""
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
        _DROP_OLDER.run(self.connection, **where, before_us=to_us(forecast.fetched_at - _KEPT))

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
        """Delete series fetched before an instant; returns how many."""
        return int(_DROP.run(self.connection, before_us=to_us(before)).rowcount)
