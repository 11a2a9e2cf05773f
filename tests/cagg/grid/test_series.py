"""Arithmetic on series: exact means, splitting of energy, joins, arrays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.errors import InvalidInput
from cagg.grid.series import (
    clip,
    coverage,
    decode_series,
    encode_series,
    gaps,
    maximum,
    mean_over,
    merge,
    series_digest,
    slice_energy,
    to_arrays,
)
from cagg.intensity import IntensityPoint, IntensitySeries, Zone
from cagg.provenance import Basis, Convention, Gas, IntensityKind, Signal
from cagg.quantities import CarbonIntensity, Energy
from cagg.records import ReadingSlice
from cagg.testing.intensity import FAKE_CONVENTION, series_of
from cagg.windows import Window

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MICRO = timedelta(microseconds=1)


def at(minutes: float) -> datetime:
    return START + minutes * MINUTE


def window(first: float, last: float) -> Window:
    return Window(start=at(first), end=at(last))


def milligrams(intensity: CarbonIntensity | None) -> int | None:
    return None if intensity is None else intensity.milligrams_per_kwh


def irregular(*rows: tuple[float, float, float | None]) -> IntensitySeries:
    points = tuple(
        IntensityPoint(
            window=window(first, last), intensity=None if value is None else CarbonIntensity.from_g_per_kwh(value)
        )
        for first, last, value in rows
    )
    return IntensitySeries(
        zone=Zone(provider="fake", code="GB"),
        points=points,
        convention=FAKE_CONVENTION,
        kind=IntensityKind.FORECAST,
        source="fake",
        issued_at=None,
        fetched_at=START,
        licence="",
    )


@st.composite
def random_series(draw):
    rows, cursor = [], draw(st.integers(-30, 30))
    for _ in range(draw(st.integers(0, 8))):
        cursor += draw(st.sampled_from([0, 0, 0, 3, 11]))
        length = draw(st.integers(1, 40))
        rows.append((cursor, cursor + length, draw(st.one_of(st.none(), st.integers(0, 900)))))
        cursor += length
    return irregular(*rows)


# ---- means --------------------------------------------------------------------------------------------------------


def test_mean_is_weighted_by_time_over_fractional_overlaps() -> None:
    series = series_of(100, 400, 100, start=START)
    mean = mean_over(series, window(20, 50))  # 10 min at 100, 20 min at 400
    assert milligrams(mean.intensity) == 300_000
    assert mean.coverage == 1
    thirds = mean_over(irregular((0, 1, 0), (1, 3, 0.001)), window(0, 3))
    assert milligrams(thirds.intensity) == 1  # 2/3 mg, half up
    assert milligrams(mean_over(irregular((0, 1, 0), (1, 2, 0.001)), window(0, 2)).intensity) == 1  # exactly half


def test_a_gap_is_never_interpolated_over() -> None:
    series = series_of(100, None, 300, start=START)
    mean = mean_over(series, window(0, 90))
    assert mean.intensity is None
    assert mean.coverage == Fraction(2, 3)
    assert mean.covered == timedelta(minutes=60)
    assert gaps(series, window(0, 90)) == (window(30, 60),)
    assert milligrams(mean_over(series, window(60, 90)).intensity) == 300_000


def test_a_window_past_the_end_is_not_covered() -> None:
    series = series_of(100, start=START)
    assert mean_over(series, window(15, 45)).coverage == Fraction(1, 2)
    assert mean_over(series, window(-10, 10)).intensity is None
    assert mean_over(series, window(100, 110)).covered == timedelta(0)
    assert mean_over(series_of(start=START), window(0, 1)).coverage == 0


@given(random_series(), st.integers(-60, 200), st.integers(1, 120))
def test_mean_equals_the_sum_over_single_minutes(series, first, length) -> None:
    asked = window(first, first + length)
    cells = []
    for minute in range(first, first + length):
        hit = [point for point in series.points if point.window.start <= at(minute) < point.window.end]
        cells.append(hit[0].intensity if hit else None)
    mean = mean_over(series, asked)
    known = [cell.milligrams_per_kwh for cell in cells if cell is not None]
    assert mean.coverage == Fraction(len(known), length)
    if len(known) == length:
        assert milligrams(mean.intensity) == int(Fraction(sum(known), length) + Fraction(1, 2))
    else:
        assert mean.intensity is None
    hole = sum((gap.duration for gap in gaps(series, asked)), timedelta(0))
    assert hole + mean.covered == asked.duration
    assert milligrams(maximum(series, asked)) == max(known, default=None)


# ---- cutting and joining ------------------------------------------------------------------------------------------


def test_clip_cuts_points_at_the_window() -> None:
    series = clip(series_of(1, 2, 3, start=START), window(10, 70))
    assert [point.window for point in series.points] == [window(10, 30), window(30, 60), window(60, 70)]
    assert clip(series, window(500, 600)).points == ()


def test_merge_fills_gaps_and_ends_from_the_older_series() -> None:
    newer = series_of(10, None, 30, start=at(30), fetched_at=at(31))
    older = series_of(1, 2, 3, 4, 5, start=START, fetched_at=at(1))
    joined = merge(newer, older)
    assert [milligrams(point.intensity) for point in joined.points] == [1_000, 10_000, 3_000, 30_000, 5_000]
    assert joined.fetched_at == at(1)
    assert gaps(joined, window(0, 150)) == ()


@given(random_series(), random_series())
def test_merge_knows_exactly_what_either_knows(one, other) -> None:
    joined = merge(one, other)
    for minute in range(-40, 420, 7):
        asked = window(minute, minute + 1)
        expected = mean_over(one, asked).intensity or mean_over(other, asked).intensity
        assert mean_over(joined, asked).intensity == expected


@pytest.mark.parametrize(
    "other",
    [
        series_of(1, start=START, zone=Zone(provider="fake", code="FR")),
        series_of(1, start=START, kind=IntensityKind.ESTIMATED),
        series_of(1, start=START, convention=Convention(signal=Signal.AVERAGE, basis=Basis.DIRECT, gas=Gas.CO2E)),
    ],
)
def test_merge_refuses_series_that_mean_something_else(other) -> None:
    with pytest.raises(InvalidInput, match="cannot be joined"):
        merge(series_of(1, start=START), other)


# ---- energy -------------------------------------------------------------------------------------------------------


def test_energy_is_split_at_the_boundaries_of_intensity() -> None:
    slices = [
        ReadingSlice(window=window(20, 40), energy=Energy(millijoules=101)),
        ReadingSlice(window=window(40, 50), energy=Energy(millijoules=7)),
    ]
    parts = slice_energy(slices, series_of(100, 200, start=START))
    assert parts == [
        (window(20, 30), Energy(millijoules=51), CarbonIntensity(milligrams_per_kwh=100_000)),
        (window(30, 50), Energy(millijoules=57), CarbonIntensity(milligrams_per_kwh=200_000)),
    ]


def test_what_is_not_known_stays_without_a_price_and_in_one_piece() -> None:
    slices = [ReadingSlice(window=window(-10, 100), energy=Energy(millijoules=1_100))]
    parts = slice_energy(slices, irregular((0, 10, 5), (20, 30, None), (40, 50, 6)))
    assert [(part.window, part.energy.millijoules, milligrams(part.intensity)) for part in parts] == [
        (window(-10, 0), 100, None),
        (window(0, 10), 100, 5_000),
        (window(10, 40), 300, None),
        (window(40, 50), 100, 6_000),
        (window(50, 100), 500, None),
    ]
    assert slice_energy(slices, None) == [(slices[0].window, slices[0].energy, None)]
    assert slice_energy([], None) == []


@given(
    random_series(), st.integers(-60, 100), st.lists(st.tuples(st.integers(1, 50), st.integers(0, 10**9)), max_size=6)
)
def test_no_millijoule_is_lost_or_made(series, first, parts) -> None:
    slices, cursor = [], first
    for length, energy in parts:
        slices.append(ReadingSlice(window=window(cursor, cursor + length), energy=Energy(millijoules=energy)))
        cursor += length
    result = slice_energy(slices, series)
    assert sum(part.energy.millijoules for part in result) == sum(item.energy.millijoules for item in slices)
    for before, after in pairwise(result):
        assert before.window.end == after.window.start
        assert not (before.intensity is None and after.intensity is None)
    for part in result:
        assert mean_over(series, part.window).intensity == part.intensity


# ---- arrays and bytes ---------------------------------------------------------------------------------------------


def test_arrays_keep_gaps_visible() -> None:
    edges, values, known = to_arrays(irregular((0, 10, 5), (20, 30, None), (30, 31, 6)))
    base = int(START.timestamp() * 1_000)
    assert edges.tolist() == [base + 60_000 * minute for minute in (0, 10, 20, 30, 31)]
    assert known.tolist() == [True, False, False, True]
    assert values[known].tolist() == [5_000, 6_000]
    assert (edges.dtype, values.dtype, known.dtype) == (np.int64, np.int64, np.bool_)
    empty = to_arrays(series_of(start=START))
    assert [array.size for array in empty] == [0, 0, 0]


def test_an_interval_shorter_than_a_millisecond_is_left_out() -> None:
    tiny = timedelta(microseconds=300)
    points = tuple(
        IntensityPoint(
            window=Window(start=START + n * tiny, end=START + (n + 1) * tiny),
            intensity=CarbonIntensity(milligrams_per_kwh=n),
        )
        for n in range(8)
    )
    series = IntensitySeries(
        zone=Zone(provider="fake", code="GB"),
        points=points,
        convention=FAKE_CONVENTION,
        kind=IntensityKind.FORECAST,
        source="fake",
        issued_at=None,
        fetched_at=START,
        licence="",
    )
    edges, values, _ = to_arrays(series)
    assert np.all(np.diff(edges) > 0)
    assert edges.size == values.size + 1


def test_coverage_spans_what_is_known() -> None:
    assert coverage(irregular((0, 10, None), (10, 20, 5), (30, 40, 6), (40, 50, None))) == window(10, 40)
    assert coverage(series_of(None, start=START)) is None


@given(random_series())
def test_bytes_bring_the_same_series_back(series) -> None:
    data = encode_series(series)
    assert decode_series(data) == series
    assert encode_series(decode_series(data)) == data
    assert b"." not in data.replace(b"CC0-1.0", b"")
    assert len(series_digest(data)) == 64


def test_bytes_are_the_same_for_ever() -> None:
    series = series_of(182.5, None, start=datetime(2026, 3, 1, tzinfo=UTC))
    assert encode_series(series) == (
        b'{"basis":"direct","fetched_us":1772323200000000,"format":"cagg/intensity-series/1","gas":"co2","issued_us":null,'
        b'"kind":"forecast","licence":"CC0-1.0; made up for tests",'
        b'"points":[[1772323200000000,1772325000000000,182500],'
        b'[1772325000000000,1772326800000000,null]],"signal":"average","source":"fake","zone":["fake","GB"]}'
    )


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        encode_series(series_of(1, start=START))[:-5],
        encode_series(series_of(1, start=START)).replace(b"series/1", b"series/9"),
        encode_series(series_of(1, start=START)).replace(b"1000]", b"-1000]"),
        encode_series(series_of(1, start=START)).replace(b"1000]", b"1.5]"),
        encode_series(series_of(1, start=START)).replace(b'"direct"', b'"nonsense"'),
    ],
)
def test_damaged_bytes_are_refused(damage) -> None:
    with pytest.raises(InvalidInput):
        decode_series(damage)
