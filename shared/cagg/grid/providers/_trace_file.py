"""Reads trace files: recorded or invented intensities as CSV or JSON. Pure: text in, values out.

CSV: lines that begin with ``#`` are comments; those of the form ``# key: value`` with a known key describe the
trace. The first other line names the columns ``start,g_per_kwh`` and, if wanted, ``end``, in any order::

    # name: my-grid
    # basis: direct
    start,g_per_kwh
    2026-03-01T00:00+00:00,182.5
    2026-03-01T00:30+00:00,

An empty value is a gap. Without an ``end`` column every interval is as long as the shortest distance between two
starts, so that a missing line stays a gap. JSON: an object with the same keys and ``points``, a list of objects
with ``start``, ``g_per_kwh`` and perhaps ``end``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from cagg.errors import ConfigurationError, InvalidInput
from cagg.intensity import IntensityPoint
from cagg.provenance import Basis, Convention, Gas, IntensityKind, Signal
from cagg.quantities import CarbonIntensity
from cagg.windows import Window, parse_instant

__all__ = ["Trace", "parse_trace", "read_trace"]

_KEYS = ("name", "title", "area", "signal", "basis", "gas", "kind", "issued", "licence")
_HEADER = re.compile(r"^#\s*(?P<key>[a-z]+)\s*:\s*(?P<value>.*\S)\s*$")
_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_MOST_BYTES = 64_000_000
_E = TypeVar("_E", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A trace as the file says it, on its own time axis.

    Attributes:
        name: code of its zone, ``trace:NAME``.
        title: for people.
        area: physical area it stands for, as in ``cagg zones``, so that other providers can take over; None if none.
        points: in order, without overlap.
        convention: what the numbers mean; average/unknown/co2e unless the file says otherwise.
        kind: how they came about; ``declared`` unless the file says otherwise.
        issued_at: vintage on the trace's own time axis; None when the file does not say.
        licence: empty when the file does not say.
        digest: hex SHA-256 of the file's bytes.
    """

    name: str
    title: str
    area: str | None
    points: tuple[IntensityPoint, ...]
    convention: Convention
    kind: IntensityKind
    issued_at: datetime | None
    licence: str
    digest: str


@dataclass(frozen=True, slots=True)
class _Row:
    where: str
    start: datetime
    end: datetime | None
    intensity: CarbonIntensity | None


def read_trace(path: Path) -> Trace:
    """Read a trace file; raises ConfigurationError naming file and line for anything that cannot be used."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigurationError(f"trace file {path} is larger than {_MOST_BYTES} bytes; cut it to what is needed.")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"trace file {path} cannot be read ({error.strerror}); correct grid.trace.file."
        ) from error
    return parse_trace(data, where=str(path), default_name=path.stem)


def parse_trace(data: bytes, *, where: str, default_name: str) -> Trace:
    """Read a trace from bytes.

    Args:
        data: CSV or JSON in UTF-8.
        where: how messages call the file.
        default_name: zone code when the file names none.

    Raises:
        ConfigurationError: naming the line: a time without an offset, NaN, a negative value, wrong order, overlap.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"trace file {where} is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error
    header, rows = _read_json(text, where) if text.lstrip()[:1] in {"{", "["} else _read_csv(text, where)
    if not rows:
        raise ConfigurationError(f"trace file {where} holds no intensities; give lines of start,g_per_kwh.")
    issued = header.get("issued")
    return Trace(
        name=_NAME.sub("-", header.get("name", default_name)).strip("-") or "trace",
        title=header.get("title", header.get("name", default_name)),
        area=header.get("area"),
        points=_points(rows),
        convention=Convention(
            signal=_choice(Signal, header, "signal", Signal.AVERAGE, where),
            basis=_choice(Basis, header, "basis", Basis.UNKNOWN, where),
            gas=_choice(Gas, header, "gas", Gas.CO2E, where),
        ),
        kind=_choice(IntensityKind, header, "kind", IntensityKind.DECLARED, where),
        issued_at=None if issued is None else _instant(issued, f"{where}, issued"),
        licence=header.get("licence", ""),
        digest=hashlib.sha256(data).hexdigest(),
    )


def _choice(kind: type[_E], header: Mapping[str, str], key: str, default: _E, where: str) -> _E:
    try:
        return kind(header[key].strip().lower()) if key in header else default
    except ValueError:
        raise ConfigurationError(f"{where}: {key} {header[key]!r} is unknown; use one of {', '.join(kind)}.") from None


# ---- the two forms ------------------------------------------------------------------------------------------------


