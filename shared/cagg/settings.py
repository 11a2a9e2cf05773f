"""Settings, and where each of them came from.

Weakest first: built-in default, ``cagg.toml``, the host (Connection, Block, Variable), ``CAGG_*``, argument.
``cagg doctor`` prints the origins. With nothing configured a gate admits, meters and records.
"""

# ruff: noqa: RUF009  (the field helper returns dataclasses.field, it is no shared default)
from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from cagg.errors import CaggError, ConfigurationError, InvalidInput
from cagg.quantities import CarbonIntensity, Energy, Power
from cagg.request import GateOptions
from cagg.secret import Secret
from cagg.settingvalues import (
    boolean_of,
    choice_of,
    duration_of,
    factor_from,
    instant_of,
    meter_sources_of,
    names_of,
    one_of,
    place_in,
    places_of,
    quantity_of,
    scale_of,
    secret_of,
    text_of,
    whole_from,
    zone_name_of,
)

__all__ = ["IdlePolicy", "Mode", "OnStoreDown", "Settings", "environment_names", "find_config", "load_settings"]


class Mode(StrEnum):
    """How much the gate may do."""

    ENFORCE = "enforce"
    """limits hold, runs are deferred"""
    OBSERVE = "observe"
    """decides and records, but lets everything run at once"""
    OFF = "off"
    """nothing is asked or metered; each bypass is journalled"""


class OnStoreDown(StrEnum):
    """What ``work`` under a budget does while the store is down; ``release`` is always denied, ``monitor`` runs."""

    DENY = "deny"
    RUN = "run"


class IdlePolicy(StrEnum):
    """How a run takes part in the idle energy of its host."""

    RESERVED = "reserved"
    """by its reserved processors over all (SCI specification 1.1: hardware reserved or provisioned)"""
    ACTIVE = "active"
    """equal parts among the runs that are open"""
    NONE = "none"
    """not at all"""


