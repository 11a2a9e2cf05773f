"""Reads answers of Electricity Maps, versions 3 and 4. Pure: no clock, no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cagg.errors import IntensityUnavailable, InvalidInput
from cagg.intensity import IntensityPoint
from cagg.quantities import CarbonIntensity
from cagg.windows import Window, parse_instant

__all__ = ["STEP", "Answer", "FactorType", "allowed_zones", "read_answer"]

STEP = timedelta(hours=1)
"""Length of the intervals that are asked for."""

FactorType = str
"""``lifecycle`` or ``direct``, as the service calls the two sets of emission factors."""

_STEPS = {"hourly": STEP, "15_minutes": timedelta(minutes=15), "5_minutes": timedelta(minutes=5)}
_SLACK = 2 * STEP
"""How far an answer may reach beyond what was asked: the service's hour may turn before ours."""

_MALFORMED = (
    "electricity_maps sent an answer of an unknown shape ({}); its interface may have changed, look for a newer cagg."
)
_MADE_UP = ("sandbox", "synthetic")
"""Words that mark the numbers of a trial token: they come with HTTP 200 and look real."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an answer says.

    Attributes:
        points: intervals that overlap the window asked for, in order; None is a gap that the service left.
        measured: starts of the intervals whose number the service calls measured; others are its estimates.
        issued_at: when the whole answer was made; None when it does not say.
    """

    points: tuple[IntensityPoint, ...]
    measured: frozenset[datetime]
    issued_at: datetime | None


def read_answer(document: Any, *, zone: str, asked: Window, factors: FactorType) -> Answer:
    """Return the points of an answer to latest, history, past-range or forecast that overlap the window.

    Args:
        document: parsed JSON.
        zone: code that was asked for.
        asked: window that was asked for.
        factors: emission factors that were asked for.

    Raises:
        IntensityUnavailable: sandbox numbers, another zone, other factors, another time, contradictions, or an
            unknown shape.
    """
    if not isinstance(document, dict):
        raise IntensityUnavailable(_MALFORMED.format("no object"))
    _refuse_sandbox(document)
    _refuse_error(document)
    step = _step(document)
    points: dict[datetime, IntensityPoint] = {}
    measured: set[datetime] = set()
    for row in _rows(document):
        _check_same(row.get("zone", document.get("zone")), zone, "zone")
        _check_same(row.get("emissionFactorType", document.get("emissionFactorType", factors)), factors, "factors")
        point = _point(row, step)
        if points.setdefault(point.window.start, point) != point:
            raise IntensityUnavailable(f"electricity_maps contradicts itself about {point.window}; ask again later.")
        if _is_measured(row):
            measured.add(point.window.start)
    ordered = [points[start] for start in sorted(points)]
    _check_time(ordered, asked)
    return Answer(
        points=tuple(point for point in ordered if point.window.overlap(asked) > timedelta(0)),
        measured=frozenset(measured),
        issued_at=_published(document.get("updatedAt")) if "forecast" in document else None,
    )


def allowed_zones(document: Any) -> tuple[str, ...]:
    """Return the zones that a token may ask for, from the answer to ``zones``; empty when it does not say."""
    if not isinstance(document, dict):
        return ()
    return tuple(
        sorted(str(code) for code, about in document.items() if isinstance(about, dict) and about.get("access"))
    )


def _refuse_sandbox(document: Any) -> None:
    """Raise for the made-up numbers of a trial token, wherever in the answer they are marked."""
    for key, value in _pairs(document):
        name = key.lower()
        marked = ("disclaimer" in name or "sandbox" in name) and value not in (None, False, "", 0)
        made_up = isinstance(value, str) and any(word in value.lower() for word in _MADE_UP) and "method" in name
        if marked or made_up:
            raise IntensityUnavailable(
                "electricity_maps answered with made-up sandbox numbers, as it does for trial tokens; they are not "
                "used, set grid.electricity_maps.token to a token of a real plan."
            )


