"""Zones and series, conventions and grades."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.errors import InvalidInput
from cagg.intensity import IntensityPoint, IntensitySeries, Zone
from cagg.provenance import Basis, Convention, Gas, Grade, IntensityKind, Signal, worst_grade
from cagg.quantities import CarbonIntensity
from cagg.windows import Window

START = datetime(2026, 1, 1, tzinfo=UTC)
CONVENTION = Convention(signal=Signal.AVERAGE, basis=Basis.DIRECT, gas=Gas.CO2)


def point(first_hour: float, last_hour: float, g_per_kwh: int | None = 100) -> IntensityPoint:
    window = Window(start=START + timedelta(hours=first_hour), end=START + timedelta(hours=last_hour))
    intensity = None if g_per_kwh is None else CarbonIntensity(milligrams_per_kwh=g_per_kwh * 1_000)
    return IntensityPoint(window=window, intensity=intensity)


def series(*points: IntensityPoint, fetched_at: datetime = START, issued_at: datetime | None = None) -> IntensitySeries:
    return IntensitySeries(
        zone=Zone(provider="neso", code="GB"),
        points=points,
        convention=CONVENTION,
        kind=IntensityKind.FORECAST,
        source="neso",
        issued_at=issued_at,
        fetched_at=fetched_at,
        licence="CC-BY-4.0",
    )


def test_a_zone_is_named_in_its_providers_namespace() -> None:
    assert str(Zone(provider="neso", code="GB")) == "neso:GB"
    for provider, code in (("", "GB"), ("neso", "")):
        with pytest.raises(InvalidInput, match="a zone needs a provider and a code"):
            Zone(provider=provider, code=code)


def test_a_series_may_have_gaps_but_no_overlaps() -> None:
    assert series(point(0, 1), point(1, 2, None), point(5, 6)).window == Window(
        start=START, end=START + timedelta(hours=6)
    )
    with pytest.raises(InvalidInput, match="overlap at 2026-01-01T00:30:00"):
        series(point(0, 1), point(0.5, 2))
    with pytest.raises(InvalidInput, match="overlap"):
        series(point(3, 4), point(0, 1))


def test_an_empty_series_has_no_window() -> None:
    assert series().window is None


def test_vintages_carry_an_offset() -> None:
    with pytest.raises(InvalidInput, match="fetched_at"):
        series(fetched_at=START.replace(tzinfo=None))
    with pytest.raises(InvalidInput, match="issued_at"):
        series(issued_at=START.replace(tzinfo=None))


def test_a_convention_is_written_as_three_words() -> None:
    assert str(CONVENTION) == "average/direct/co2"


@given(st.lists(st.sampled_from(list(Grade)), min_size=1))
def test_the_worst_grade_is_one_of_them_and_none_is_worse(grades: list[Grade]) -> None:
    worst = worst_grade(*grades)
    assert worst in grades
    assert all(grade.value <= worst.value for grade in grades)
