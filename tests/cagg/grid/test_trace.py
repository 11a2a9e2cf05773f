"""Trace files: the documented forms, the time scale, and clear refusals that name the line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.errors import ConfigurationError, IntensityUnavailable
from cagg.grid.providers._trace_file import parse_trace
from cagg.grid.providers.trace import TraceProvider
from cagg.grid.zones import resolve_zone
from cagg.intensity import Zone
from cagg.provenance import Basis, Gas, IntensityKind, Signal
from cagg.testing import ManualClock
from cagg.windows import Window

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLOCK = ManualClock(NOW)


def parse(text):
    return parse_trace(text.encode(), where="t.csv", default_name="t")


def lines(*rows, head="start,g_per_kwh"):
    return "\n".join((head, *rows)) + "\n"


def rows_of(trace):
    return [
        (
            f"{point.window.start:%H:%M}",
            f"{point.window.end:%H:%M}",
            None if point.intensity is None else point.intensity.milligrams_per_kwh,
        )
        for point in trace.points
    ]


# ---- the forms ----------------------------------------------------------------------------------------------------


def test_the_documented_csv() -> None:
    trace = parse(
        "# anything: else is a comment\n# name: my grid/1\n# area: GB\n# signal: marginal\n# basis: direct\n"
        "# gas: CO2\n# kind: forecast\n# issued: 2026-03-01T00:01+01:00\n# licence: CC0-1.0\n\n"
        + lines("2026-03-01T00:00+00:00,182.5", "2026-03-01T01:30:00+01:00,0.0005", "2026-03-01T01:00Z,")
    )
    assert rows_of(trace) == [("00:00", "00:30", 182_500), ("00:30", "01:00", 1), ("01:00", "01:30", None)]
    assert (trace.name, trace.area, trace.kind, trace.licence) == ("my-grid-1", "GB", IntensityKind.FORECAST, "CC0-1.0")
    assert trace.issued_at == datetime(2026, 2, 28, 23, 1, tzinfo=UTC)
    assert str(trace.convention) == "marginal/direct/co2"


def test_what_a_file_does_not_say() -> None:
    trace = parse(lines("2026-03-01T00:00Z,1", "2026-03-01T00:05Z,2"))
    assert (trace.name, trace.area, trace.issued_at, trace.kind) == ("t", None, None, IntensityKind.DECLARED)
    convention = trace.convention
    assert (convention.signal, convention.basis, convention.gas) == (Signal.AVERAGE, Basis.UNKNOWN, Gas.CO2E)


def test_an_end_column_a_byte_order_mark_and_any_column_order() -> None:
    trace = parse("\ufeff" + lines("2026-03-01T02:00Z,5,2026-03-01T00:00Z", head="End, g_per_kWh ,START"))
    assert rows_of(trace) == [("00:00", "02:00", 5_000)]


def test_a_missing_line_stays_a_gap() -> None:
    trace = parse(lines("2026-03-01T00:00Z,1", "2026-03-01T00:30Z,2", "2026-03-01T02:00Z,3"))
    assert rows_of(trace) == [("00:00", "00:30", 1_000), ("00:30", "01:00", 2_000), ("02:00", "02:30", 3_000)]


def test_json_means_the_same() -> None:
    document = {
        "name": "j",
        "basis": "life_cycle",
        "points": [
            {"start": "2026-03-01T00:00Z", "g_per_kwh": 0.1},
            {"start": "2026-03-01T00:30Z", "g_per_kwh": None},
            {"start": "2026-03-01T01:00Z", "g_per_kwh": 7, "end": "2026-03-01T01:10Z"},
        ],
    }
    trace = parse(json.dumps(document))
    assert rows_of(trace) == [("00:00", "00:30", 100), ("00:30", "01:00", None), ("01:00", "01:10", 7_000)]
    assert (trace.name, trace.convention.basis) == ("j", Basis.LIFE_CYCLE)
    assert rows_of(parse(json.dumps(document["points"]))) == rows_of(trace)


# ---- refusals -----------------------------------------------------------------------------------------------------

GOOD = "2026-03-01T00:00Z,1"
BAD = [
    (lines(GOOD, "2026-03-01T00:30,2"), "line 3: .*no UTC offset"),
    (lines(GOOD, "tomorrow,2"), "line 3: .*not a date"),
    (lines(GOOD, "2026-03-01T00:30Z,NaN"), "line 3: 'NaN' is no intensity"),
    (lines(GOOD, "2026-03-01T00:30Z,inf"), "line 3: 'inf' is no intensity"),
    (lines(GOOD, "2026-03-01T00:30Z,12 g"), "line 3: '12 g' is no intensity"),
    (lines(GOOD, "2026-03-01T00:30Z,-0.5"), "line 3: .*negative"),
    (lines(GOOD, "2026-03-01T00:30Z,1e12"), "line 3: .*larger than can be stored"),
    (lines(GOOD, GOOD), "line 3: .*sort the file"),
    (lines("2026-03-01T00:30Z,1", GOOD), "line 3: .*sort the file"),
    (lines(GOOD, "2026-03-01T00:30Z"), "line 3: 2 columns are named but 1 are given"),
    (
        lines(
            "2026-03-01T00:00Z,1,2026-03-01T00:40Z", "2026-03-01T00:30Z,2,2026-03-01T01:00Z", head="start,g_per_kwh,end"
        ),
        "line 3: .*overlaps",
    ),
    (lines("2026-03-01T00:30Z,1,2026-03-01T00:30Z", head="start,g_per_kwh,end"), "line 2: .*before it starts"),
    (lines(GOOD), "line 2: .*needs its end"),
    (lines(head="time,value"), "line 1: .*start,g_per_kwh"),
    ("", "holds no intensities"),
    (lines(), "holds no intensities"),
    ("# basis: cradle\n" + lines(GOOD, "2026-03-01T00:30Z,1"), "basis 'cradle' is unknown"),
    ("# issued: yesterday\n" + lines(GOOD, "2026-03-01T00:30Z,1"), "issued: .*not a date"),
    ("{", "no valid JSON"),
    ('{"points": 3}', "no list 'points'"),
    ('[{"start": "2026-03-01T00:00Z"}]', "point 1: .*needs start and g_per_kwh"),
    ('[{"start": 5, "g_per_kwh": 1}]', "point 1: .*not a date"),
    ('[{"start": null, "g_per_kwh": 1}]', "point 1: .*no date and time"),
    ('[{"start": "2026-03-01T00:00Z", "g_per_kwh": true}]', "point 1: True is no intensity"),
    ('[{"start": "2026-03-01T00:00Z", "g_per_kwh": NaN}]', "point 1: 'NaN' is no intensity"),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=[words for _, words in BAD])
def test_a_file_that_cannot_be_used_is_refused_by_line(text, words) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse(text)
    assert "t.csv" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read.*grid\.trace\.file"):
        TraceProvider.from_file(tmp_path / "none.csv", clock=CLOCK)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"start,g_per_kwh\n\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        TraceProvider.from_file(binary, clock=CLOCK)


# ---- on the wall clock --------------------------------------------------------------------------------------------

HALF_HOURS = lines(*(f"2023-03-14T{n // 2:02}:{n % 2 * 30:02}Z,{n}" for n in range(48)))


def test_the_trace_begins_at_the_anchor_and_runs_faster() -> None:
    trace = TraceProvider(
        parse("# issued: 2023-03-14T00:01Z\n" + HALF_HOURS), clock=CLOCK, time_scale=1_800, anchor=NOW
    )
    window = Window(start=NOW, end=NOW + timedelta(hours=1))
    series = trace.fetch(Zone(provider="trace", code="t"), window)
    assert len(series.points) == 48
    for number, point in enumerate(series.points):
        assert point.window == Window(start=NOW + timedelta(seconds=number), end=NOW + timedelta(seconds=number + 1))
        assert point.intensity.g_per_kwh == number
    assert trace.horizon == timedelta(seconds=48)
    assert series.issued_at == NOW + timedelta(milliseconds=33)
    assert series.fetched_at == NOW
    assert series.source.startswith("trace t sha256:")


def test_without_an_anchor_the_past_stays_the_past() -> None:
    trace = TraceProvider(parse(HALF_HOURS), clock=CLOCK)
    zone = Zone(provider="trace", code="t")
    day = datetime(2023, 3, 14, tzinfo=UTC)
    assert trace.fetch(zone, Window(start=day, end=day + timedelta(minutes=31))).points[1].window.start.minute == 30
    with pytest.raises(IntensityUnavailable, match=r"grid\.trace\.anchor"):
        trace.fetch(zone, Window(start=NOW, end=NOW + timedelta(hours=1)))
    with pytest.raises(IntensityUnavailable, match="trace:t"):
        trace.fetch(Zone(provider="trace", code="other"), Window(start=day, end=NOW))


@given(st.fractions(min_value="0.01", max_value=100_000), st.integers(0, 10**6))
def test_intervals_still_meet_at_any_scale(scale, shift_ms) -> None:
    anchor = NOW + timedelta(milliseconds=shift_ms)
    trace = TraceProvider(parse(HALF_HOURS), clock=CLOCK, time_scale=scale, anchor=anchor)
    everything = Window(start=anchor - timedelta(days=1), end=anchor + timedelta(days=400))
    points = trace.fetch(Zone(provider="trace", code="t"), everything).points
    assert points[0].window.start == anchor
    for before, after in pairwise(points):
        assert before.window.end == after.window.start
        assert before.window.start.microsecond % 1_000 == 0
    length = timedelta(days=1) / float(scale)
    assert abs((points[-1].window.end - anchor) - length) < timedelta(milliseconds=2) + length * 1e-6


@pytest.mark.parametrize("scale", [0, -1, 0.0, float("nan"), float("inf"), 1e12])
def test_a_scale_that_leaves_nothing_is_refused(scale) -> None:
    with pytest.raises(ConfigurationError, match="time scale"):
        TraceProvider(parse(HALF_HOURS), clock=CLOCK, time_scale=scale, anchor=NOW)


def test_a_trace_with_an_area_stands_for_it() -> None:
    trace = TraceProvider(parse("# name: demo\n# area: GB\n" + HALF_HOURS), clock=CLOCK)
    assert str(resolve_zone("demo", ("trace",), more=trace.zones())) == "trace:demo"
    assert trace.zones()[0].area == "GB"
    renamed = TraceProvider(parse(HALF_HOURS), clock=CLOCK, name="other")
    assert renamed.knows(Zone(provider="trace", code="other"))
    assert renamed.zones()[0].area == "trace:other"


def test_the_shipped_trace_is_the_recorded_forecast(recorded) -> None:
    data = (files("cagg.grid") / "data" / "trace_gb_2023-03-14.csv").read_bytes()
    trace = parse_trace(data, where="shipped", default_name="x")
    original = recorded("national_fw48h_2023-03-14T0301Z.json")["data"]
    assert [point.intensity.milligrams_per_kwh for point in trace.points] == [
        1_000 * row["intensity"]["forecast"] for row in original
    ]
    assert [f"{point.window.start:%Y-%m-%dT%H:%MZ}" for point in trace.points] == [row["from"] for row in original]
    assert (trace.name, trace.area, trace.kind) == ("gb-2023-03-14", "GB", IntensityKind.FORECAST)
    assert str(trace.convention) == "average/direct/co2"
    assert trace.licence.startswith("CC-BY-4.0")