def _pairs(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key), item
            if depth < 4:
                yield from _pairs(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _pairs(item, depth)


def _refuse_error(document: Mapping[str, Any]) -> None:
    if "error" in document or (document.get("status") == "error"):
        error = document.get("error") or document.get("message")
        words = error.get("message") if isinstance(error, dict) else error
        raise IntensityUnavailable(f"electricity_maps answered with an error ({str(words)[:200]}); ask again later.")


def _step(document: Mapping[str, Any]) -> timedelta:
    granularity = document.get("temporalGranularity", "hourly")
    if not isinstance(granularity, str) or granularity not in _STEPS:
        raise IntensityUnavailable(
            f"electricity_maps answered in steps of {str(granularity)[:40]!r} when asked for hours; look for a newer "
            "cagg."
        )
    return _STEPS[granularity]


def _rows(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The intervals: a list under one of three names, or the document itself for ``latest``."""
    for name in ("forecast", "history", "data"):
        if name in document:
            rows = document[name]
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise IntensityUnavailable(_MALFORMED.format(name))
            yield from rows
            return
    if "carbonIntensity" not in document:
        raise IntensityUnavailable(_MALFORMED.format("no intensities"))
    yield document


def _check_same(answered: Any, asked: str, what: str) -> None:
    if answered == asked:
        return
    if what == "zone":
        raise IntensityUnavailable(
            f"electricity_maps answered for zone {str(answered)[:40]!r} when asked for {asked!r}; it is not used, see "
            "`cagg zones` for the codes."
        )
    raise IntensityUnavailable(
        f"electricity_maps answered with {str(answered)[:40]!r} emission factors when asked for {asked!r}; set "
        "grid.electricity_maps.basis to what the plan has."
    )


def _point(row: Mapping[str, Any], step: timedelta) -> IntensityPoint:
    text = row.get("datetime")
    try:
        start = parse_instant(text) if isinstance(text, str) else None
        end = None if start is None else start + step
    except (InvalidInput, OverflowError):  # no instant, or one at the end of the calendar
        start = end = None
    if start is None or end is None or (start - start.replace(minute=0, second=0, microsecond=0)) % step:
        raise IntensityUnavailable(_MALFORMED.format(f"the time {str(text)[:40]!r}"))
    if "carbonIntensity" not in row:
        raise IntensityUnavailable(_MALFORMED.format(f"no intensity at {str(text)[:40]}"))
    value = row["carbonIntensity"]
    try:
        intensity = None if value is None else CarbonIntensity.from_g_per_kwh(value)
    except InvalidInput as error:
        raise IntensityUnavailable(
            f"electricity_maps gave an unusable number for {start:%Y-%m-%d %H:%M}Z: {error}"
        ) from error
    return IntensityPoint(window=Window(start=start, end=end), intensity=intensity)


def _is_measured(row: Mapping[str, Any]) -> bool:
    """True only if the service says so: a number without the flag may be an estimate."""
    return row.get("isEstimated") is False and row.get("estimationMethod") in (None, "")


def _check_time(points: list[IntensityPoint], asked: Window) -> None:
    """Refuse an answer about another time: a stale cache between us and the service serves yesterday's."""
    if not points:
        raise IntensityUnavailable(f"electricity_maps has no data for {asked}; ask for another time.")
    first, last = points[0].window.start, points[-1].window.end
    if first < asked.start - _SLACK or last > asked.end + _SLACK:
        raise IntensityUnavailable(
            f"electricity_maps answered for {first:%Y-%m-%d %H:%M}Z to {last:%Y-%m-%d %H:%M}Z when asked for {asked}, "
            "which is another time; check whether a proxy between here and the service serves old answers."
        )


def _published(text: Any) -> datetime | None:
    try:
        return parse_instant(text) if isinstance(text, str) else None
    except (InvalidInput, OverflowError):
        return None
