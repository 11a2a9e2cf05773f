"""The price of holds: a cautious intensity, fixed at the first ask, so that the weather alone moves no hold."""

from __future__ import annotations

from collections.abc import Sequence

from cagg.errors import IntensityUnavailable
from cagg.grid._data import CLIMATOLOGY_EDITION
from cagg.grid.providers.climatology import ClimatologyProvider
from cagg.grid.providers.yearly import YearlyProvider
from cagg.grid.series import maximum
from cagg.grid.zones import ZoneEntry, equivalent_zone
from cagg.intensity import IntensitySeries, Zone
from cagg.ports import Clock
from cagg.provenance import IntensityKind
from cagg.quantities import CarbonIntensity
from cagg.windows import Window

__all__ = ["planning_intensity"]


def planning_intensity(
    zone: Zone,
    window: Window,
    forecast: IntensitySeries | None,
    *,
    clock: Clock,
    more: Sequence[ZoneEntry] = (),
) -> tuple[CarbonIntensity | None, str]:
    """Return a price and its basis in words: the first of these that is known.

    1. the 95th percentile of the zone's climatology, the highest among the months and hours of day of the window;
    2. the highest intensity that the forecast has in the window;
    3. twice the yearly average of the country;
    4. (None, "unknown").

    The climatology is used whatever the chain's own convention is: a hold is a bound, and its basis is labelled.

    Args:
        zone: any provider's name of the area.
        window: from the first ask to the deadline, however far; beyond 400 days all months and hours count.
        forecast: steering series; None when there is none.
        clock: time.
        more: zone entries beside the built-in ones.
    """
    climatology = equivalent_zone(zone, ClimatologyProvider.name, more=more)
    if climatology is not None:
        try:
            price = ClimatologyProvider(clock=clock).percentile_95(climatology, window)
        except IntensityUnavailable:
            pass  # a zone that only looks like one of ours
        else:
            return (
                price,
                f"95th percentile of {climatology} {CLIMATOLOGY_EDITION} for the months and hours of the window",
            )
    # a yearly average has no extremes: its maximum would be no cautious price
    if forecast is not None and forecast.kind is not IntensityKind.YEARLY:
        highest = maximum(forecast, window)
        if highest is not None:
            return highest, f"forecast maximum ({forecast.source})"
    yearly = equivalent_zone(zone, YearlyProvider.name, more=more)
    if yearly is not None:
        try:
            average, year = YearlyProvider(clock=clock).average(yearly)
        except IntensityUnavailable:
            pass
        else:
            doubled = CarbonIntensity(milligrams_per_kwh=2 * average.milligrams_per_kwh)
            return doubled, f"twice the yearly average of {yearly} {year}"
    return None, "unknown"
