"""The questions that ``cagg doctor`` asks, each with a finding and, where something is wrong, the remedy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cagg.cli._context import cached_forecasts, server_facts, store_file, store_is_new
from cagg.errors import CaggError
from cagg.records import ReservationState
from cagg.settings import Mode, Settings
from cagg.store.engine import masked
from cagg.windows import Window, format_duration

if TYPE_CHECKING:
    from cagg.composition import Components
    from cagg.intensity import Zone
    from cagg.ports import Checkpoint, Transaction

__all__ = ["Finding", "Level", "examine", "settings_rows"]

_LONGEST_UNSIGNED = timedelta(hours=24)
"""Entries that wait longer for a signature mean that nobody runs ``cagg maintain``. Own choice: a nightly pass."""

_LONGEST_OVERDUE = timedelta(minutes=15)


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    """works, but less well than it could"""
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One answer.

    Attributes:
        topic: settings, store, ledger, budget, spool, meter, grid, hosts or mode.
        level: how bad it is.
        text: what was found.
        remedy: what to do; empty when nothing has to be done.
    """

    topic: str
    level: Level
    text: str
    remedy: str = ""


def _ok(topic: str, text: str) -> Finding:
    return Finding(topic=topic, level=Level.OK, text=text)


def _note(topic: str, text: str, remedy: str = "") -> Finding:
    return Finding(topic=topic, level=Level.NOTE, text=text, remedy=remedy)


def _problem(topic: str, text: str, remedy: str = "") -> Finding:
    return Finding(topic=topic, level=Level.PROBLEM, text=text, remedy=remedy)


def examine(parts: Components, *, online: bool) -> Iterator[Finding]:
    """Ask everything; uses the network only when ``online`` is said."""
    yield _config(parts.settings)
    yield from _mode(parts.settings)
    yield from _home(parts)
    yield from _store(parts)
    yield from _spool(parts)
    yield from _meter(parts)
    yield from _grid(parts, online=online)
    yield from _hosts()


def _config(settings: Settings) -> Finding:
    if settings.config_file is None:
        return _note(
            "config",
            f"no cagg.toml was found from {Path.cwd()} upwards, nor in {settings.home}",
            "start cagg in the project's folder, set CAGG_CONFIG, or run `cagg init`",
        )
    return _ok("config", f"read from {settings.config_file}")


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
            yield _ok("mode", "enforce: limits hold and runs are deferred")
        case Mode.OBSERVE:
            yield _note("mode", "observe: everything runs at once, decisions are only recorded", 'set mode = "enforce"')
        case Mode.OFF:
            yield _note("mode", "off: nothing is asked or metered", 'set mode = "enforce" or "observe"')


def _home(parts: Components) -> Iterator[Finding]:
    home = parts.settings.home
    existing = next((folder for folder in (home, *home.parents) if folder.exists()), home)
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        yield _ok("home", str(home))
    else:
        yield _problem(
            "home", f"{home} cannot be written", "correct its permissions, or set CAGG_HOME to another folder"
        )


def _store(parts: Components) -> Iterator[Finding]:
    from cagg.store.tables import SCHEMA_VERSION

    if store_is_new(parts):
        path = store_file(parts)
        folder = next((item for item in path.parents if item.exists()), None) if path is not None else None
        if folder is None or not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            yield _problem(
                "store", f"{parts.store.url} cannot be created", "make its folder writable, or set another store"
            )
            return
        yield _ok("store", f"{parts.store.url} does not exist yet; the first gate creates it")
        return
    try:
        with parts.store.snapshot() as tx:
            size, schema = tx.tree_size(), tx.schema_version()
            yield _ok("store", f"{parts.store.url}, schema {schema}, {size} entries{_size(parts)}")
            if schema != SCHEMA_VERSION:
                yield _note("store", f"a newer cagg has moved the schema on from {SCHEMA_VERSION}", "upgrade cagg here")
            yield from _writable(parts)
            yield from _server(parts)
            yield from _waiting(tx)
            yield from _signing(parts, tx, size)
            yield from _overdue(tx)
    except CaggError as error:
        yield _problem("store", str(error))


