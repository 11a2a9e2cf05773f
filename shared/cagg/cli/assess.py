"""``cagg assess``: what an installation's run history says about energy, carbon, and where a gate is worth it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._options import stated
from cagg.cli._output import Json, OutputRefused, answer, line
from cagg.errors import InvalidInput, MissingExtra
from cagg.windows import Window, format_duration, parse_duration, parse_instant

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.assessment.figures import Assessment
    from cagg.assessment.judging import Assumptions
    from cagg.assessment.power import PowerAssumption
    from cagg.composition import Components
    from cagg.ports import HostHistory, RemembersRuns

__all__ = ["assess"]

_LONGEST = timedelta(days=400)
_LONGEST_WAIT = timedelta(days=31)
_TIMEOUT_SECONDS = 30.0


def assess(
    *,
    engine: Annotated[str, typer.Argument(help="The engine whose history is read: airflow or prefect.")],
    url: Annotated[
        str | None, typer.Option(help="Address of its API; default: as the engine itself is set up.")
    ] = None,
    since: Annotated[str, typer.Option(help="How far back: a duration, or an instant with an offset.")] = "30d",
    zone: Annotated[str | None, typer.Option(help="Grid zone of the workers; default: the settings'.")] = None,
    power: Annotated[
        str | None, typer.Option(help="What a run draws, for example '20 W..100 W'; default: a stated assumption.")
    ] = None,
    max_wait: Annotated[str, typer.Option(help="Longest wait that scheduled runs would accept.")] = "8h",
    csv: Annotated[Path | None, typer.Option(help="Also write the pipelines to this CSV file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a readable page to this file.")] = None,
    json: Json = False,
) -> int:
    """Read an engine's run history, and estimate energy, carbon, and which few pipelines are worth a gate.

    Changes nothing there. Figures are ranges estimated from durations. Exit status 1 when nothing ran in that time.
    """
    from cagg.assessment import judging
    from cagg.assessment.history import FoldedHistory
    from cagg.cli._context import components
    from cagg.pastruns import HistoryOptions

    host = _host(engine)
    parts = components()
    now = parts.clock.now()
    window, longest = Window(start=_since(since, now), end=now), _max_wait(max_wait)
    draw = _power(power, parts)
    zone_name = parts.settings.zone if zone is None else stated(zone, "--zone")
    if zone_name is not None:
        parts.grid.zone(zone_name)  # a wrong name is told before minutes of reading
    for path in filter(None, (csv, html)):
        _check_file(path)
    folded = FoldedHistory(window=window, power=draw)
    address = None if url is None else stated(url, "--url")
    with host.history(HistoryOptions(url=address, timeout_seconds=_TIMEOUT_SECONDS)) as history:
        with _progress() as progress:
            pipelines = history.pipelines()
            for run in history.runs(window.start, window.end, progress):
                folded.add(run)
        assumptions, passed_over = _assumptions(parts, zone_name, window, longest)
        notes = (*history.notes, *passed_over)
        found = judging.assess(folded, pipelines, assumptions, host=engine, notes=notes)
        snippet = _snippet(found, history)
    _write(csv, html, found, snippet)
    return _answer(found, snippet, csv=csv, html=html, json=json)


# ---- what was asked -----------------------------------------------------------------------------------------------


def _host(name: str) -> RemembersRuns:
    from cagg.ports import RemembersRuns

    points = {point.name: point for point in entry_points(group="cagg.hosts")}
    if name not in points:
        known = " or ".join(sorted(points)) or "none is installed"
        raise InvalidInput(f"there is no engine {name!r} to assess; name {known}.")
    try:
        host = points[name].load()
    except ImportError as error:
        raise MissingExtra(f"{name} cannot be read from here ({error}); run: pip install 'cagg[{name}]'") from error
    if not isinstance(host, RemembersRuns):
        raise InvalidInput(f"the adapter of {name} has no run history to show; update it.")
    return host


def _since(text: str, now: datetime) -> datetime:
    """Read ``30d`` or an instant; the day count of a duration comes first, so that neither needs an option."""
    if text[:4].isdigit() and "-" in text:
        start = parse_instant(text, "--since")
    else:
        start = now - min(parse_duration(text, "--since"), 2 * _LONGEST)
    if start >= now:
        raise InvalidInput(f"--since {text!r} lies in the future; name a time in the past, for example 30d.")
    if now - start > _LONGEST:
        raise InvalidInput(f"--since {text!r} reaches back more than {_LONGEST.days} days; name a later start.")
    return start


def _max_wait(text: str) -> timedelta:
    wait = parse_duration(text, "--max-wait")
    if wait > _LONGEST_WAIT:
        raise InvalidInput(f"--max-wait {text!r} is longer than a month; name a wait that the runs would accept.")
    return wait


def _power(text: str | None, parts: Components) -> PowerAssumption:
    from cagg.assessment.power import PowerAssumption, PowerRange

    if text is None:
        return PowerAssumption.from_settings(parts.settings.default_power)
    return PowerAssumption(default=PowerRange.parse(text), stated=True)


def _assumptions(
    parts: Components, zone_name: str | None, window: Window, longest: timedelta
) -> tuple[Assumptions, tuple[str, ...]]:
    """Collect the intensities of the time that was read, and the usual ones that reach the longest wait beyond it;
    with a note for each source that was passed over."""
    from cagg.assessment.intensities import actual_intensities, typical_intensities, whole_slots
    from cagg.assessment.judging import Assumptions

    actual = typical = None
    problems: tuple[str, ...] = ()
    actual_reason = typical_reason = "no zone is set; give --zone, or run `cagg init`"
    if zone_name is not None:
        past = whole_slots(window.start, window.end)
        actual, problems = actual_intensities(parts.grid.accounting_sources(zone_name), past)
        zone = parts.grid.zone(zone_name)
        typical = typical_intensities(zone, whole_slots(window.start, window.end + longest), clock=parts.clock)
        actual = actual or typical
        actual_reason = f"nothing is known of {zone} in this time ({'; '.join(problems) or 'no source prices it'})"
        if typical is None and actual is not None and len(set(actual.by_slot.values())) > 1:
            typical = actual  # a zone of which only this time itself is known: in hindsight
        typical_reason = f"no climatology of {zone} is known; a yearly average has no better hours"
    assumptions = Assumptions(
        zone=zone_name,
        actual=actual,
        actual_reason=actual_reason,
        typical=typical,
        typical_reason=typical_reason,
        pue_ppm=parts.settings.pue_ppm,
        materiality=parts.settings.materiality,
        max_wait=longest,
    )
    return assumptions, tuple(
        f"not used for carbon: {problem.rstrip('.')}" for problem in problems if actual is not None
    )


def _snippet(found: Assessment, history: HostHistory) -> str:
    if not found.first:
        return ""
    return history.snippet(found.first[0].name, found.zone, _short(found.max_wait))


def _short(wait: timedelta) -> str:
    hours, rest = divmod(int(wait.total_seconds()), 3_600)
    minutes = rest // 60
    return f"{hours}h{minutes}m" if hours and minutes else f"{hours}h" if hours else f"{max(1, minutes)}m"


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None]]:
    """Show on a terminal's stderr how far the reading is; silent elsewhere."""
    from cagg.cli._output import console

    to = console(stderr=True)
    status: AbstractContextManager[Any] | None = to.status("reading the history") if to.is_terminal else None
    if status is None:
        yield lambda read, total: None  # noqa: ARG005 - a callback's own names
        return
    with status as shown:

        def tell(read: int, total: int | None) -> None:
            shown.update(f"reading the history: {read:,}{'' if total is None else f' of {total:,}'} attempts")

        yield tell


