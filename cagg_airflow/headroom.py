"""Waiting for headroom of a budget: what a budget sensor asks, once from a worker or again and again in a trigger."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cagg.errors import StoreUnavailable
from cagg.windows import parse_duration
from cagg_airflow import waiting
from cagg_airflow.sharing import shared
from cagg_airflow.watching import DEADLINE, DUE, Moment

if TYPE_CHECKING:
    from cagg.composition import Components
    from cagg.steps.room import Need, Room

__all__ = ["latest_poll", "need_of", "room_once", "watch_budget"]

_POLL: Final = timedelta(minutes=1)


def latest_poll(moment: Moment, max_wait: str | None, longest: timedelta) -> datetime:
    """Return the last instant of a wait for headroom; raises InvalidInput for a max_wait that is no duration."""
    wait = parse_duration(max_wait, "max_wait") if max_wait else longest
    return moment.asked_at + min(wait, longest)


def need_of(parts: Components, *, budget: str, amount: str, zone: str | None, until: datetime) -> Need:
    """Read and price what a budget sensor waits for; raises InvalidInput for what cannot be used."""
    from cagg.steps.room import price_need

    return price_need(parts, path=budget, amount=amount, zone=zone or None, until=until)


def _room_event(need: Need, room: Room, status: str) -> dict[str, Any]:
    verb = "There is room" if status == DUE else "The time is over and there is no room"
    return {
        "status": status,
        "budget": need.path,
        "energy_millijoules": need.energy.millijoules,
        "carbon_micrograms": None if need.carbon is None else need.carbon.micrograms,
        "basis": need.basis,
        "budgets": room.as_values(),
        "message": f"{verb} in {need.path}: {room.describe()}",
    }


def room_once(parts: Components, need: Need, latest: datetime) -> dict[str, Any] | None:
    """Look at the budgets now, from a worker; return the event if the wait is over.

    Raises:
        BudgetUnknown: nobody created the path.
        StoreUnavailable: the store cannot be read.
    """
    from cagg.steps.room import budgets_now, room_for

    room = room_for(need, budgets_now(parts), pue_ppm=parts.settings.pue_ppm)
    if not room.lacking:
        return _room_event(need, room, DUE)
    return _room_event(need, room, DEADLINE) if parts.clock.now() >= latest else None


async def watch_budget(parts: Components, need: Need, latest: datetime) -> dict[str, Any]:
    """Wait for headroom, or until the time is over; return the event. A store that is down is asked again.

    Raises:
        BudgetUnknown: nobody created the path.
    """
    from cagg.steps.room import room_for

    room: Room | None = None
    why = ""
    while True:
        now = waiting.clock().now()
        try:
            room = room_for(need, await shared().standing(parts), pue_ppm=parts.settings.pue_ppm)
            why = ""
        except StoreUnavailable as problem:
            room, why = None, str(problem)
        if room is not None and not room.lacking:
            return _room_event(need, room, DUE)
        if now >= latest:
            if room is None:
                return {"status": DEADLINE, "budget": need.path, "message": f"Nobody knows what is left: {why}"}
            return _room_event(need, room, DEADLINE)
        # at whole minutes, so that all sensors of a triggerer look together and share one reading
        wake = min(next_poll(now), latest)
        if room is not None and room.changes_at is not None and room.changes_at > now:
            wake = min(wake, room.changes_at)
        await waiting.sleep_until(wake)


def next_poll(now: datetime) -> datetime:
    """Return the next whole minute."""
    return now - timedelta(seconds=now.second, microseconds=now.microsecond) + _POLL