def _size(parts: Components) -> str:
    path = store_file(parts)
    return "" if path is None else f", {path.stat().st_size / 1e6:.1f} MB"


def _writable(parts: Components) -> Iterator[Finding]:
    path = store_file(parts)
    if path is not None and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        yield _problem("store", f"{path} is read-only", "make the file and its folder writable for this user")


def _server(parts: Components) -> Iterator[Finding]:
    """What a database server lets this role do, and whether anybody can listen."""
    about = server_facts(parts)
    if not about:
        return
    rights = about["rights"]
    text = f"PostgreSQL {about['server']}, as {about['role']} ({rights}) in schema {about['schema']}"
    if rights == "owner":
        remedy = "give gates a role of their own: cagg store grants --writer ROLE --apply"
        yield _note("store", f"{text}: this role could change budgets and recorded entries", remedy)
    elif rights in {"reader", "nothing"}:
        remedy = "let the owner run: cagg store grants --writer ROLE --apply"
        yield _problem("store", f"{text}: gates cannot record with it", remedy)
    else:
        yield _ok("store", text)


def _waiting(tx: Transaction) -> Iterator[Finding]:
    """Entries that nobody gives their place in the tree: only a store that machines share has them."""
    oldest = tx.oldest_queued_at()
    if oldest is None:
        return
    age = tx.now() - oldest
    text = f"{tx.queued()} entries wait for their place in the log, the oldest for {format_duration(age)}"
    remedy = "run `cagg maintain`, best every few minutes: cagg maintain --every 60s"
    yield _problem("ledger", text, remedy) if age > _LONGEST_UNSIGNED else _note("ledger", text, remedy)


def _signing(parts: Components, tx: Transaction, size: int) -> Iterator[Finding]:
    last = tx.last_checkpoint()
    signed = 0 if last is None else last.size
    if last is not None:
        bad = list(_signature(parts, last))
        if bad:
            yield from bad
            return
    if size == 0:
        return
    if size <= signed and last is not None:
        ago = format_duration(parts.clock.now() - last.created_at)
        text = f"all {size} entries are under a checkpoint signed by the trusted key, {ago} old"
        yield _ok("ledger", f"{text}; whether they were edited since, `cagg ledger verify` tells")
        return
    oldest = next(iter(tx.entries(start=signed, limit=1)), None)
    age = timedelta(0) if oldest is None else parts.clock.now() - oldest.recorded_at
    text = f"{size - signed} of {size} entries are not signed yet, the oldest for {format_duration(age)}"
    remedy = "run `cagg maintain`, best every few minutes: cagg maintain --every 60s"
    yield _problem("ledger", text, remedy) if age > _LONGEST_UNSIGNED else _note("ledger", text, remedy)


def _signature(parts: Components, last: Checkpoint) -> Iterator[Finding]:
    """Say what is wrong with the newest checkpoint's signature; nothing when the trusted key made it."""
    from cagg.cli.ledger import key_file, trusted_keys
    from cagg.ledger.notes import VerifierKey, parse_note

    try:
        keys = [VerifierKey.parse(text) for text in trusted_keys(parts)]
        signers = parse_note(last.note, keys)[1]
    except CaggError as error:
        yield _problem("ledger", f"the newest checkpoint cannot be checked: {error}", "run `cagg ledger verify`")
        return
    if not keys:
        find = _note if store_file(parts) is None else _problem  # of several machines only the signer needs a key
        yield find(
            "ledger",
            f"the newest checkpoint cannot be checked: there is no key at {key_file(parts)}",
            "restore log.key and log.vkey from a backup, or copy the public key that was kept outside",
        )
    elif not signers:
        yield _problem(
            "ledger",
            "the newest checkpoint was signed by another key than the trusted one",
            f"restore {key_file(parts)} and its log.key from a backup, then run `cagg ledger verify`",
        )


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
        yield _problem(
            "budget", f"{len(lapsed)} requests wait past their deadline and hold their budgets", "run `cagg maintain`"
        )
    if len(waiting) > len(lapsed):
        yield _ok("budget", f"{len(waiting) - len(lapsed)} requests wait for their window")
    if not running:
        return
    oldest = now - min(item.lease_until for item in running if item.lease_until is not None)
    text = f"{len(running)} runs died or lost touch and are not charged yet, the oldest for {format_duration(oldest)}"
    remedy = "run `cagg maintain`; it charges what they used"
    yield _problem("budget", text, remedy) if oldest > _LONGEST_OVERDUE else _note("budget", text, remedy)