def _item(key: str, parse: Callable[[Any], Any], default: Any) -> Any:
    return field(default=default, metadata={"key": key, "parse": parse})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked. Names in brackets are the keys in ``cagg.toml``; ``CAGG_`` + key in upper case with
    ``_`` for ``.`` is the environment variable (``CAGG_GRID_STEERING``).

    Attributes:
        home: directory of the default store, keys and spool (``home``; ``~/.cagg``).
        store: store URL (``store``); None = SQLite in ``home``.
        mode: enforce, observe or off (``mode``).
        zone: default grid zone (``zone``); None = unknown, hence no carbon figures.
        timezone: IANA zone for times of day (``timezone``); None = such times need a schedule's own zone.
        steering: providers that the planner looks at, in order of preference; None = chosen by zone.
        accounting: providers that price readings; None = the homogeneous start of ``steering``.
        grid_timeout: longest wait for one answer of a provider.
        trace_file, trace_scale, trace_anchor, trace_name: a recorded series as provider ``trace``; the scale says how
            many seconds of the trace pass per second of the clock; the anchor is the instant of its first interval.
        electricity_maps_token: token of Electricity Maps, never shown; None = that source cannot be asked.
        electricity_maps_url, electricity_maps_basis: its address, and which emission factors it is asked for.
        planning_intensity: price of holds; None = 95th percentile of the zone's climatology.
        pue_ppm: power usage effectiveness in parts per million; None = not applied.
        materiality: runs expected to use less are never deferred.
        max_deferrals: how often one request may be deferred.
        retention_years: how long the names of approvers of high and critical releases cannot be redacted
            (``ledger.retention_years``); 0 = not at all.
        anchors: where ``cagg maintain`` publishes checkpoints, outside of the store (``anchors``): ``file:/path``,
            ``dir:/path``, ``git:/path``, ``log``; empty = nowhere.
        yearly_logs: ``cagg maintain`` begins a new log when the calendar year (UTC) has changed
            (``ledger.yearly_logs``); otherwise it only says so.
        lease: how long a running reservation lives without a beat.
        beat: how often a run reports.
        default_duration, default_power: what an unknown task is taken for (cold start).
        on_store_down: what work under a budget does then.
        meter_sources: energy sources, ``auto`` or names; idle_policy, cross_check, codecarbon_country: see the meter.
        idle_power: measured idle power of the processors; None = calibrated, else modelled.
        strict_metering: a run whose energy cannot be measured fails instead of recording null with the reason.
        defaults: gate options where the caller says nothing.
        config_file: the ``cagg.toml`` that was read; None when none was found.
        origins: for each field, where its value came from.
    """

    home: Path = _item("home", lambda value: Path(text_of(value)).expanduser(), Path("~/.cagg").expanduser())
    store: str | None = _item("store", text_of, None)
    mode: Mode = _item("mode", choice_of(Mode), Mode.ENFORCE)
    zone: str | None = _item("zone", text_of, None)
    timezone: str | None = _item("timezone", zone_name_of, None)
    steering: tuple[str, ...] | None = _item("grid.steering", names_of, None)
    accounting: tuple[str, ...] | None = _item("grid.accounting", names_of, None)
    grid_timeout: timedelta = _item("grid.timeout", duration_of, timedelta(seconds=5))
    trace_file: Path | None = _item("grid.trace.file", lambda value: Path(text_of(value)).expanduser(), None)
    trace_name: str | None = _item("grid.trace.name", text_of, None)
    trace_scale: float = _item("grid.trace.time_scale", scale_of, 1.0)
    trace_anchor: datetime | None = _item("grid.trace.anchor", instant_of, None)
    neso_url: str = _item("grid.neso.url", text_of, "https://api.carbonintensity.org.uk")
    electricity_maps_token: Secret | None = _item("grid.electricity_maps.token", secret_of, None)
    electricity_maps_url: str = _item("grid.electricity_maps.url", text_of, "https://api.electricitymaps.com")
    electricity_maps_basis: str = _item("grid.electricity_maps.basis", one_of("life_cycle", "direct"), "life_cycle")
    planning_intensity: CarbonIntensity | None = _item(
        "grid.planning_intensity", quantity_of(CarbonIntensity.parse, "300 g/kWh"), None
    )
    pue_ppm: int | None = _item("meter.pue", factor_from(1.0), None)
    meter_sources: tuple[str, ...] = _item("meter.sources", meter_sources_of, ("auto",))
    idle_policy: IdlePolicy = _item("meter.idle_policy", choice_of(IdlePolicy), IdlePolicy.RESERVED)
    cross_check: str | None = _item("meter.cross_check", one_of("codecarbon"), None)
    idle_power: Power | None = _item("meter.idle_power", quantity_of(Power.parse, "45 W"), None)
    strict_metering: bool = _item("meter.strict", boolean_of, default=False)
    codecarbon_country: str | None = _item("meter.codecarbon_country", text_of, None)
    materiality: Energy = _item("policy.materiality", quantity_of(Energy.parse, "5 Wh"), Energy(millijoules=18_000_000))
    max_deferrals: int = _item("policy.max_deferrals", whole_from(0), 6)
    default_duration: timedelta = _item("policy.default_duration", duration_of, timedelta(hours=1))
    default_power: Power = _item(
        "policy.default_power", quantity_of(Power.parse, "100 W", zero=False), Power(milliwatts=100_000)
    )
    on_store_down: OnStoreDown = _item("policy.on_store_down", choice_of(OnStoreDown), OnStoreDown.DENY)
    retention_years: int = _item("ledger.retention_years", whole_from(0), 10)
    anchors: tuple[str, ...] = _item("anchors", places_of, ())
    yearly_logs: bool = _item("ledger.yearly_logs", boolean_of, default=False)
    lease: timedelta = _item("reservation.lease", duration_of, timedelta(minutes=5))
    beat: timedelta = _item("reservation.beat", duration_of, timedelta(seconds=60))
    defaults: GateOptions = field(default_factory=GateOptions)
    config_file: Path | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def store_url(self) -> str:
        """The store's URL after the default."""
        return self.store if self.store is not None else f"sqlite:///{self.home / 'cagg.db'}"


_ITEMS = {item.metadata["key"]: item for item in fields(Settings) if "key" in item.metadata}
_OTHER_VARIABLES = ("CAGG_CONFIG", "CAGG_COMMIT", "CAGG_IMAGE_DIGEST", "CAGG_ENCLOSING_REQUEST")
"""Environment variables that are no settings: see :func:`find_config`, checkout, software and process."""
_PATH_KEYS = {"home", "grid.trace.file"}


