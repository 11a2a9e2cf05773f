"""Instants as the store keeps them: whole microseconds since 1970-01-01T00:00Z."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cagg.windows import require_utc

__all__ = ["from_us", "to_us"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


def to_us(instant: datetime) -> int:
    """Return whole microseconds since the epoch; raises InvalidInput for a naive instant."""
    return (require_utc(instant) - _EPOCH) // _US


def from_us(microseconds: int) -> datetime:
    """Return the UTC instant that lies that many microseconds after the epoch."""
    return _EPOCH + timedelta(microseconds=microseconds)
