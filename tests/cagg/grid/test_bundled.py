"""The providers that ship with cagg: climatology and yearly averages, against figures computed from the originals."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pytest

from cagg.errors import IntensityUnavailable
from cagg.grid.providers.climatology import ClimatologyProvider
from cagg.grid.providers.yearly import YearlyProvider
from cagg.intensity import Zone
from cagg.provenance import Basis, Gas, IntensityKind
from cagg.testing import ManualClock
from cagg.windows import Window

CLOCK = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))


def zone(text):
    provider, code = text.split(":")
    return Zone(provider=provider, code=code)


def hour(month, hour_of_day, minutes=60, year=2026):
    start = datetime(year, month, 15, hour_of_day, tzinfo=UTC)
    return Window(start=start, end=start + timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("code", "month", "hour_of_day", "mean", "p95"),
    # from the hourly table by another way of computing (floating point, statistics.fmean)
    [
        ("GB", 3, 18, 277_328, 364_980),
        ("DE", 7, 12, 329_261, 426_280),
        ("ZA", 12, 23, 686_837, 730_180),
        ("SE-SE1", 2, 0, 14_754, 17_660),
    ],
)
def test_cells_are_means_and_percentiles_of_2022(code, month, hour_of_day, mean, p95) -> None:
    climatology = ClimatologyProvider(clock=CLOCK)
    window = hour(month, hour_of_day)
    series = climatology.fetch(Zone(provider="climatology", code=code), window)
    assert len(series.points) == 1
    assert series.points[0].intensity.milligrams_per_kwh == mean
    assert climatology.percentile_95(series.zone, window).milligrams_per_kwh == p95
    assert (series.kind, series.source) == (IntensityKind.CLIMATOLOGY, "climatology 2022")
    assert (series.convention.basis, series.convention.gas) == (Basis.UNKNOWN, Gas.CO2E)
    assert series.licence.startswith("ODbL-1.0")


def test_hours_are_utc_and_whole() -> None:
    climatology = ClimatologyProvider(clock=CLOCK)
    gb = zone("climatology:GB")
    window = Window(
        start=datetime.fromisoformat("2026-07-01T00:30:00+02:00"),
        end=datetime.fromisoformat("2026-07-01T01:30:00+02:00"),
    )
    points = climatology.fetch(gb, window).points
    assert [point.window.start.hour for point in points] == [22, 23]
    assert points[0].intensity == climatology.fetch(gb, hour(6, 22)).points[0].intensity
    assert climatology.percentile_95(gb, window).milligrams_per_kwh == max(
        climatology.percentile_95(gb, hour(6, number)).milligrams_per_kwh for number in (22, 23)
    )


def test_the_percentile_is_the_highest_of_the_hours_until_the_deadline() -> None:
    climatology = ClimatologyProvider(clock=CLOCK)
    night = Window(start=datetime(2026, 3, 31, 20, 10, tzinfo=UTC), end=datetime(2026, 4, 1, 3, tzinfo=UTC))
    cells = [climatology.percentile_95(zone("climatology:DE"), hour(3, number)) for number in (20, 21, 22, 23)]
    cells += [climatology.percentile_95(zone("climatology:DE"), hour(4, number)) for number in (0, 1, 2)]
    assert climatology.percentile_95(zone("climatology:DE"), night) == max(cells)


def test_a_whole_year_has_every_cell_and_leap_days() -> None:
    climatology = ClimatologyProvider(clock=CLOCK)
    year = Window(start=datetime(2024, 1, 1, tzinfo=UTC), end=datetime(2025, 1, 1, tzinfo=UTC))
    for entry in climatology.zones():
        points = climatology.fetch(entry.zone, year).points
        assert len(points) == 366 * 24
        assert all(point.intensity is not None for point in points)
    with pytest.raises(IntensityUnavailable, match="400 days"):
        climatology.fetch(zone("climatology:GB"), Window(start=year.start, end=year.start + timedelta(days=401)))


@pytest.mark.parametrize("name", ["climatology:IT", "neso:GB", "climatology:de"])
def test_the_climatology_refuses_other_zones(name) -> None:
    climatology = ClimatologyProvider(clock=CLOCK)
    with pytest.raises(IntensityUnavailable, match="16 zones"):
        climatology.fetch(zone(name), hour(1, 1))
    with pytest.raises(IntensityUnavailable, match="16 zones"):
        climatology.percentile_95(zone(name), hour(1, 1))


def test_a_yearly_average_is_one_flat_point() -> None:
    yearly = YearlyProvider(clock=CLOCK)
    window = hour(3, 18, minutes=7 * 24 * 60)
    series = yearly.fetch(zone("yearly:DEU"), window)
    assert [point.window for point in series.points] == [window]
    assert series.points[0].intensity.milligrams_per_kwh == 380_950
    assert (series.kind, series.source) == (IntensityKind.YEARLY, "yearly 2023")
    assert (series.convention.basis, series.convention.gas) == (Basis.LIFE_CYCLE, Gas.CO2E)
    assert yearly.average(zone("yearly:DEU")) == (series.points[0].intensity, 2023)


@pytest.mark.parametrize("name", ["yearly:DE", "yearly:XXX", "climatology:DE"])
def test_yearly_refuses_what_is_no_alpha_3_code(name) -> None:
    with pytest.raises(IntensityUnavailable, match="alpha-3"):
        YearlyProvider(clock=CLOCK).fetch(zone(name), hour(1, 1))


def test_every_country_has_both_codes_and_a_plausible_figure() -> None:
    text = (files("cagg.grid") / "data" / "yearly_owid.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 213
    assert len({row["iso2"] for row in rows}) == len({row["iso3"] for row in rows}) == 213
    assert all(len(row["iso2"]) == 2 and len(row["iso3"]) == 3 for row in rows)
    assert all(0 <= int(row["milligrams_per_kwh"]) < 1_500_000 for row in rows)


def test_every_data_file_names_its_licence() -> None:
    folder = files("cagg.grid") / "data"
    notice = (folder / "LICENSES.md").read_text(encoding="utf-8")
    for file in folder.iterdir():
        if file.name.endswith(".csv"):
            assert f"`{file.name}`" in notice
