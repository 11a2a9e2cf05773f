"""Builds providers by name from plain settings."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cagg.errors import ConfigurationError
from cagg.grid.providers._http import HttpPolicy
from cagg.grid.providers.climatology import ClimatologyProvider
from cagg.grid.providers.electricity_maps import ELECTRICITY_MAPS_URL, ElectricityMapsProvider
from cagg.grid.providers.neso import NESO_URL, NesoProvider
from cagg.grid.providers.trace import TraceProvider
from cagg.grid.providers.yearly import YearlyProvider
from cagg.grid.traits import GridProvider
from cagg.ports import Clock
from cagg.provenance import Basis
from cagg.secret import Secret

if TYPE_CHECKING:
    import httpx

__all__ = ["PROVIDER_NAMES", "GridSettings", "build_providers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSettings:
    """What providers need to know from outside.

    Attributes:
        timeout_seconds: longest time of one attempt.
        attempts: how often a failed request is tried at most.
        total_seconds: longest time of all attempts of one request; it ends after two timeouts if that is sooner.
        neso_url: address of NESO's service.
        electricity_maps_token: None = Electricity Maps cannot be asked.
        electricity_maps_url: address of its service.
        electricity_maps_basis: which emission factors it is asked for.
        trace_file: file of the provider ``trace``; None = there is none.
        trace_name: zone code of the trace; None = as the file says.
        trace_scale: seconds of the trace per second of the clock.
        trace_anchor: when the trace begins; None = at its own start.
        transport, async_transport: instead of the network, for tests.
    """

    timeout_seconds: float = 5.0
    attempts: int = 3
    total_seconds: float = 10.0
    neso_url: str = NESO_URL
    electricity_maps_token: Secret | None = None
    electricity_maps_url: str = ELECTRICITY_MAPS_URL
    electricity_maps_basis: Basis = Basis.LIFE_CYCLE
    trace_file: Path | None = None
    trace_name: str | None = None
    trace_scale: float = 1.0
    trace_anchor: datetime | None = None
    transport: httpx.BaseTransport | None = None
    async_transport: httpx.AsyncBaseTransport | None = None


def _neso(settings: GridSettings, clock: Clock) -> GridProvider:
    return NesoProvider(
        clock=clock,
        base_url=settings.neso_url,
        policy=_policy(settings),
        transport=settings.transport,
        async_transport=settings.async_transport,
    )


def _electricity_maps(settings: GridSettings, clock: Clock) -> GridProvider:
    return ElectricityMapsProvider(
        clock=clock,
        token=settings.electricity_maps_token,
        base_url=settings.electricity_maps_url,
        basis=settings.electricity_maps_basis,
        policy=_policy(settings),
        transport=settings.transport,
        async_transport=settings.async_transport,
    )


def _policy(settings: GridSettings) -> HttpPolicy:
    return HttpPolicy(
        timeout_seconds=settings.timeout_seconds,
        attempts=settings.attempts,
        # never below one attempt: a timeout that somebody set higher than the total is meant
        total_seconds=max(settings.timeout_seconds, min(2 * settings.timeout_seconds, settings.total_seconds)),
    )


def _climatology(_: GridSettings, clock: Clock) -> GridProvider:
    return ClimatologyProvider(clock=clock)


def _yearly(_: GridSettings, clock: Clock) -> GridProvider:
    return YearlyProvider(clock=clock)


def _trace(settings: GridSettings, clock: Clock) -> GridProvider:
    if settings.trace_file is None:
        raise ConfigurationError("the provider trace needs a file; set grid.trace.file to a CSV or JSON trace.")
    return TraceProvider.from_file(
        settings.trace_file,
        clock=clock,
        time_scale=settings.trace_scale,
        anchor=settings.trace_anchor,
        name=settings.trace_name,
    )


_BUILDERS: Mapping[str, Callable[[GridSettings, Clock], GridProvider]] = {
    "neso": _neso,
    "climatology": _climatology,
    "yearly": _yearly,
    "trace": _trace,
    "electricity_maps": _electricity_maps,
}

PROVIDER_NAMES: tuple[str, ...] = tuple(_BUILDERS)
"""Names that :func:`build_providers` knows."""


def build_providers(names: Sequence[str], settings: GridSettings, clock: Clock) -> tuple[GridProvider, ...]:
    """Build providers in the given order; raises ConfigurationError for an unknown or repeated name."""
    built: list[GridProvider] = []
    for name in names:
        if name not in _BUILDERS:
            near = difflib.get_close_matches(name, PROVIDER_NAMES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(PROVIDER_NAMES)}."
            raise ConfigurationError(f"grid provider {name!r} is unknown; {hint}")
        if any(provider.name == name for provider in built):
            raise ConfigurationError(f"grid provider {name!r} is named twice; name it once.")
        built.append(_BUILDERS[name](settings, clock))
    return tuple(built)