def _read_csv(text: str, where: str) -> tuple[dict[str, str], list[_Row]]:
    header: dict[str, str] = {}
    columns: list[str] | None = None
    rows: list[_Row] = []
    for number, line in enumerate(text.splitlines(), start=1):
        place = f"{where}, line {number}"
        if line.startswith("#"):
            match = _HEADER.match(line)
            if match and match["key"] in _KEYS:
                header[match["key"]] = match["value"]
        elif line.strip():
            cells = [cell.strip() for cell in next(csv.reader([line]))]
            if columns is None:
                columns = _columns(cells, place)
            elif len(cells) != len(columns):
                raise ConfigurationError(f"{place}: {len(columns)} columns are named but {len(cells)} are given.")
            else:
                values = dict(zip(columns, cells, strict=True))
                rows.append(_row(values["start"], values["g_per_kwh"], values.get("end"), place))
    return header, rows


def _columns(cells: Sequence[str], place: str) -> list[str]:
    columns = [cell.lower() for cell in cells]
    if not {"start", "g_per_kwh"} <= set(columns) or len(set(columns)) != len(columns):
        raise ConfigurationError(
            f"{place}: the first line must name the columns start,g_per_kwh[,end], got {','.join(cells)[:80]!r}."
        )
    return columns


def _read_json(text: str, where: str) -> tuple[dict[str, str], list[_Row]]:
    try:
        # numbers stay text until they become exact decimals
        document = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"trace file {where} is no valid JSON ({error}); correct it.") from error
    points = document.get("points") if isinstance(document, dict) else document
    if not isinstance(points, list):
        raise ConfigurationError(f"trace file {where} has no list 'points'; give objects with start and g_per_kwh.")
    header = (
        {key: value for key in _KEYS if isinstance(value := document.get(key), str)}
        if isinstance(document, dict)
        else {}
    )
    return header, list(_json_rows(points, where))


def _json_rows(points: Sequence[Any], where: str) -> Iterator[_Row]:
    for number, point in enumerate(points, start=1):
        place = f"{where}, point {number}"
        if not isinstance(point, dict) or "start" not in point or "g_per_kwh" not in point:
            raise ConfigurationError(f"{place}: each point needs start and g_per_kwh.")
        value = point["g_per_kwh"]
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(
                f"{place}: {value!r} is no intensity; give g/kWh, for example 182.5, or null for a gap."
            )
        yield _row(point["start"], "" if value is None else value, point.get("end"), place)


def _row(start: Any, value: str, end: Any, place: str) -> _Row:
    return _Row(place, _instant(start, place), _instant(end, place) if end else None, _intensity(value, place))


def _instant(text: Any, place: str) -> datetime:
    if not isinstance(text, str):
        raise ConfigurationError(f"{place}: {text!r} is no date and time; write it as 2026-03-01T00:30+00:00.")
    try:
        return parse_instant(text)
    except InvalidInput as error:
        raise ConfigurationError(f"{place}: {error}") from error


def _intensity(text: str, place: str) -> CarbonIntensity | None:
    if not text.strip():
        return None
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        raise ConfigurationError(f"{place}: {text!r} is no intensity; give g/kWh, for example 182.5.") from None
    if not number.is_finite():
        raise ConfigurationError(
            f"{place}: {text!r} is no intensity; give a finite number, or leave it empty for a gap."
        )
    if number < 0:
        raise ConfigurationError(f"{place}: the intensity {text} is negative; give zero or more g/kWh.")
    if number.adjusted() > 9:
        raise ConfigurationError(f"{place}: the intensity {text} g/kWh is larger than can be stored; check the unit.")
    return CarbonIntensity(milligrams_per_kwh=int((number * 1_000).to_integral_value(rounding="ROUND_HALF_UP")))


# ---- intervals ----------------------------------------------------------------------------------------------------


def _points(rows: Sequence[_Row]) -> tuple[IntensityPoint, ...]:
    for before, after in pairwise(rows):
        if after.start <= before.start:
            raise ConfigurationError(
                f"{after.where}: {after.start:%Y-%m-%d %H:%M:%S}Z does not come after the line before; sort the "
                "file by start, and give every start once."
            )
    step = min((after.start - before.start for before, after in pairwise(rows)), default=None)
    points: list[IntensityPoint] = []
    for row in rows:
        if row.end is None and step is None:
            raise ConfigurationError(f"{row.where}: a single interval needs its end; add the column end.")
        end = row.end if row.end is not None else row.start + (step or row.start - row.start)
        if end <= row.start:
            raise ConfigurationError(f"{row.where}: the interval ends at {end:%Y-%m-%d %H:%M:%S}Z, before it starts.")
        if points and row.start < points[-1].window.end:
            raise ConfigurationError(
                f"{row.where}: the interval overlaps the one before, which ends at "
                f"{points[-1].window.end:%Y-%m-%d %H:%M:%S}Z; correct start or end."
            )
        points.append(IntensityPoint(window=Window(start=row.start, end=end), intensity=row.intensity))
    return tuple(points)