# ---- the answer ---------------------------------------------------------------------------------------------------


def _check_file(path: Path) -> None:
    if path.is_dir() or not path.parent.is_dir():
        raise InvalidInput(f"{path} cannot be written; name a file in a folder that exists.")


def _write(csv: Path | None, html: Path | None, found: Assessment, snippet: str) -> None:
    from cagg.assessment.listing import csv_text
    from cagg.assessment.page import page

    for path, text in ((csv, csv_text(found)), (html, page(found, snippet) if html else "")):
        if path is None:
            continue
        try:
            path.write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise OutputRefused(f"{path} cannot be written ({error.strerror}); name another file.") from error


def _answer(found: Assessment, snippet: str, *, csv: Path | None, html: Path | None, json: bool) -> int:
    from cagg.assessment.listing import document
    from cagg.cli._assess_text import tell

    empty = found.totals.attempts == 0

    def people(to: Console) -> None:
        if empty:
            length = format_duration(found.window.duration)
            line(to, f"Nothing ran on this {found.host} in {length}, or this user may not see it.")
            for note in found.notes:
                line(to, f"  {note}", style="dim")
            line(to, "Next: look further back with --since, or check --url and the user's rights.", style="bold")
            return
        tell(to, found, snippet, written=[str(path) for path in (csv, html) if path is not None])

    return answer({**document(found), "snippet": snippet or None}, people, json=json, status=1 if empty else 0)
