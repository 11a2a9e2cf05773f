"""Intensity series as canonical bytes, for the forecast cache and for attachments of ledger entries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cagg.errors import InvalidInput
from cagg.intensity import IntensityPoint, IntensitySeries, Zone
from cagg.ports import StoredForecast
from cagg.provenance import Basis, Convention, Gas, IntensityKind, Signal
from cagg.quantities import CarbonIntensity
from cagg.windows import Window, require_utc

__all__ = ["decode_series", "encode_series", "pack", "series_digest", "unpack"]

_FORMAT = "cagg/intensity-series/1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _micros(instant: datetime) -> int:
    return (require_utc(instant) - _EPOCH) // _MICROSECOND


def encode_series(series: IntensitySeries) -> bytes:
    """Return the series as canonical JSON bytes: sorted keys, no spaces, integers only, ASCII.

    The same series always gives the same bytes, so their SHA-256 names it. Instants are microseconds since
    1970-01-01T00:00Z, intensities mg/kWh, null a gap.
    """
    document = {
        "basis": series.convention.basis.value,
        "fetched_us": _micros(series.fetched_at),
        "format": _FORMAT,
        "gas": series.convention.gas.value,
        "issued_us": None if series.issued_at is None else _micros(series.issued_at),
        "kind": series.kind.value,
        "licence": series.licence,
        "points": [
            [
                _micros(point.window.start),
                _micros(point.window.end),
                None if point.intensity is None else point.intensity.milligrams_per_kwh,
            ]
            for point in series.points
        ],
        "signal": series.convention.signal.value,
        "source": series.source,
        "zone": [series.zone.provider, series.zone.code],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def decode_series(data: bytes) -> IntensitySeries:
    """Read what :func:`encode_series` wrote; raises InvalidInput for anything else."""
    try:
        document = json.loads(data)
        if document["format"] != _FORMAT:
            raise InvalidInput(f"a stored series has the unknown format {document['format']!r}; fetch it again.")
        provider, code = document["zone"]
        issued = document["issued_us"]
        return IntensitySeries(
            zone=Zone(provider=provider, code=code),
            points=tuple(_point(row) for row in document["points"]),
            convention=Convention(
                signal=Signal(document["signal"]), basis=Basis(document["basis"]), gas=Gas(document["gas"])
            ),
            kind=IntensityKind(document["kind"]),
            source=document["source"],
            issued_at=None if issued is None else _instant(issued),
            fetched_at=_instant(document["fetched_us"]),
            licence=document["licence"],
        )
    except InvalidInput:
        raise
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InvalidInput(
            f"a stored series is damaged ({type(error).__name__}: {error}); it is ignored, fetch it again."
        ) from error


def series_digest(data: bytes) -> str:
    """Return the hex SHA-256 of encoded bytes: the name of the series in the ledger."""
    return hashlib.sha256(data).hexdigest()


def pack(series: IntensitySeries) -> StoredForecast:
    """Return the series as a row of the forecast cache; raises InvalidInput for an empty series."""
    window = series.window
    if window is None:
        raise InvalidInput(f"the series of {series.zone} from {series.source} is empty; there is nothing to cache.")
    data = encode_series(series)
    return StoredForecast(
        provider=series.zone.provider,
        zone=str(series.zone),
        convention=str(series.convention),
        fetched_at=series.fetched_at,
        start=window.start,
        end=window.end,
        digest=series_digest(data),
        data=data,
    )


def unpack(stored: StoredForecast) -> IntensitySeries:
    """Read a row of the forecast cache; raises InvalidInput when its bytes are damaged or of another zone."""
    if series_digest(stored.data) != stored.digest:
        raise InvalidInput(
            f"the cached series of {stored.zone} does not match its digest and is ignored; fetch it again."
        )
    series = decode_series(stored.data)
    if str(series.zone) != stored.zone:
        raise InvalidInput(f"the cached series of {stored.zone} holds {series.zone}; it is ignored, fetch it again.")
    return series


def _instant(micros: int) -> datetime:
    return _EPOCH + micros * _MICROSECOND


def _point(row: Sequence[Any]) -> IntensityPoint:
    start, end, milligrams = row
    return IntensityPoint(
        window=Window(start=_instant(start), end=_instant(end)),
        intensity=None if milligrams is None else CarbonIntensity(milligrams_per_kwh=milligrams),
    )
