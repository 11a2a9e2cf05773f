"""What energy costs in carbon while nobody knows the intensity: the one price of holds, settlements and expiries."""

from __future__ import annotations

from cagg.budget._locking import INT64_MAX
from cagg.errors import InvalidInput
from cagg.quantities import PPM, CarbonIntensity, Energy, carbon_of
from cagg.records import Budget, Reservation

__all__ = ["assumed_carbon", "carbon_without_intensity", "check_pue", "price_is_zero"]


def check_pue(pue_ppm: int | None) -> int:
    """Return the power usage effectiveness in parts per million, 1 000 000 for None.

    Raises:
        InvalidInput: it is no whole number of at least 1 000 000; a site cannot use less than its IT equipment.
    """
    if pue_ppm is None:
        return PPM
    if isinstance(pue_ppm, bool) or not isinstance(pue_ppm, int) or not PPM <= pue_ppm <= INT64_MAX:
        raise InvalidInput(f"a power usage effectiveness must be {PPM} ppm (1.0) or more, got {pue_ppm!r}.")
    return pue_ppm


def assumed_carbon(energy: Energy, budget: Budget, *, pue_ppm: int) -> int | None:
    """Return micrograms at the budget's price for unknown intensity, PUE included; None without such a price.

    Raises:
        InvalidInput: the mass is larger than what can be stored.
    """
    price = budget.unknown_intensity_milligrams_per_kwh
    if price is None:
        return None
    return carbon_of(energy, CarbonIntensity(milligrams_per_kwh=price), pue_ppm=pue_ppm).micrograms


def carbon_without_intensity(
    energy: Energy, reservation: Reservation, budget: Budget, *, pue_ppm: int
) -> tuple[int, str] | None:
    """Return micrograms and, in words, at what price: the planning intensity, else the budget's; None without both.

    The planning intensity contains the PUE already; the budget's price is one of grid electricity, so the PUE applies.
    The mass is cut off at 2^63-1, because a charge is recorded in any case.
    """
    planning = reservation.planning_intensity_milligrams_per_kwh
    price = budget.unknown_intensity_milligrams_per_kwh if planning is None else planning
    if price is None:
        return None
    intensity = CarbonIntensity(milligrams_per_kwh=price)
    name = "the budget's price for unknown intensity" if planning is None else "the planning intensity"
    try:
        mass = carbon_of(energy, intensity, pue_ppm=pue_ppm if planning is None else PPM).micrograms
    except InvalidInput:
        mass = INT64_MAX
    return mass, f"carbon at {name} ({intensity})"


def price_is_zero(reservation: Reservation, budget: Budget) -> bool:
    """True when any amount of energy costs nothing, so that the carbon is known to be zero without a measurement."""
    planning = reservation.planning_intensity_milligrams_per_kwh
    return (budget.unknown_intensity_milligrams_per_kwh if planning is None else planning) == 0
