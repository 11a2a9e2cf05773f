"""Whether a budget path has room for an amount now, and when that may change. Holds and records nothing.

The same rule as the gate's: enforced budgets from the path up to its root must fit; what observes or warns never does
refuse. A waiter that finds room has no claim on it: the gate that follows holds what it needs, or denies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cagg.budget.headroom import refusals
from cagg.budget.standing import Standing, read_standing
from cagg.budget.tree import format_amount
from cagg.composition import Components
from cagg.errors import InvalidInput
from cagg.quantities import CarbonIntensity, CarbonMass, Energy, Unit, carbon_of
from cagg.records import Headroom
from cagg.request import check_budget_path
from cagg.steps.outlook import look_ahead
from cagg.windows import Window

__all__ = ["Need", "Room", "Standing", "budgets_now", "price_need", "room_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a path must have room for.

    Attributes:
        path: who pays.
        energy: asked of the energy budgets.
        carbon: asked of the carbon budgets; None when the intensity is unknown, then their own price for that counts.
        basis: where the carbon came from, in words.
    """

    path: str
    energy: Energy
    carbon: CarbonMass | None
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where a need stands.

    Attributes:
        lacking: enforced budgets that it does not fit; empty = there is room.
        headrooms: all budgets on the path, root first.
        changes_at: when the first period of a lacking budget ends; None when there is room.
    """

    lacking: tuple[Headroom, ...]
    headrooms: tuple[Headroom, ...]
    changes_at: datetime | None

    def describe(self) -> str:
        """Say in one sentence what there is, or what is missing where."""
        shown: Sequence[Headroom] = self.lacking or self.headrooms
        parts = [
            f"{item.allotment.budget.path} has {format_amount(item.allotment.budget.unit, item.allotment.available)} "
            f"of {item.allotment.budget.unit} left until {item.allotment.window.end:%Y-%m-%d %H:%M}Z"
            + ("" if item.amount is None else f" for {format_amount(item.allotment.budget.unit, item.amount)}")
            for item in shown
        ]
        return "; ".join(parts) + "."

    def as_values(self) -> list[Mapping[str, str | int | None]]:
        """Return the budgets as plain values; amounts in the unit's integers."""
        return [
            {
                "path": item.allotment.budget.path,
                "unit": str(item.allotment.budget.unit),
                "period": str(item.allotment.budget.period),
                "mode": str(item.allotment.budget.mode),
                "available": item.allotment.available,
                "asked": item.amount,
            }
            for item in self.headrooms
        ]


def price_need(components: Components, *, path: str, amount: str, zone: str | None, until: datetime) -> Need:
    """Read what is needed and price it as a hold would be priced.

    Args:
        components: whose grid and settings price energy.
        path: who pays.
        amount: energy (``"1.5 kWh"``), which carbon budgets count at the planning intensity, or carbon (``"200 g"``),
            which energy budgets do not count.
        zone: None = the settings' zone.
        until: how long the wait may take; the price is cautious over that time.

    Raises:
        InvalidInput: the path or the amount cannot be used, or the zone is unknown.
    """
    check_budget_path(path)
    try:
        energy = Energy.parse(amount)
    except InvalidInput:
        try:
            carbon = CarbonMass.parse(amount)
        except InvalidInput:
            raise InvalidInput(f"amount {amount!r} is neither energy nor carbon; write '1.5 kWh' or '200 g'.") from None
        return Need(path=path, energy=Energy.ZERO, carbon=carbon, basis="stated")
    zone_name = zone or components.settings.zone
    now = components.clock.now()
    window = Window(start=now, end=max(until, now + timedelta(hours=1)))
    price, basis = components.grid.planning(zone_name, window, None)
    if price is None and zone_name is not None:
        series = look_ahead(components, zone_name, window.end).series
        price, basis = components.grid.planning(zone_name, window, series)
    mass = None if price is None else carbon_of(energy, CarbonIntensity(milligrams_per_kwh=price))
    return Need(path=path, energy=energy, carbon=mass, basis=basis)


def budgets_now(components: Components) -> Standing:
    """Read where every budget stands, in one snapshot.

    Raises:
        StoreUnavailable: the store cannot be read.
    """
    with components.store.snapshot() as tx:
        return read_standing(tx)


def room_for(need: Need, standing: Standing, *, pue_ppm: int | None) -> Room:
    """Compare a need with the budgets.

    Raises:
        BudgetUnknown: nobody created the path.
    """
    found = standing.headroom(
        need.path,
        {Unit.CARBON: None if need.carbon is None else need.carbon.micrograms, Unit.ENERGY: need.energy.millijoules},
        need.energy,
        pue_ppm=pue_ppm,
    )
    lacking = refusals(found)
    return Room(
        lacking=lacking,
        headrooms=found,
        changes_at=min((item.allotment.window.end for item in lacking), default=None),
    )
