"""A second opinion on the host's energy that is noted and never changes a reading."""

from __future__ import annotations

from cagg.energy.sources.codecarbon import CodeCarbon
from cagg.errors import ConfigurationError, MeterUnavailable, MissingExtra
from cagg.ports import Clock
from cagg.quantities import MILLIJOULES_PER_KWH, Energy

__all__ = ["CrossCheck"]


class CrossCheck:
    """CodeCarbon's figure for the whole host, beside ours.

    Args:
        clock: the meter's clock.
        country_iso3: country that CodeCarbon insists on.
    """

    def __init__(self, *, clock: Clock, country_iso3: str | None) -> None:
        self._clock = clock
        self._country_iso3 = country_iso3

    def begin(self) -> int | str:
        """Return CodeCarbon's cumulative millijoules, or why there are none."""
        try:
            tracker = CodeCarbon.shared(country_iso3=self._country_iso3, clock=self._clock)
            return round(tracker.energies_kwh()["energy_consumed"] * MILLIJOULES_PER_KWH)
        except (MeterUnavailable, MissingExtra, ConfigurationError) as error:
            return str(error)
        except KeyError:
            return "codecarbon gave no total."

    def end(self, begun: int | str, host_total: Energy | None) -> str:
        """Return the note: both figures for the same interval, or why there is no second one."""
        ended = self.begin() if isinstance(begun, int) else begun
        if isinstance(begun, str) or isinstance(ended, str):
            return f"cross-check by codecarbon failed: {ended}"
        theirs = Energy(millijoules=max(0, ended - begun))
        ours = "nothing" if host_total is None else str(host_total)
        return f"cross-check of the whole host: codecarbon says {theirs}, this meter {ours}"
