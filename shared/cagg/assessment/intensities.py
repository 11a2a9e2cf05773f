"""Intensities by half hour: what the grid emitted while runs ran, and what it usually emits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from cagg.assessment.history import SLOT_MS
from cagg.errors import CaggError, IntensityUnavailable
from cagg.grid.providers.climatology import ClimatologyProvider
from cagg.grid.series import mean_over
from cagg.grid.zones import ZoneEntry, equivalent_zone
from cagg.intensity import IntensitySeries, Zone
from cagg.ports import Clock, IntensityProvider
from cagg.provenance import IntensityKind
from cagg.windows import Window, from_epoch_ms, to_epoch_ms

__all__ = ["SlotIntensities", "actual_intensities", "typical_intensities", "whole_slots"]

_CHUNK = timedelta(days=7)
"""Services refuse long ranges; a week is answered by all of those that cagg knows."""

_MOST_TYPICAL = timedelta(days=399)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotIntensities:
    """Mean intensity of each half hour, mg/kWh; half hours of which the source says nothing are absent.

    Attributes:
        by_slot: by the number of the half hour since 1970.
        label: source, kind and convention in words.
        kind: how the numbers came about at worst.
    """

    by_slot: Mapping[int, int]
    label: str
    kind: IntensityKind

    @classmethod
    def from_series(cls, series: Sequence[IntensitySeries], window: Window) -> Self:
        """Average series of one source over the half hours that the window touches. ``series`` must not be empty."""
        known: dict[int, int] = {}
        for slot in range(to_epoch_ms(window.start) // SLOT_MS, -(-to_epoch_ms(window.end, up=True) // SLOT_MS)):
            piece = Window(start=from_epoch_ms(slot * SLOT_MS), end=from_epoch_ms((slot + 1) * SLOT_MS))
            for item in series:
                mean = mean_over(item, piece).intensity
                if mean is not None:
                    known[slot] = mean.milligrams_per_kwh
                    break
        first = series[0]
        kinds = ", ".join(dict.fromkeys(str(item.kind) for item in series))
        sources = " + ".join(dict.fromkeys(item.source for item in series))
        convention = first.convention
        meaning = f"{convention.signal}, {_basis(str(convention.basis))}, {convention.gas}"
        return cls(by_slot=known, label=f"{sources} for {first.zone} ({kinds}; {meaning})", kind=series[-1].kind)

    @property
    def extremes(self) -> tuple[int, int]:
        """The lowest and the highest intensity; raises ValueError when nothing is known."""
        return min(self.by_slot.values()), max(self.by_slot.values())


def _basis(basis: str) -> str:
    return "basis not stated" if basis == "unknown" else basis.replace("_", "-")


def actual_intensities(
    providers: Sequence[tuple[IntensityProvider, Zone]], window: Window
) -> tuple[SlotIntensities | None, tuple[str, ...]]:
    """Return what the first source that knows the window says of it, and why the ones before it were not used.

    Args:
        providers: accounting sources with their name of the zone, best first; they may use the network.
        window: a time in the past, whole half hours.
    """
    problems: list[str] = []
    for provider, zone in providers:
        pieces: list[IntensitySeries] = []
        start = window.start
        try:
            while start < window.end:
                stop = min(window.end, start + _CHUNK)
                piece = provider.fetch(zone, Window(start=start, end=stop))
                if piece.zone != zone or piece.convention != provider.convention:
                    raise IntensityUnavailable(f"{provider.name} answered for {piece.zone} instead of {zone}.")
                pieces.append(piece)
                start = stop
        except CaggError as error:
            problems.append(f"{provider.name}: {error}")
            continue
        found = SlotIntensities.from_series(pieces, window)
        if found.by_slot:
            return found, tuple(problems)
        problems.append(f"{provider.name}: knows nothing of {window}")
    return None, tuple(problems)


def typical_intensities(
    zone: Zone, window: Window, *, clock: Clock, more: Sequence[ZoneEntry] = ()
) -> SlotIntensities | None:
    """Return the climatology of the zone's area over a window; None when there is none of this area."""
    own = equivalent_zone(zone, ClimatologyProvider.name, more=more)
    if own is None:
        return None
    provider = ClimatologyProvider(clock=clock)
    if not provider.knows(own):
        return None
    pieces = []
    start = window.start.astimezone(UTC)
    while start < window.end:
        stop = min(window.end, start + _MOST_TYPICAL)
        pieces.append(provider.fetch(own, Window(start=start, end=stop)))
        start = stop
    return SlotIntensities.from_series(pieces, window)


def whole_slots(start: datetime, end: datetime) -> Window:
    """Return the shortest window of whole half hours that holds both instants."""
    first = to_epoch_ms(start) // SLOT_MS
    last = max(first + 1, -(-to_epoch_ms(end, up=True) // SLOT_MS))
    return Window(start=from_epoch_ms(first * SLOT_MS), end=from_epoch_ms(last * SLOT_MS))