def find_config(start: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the configuration file: ``CAGG_CONFIG``, else the nearest ``cagg.toml`` upwards, else the one in home."""
    if environ.get("CAGG_CONFIG"):
        return Path(environ["CAGG_CONFIG"]).expanduser()
    for folder in (start, *start.parents):
        if (folder / "cagg.toml").exists():
            return folder / "cagg.toml"
    home = Path(environ.get("CAGG_HOME", "~/.cagg")).expanduser() / "cagg.toml"
    return home if home.exists() else None


def load_settings(
    *,
    arguments: Mapping[str, Any] | None = None,
    host: Mapping[str, Any] | None = None,
    host_name: str = "host",
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> Settings:
    """Collect the settings from all places.

    Args:
        arguments: strongest values by key, for example ``{"zone": "neso:GB"}``.
        host: values of the engine by key; only above ``cagg.toml``.
        host_name: how the engine is called in the origins.
        environ: environment; None = the process's.
        start: folder where the search for ``cagg.toml`` begins; None = the working directory.

    Raises:
        ConfigurationError: a file cannot be read, a key is unknown, or a value cannot be used; names the place.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins: dict[str, str] = {item.name: "default" for item in _ITEMS.values()}
    options = GateOptions()

    path = find_config(start or Path.cwd(), environ)
    layers: list[tuple[str, Mapping[str, Any], Path | None]] = []
    if path is not None:
        layers.append((str(path), _read(path), path.parent))
    layers.append((host_name, dict(host or {}), None))
    layers.append(("environment", _from_environment(environ), None))
    layers.append(("argument", dict(arguments or {}), None))
    for origin, layer, folder in layers:
        stated = dict(layer)
        table = {key.removeprefix("defaults."): stated.pop(key) for key in list(stated) if key.startswith("defaults.")}
        if table:
            options = _options(table, origin).over(options)
            origins["defaults"] = origin
        for key, value in stated.items():
            item = _ITEMS.get(key)
            if item is None:
                raise ConfigurationError(_unknown(key, origin))
            values[item.name] = _parsed(item.metadata["parse"], value, key, origin, folder)
            origins[item.name] = f"{origin} ({_environment_name(key)})" if origin == "environment" else origin
    settings = Settings(**values, defaults=options, config_file=path, origins=origins)
    if settings.lease < 2 * settings.beat:
        raise ConfigurationError(
            f"reservation.lease ({settings.lease}, {origins['lease']}) must be at least twice reservation.beat "
            f"({settings.beat}, {origins['beat']}), or live runs would expire; correct one of them."
        )
    return settings


def _options(table: Mapping[str, Any], origin: str) -> GateOptions:
    try:
        return GateOptions.from_mapping(table, where=f"[defaults] in {origin}")
    except InvalidInput as error:
        raise ConfigurationError(f"{origin}: {error}") from error


def _parsed(parse: Callable[[Any], Any], value: Any, key: str, origin: str, folder: Path | None) -> Any:
    try:
        parsed = parse(value)
    except CaggError as error:
        raise ConfigurationError(f"{origin}: {key}: {error}") from error
    if key == "anchors" and folder is not None:
        return tuple(place_in(folder, place) for place in parsed)
    if key in _PATH_KEYS and folder is not None and not parsed.is_absolute():
        return folder / parsed
    if key == "store" and folder is not None and parsed.startswith("sqlite:///") and parsed[10:11] not in {"/", ""}:
        return f"sqlite:///{(folder / parsed[10:]).resolve()}"
    return parsed


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}); make it readable or remove it.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML ({error}); correct that line.") from error
    flat: dict[str, Any] = {}

    def walk(prefix: str, table: Mapping[str, Any]) -> None:
        for name, value in table.items():
            key = f"{prefix}{name}"
            if isinstance(value, dict):
                walk(f"{key}.", value)
            else:
                flat[key] = value

    walk("", document)
    return flat


def _environment_name(key: str) -> str:
    return "CAGG_" + key.replace(".", "_").upper()


def environment_names() -> frozenset[str]:
    """Return all environment variables that this version reads."""
    return frozenset({*_variables(), *_OTHER_VARIABLES})


def _variables() -> dict[str, str]:
    names = {_environment_name(key): key for key in _ITEMS}
    names.update({_environment_name(f"defaults.{item.name}"): f"defaults.{item.name}" for item in fields(GateOptions)})
    return names


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    names = _variables()
    stated: dict[str, Any] = {names[name]: value for name, value in environ.items() if name in names and value != ""}
    if "defaults.interruptible" in stated:
        said = str(stated["defaults.interruptible"]).lower()
        stated["defaults.interruptible"] = {"1": True, "true": True, "0": False, "false": False}.get(said, said)
    return stated


def _unknown(key: str, origin: str) -> str:
    near = difflib.get_close_matches(key, list(_ITEMS) + [f"defaults.{item.name}" for item in fields(GateOptions)], 1)
    hint = f"did you mean {near[0]!r}?" if near else "see `cagg doctor` for all keys."
    return f"{origin}: unknown setting {key!r}; {hint}"
