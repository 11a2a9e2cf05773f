"""Reads the data files that ship with cagg, each once per process and only when somebody asks."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = [
    "CLIMATOLOGY_EDITION",
    "Climate",
    "CloudRegion",
    "Country",
    "GridArea",
    "climate",
    "cloud_regions",
    "countries",
    "grid_areas",
]

CLIMATOLOGY_EDITION = "2022"
"""The year that the climatology was computed from."""

_FILES = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Climate:
    """A zone's past by month and hour of day (UTC), mg/kWh; index ``(month - 1) * 24 + hour``.

    Attributes:
        mean: mean of the hours of the year that fall into the cell.
        p95: their 95th percentile.
    """

    mean: tuple[int, ...]
    p95: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Country:
    """A country's yearly average, mg/kWh."""

    iso3: str
    iso2: str
    name: str
    year: int
    milligrams_per_kwh: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GridArea:
    """A zone of Electricity Maps.

    Attributes:
        apart: a grid of its own, or another one than the rest of its country: the country's figures say nothing of it.
    """

    code: str
    name: str
    apart: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudRegion:
    """Where a cloud provider says that a region stands.

    Attributes:
        areas: codes of the grid areas that may serve the place; one when that is sure.
    """

    place: str
    areas: tuple[str, ...]


@lru_cache(maxsize=32)
def climate(code: str) -> Climate:
    """Return one zone's cells; raises KeyError for a zone that is not in the file."""
    rows: dict[str, list[int]] = {"mean": [], "p95": []}
    prefix = f"{code},"
    for line in _text("climatology_2022.csv").splitlines():
        if line.startswith(prefix):
            _, statistic, _, *hours = line.split(",")
            rows[statistic].extend(map(int, hours))
    if not rows["mean"]:
        raise KeyError(code)
    return Climate(mean=tuple(rows["mean"]), p95=tuple(rows["p95"]))


@lru_cache(maxsize=1)
def countries() -> Mapping[str, Country]:
    """Return all countries by ISO 3166-1 alpha-3 code."""
    return {
        row["iso3"]: Country(
            iso3=row["iso3"],
            iso2=row["iso2"],
            name=row["country"],
            year=int(row["year"]),
            milligrams_per_kwh=int(row["milligrams_per_kwh"]),
        )
        for row in csv.DictReader(_text("yearly_owid.csv").splitlines())
    }


@lru_cache(maxsize=1)
def grid_areas() -> tuple[GridArea, ...]:
    """Return the zones of Electricity Maps, by code."""
    rows = csv.DictReader(_text("electricity_maps_zones.csv").splitlines())
    return tuple(GridArea(code=row["code"], name=row["name"], apart=row["apart"] == "yes") for row in rows)


@lru_cache(maxsize=1)
def cloud_regions() -> Mapping[str, CloudRegion]:
    """Return the regions of the clouds by ``cloud:region``, for example ``aws:eu-west-2``."""
    return {
        f"{row['cloud']}:{row['region']}": CloudRegion(place=row["place"], areas=tuple(row["zones"].split()))
        for row in csv.DictReader(_text("cloud_regions.csv").splitlines())
    }


@lru_cache(maxsize=4)
def _text(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")
