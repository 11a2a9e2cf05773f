"""``cagg forecast``: a zone's forecast as a small chart, with the best window marked and where the numbers are from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._output import Json, answer, joined, line, spark, when
from cagg.errors import InvalidInput, ZoneUnknown
from cagg.windows import Window, format_duration, from_epoch_ms, parse_duration, time_zone, to_epoch_ms, to_milliseconds

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.grid.chain import GridAnswer
    from cagg.intensity import IntensitySeries

__all__ = ["forecast"]

_MOST_ROWS = 24
_BAR_WIDTH = 40
_STEPS_MINUTES = (30, 60, 120, 180, 240, 360, 720, 1440)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Best:
    """The cleanest start for a run of the asked duration; intensities in mg/kWh."""

    window: Window
    intensity: int
    now_intensity: int | None


def forecast(
    *,
    zone: Annotated[str | None, typer.Argument(help="Grid zone; default: the zone of the settings.")] = None,
    hours: Annotated[int, typer.Option(help="How far to look ahead.", min=1, max=96)] = 24,
    duration: Annotated[str | None, typer.Option(help="Length of the run whose best window is marked.")] = None,
    json: Json = False,
) -> int:
    """Show the forecast of a zone with the cleanest window marked. Exit status 2 when nothing is known."""
    from cagg.cli._context import cached_forecasts, components

    parts = components()
    settings = parts.settings
    zone_name = zone or settings.zone
    if zone_name is None:
        raise ZoneUnknown("no zone is set; name one, for example `cagg forecast neso:GB`, or run `cagg init`.")
    length = settings.default_duration if duration is None else parse_duration(duration, "--duration")
    resolved = parts.grid.zone(zone_name)
    now = parts.clock.now()
    window = Window(start=now, end=now + timedelta(hours=hours))
    if length > window.duration:
        raise InvalidInput(f"a run of {format_duration(length)} does not fit into {hours} hours; raise --hours.")
    found = parts.grid.forecast(zone_name, window, cached_forecasts(parts, zone_name))
    best = None if found.series is None else _best(found.series, window, length)
    document = _document(str(resolved), window, found, best, length)

    def people(to: Console) -> None:
        if found.series is None:
            line(to, f"Nothing is known of {resolved}: {joined(found.steps) or 'no source has data'}.")
            return
        _draw(to, found, window, best, settings.timezone)
        _tell_best(to, best, now, length, settings.timezone)
        _provenance(to, str(resolved), found, settings.timezone)

    return answer(document, people, json=json, status=2 if found.series is None else 0)


def _best(series: IntensitySeries, window: Window, length: timedelta) -> _Best | None:
    from cagg.grid.series import to_arrays
    from cagg.schedule.contiguous import plan_contiguous

    edges, milligrams, known = to_arrays(series)
    duration_ms = to_milliseconds(length)
    plan = plan_contiguous(
        edges_ms=edges,
        milligrams_per_kwh=milligrams,
        known=known,
        now_ms=to_epoch_ms(window.start, up=True),
        latest_finish_ms=to_epoch_ms(window.end),
        duration_ms=duration_ms,
    )
    if plan is None:
        return None
    return _Best(
        window=Window(start=from_epoch_ms(plan.start_ms), end=from_epoch_ms(plan.end_ms)),
        intensity=round(plan.cost / duration_ms),
        now_intensity=None if plan.now_cost is None else round(plan.now_cost / duration_ms),
    )


def _document(zone: str, window: Window, found: GridAnswer, best: _Best | None, length: timedelta) -> dict[str, Any]:
    series = found.series
    shown = [] if series is None else [item for item in series.points if item.window.overlap(window) > timedelta(0)]
    return {
        "zone": zone,
        "quality": str(found.quality),
        "steps": list(found.steps),
        "source": None if series is None else series.source,
        "source_zone": None if series is None else str(series.zone),
        "kind": None if series is None else str(series.kind),
        "convention": None
        if series is None
        else {name: str(getattr(series.convention, name)) for name in ("signal", "basis", "gas")},
        "issued_at": None if series is None else series.issued_at,
        "fetched_at": None if series is None else series.fetched_at,
        "licence": None if series is None else series.licence,
        "points": [
            {
                "start": item.window.start,
                "end": item.window.end,
                "intensity_milligrams_per_kwh": None if item.intensity is None else item.intensity.milligrams_per_kwh,
            }
            for item in shown
        ],
        "best": None
        if best is None
        else {
            "start": best.window.start,
            "end": best.window.end,
            "duration_seconds": length.total_seconds(),
            "intensity_milligrams_per_kwh": best.intensity,
            "now_intensity_milligrams_per_kwh": best.now_intensity,
        },
    }


# ---- the chart ----------------------------------------------------------------------------------------------------


def _rows(series: IntensitySeries, window: Window, zone_name: str | None) -> list[tuple[Window, int | None]]:
    """Cut the window into equal rows on local clock times and average each; None where the source has a gap."""
    from cagg.grid.series import coverage, mean_over

    known = coverage(series)
    end = window.end if known is None else min(window.end, known.end)
    start = window.start if known is None else max(window.start, known.start)
    if end <= start:
        return []
    step = _step(end - start)
    rows = []
    at = start
    while at < end:
        until = min(_next_edge(at, step, zone_name), end)
        piece = Window(start=at, end=until)
        mean = mean_over(series, piece).intensity
        rows.append((piece, None if mean is None else mean.milligrams_per_kwh))
        at = until
    return rows


def _step(span: timedelta) -> timedelta:
    if span < timedelta(minutes=30) * 4:
        return max(span / _MOST_ROWS, timedelta(seconds=1))
    for minutes in _STEPS_MINUTES:
        if span <= timedelta(minutes=minutes) * _MOST_ROWS:
            return timedelta(minutes=minutes)
    return timedelta(minutes=_STEPS_MINUTES[-1])


def _next_edge(at: datetime, step: timedelta, zone_name: str | None) -> datetime:
    if step < timedelta(minutes=30):
        return at + step
    local = at.astimezone(time_zone(zone_name or "UTC"))
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    passed = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    edge = midnight + (passed // step + 1) * step
    instant = edge.astimezone(at.tzinfo)
    return instant if instant > at else at + step


def _draw(to: Console, found: GridAnswer, window: Window, best: _Best | None, zone_name: str | None) -> None:
    from rich.text import Text

    if found.series is None:
        return
    rows = _rows(found.series, window, zone_name)
    values = [value for _, value in rows if value is not None]
    if not values:
        line(to, "The source knows nothing of these hours.")
        return
    top, low = max(values), min(values)
    line(to, f"{found.series.zone}, g/kWh, {when(window.start, zone_name)} on", style="bold")
    seconds = rows[0][0].duration < timedelta(minutes=1)
    day = ""
    for piece, value in rows:
        stamp = when(piece.start, zone_name, seconds=seconds)
        date, clock = stamp[:10], stamp[11:19] if seconds else stamp[11:16]
        label = f"{date[5:] if date != day else '':5} {clock}"
        day = date
        marked = best is not None and 2 * best.window.overlap(piece) >= piece.duration
        if value is None:
            to.print(Text(f"{label}  {'gap':>6}", style="dim"))
            continue
        share = value / top if top else 0.0
        style = "green" if value <= low + (top - low) / 3 else "red" if value >= top - (top - low) / 3 else "yellow"
        bar = spark(to, share, _BAR_WIDTH)
        text = Text(f"{label}  {value / 1_000:6.0f} ")
        text.append(bar, style=style)
        if marked:
            text.append(" " * (_BAR_WIDTH + 1 - len(bar)) + ("<" if to.options.ascii_only else "◀") + " best")
        to.print(text)


def _tell_best(to: Console, best: _Best | None, now: datetime, length: timedelta, zone_name: str | None) -> None:
    if best is None:
        line(to, f"No stretch of {format_duration(length)} is known completely.")
        return
    text = (
        f"Best window for {format_duration(length)}: {when(best.window.start, zone_name)} to "
        f"{when(best.window.end, zone_name)[11:]}, {best.intensity / 1_000:.0f} g/kWh"
    )
    if best.now_intensity is None:
        line(to, f"{text}.", style="bold")
        return
    if best.window.start - now < timedelta(seconds=1):
        line(to, f"{text}: now is best.", style="bold")
        return
    share = 100 * (best.now_intensity - best.intensity) / max(1, best.now_intensity)
    line(to, f"{text}, {share:.0f} % less than a start now ({best.now_intensity / 1_000:.0f} g/kWh).", style="bold")


def _provenance(to: Console, zone: str, found: GridAnswer, zone_name: str | None) -> None:
    series = found.series
    if series is None:
        return
    issued = f"issued {when(series.issued_at, zone_name)}" if series.issued_at else "vintage not stated"
    parts: Sequence[str] = [
        f"{series.source}{'' if str(series.zone) == zone else f' ({series.zone} stands in for {zone})'}",
        str(series.kind),
        f"quality {found.quality}",
        issued,
        f"{series.convention.signal}, {series.convention.basis}, {series.convention.gas}",
        series.licence or "licence not stated",
    ]
    line(to, f"Source: {'; '.join(parts)}.", style="dim")
    for step in found.steps:
        line(to, f"  not used: {step}", style="dim")
