"""Builds the data files beside this script from their originals. Run by hand when an original has a new edition.

    python build.py climatology ci_2022_hourly_16zones.csv.gz
    python build.py yearly codecarbon_country_yearly_OWID.csv iso3166.csv
    python build.py trace national_fw48h_2023-03-14T0301Z.json

Everything is computed in decimals, so the files are the same bytes on every machine.
"""

# ruff: noqa: T201  (a script: it prints)
from __future__ import annotations

import csv
import gzip
import json
import sys
from collections import defaultdict
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

__all__ = ["climatology", "milligrams", "percentile", "trace", "yearly"]

HERE = Path(__file__).parent
PERCENT = 95


def milligrams(g_per_kwh: Decimal) -> int:
    """g/kWh to whole mg/kWh, half up."""
    return int((g_per_kwh * 1_000).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def percentile(values: list[Decimal]) -> Decimal:
    """Lowest value at or under which at least 95 % of the values lie (Hyndman & Fan 1996, definition 1)."""
    return sorted(values)[-(-PERCENT * len(values) // 100) - 1]


def climatology(original: Path) -> None:
    """Mean and 95th percentile by zone, month and hour of day (UTC) of an hourly table with one column per zone."""
    cells: dict[str, dict[tuple[int, int], list[Decimal]]] = defaultdict(lambda: defaultdict(list))
    with gzip.open(original, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            instant = datetime.fromisoformat(row.pop("datetime_utc"))
            for zone, text in row.items():
                cells[zone][instant.month, instant.hour].append(Decimal(text))
    with (HERE / "climatology_2022.csv").open("w", encoding="ascii", newline="\n") as file:
        file.write("zone,statistic,month," + ",".join(f"h{hour:02}" for hour in range(24)) + "\n")
        for zone, by_cell in cells.items():
            for statistic in ("mean", "p95"):
                for month in range(1, 13):
                    row_values = []
                    for hour in range(24):
                        values = by_cell[month, hour]
                        value = sum(values, Decimal(0)) / len(values) if statistic == "mean" else percentile(values)
                        row_values.append(str(milligrams(value)))
                    file.write(f"{zone},{statistic},{month}," + ",".join(row_values) + "\n")


def yearly(original: Path, codes: Path) -> None:
    """Yearly averages with both ISO 3166-1 codes; ``codes`` has the columns alpha3 and alpha2."""
    with codes.open(encoding="utf-8", newline="") as file:
        alpha2 = {row["alpha3"]: row["alpha2"] for row in csv.DictReader(file)}
    with (
        original.open(encoding="utf-8", newline="") as source,
        (HERE / "yearly_owid.csv").open("w", encoding="utf-8", newline="") as target,
    ):
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(["iso3", "iso2", "country", "year", "milligrams_per_kwh"])
        for row in csv.DictReader(source):
            value = milligrams(Decimal(row["gco2_per_kwh"]))
            writer.writerow([row["iso3"], alpha2[row["iso3"]], row["country"], row["year"], value])


def trace(original: Path) -> None:
    """A recorded answer of NESO's ``/intensity/{from}/fw48h`` as a trace file."""
    blocks = json.loads(original.read_text(encoding="utf-8"))["data"]
    header = """\
# A real 48-hour forecast of the carbon intensity of electricity in Great Britain, as published at the instant below.
# Source: NESO Carbon Intensity API, CC BY 4.0, recorded by nmpowell/carbon-intensity-forecast-tracking (MIT).
# name: gb-2023-03-14
# title: Great Britain, recorded forecast of 2023-03-14
# area: GB
# signal: average
# basis: direct
# gas: co2
# kind: forecast
# issued: 2023-03-14T03:01+00:00
# licence: CC-BY-4.0, NESO Carbon Intensity API
start,g_per_kwh,end
"""
    with (HERE / "trace_gb_2023-03-14.csv").open("w", encoding="ascii", newline="\n") as file:
        file.write(header)
        for block in blocks:
            start, end = (block[key].replace("Z", "+00:00") for key in ("from", "to"))
            file.write(f"{start},{block['intensity']['forecast']},{end}\n")


if __name__ == "__main__":
    what, *originals = sys.argv[1:]
    paths = [Path(original) for original in originals]
    match what:
        case "climatology":
            climatology(*paths)
        case "yearly":
            yearly(*paths)
        case "trace":
            trace(*paths)
        case _:
            raise SystemExit(__doc__)
    print("written to", HERE)