def _spool(parts: Components) -> Iterator[Finding]:
    waiting, bad = parts.spool.waiting(), parts.spool.bad()
    if bad:
        yield _problem(
            "spool",
            f"{len(bad)} records could not be replayed, the first is {bad[0]}",
            "read the file, correct the cause, rename it to .json and run `cagg maintain`",
        )
    if waiting:
        yield _note("spool", f"{len(waiting)} records wait for the store", "run `cagg maintain` once the store is back")
    if not waiting and not bad:
        yield _ok("spool", "empty")


# ---- meter, grid, hosts -------------------------------------------------------------------------------------------


def _meter(parts: Components) -> Iterator[Finding]:
    from cagg.composition import meter_settings
    from cagg.energy.meter import probe

    try:
        found = probe(meter_settings(parts.settings), parts.clock)
    except CaggError as error:
        yield _problem("meter", str(error))
        return
    for item in found:
        yield (
            _ok("meter", f"{item.name}: {item.reason}")
            if item.available
            else _note("meter", f"{item.name}: {item.reason}")
        )
    if not any(item.available for item in found):
        yield _problem("meter", "no energy source can be read, so readings are null", "see the remedies above")


def _grid(parts: Components, *, online: bool) -> Iterator[Finding]:
    name = parts.settings.zone
    if name is None:
        yield _note("grid", "no zone is set, so carbon stays unknown", "run `cagg init`, or set zone in cagg.toml")
        return
    try:
        zone = parts.grid.zone(name)
        accounting = parts.grid.accounting_names(name)
        keys = parts.grid.cache_keys(name)
    except CaggError as error:
        yield _problem("grid", str(error))
        return
    priced = f"readings are priced with {', '.join(accounting)}" if accounting else "nothing prices readings"
    yield _ok("grid", f"zone {zone}; {priced}")
    if not keys and parts.settings.electricity_maps_token is None and not str(zone).startswith("trace:"):
        yield _note(
            "grid", f"no source forecasts {zone}, so that only the usual shape of a day is known", _live_remedy(zone)
        )
    elif any(provider == "electricity_maps" for provider, _ in keys) and parts.settings.electricity_maps_token is None:
        yield _note(
            "grid",
            "electricity_maps needs a token; until then only forecasts that others cached count",
            "set grid.electricity_maps.token, or CAGG_GRID_ELECTRICITY_MAPS_TOKEN",
        )
    cached = cached_forecasts(parts, name)
    if keys and not cached:
        yield _note("grid", "no forecast is cached", "`cagg maintain` fills the cache for workers without internet")
    if not online:
        if keys:
            yield _note("grid", f"{', '.join(key for key, _ in keys)} was not asked", "cagg doctor --online asks it")
        return
    now = parts.clock.now()
    answer = parts.grid.forecast(name, Window(start=now, end=now + timedelta(hours=24)), [])
    for step in answer.steps:
        retry = "the gate falls back meanwhile; try again later, or check the way to the internet"
        yield _problem("grid", step, "" if " token" in step else retry)  # a sentence about the token says what to do
    yield _ok("grid", f"answered: {answer.quality}{'' if answer.series is None else f', {answer.series.source}'}")


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
        yield _ok("hosts", f"{name}: " + ", ".join(f"{key} {value}" for key, value in host.describe().items()))
    for text in broken:
        yield _problem("hosts", text)
    if broken:
        return
    for name in sorted(names - set(loaded)):
        yield _note("hosts", f"{name} is not installed here", f'pip install "cagg[{name}]" if this machine runs it')
    if not names:
        yield _note("hosts", "no engine's adapter is installed; `cagg run` and cagg.gate work without one")
