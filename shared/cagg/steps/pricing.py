"""Prices a reading: every slice of the run with the intensity of that slice, from one convention only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cagg.grid.series import slice_energy
from cagg.intensity import IntensitySeries
from cagg.provenance import Convention
from cagg.quantities import PPM, CarbonIntensity, CarbonMass, Energy, ceil_div
from cagg.records import Reading
from cagg.windows import Window

__all__ = ["Priced", "price"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A reading with prices.

    Attributes:
        slices: (window, energy, intensity or None, source), in order; their energies add up to the reading's.
        convention: what the intensities mean; None when no slice is priced.
        carbon: ceil of the sum over all slices; None when a slice has no price.
        reason: why carbon is None; empty otherwise.
    """

    slices: tuple[tuple[Window, Energy, CarbonIntensity | None, str], ...]
    convention: Convention | None
    carbon: CarbonMass | None
    reason: str


def price(reading: Reading, candidates: Sequence[IntensitySeries], *, pue_ppm: int | None, why_none: str) -> Priced:
    """Price a reading with the first series that covers all of it.

    Args:
        reading: measured energy.
        candidates: accounting series, best first; a price is never composed of several of them.
        pue_ppm: power usage effectiveness; None = not applied.
        why_none: what to say when there is no candidate.
    """
    if reading.energy is None:
        return Priced(slices=(), convention=None, carbon=None, reason=reading.reason or "the energy is unknown")
    best: Priced | None = None
    for series in candidates:
        priced = _with(reading, series, pue_ppm)
        if priced.carbon is not None:
            return priced
        best = best or priced
    if best is not None:
        return best
    unpriced = tuple((item.window, item.energy, None, "none") for item in reading.slices)
    return Priced(slices=unpriced, convention=None, carbon=None, reason=why_none)


def _with(reading: Reading, series: IntensitySeries, pue_ppm: int | None) -> Priced:
    source = f"{series.source} {series.kind}"
    slices = tuple(
        (window, energy, intensity, source if intensity is not None else "none")
        for window, energy, intensity in slice_energy(reading.slices, series)
    )
    if any(intensity is None for _, _, intensity, _ in slices):
        missing = next(window for window, _, intensity, _ in slices if intensity is None)
        return Priced(
            slices=slices,
            convention=series.convention,
            carbon=None,
            reason=f"{series.source} has no intensity for {missing}",
        )
    factor = PPM if pue_ppm is None else pue_ppm
    total = sum(energy.millijoules * intensity.milligrams_per_kwh for _, energy, intensity, _ in slices if intensity)
    carbon = CarbonMass(micrograms=ceil_div(total * factor, 3_600_000_000_000))
    return Priced(slices=slices, convention=series.convention, carbon=carbon, reason="")
