"""The page, the CSV file and the document: escaped, self-contained, units in every name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from cagg.assessment.figures import Assessment
from cagg.assessment.intensities import actual_intensities, typical_intensities, whole_slots
from cagg.assessment.judging import assess
from cagg.assessment.listing import CSV_COLUMNS, csv_text, document
from cagg.assessment.page import page
from cagg.errors import IntensityUnavailable
from cagg.intensity import IntensityPoint, IntensitySeries, Zone
from cagg.pastruns import PastPipeline
from cagg.provenance import Basis, Convention, Gas, IntensityKind, Signal
from cagg.quantities import CarbonIntensity
from cagg.testing import ManualClock
from cagg.windows import Window

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
EVIL = "=cmd|'<script>alert(1)</script>\"&\x07\ud800"


@pytest.fixture
def found(fold: Callable[..., Any], build: Callable[..., Any], assume: Callable[..., Any]) -> Assessment:
    runs = [build(MONDAY + timedelta(days=day, hours=20), 60, pipeline=EVIL, run_id=str(day)) for day in range(3)]
    runs.append(build(MONDAY, 5, pipeline="small", run_id="s"))
    return assess(fold(*runs), [PastPipeline(name=EVIL, schedule="<b>0 20 * * *")], assume(), host="airflow")


class _Page(HTMLParser):
    """What a browser would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "action", "xlink:href"}]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_the_page_is_self_contained_and_escapes_every_name(found: Assessment) -> None:
    text = page(found, "with DAG('<img src=x>'): ...")
    seen = _Page()
    seen.feed(text)
    assert not seen.tags & {"script", "img", "link", "iframe", "b"}
    assert (seen.links, seen.handlers) == ([], [])
    assert "url(" not in text
    assert "@import" not in text
    assert "&lt;script&gt;" in text
    assert "\x07" not in text
    text.encode("utf-8")
    assert "estimated from durations" in text
    assert "saved" not in text


def test_the_csv_has_one_row_a_pipeline_and_no_formulas(found: Assessment) -> None:
    rows = list(csv.reader(io.StringIO(csv_text(found))))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [len(row) for row in rows] == [len(CSV_COLUMNS)] * 3
    row = dict(zip(CSV_COLUMNS, rows[1], strict=True))
    assert row["pipeline"].startswith("'=cmd")
    assert (row["energy_low_wh"], row["energy_high_wh"]) == ("3000.000", "6000.000")
    assert (row["carbon_low_g"], row["matters"], row["slack_hours"]) == ("900.000", "yes", "8.00")
    assert row["provenance"].startswith("estimated from durations")


def test_unknown_figures_are_empty_with_the_reason(
    fold: Callable[..., Any], build: Callable[..., Any], assume: Callable[..., Any]
) -> None:
    unknown = assume(actual=None, actual_reason="no zone", typical=None, typical_reason="no zone")
    found = assess(fold(build(MONDAY, 60)), [], unknown, host="airflow")
    row = dict(zip(CSV_COLUMNS, list(csv.reader(io.StringIO(csv_text(found))))[1], strict=True))
    assert (row["carbon_low_g"], row["intensity_difference_high_g"]) == ("", "")
    assert "carbon unknown: no zone" in row["notes"]
    shown = document(found)
    assert shown["pipelines"][0]["carbon_micrograms"] is None
    assert shown["pipelines"][0]["carbon_reason"] == "no zone"
    assert "unknown" in page(found, "")


def test_the_document_is_plain_json_with_integers(found: Assessment) -> None:
    shown = json.loads(json.dumps(document(found), default=str))
    assert shown["totals"]["energy_millijoules"]["low"] == sum(
        item["energy_millijoules"]["low"] for item in shown["pipelines"]
    )
    assert shown["provenance"] == "estimated from durations"
    assert isinstance(shown["pipelines"][0]["carbon_micrograms"]["high"], int)


# ---- intensities --------------------------------------------------------------------------------------------------


class _Provider:
    """Hourly values of the hour of day; what lies before ``knows_from`` is refused."""

    convention = Convention(signal=Signal.AVERAGE, basis=Basis.DIRECT, gas=Gas.CO2)
    kind = IntensityKind.MEASURED

    def __init__(self, name: str, knows_from: datetime) -> None:
        self.name = name
        self.asked: list[Window] = []
        self._knows_from = knows_from

    def knows(self, zone: Zone) -> bool:
        return True

    def fetch(self, zone: Zone, window: Window) -> IntensitySeries:
        self.asked.append(window)
        if window.start < self._knows_from:
            raise IntensityUnavailable(f"{self.name} forgot {window}.")
        hours = int(window.duration / timedelta(hours=1))
        starts = [window.start + timedelta(hours=number) for number in range(hours)]
        points = tuple(
            IntensityPoint(
                window=Window(start=at, end=at + timedelta(hours=1)),
                intensity=CarbonIntensity(milligrams_per_kwh=1_000 * at.hour),
            )
            for at in starts
        )
        return IntensitySeries(
            zone=zone,
            points=points,
            convention=self.convention,
            kind=self.kind,
            source=self.name,
            issued_at=None,
            fetched_at=MONDAY,
            licence="",
        )

    async def fetch_async(self, zone: Zone, window: Window) -> IntensitySeries:
        return self.fetch(zone, window)


def test_long_times_are_asked_in_weeks_of_the_first_source_that_knows_them() -> None:
    zone = Zone(provider="x", code="Y")
    forgets, knows = _Provider("forgets", MONDAY + timedelta(days=8)), _Provider("knows", MONDAY)
    window = Window(start=MONDAY, end=MONDAY + timedelta(days=20))
    found, problems = actual_intensities([(forgets, zone), (knows, zone)], window)
    assert found is not None
    assert len(found.by_slot) == 20 * 48
    assert [item.duration.days for item in knows.asked] == [7, 7, 6]
    assert found.label == "knows for x:Y (measured; average, direct, co2)"
    assert len(problems) == 1
    assert problems[0].startswith("forgets: forgets forgot")


def test_the_usual_intensities_are_those_of_the_area() -> None:
    window = whole_slots(MONDAY + timedelta(minutes=5), MONDAY + timedelta(hours=3))
    assert (window.start, window.end) == (MONDAY, MONDAY + timedelta(hours=3))
    found = typical_intensities(Zone(provider="neso", code="GB"), window, clock=ManualClock(MONDAY))
    assert found is not None
    assert len(found.by_slot) == 6
    assert "climatology:GB" in found.label
    assert typical_intensities(Zone(provider="yearly", code="ISL"), window, clock=ManualClock(MONDAY)) is None
