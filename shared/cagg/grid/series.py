"""Pure arithmetic on intensity series: exact means, splitting of energy, clipping, merging, arrays.

All sums are integers of microseconds times mg/kWh. Gaps are never interpolated over: where a source says nothing,
the answer is None and the caller sees how much was covered.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from cagg.errors import InvalidInput
from cagg.grid.codec import decode_series, encode_series, series_digest
from cagg.intensity import IntensityPoint, IntensitySeries
from cagg.quantities import CarbonIntensity, Energy
from cagg.records import ReadingSlice
from cagg.windows import Window, to_epoch_ms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "EnergySlice",
    "Mean",
    "SeriesArrays",
    "clip",
    "coverage",
    "decode_series",
    "encode_series",
    "gaps",
    "maximum",
    "mean_over",
    "merge",
    "series_digest",
    "slice_energy",
    "to_arrays",
]

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A time-weighted mean with the part of the window it rests on.

    Attributes:
        intensity: the mean, rounded half up to mg/kWh; None unless the data cover all of the window.
        covered: how much of the window is known.
        window: what was asked.
    """

    intensity: CarbonIntensity | None
    covered: timedelta
    window: Window

    @property
    def coverage(self) -> Fraction:
        """Known share of the window, 0 to 1, exact."""
        return Fraction(self.covered // _MICROSECOND, self.window.duration // _MICROSECOND)


class EnergySlice(NamedTuple):
    """Energy used within one interval of intensity; ``intensity`` is None where the source says nothing."""

    window: Window
    energy: Energy
    intensity: CarbonIntensity | None


class SeriesArrays(NamedTuple):
    """A series as arrays for the planner: n + 1 edges in ms since 1970, n values in mg/kWh, n flags (False = gap)."""

    edges_ms: NDArray[np.int64]
    milligrams_per_kwh: NDArray[np.int64]
    known: NDArray[np.bool_]


# ---- sums ---------------------------------------------------------------------------------------------------------


def _points_in(series: IntensitySeries, window: Window) -> Sequence[IntensityPoint]:
    """Points that overlap the window."""
    first = bisect_right(series.points, window.start, key=lambda point: point.window.end)
    last = bisect_left(series.points, window.end, key=lambda point: point.window.start)
    return series.points[first:last]


def _known_parts(series: IntensitySeries, window: Window) -> Iterator[tuple[int, int]]:
    """(mg/kWh, microseconds) of each known overlap with the window."""
    for point in _points_in(series, window):
        if point.intensity is not None:
            yield point.intensity.milligrams_per_kwh, point.window.overlap(window) // _MICROSECOND


def mean_over(series: IntensitySeries, window: Window) -> Mean:
    """Return the exact time-weighted mean over fractional overlaps, with its coverage.

    The mean is sum(intensity x overlap) / sum(overlap) in integers, rounded half up to mg/kWh, and None when any part
    of the window is unknown.
    """
    total = covered = 0
    for milligrams, micros in _known_parts(series, window):
        total += milligrams * micros
        covered += micros
    length = window.duration // _MICROSECOND
    mean = CarbonIntensity(milligrams_per_kwh=(2 * total + length) // (2 * length)) if covered == length else None
    return Mean(intensity=mean, covered=covered * _MICROSECOND, window=window)


def gaps(series: IntensitySeries, window: Window) -> tuple[Window, ...]:
    """Return the parts of the window of which the series says nothing, in order; empty when all is known."""
    found: list[Window] = []
    cursor = window.start
    for point in _points_in(series, window):
        if point.intensity is None:
            continue
        if point.window.start > cursor:
            found.append(Window(start=cursor, end=point.window.start))
        cursor = max(cursor, point.window.end)
    if cursor < window.end:
        found.append(Window(start=cursor, end=window.end))
    return tuple(found)


def coverage(series: IntensitySeries) -> Window | None:
    """Return the span from the first known instant to the last; gaps may lie inside; None when nothing is known."""
    known = [point.window for point in series.points if point.intensity is not None]
    return Window(start=known[0].start, end=known[-1].end) if known else None


def maximum(series: IntensitySeries, window: Window) -> CarbonIntensity | None:
    """Return the highest intensity known in the window; None when none is."""
    highest = max((milligrams for milligrams, _ in _known_parts(series, window)), default=None)
    return None if highest is None else CarbonIntensity(milligrams_per_kwh=highest)


def clip(series: IntensitySeries, window: Window) -> IntensitySeries:
    """Return the series with every point cut to the window; empty when they do not meet."""
    points = tuple(
        IntensityPoint(
            window=Window(start=max(point.window.start, window.start), end=min(point.window.end, window.end)),
            intensity=point.intensity,
        )
        for point in _points_in(series, window)
    )
    return replace(series, points=points)


def merge(primary: IntensitySeries, secondary: IntensitySeries) -> IntensitySeries:
    """Return the primary series with its gaps and ends filled from the secondary, for example an older vintage.

    Vintage and fetch time are the older of the two, because a joined series is as old as its oldest part.

    Raises:
        InvalidInput: zone, convention or kind differ: such numbers are never put into one series.
    """
    for what in ("zone", "convention", "kind"):
        one, other = getattr(primary, what), getattr(secondary, what)
        if one != other:
            raise InvalidInput(f"series of different {what} cannot be joined ({one} and {other}); use one of them.")
    points = [point for point in primary.points if point.intensity is not None]
    windows = [point.window for point in (*points, *secondary.points)]
    if not windows:
        return primary
    free = Window(start=min(window.start for window in windows), end=max(window.end for window in windows))
    for hole in gaps(primary, free):
        points.extend(clip(secondary, hole).points)
    issued = [series.issued_at for series in (primary, secondary) if series.issued_at is not None]
    sources = dict.fromkeys((primary.source, secondary.source))
    licences = dict.fromkeys((primary.licence, secondary.licence))
    return replace(
        primary,
        points=tuple(sorted(points, key=lambda point: point.window.start)),
        source=" + ".join(sources),
        issued_at=min(issued) if len(issued) == 2 else None,
        fetched_at=min(primary.fetched_at, secondary.fetched_at),
        licence="; ".join(licences),
    )


def slice_energy(slices: Sequence[ReadingSlice], series: IntensitySeries | None) -> list[EnergySlice]:
    """Split the energy of a run at the boundaries of intensity and put together what lies in one interval.

    Energy is spread evenly over each slice. Parts are whole millijoules by the largest-remainder method (ties to the
    earlier part), so the parts of a slice add up to the slice and the result to the reading, exactly.

    Args:
        slices: in order, without overlap.
        series: what to price with; None when nothing is known.

    Returns:
        One item per interval of intensity that the run touched, in order; its window reaches from the first to the
        last instant metered there. A stretch of which nothing is known is one item with intensity None.

    Source of the apportionment: Hamilton's method (largest remainders), Balinski & Young, "Fair Representation", 1982.
    """
    merged: list[EnergySlice] = []
    keys: list[int] = []
    for item in slices:
        parts = list(_cells(series, item.window))
        for (key, window, intensity), energy in zip(parts, _apportion(item, [part[1] for part in parts]), strict=True):
            last = merged[-1] if merged else None
            if last is not None and (keys[-1] == key or (last.intensity is None and intensity is None)):
                joined = Window(start=last.window.start, end=max(last.window.end, window.end))
                merged[-1] = EnergySlice(joined, last.energy + energy, intensity)
            else:
                keys.append(key)
                merged.append(EnergySlice(window, energy, intensity))
    return merged


def _cells(series: IntensitySeries | None, window: Window) -> Iterator[tuple[int, Window, CarbonIntensity | None]]:
    """Cut a window at the series' boundaries; equal keys mean the same interval, or the same stretch of gap."""
    if series is None:
        yield 0, window, None
        return
    first = bisect_right(series.points, window.start, key=lambda point: point.window.end)
    cursor = window.start
    for index, point in enumerate(_points_in(series, window), start=first):
        if point.window.start > cursor:
            yield 2 * index, Window(start=cursor, end=point.window.start), None
            cursor = point.window.start
        end = min(point.window.end, window.end)
        yield 2 * index + 1, Window(start=cursor, end=end), point.intensity
        cursor = end
    if cursor < window.end:
        last = bisect_left(series.points, window.end, key=lambda point: point.window.start)
        yield 2 * last, Window(start=cursor, end=window.end), None


def _apportion(item: ReadingSlice, parts: Sequence[Window]) -> list[Energy]:
    length = item.window.duration // _MICROSECOND
    shares = [divmod(item.energy.millijoules * (part.duration // _MICROSECOND), length) for part in parts]
    rest = item.energy.millijoules - sum(whole for whole, _ in shares)
    by_remainder = sorted(range(len(shares)), key=lambda index: (-shares[index][1], index))
    extra = set(by_remainder[:rest])
    return [Energy(millijoules=whole + (index in extra)) for index, (whole, _) in enumerate(shares)]


# ---- arrays -------------------------------------------------------------------------------------------------------


def to_arrays(series: IntensitySeries) -> SeriesArrays:
    """Return the series as arrays for the planner; stretches between points become intervals that are not known.

    Instants are rounded down to milliseconds; an interval that vanishes by this is left out.
    """
    import numpy as np  # only planning needs arrays: keeps the admitting path short

    edges: list[int] = []
    values: list[int] = []
    known: list[bool] = []
    for point in series.points:
        start, end = to_epoch_ms(point.window.start), to_epoch_ms(point.window.end)
        if end == start:
            continue
        if not edges:
            edges.append(start)
        elif start > edges[-1]:
            edges.append(start)
            values.append(0)
            known.append(False)
        edges.append(end)
        values.append(0 if point.intensity is None else point.intensity.milligrams_per_kwh)
        known.append(point.intensity is not None)
    return SeriesArrays(
        np.array(edges, dtype=np.int64), np.array(values, dtype=np.int64), np.array(known, dtype=np.bool_)
    )
