"""What all triggers of one triggerer process share: one forecast per zone and vintage, one reading of the budgets.

A thousand sensors of one zone ask its source once: the first starts the look-up, the others wait for its answer, and
whatever was fetched lies in the store's forecast cache for every other process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cagg_airflow import opening, waiting

if TYPE_CHECKING:
    from cagg.composition import Components
    from cagg.grid.chain import GridAnswer
    from cagg.ports import StoredForecast
    from cagg.steps.room import Standing

__all__ = ["Shared", "shared"]

_FORECAST_LASTS: Final = timedelta(seconds=60)
"""How long an answer is handed on without a look at the store, which knows whether a newer vintage is due."""

_STANDING_LASTS: Final = timedelta(seconds=30)
"""Shorter than the sensors' minute, so that each poll reads anew, and once for all of them."""

_OPENED_LASTS: Final = timedelta(seconds=300)
"""How long changed settings may stay unnoticed by triggers that run already."""

_REACH: Final = timedelta(hours=48)


@dataclass(slots=True)
class _Flight:
    """One look-up, under way or done."""

    task: asyncio.Task[Any] = field(init=False)
    found: Any = None
    lasts_until: datetime | None = None

    async def fly(self, lasts: timedelta, look: Callable[[], Any]) -> Any:
        """Look in a thread."""
        self.found = await waiting.in_thread(look)
        self.lasts_until = waiting.clock().now() + lasts
        return self.found

    def serves(self, now: datetime) -> bool:
        """True while it is under way, and as long as its answer lasts. A failure serves only who waited for it."""
        if not self.task.done():
            return True
        if self.task.cancelled() or self.task.exception() is not None:
            return False
        return self.lasts_until is not None and now < self.lasts_until


@dataclass(slots=True)
class Shared:
    """Shared answers of one event loop."""

    _flights: dict[Hashable, _Flight] = field(default_factory=dict)
    _fetched: dict[str, StoredForecast] = field(default_factory=dict)
    _furthest: dict[str, datetime] = field(default_factory=dict)

    async def components(self) -> Components:
        """Return the parts of this process's gate, opened from Airflow's settings.

        Raises:
            ConfigurationError: the settings cannot be read.
        """
        parts: Components = await self._once("components", _OPENED_LASTS, lambda: opening.open_gate().components)
        return parts

    async def forecast(self, parts: Components, zone_name: str, until: datetime) -> GridAnswer:
        """Return what is known of a zone from now to ``until`` at least.

        Raises:
            ZoneUnknown, ConfigurationError: the zone cannot be resolved.
        """
        from cagg.steps.outlook import look_ahead

        # one question for all deadlines: the furthest that anyone wants
        self._furthest[zone_name] = max(until, self._furthest.get(zone_name, until))

        def look() -> tuple[GridAnswer, datetime]:
            known = [self._fetched[zone_name]] if zone_name in self._fetched else []
            reach = max(self._furthest[zone_name], parts.clock.now() + _REACH)
            answer = look_ahead(parts, zone_name, reach, known=known)
            if answer.fetched is not None:
                self._fetched[zone_name] = answer.fetched  # serves on while the store is down
            return answer, reach

        key = ("forecast", id(parts.grid), zone_name)
        while True:
            answer, reach = found = await self._once(key, _FORECAST_LASTS, look)
            if reach >= until:
                return answer  # type: ignore[no-any-return]
            flight = self._flights.get(key)
            if flight is not None and flight.found is found:  # nobody looks further yet
                del self._flights[key]

    async def standing(self, parts: Components) -> Standing:
        """Return where all budgets stand.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        from cagg.steps.room import budgets_now

        found: Standing = await self._once(("budgets", parts.store.url), _STANDING_LASTS, lambda: budgets_now(parts))
        return found

    async def _once(self, key: Hashable, lasts: timedelta, look: Callable[[], Any]) -> Any:
        """Return the answer that is fresh or under way, else look in a thread; an error goes to all who wait for it
        and is not kept."""
        flight = self._flights.get(key)
        if flight is None or not flight.serves(waiting.clock().now()):
            flight = _Flight()
            self._flights[key] = flight
            flight.task = asyncio.create_task(flight.fly(lasts, look))
        return await asyncio.shield(flight.task)  # one trigger that is cancelled must not take it from the others


_of_loop: dict[int, tuple[asyncio.AbstractEventLoop, Shared]] = {}


def shared() -> Shared:
    """Return what the triggers of the running event loop share; a new loop (``dag.test()``) starts afresh."""
    loop = asyncio.get_running_loop()
    known = _of_loop.get(id(loop))
    if known is None or known[0] is not loop:
        for number in [number for number, (other, _) in _of_loop.items() if other.is_closed()]:
            del _of_loop[number]
        known = loop, Shared()
        _of_loop[id(loop)] = known
    return known[1]
