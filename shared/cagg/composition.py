"""Puts the parts together from the settings: store, grid, meter, spool. Nothing is opened before it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from cagg.clock import SystemClock
from cagg.grid.chain import Chain, GridAnswer, Use, accounting_providers
from cagg.grid.providers import GridSettings, build_providers
from cagg.grid.zones import ZoneEntry, default_providers, resolve_zone
from cagg.intensity import IntensitySeries, Zone
from cagg.ports import Clock, IntensityProvider, Store, StoredForecast
from cagg.provenance import Basis
from cagg.quantities import PPM, ceil_div
from cagg.settings import Settings, load_settings
from cagg.spool import Spool
from cagg.store.engine import open_store
from cagg.windows import Window

if TYPE_CHECKING:
    from cagg.energy.meter import Meter, MeterSettings

__all__ = ["Components", "Grid", "compose", "meter_settings"]

logger = logging.getLogger("cagg")


class Grid:
    """The zone's steering and accounting sources, and the planning price."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._chains: dict[str, tuple[Zone, Chain, Chain | None]] = {}

    def _chain(self, zone_name: str) -> tuple[Zone, Chain, Chain | None]:
        if zone_name not in self._chains:
            settings = self._settings
            names = settings.steering or default_providers(
                zone_name,
                has_trace=settings.trace_file is not None,
                has_token=settings.electricity_maps_token is not None,
            )
            wanted = tuple(dict.fromkeys((*names, *(settings.accounting or ()))))
            built = {provider.name: provider for provider in self._build(wanted)}
            chain = Chain(providers=[built[name] for name in names], clock=self._clock)
            zone = resolve_zone(zone_name, names, more=chain.zones())
            chain.require(zone)
            pricing = accounting_providers(
                [built[name] for name in (settings.accounting or names)],
                declared=settings.accounting is not None,
                zone=zone,
            )
            accounting = None
            if pricing:
                accounting = Chain(providers=[built[name] for name in pricing], clock=self._clock, use=Use.ACCOUNTING)
            self._chains[zone_name] = zone, chain, accounting
        return self._chains[zone_name]

    def _build(self, names: Sequence[str]) -> Sequence[IntensityProvider]:
        return build_providers(names, self._grid_settings(), self._clock)

    def trace_zones(self) -> Sequence[ZoneEntry]:
        """Zones of the configured trace file; empty without one."""
        if self._settings.trace_file is None:
            return ()
        return Chain(providers=self._build(("trace",)), clock=self._clock).zones()

    def _grid_settings(self) -> GridSettings:
        settings = self._settings
        return GridSettings(
            timeout_seconds=settings.grid_timeout.total_seconds(),
            neso_url=settings.neso_url,
            electricity_maps_token=settings.electricity_maps_token,
            electricity_maps_url=settings.electricity_maps_url,
            electricity_maps_basis=Basis(settings.electricity_maps_basis),
            trace_file=settings.trace_file,
            trace_name=settings.trace_name,
            trace_scale=settings.trace_scale,
            trace_anchor=settings.trace_anchor,
        )

    def zone(self, zone_name: str) -> Zone:
        """Resolve a zone; raises ZoneUnknown or ConfigurationError."""
        return self._chain(zone_name)[0]

    def cache_keys(self, zone_name: str) -> Sequence[tuple[str, str]]:
        """(provider, zone) pairs whose cached forecasts the chain can use."""
        zone, chain, _ = self._chain(zone_name)
        return chain.cache_keys(zone)

    def forecast(
        self, zone_name: str, window: Window, cached: Sequence[StoredForecast], *, needed: timedelta | None = None
    ) -> GridAnswer:
        """Ask the steering chain; may use the network when the cache is not fresh. ``needed``: see the chain."""
        zone, chain, _ = self._chain(zone_name)
        return chain.forecast(zone, window, cached, needed=needed)

    def on_hand(self, zone_name: str, window: Window, cached: Sequence[StoredForecast]) -> Sequence[IntensitySeries]:
        """Series that may price a window, best first, without asking the network."""
        zone, _, accounting = self._chain(zone_name)
        return () if accounting is None else accounting.on_hand(zone, window, cached)

    def accounting_sources(self, zone_name: str) -> Sequence[tuple[IntensityProvider, Zone]]:
        """Providers that may price readings, best first, each with its own name of the zone."""
        zone, _, accounting = self._chain(zone_name)
        if accounting is None:
            return ()
        named = ((provider, accounting.zone_of(provider, zone)) for provider in accounting.providers)
        return [(provider, own) for provider, own in named if own is not None]

    def past_day(self, zone_name: str, cached: Sequence[StoredForecast]) -> StoredForecast | None:
        """Ask for the last day where cached rows cannot price it, see the chain; None = there is nothing to store."""
        zone, _, accounting = self._chain(zone_name)
        return None if accounting is None else accounting.past_day(zone, cached)

    def accounting_names(self, zone_name: str) -> tuple[str, ...]:
        """Names of the providers that may price readings."""
        accounting = self._chain(zone_name)[2]
        return () if accounting is None else tuple(provider.name for provider in accounting.providers)

    def planning(self, zone_name: str | None, window: Window, series: IntensitySeries | None) -> tuple[int | None, str]:
        """Return the price of holds in mg/kWh, PUE included, and where it comes from; (None, reason) when unknown."""
        intensity, basis = self._settings.planning_intensity, "declared"
        if intensity is None:
            if zone_name is None:
                return None, "no zone is set"
            zone, chain, _ = self._chain(zone_name)
            intensity, basis = chain.planning_intensity(zone, window, series)
        if intensity is None:
            return None, basis
        pue_ppm = self._settings.pue_ppm
        if pue_ppm is None:
            return intensity.milligrams_per_kwh, basis
        return ceil_div(intensity.milligrams_per_kwh * pue_ppm, PPM), f"{basis} x PUE {pue_ppm / PPM:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Everything a gate works with."""

    settings: Settings
    clock: Clock
    store: Store
    grid: Grid
    spool: Spool

    meter_factory: Callable[[], Meter]

    def meter(self) -> Meter:
        """Return this process's meter, probing the hardware at the first call."""
        return self.meter_factory()


def meter_settings(settings: Settings) -> MeterSettings:
    """Return the meter's part of the settings."""
    from cagg.energy.meter import MeterSettings

    idle = {} if settings.idle_power is None else {"cpu": settings.idle_power.milliwatts}
    return MeterSettings(
        sources=settings.meter_sources,
        idle_policy=settings.idle_policy,
        idle_milliwatts=idle,
        cross_check=settings.cross_check,
        codecarbon_country=settings.codecarbon_country,
        strict=settings.strict_metering,
    )


def _shared_meter(settings: Settings, clock: Clock) -> Meter:
    from cagg.energy.meter import Meter

    return Meter.shared(meter_settings(settings), clock)


def compose(
    settings: Settings | None = None,
    *,
    clock: Clock | None = None,
    meter_factory: Callable[[], Meter] | None = None,
    **loading: Any,
) -> Components:
    """Build the components.

    Args:
        settings: None = collected by :func:`cagg.settings.load_settings` with ``loading``.
        clock: None = the computer's.
        meter_factory: None = the process's shared meter.
        loading: arguments of load_settings.
    """
    settings = settings or load_settings(**loading)
    clock = clock or SystemClock()
    return Components(
        settings=settings,
        clock=clock,
        store=open_store(settings.store_url, clock=clock),
        grid=Grid(settings, clock),
        spool=Spool(settings.home / "spool"),
        meter_factory=meter_factory or partial(_shared_meter, settings, clock),
    )
