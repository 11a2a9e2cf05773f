"""The questions that ``cagg doctor`` asks, each with a finding and, where something is wrong, the remedy."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cagg.cli._checks_signing import anchoring, signing
from cagg.cli._context import cached_forecasts, server_facts, store_file, store_is_new
from cagg.cli._findings import Finding, Level, note, ok, problem
from cagg.errors import CaggError
from cagg.records import ReservationState
from cagg.settings import Mode, Settings, environment_names
from cagg.store.engine import masked
from cagg.windows import Window, format_duration

if TYPE_CHECKING:
    from cagg.composition import Components
    from cagg.intensity import Zone
    from cagg.ports import Transaction

__all__ = ["Finding", "Level", "examine", "settings_rows"]

_LONGEST_QUEUED = timedelta(hours=1)
"""Entries that wait longer for their place: `cagg ledger verify` takes that for a fault."""

_LONGEST_OVERDUE = timedelta(minutes=15)


def examine(parts: Components, *, online: bool) -> Iterator[Finding]:
    """Ask everything; uses the network only when ``online`` is said."""
    yield _config(parts.settings)
    yield from _environment()
    yield from _mode(parts.settings)
    yield from _home(parts)
    yield from _store(parts)
    yield from _spool(parts)
    yield from _meter(parts)
    yield from _grid(parts, online=online)
    yield from _hosts()


def _config(settings: Settings) -> Finding:
    if settings.config_file is None:
        return note(
            "config",
            f"no cagg.toml was found from {Path.cwd()} upwards, nor in {settings.home}",
            "start cagg in the project's folder, set CAGG_CONFIG, or run `cagg init`",
        )
    return ok("config", f"read from {settings.config_file}")


def _environment() -> Iterator[Finding]:
    """Variables that look like ours and are none: a setting that is spelt wrongly changes nothing, without a word."""
    known = environment_names()
    of_engines = tuple(f"CAGG_{point.name.upper()}_" for point in entry_points(group="cagg.hosts"))
    for name in sorted(os.environ):
        if name.startswith("CAGG_") and name not in known and not name.startswith(of_engines):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "`cagg doctor --json` lists all settings"
            yield note("environment", f"{name} is set, and no setting has that name", hint)


def settings_rows(settings: Settings) -> list[Mapping[str, str]]:
    """Return every setting with its value and where it came from."""
    rows: list[Mapping[str, str]] = []
    for item in fields(Settings):
        if item.name in {"origins", "defaults", "config_file"}:
            continue
        value = getattr(settings, item.name)
        text = "" if value is None else ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        text = masked(text)
        rows.append({"key": item.metadata["key"], "value": text, "origin": settings.origins.get(item.name, "default")})
    stated = {item.name: getattr(settings.defaults, item.name) for item in fields(settings.defaults)}
    for name, value in stated.items():
        if value is not None and value is not False:
            origin = settings.origins.get("defaults", "default")
            rows.append({"key": f"defaults.{name}", "value": str(value), "origin": origin})
    return rows


# ---- settings and store -------------------------------------------------------------------------------------------


def _mode(settings: Settings) -> Iterator[Finding]:
    match settings.mode:
        case Mode.ENFORCE:
            yield ok("mode", "enforce: limits hold and runs are deferred")
        case Mode.OBSERVE:
            yield note("mode", "observe: everything runs at once, decisions are only recorded", 'set mode = "enforce"')
        case Mode.OFF:
            yield note("mode", "off: nothing is asked or metered", 'set mode = "enforce" or "observe"')


def _home(parts: Components) -> Iterator[Finding]:
    home = parts.settings.home
    existing = next((folder for folder in (home, *home.parents) if folder.exists()), home)
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        yield ok("home", str(home))
    else:
        yield problem(
            "home", f"{home} cannot be written", "correct its permissions, or set CAGG_HOME to another folder"
        )


def _store(parts: Components) -> Iterator[Finding]:
    from cagg.store.tables import SCHEMA_VERSION

    if store_is_new(parts):
        path = store_file(parts)
        folder = next((item for item in path.parents if item.exists()), None) if path is not None else None
        if folder is None or not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            yield problem(
                "store", f"{parts.store.url} cannot be created", "make its folder writable, or set another store"
            )
            return
        yield ok("store", f"{parts.store.url} does not exist yet; the first gate creates it")
        return
    try:
        with parts.store.snapshot() as tx:
            size, schema = tx.tree_size(), tx.schema_version()
            yield ok("store", f"{parts.store.url}, schema {schema}, {size} entries{_size(parts)}")
            if schema != SCHEMA_VERSION:
                yield note("store", f"a newer cagg has moved the schema on from {SCHEMA_VERSION}", "upgrade cagg here")
            yield from _writable(parts)
            yield from _server(parts)
            yield from _waiting(tx)
            yield from signing(parts, tx, size)
            yield from anchoring(parts, size)
            yield from _overdue(tx)
    except CaggError as error:
        yield problem("store", str(error))


def _size(parts: Components) -> str:
    path = store_file(parts)
    return "" if path is None else f", {path.stat().st_size / 1e6:.1f} MB"


def _writable(parts: Components) -> Iterator[Finding]:
    path = store_file(parts)
    if path is not None and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        yield problem("store", f"{path} is read-only", "make the file and its folder writable for this user")


def _server(parts: Components) -> Iterator[Finding]:
    """What a database server lets this role do, and whether anybody can listen."""
    about = server_facts(parts)
    if not about:
        return
    rights = about["rights"]
    text = f"PostgreSQL {about['server']}, as {about['role']} ({rights}) in schema {about['schema']}"
    if rights == "owner":
        remedy = "give gates a role of their own: cagg store grants --writer ROLE --apply"
        yield note("store", f"{text}: this role could change budgets and recorded entries", remedy)
    elif rights in {"reader", "nothing"}:
        remedy = "let the owner run: cagg store grants --writer ROLE --apply"
        yield problem("store", f"{text}: gates cannot record with it", remedy)
    else:
        yield ok("store", text)


def _waiting(tx: Transaction) -> Iterator[Finding]:
    """Entries that nobody gives their place in the tree: only a store that machines share has them."""
    from cagg.steps.sequencing import lag_of

    lag = lag_of(tx)
    if lag.oldest is None:
        return
    text = f"{lag.waiting} entries wait for their place in the log, the oldest for {format_duration(lag.oldest)}"
    remedy = "run `cagg maintain`, best all the time: cagg maintain --every 60s"
    yield problem("ledger", text, remedy) if lag.oldest > _LONGEST_QUEUED else note("ledger", text, remedy)


def _overdue(tx: Transaction) -> Iterator[Finding]:
    now = tx.now()
    running = [
        item
        for item in tx.reservations(open_only=True)
        if item.state is ReservationState.RUNNING and item.lease_until is not None and item.lease_until < now
    ]
    waiting = [item for item in tx.reservations(open_only=True) if item.state is ReservationState.WAITING]
    lapsed = [item for item in waiting if (item.deadline or item.planned_start) + _LONGEST_OVERDUE < now]
    if lapsed:
        yield problem(
            "budget", f"{len(lapsed)} requests wait past their deadline and hold their budgets", "run `cagg maintain`"
        )
    if len(waiting) > len(lapsed):
        yield ok("budget", f"{len(waiting) - len(lapsed)} requests wait for their window")
    if not running:
        return
    oldest = now - min(item.lease_until for item in running if item.lease_until is not None)
    text = f"{len(running)} runs died or lost touch and are not charged yet, the oldest for {format_duration(oldest)}"
    remedy = "run `cagg maintain`; it charges what they used"
    yield problem("budget", text, remedy) if oldest > _LONGEST_OVERDUE else note("budget", text, remedy)


def _spool(parts: Components) -> Iterator[Finding]:
    waiting, bad = parts.spool.waiting(), parts.spool.bad()
    if bad:
        yield problem(
            "spool",
            f"{len(bad)} records could not be replayed, the first is {bad[0]}",
            "read the file, correct the cause, rename it to .json and run `cagg maintain`",
        )
    if waiting:
        yield note("spool", f"{len(waiting)} records wait for the store", "run `cagg maintain` once the store is back")
    if not waiting and not bad:
        yield ok("spool", "empty")


# ---- meter, grid, hosts -------------------------------------------------------------------------------------------


def _meter(parts: Components) -> Iterator[Finding]:
    from cagg.composition import meter_settings
    from cagg.energy.meter import probe

    try:
        found = probe(meter_settings(parts.settings), parts.clock)
    except CaggError as error:
        yield problem("meter", str(error))
        return
    for item in found:
        yield (
            ok("meter", f"{item.name}: {item.reason}")
            if item.available
            else note("meter", f"{item.name}: {item.reason}")
        )
    if not any(item.available for item in found):
        yield problem("meter", "no energy source can be read, so readings are null", "see the remedies above")


def _grid(parts: Components, *, online: bool) -> Iterator[Finding]:
    name = parts.settings.zone
    if name is None:
        yield note("grid", "no zone is set, so carbon stays unknown", "run `cagg init`, or set zone in cagg.toml")
        return
    try:
        zone = parts.grid.zone(name)
        accounting = parts.grid.accounting_names(name)
        keys = parts.grid.cache_keys(name)
    except CaggError as error:
        yield problem("grid", str(error))
        return
    priced = f"readings are priced with {', '.join(accounting)}" if accounting else "nothing prices readings"
    yield ok("grid", f"zone {zone}; {priced}")
    if not keys and parts.settings.electricity_maps_token is None and not str(zone).startswith("trace:"):
        yield note(
            "grid", f"no source forecasts {zone}, so that only the usual shape of a day is known", _live_remedy(zone)
        )
    elif any(provider == "electricity_maps" for provider, _ in keys) and parts.settings.electricity_maps_token is None:
        yield note(
            "grid",
            "electricity_maps needs a token; until then only forecasts that others cached count",
            "set grid.electricity_maps.token, or CAGG_GRID_ELECTRICITY_MAPS_TOKEN",
        )
    cached = cached_forecasts(parts, name)
    if keys and not cached:
        yield note("grid", "no forecast is cached", "`cagg maintain` fills the cache for workers without internet")
    if not online:
        if keys:
            yield note("grid", f"{', '.join(key for key, _ in keys)} was not asked", "cagg doctor --online asks it")
        return
    now = parts.clock.now()
    answer = parts.grid.forecast(name, Window(start=now, end=now + timedelta(hours=24)), [])
    for step in answer.steps:
        retry = "the gate falls back meanwhile; try again later, or check the way to the internet"
        yield problem("grid", step, "" if " token" in step else retry)  # a sentence about the token says what to do
    yield ok("grid", f"answered: {answer.quality}{'' if answer.series is None else f', {answer.series.source}'}")


def _live_remedy(zone: Zone) -> str:
    from cagg.grid.zones import equivalent_zone

    if equivalent_zone(zone, "electricity_maps") is None:
        return "name a zone of a live source, see `cagg zones`, or a trace"
    return "set grid.electricity_maps.token (CAGG_GRID_ELECTRICITY_MAPS_TOKEN), then Electricity Maps steers it"


def _hosts() -> Iterator[Finding]:
    from cagg.maintenance import load_hosts

    names = {point.name for point in entry_points(group="cagg.hosts")}
    broken: list[str] = []
    loaded: Mapping[str, Any] = load_hosts(broken)
    for name, host in loaded.items():
        yield ok("hosts", f"{name}: " + ", ".join(f"{key} {value}" for key, value in host.describe().items()))
    for text in broken:
        yield problem("hosts", text)
    if broken:
        return
    for name in sorted(names - set(loaded)):
        yield note("hosts", f"{name} is not installed here", f'pip install "cagg[{name}]" if this machine runs it')
    if not names:
        yield note("hosts", "no engine's adapter is installed; `cagg run` and cagg.gate work without one")
