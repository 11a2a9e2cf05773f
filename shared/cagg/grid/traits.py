"""What the chain wants to know of a provider beyond the port: reach, freshness, catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from cagg.grid.zones import ZoneEntry
from cagg.ports import IntensityProvider

__all__ = ["GridProvider", "Traits", "fresh_until", "traits_of"]

_DEFAULT_TTL = timedelta(minutes=15)
_DEFAULT_HORIZON = timedelta(hours=48)


@runtime_checkable
class GridProvider(IntensityProvider, Protocol):
    """An intensity provider that also says how far it reaches and how long its answers are fresh.

    Attributes:
        local: it answers from this machine, so caching its answers gains nothing.
        horizon: how far ahead it can answer.
    """

    local: bool
    horizon: timedelta

    def fresh_until(self, fetched_at: datetime) -> datetime:
        """When a newer answer than the one fetched at that instant may exist."""
        ...

    def zones(self) -> tuple[ZoneEntry, ...]:
        """Every zone it knows; empty when it does not keep a list. No network."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Reach and freshness of any provider, with defaults for one that only implements the port."""

    local: bool
    horizon: timedelta
    zones: tuple[ZoneEntry, ...]


def traits_of(provider: IntensityProvider) -> Traits:
    """Return a provider's traits; for a bare port: remote, 48 hours, no catalogue."""
    if isinstance(provider, GridProvider):
        return Traits(local=provider.local, horizon=provider.horizon, zones=provider.zones())
    return Traits(local=False, horizon=_DEFAULT_HORIZON, zones=())


def fresh_until(provider: IntensityProvider, fetched_at: datetime) -> datetime:
    """Return until when an answer needs no replacement; 15 minutes for a provider that does not say."""
    if isinstance(provider, GridProvider):
        return provider.fresh_until(fetched_at)
    return fetched_at + _DEFAULT_TTL
