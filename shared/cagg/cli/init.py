"""``cagg init``: asks for the zone and the time zone and writes a commented ``cagg.toml``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cagg.cli._output import Json, answer, line
from cagg.errors import ConfigurationError, InvalidInput
from cagg.request import check_budget_path
from cagg.windows import time_zone as read_time_zone

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["config_text", "init", "local_time_zone", "suggested_zones"]

_MOST_SUGGESTIONS = 8


def init(
    *,
    zone: Annotated[str | None, typer.Option(help="Grid zone, for example neso:GB.")] = None,
    timezone: Annotated[str | None, typer.Option(help="IANA zone of times of day, for example Europe/London.")] = None,
    budget: Annotated[str | None, typer.Option(help="Budget that pays where nothing else is said.")] = None,
    no_input: Annotated[bool, typer.Option("--no-input", help="Ask nothing; what is not given stays open.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    path: Annotated[Path, typer.Option(help="Where to write.")] = Path("cagg.toml"),
    json: Json = False,
) -> int:
    """Write cagg.toml: where the machines stand, and which clock "06:00" means."""
    if path.exists() and not force:
        raise ConfigurationError(f"{path} exists already; edit it, or overwrite it with --force.")
    if budget is not None:
        check_budget_path(budget)
    ask = not no_input
    if timezone is None:
        timezone = _ask_time_zone() if ask else local_time_zone()
    if timezone is not None:
        read_time_zone(timezone)
    if zone is None and ask:
        zone = _ask_zone(timezone)
    resolved = None if zone is None else _resolve(zone)
    text = config_text(zone=resolved, timezone=timezone, budget=budget)
    _write(path, text, force=force)
    document = {"path": str(path.resolve()), "zone": resolved, "timezone": timezone, "budget": budget}

    def people(to: Console) -> None:
        line(to, f"Wrote {path}.")
        if resolved is None:
            line(to, "No zone is set yet, so carbon stays unknown; `cagg zones` lists them.", style="yellow")
        line(to, "Next:", style="bold")
        if resolved is not None:
            line(to, "  cagg forecast                      the next 24 hours of your grid")
        line(to, f"  cagg budget set {budget or 'acme/ml/nightly'} '2 kg/month' --mode enforce")
        line(to, "  cagg run --finish-by 06:00 -- CMD  a first gated command")
        line(to, "  cagg doctor                        what works here and what does not")

    return answer(document, people, json=json)


def _resolve(zone: str) -> str:
    """Return the zone's full name; raises ZoneUnknown with suggestions."""
    from cagg.grid.zones import default_providers, resolve_zone

    return str(resolve_zone(zone, default_providers(zone, has_trace=False)))


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists already; edit it, or overwrite it with --force.") from None
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror}); give another place with --path."
        ) from None


# ---- asking -------------------------------------------------------------------------------------------------------


def _asked(question: str, default: str | None) -> str:
    """Ask on stderr, so that stdout stays free for the answer; an empty line takes the default."""
    sys.stderr.write(f"{question}{f' [{default}]' if default else ''}: ")
    sys.stderr.flush()
    reply = sys.stdin.readline()
    if not reply:
        sys.stderr.write("\n")
        raise InvalidInput("nobody answered; give --zone and --timezone, or --no-input to leave them open.")
    return reply.strip() or (default or "")


def _ask_time_zone() -> str | None:
    reply = _asked('Time zone of times such as "06:00"', local_time_zone())
    return reply or None


def _ask_zone(timezone: str | None) -> str | None:
    suggestions = suggested_zones(timezone)
    if suggestions:
        sys.stderr.write("Grid zone where the machines stand; for this time zone these are known:\n")
        for name, title in suggestions:
            sys.stderr.write(f"  {name}  {title}\n")
    else:
        sys.stderr.write("Grid zone where the machines stand (`cagg zones` lists them; empty = leave open).\n")
    reply = _asked("Zone", suggestions[0][0] if suggestions else None)
    return reply or None


def local_time_zone() -> str | None:
    """Return the computer's IANA time zone; None when it does not say."""
    stated = os.environ.get("TZ", "").lstrip(":")
    candidates = [stated] if stated else []
    try:
        candidates.append(str(Path("/etc/localtime").resolve()).rpartition("zoneinfo/")[2])
        candidates.append(Path("/etc/timezone").read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        pass
    for name in candidates:
        try:
            read_time_zone(name)
        except InvalidInput:
            continue
        return {"Etc/UTC": "UTC", "Etc/UCT": "UTC"}.get(name, name)
    return None


def suggested_zones(timezone: str | None) -> list[tuple[str, str]]:
    """Return (zone, name) of the grid areas in the country of a time zone, best known first; the user decides."""
    from cagg.grid.zones import all_zones

    country = None if timezone is None else _countries().get(timezone)
    if country is None:
        return []
    found = []
    for item in all_zones():
        here = item.area == country or item.area.startswith(f"{country}-") or item.wider == country
        if here and not (item.zone.provider == "neso" and item.wider):
            token = ", with a token" if item.zone.provider == "electricity_maps" else ""
            found.append((str(item.zone), f"{item.name} ({item.kind}{token})"))
    return found[:_MOST_SUGGESTIONS]


def _countries() -> Mapping[str, str]:
    """Country of each IANA time zone, from the tz database's zone.tab; empty where the computer has none."""
    import zoneinfo

    for folder in zoneinfo.TZPATH:
        table = Path(folder) / "zone.tab"
        if table.is_file():
            rows = [item.split("\t") for item in table.read_text(encoding="utf-8").splitlines()]
            return {row[2]: row[0] for row in rows if len(row) >= 3 and not row[0].startswith("#")}
    return {}


# ---- the file -----------------------------------------------------------------------------------------------------


def config_text(*, zone: str | None, timezone: str | None, budget: str | None) -> str:
    """Return the text of a new ``cagg.toml``; what is not known stands there as a comment."""

    def setting(key: str, value: str | None, example: str) -> str:
        return f'{key} = "{value}"' if value is not None else f'# {key} = "{example}"'

    return f"""\
# Settings of cagg. Stronger than this file: the engine's own (Variable, Connection), CAGG_* in the environment, and
# arguments. `cagg doctor` shows where each value came from.

# Grid zone where the machines stand; `cagg zones` lists all of them. Without one, carbon stays unknown.
{setting("zone", zone, "neso:GB")}

# Which clock times of day such as finish_by = "06:00" mean, where a schedule has no zone of its own.
{setting("timezone", timezone, "Europe/London")}

# enforce: limits hold and runs are deferred. observe: decides and records, but everything runs at once. off: nothing.
mode = "enforce"

# What every gate takes for granted unless it says otherwise.
[defaults]
{setting("budget", budget, "acme/ml/nightly")}
# min_difference = "5%"   # least difference that is worth a wait

# A recorded series instead of a live source: columns start,g_per_kwh[,end]; its zone is then trace:NAME.
# [grid.trace]
# file = "forecast.csv"
# name = "mine"
"""
