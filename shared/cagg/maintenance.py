"""``cagg maintain``: replay, expire, reconcile with the hosts, fetch forecasts, sign. One pass is safe to repeat."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import entry_points
from importlib.util import find_spec

from cagg.budget import reservations
from cagg.composition import Components
from cagg.errors import CaggError, ConfigurationError, LedgerDamaged, SigningRefused
from cagg.grid.chain import GridQuality
from cagg.ledger.checkpoint import sign_checkpoint, signer_for
from cagg.ledger.entry import read_body
from cagg.ledger.sequencer import sequence
from cagg.ports import HostRuns, RunState
from cagg.records import EntryKind, Reservation, ReservationState
from cagg.steps.expiring import book_expired
from cagg.steps.settlements import record_settlement
from cagg.steps.spooling import replay_spool
from cagg.windows import Window

__all__ = ["MaintenanceReport", "load_hosts", "maintain"]

logger = logging.getLogger("cagg")

_FORECAST_REACH = timedelta(hours=48)
_FORECAST_KEPT = timedelta(hours=48)
_SEQUENCED_AT_ONCE = 4_096
_DECISIONS_READ = 200
"""How many of the newest decisions are looked at for zones in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceReport:
    """What one pass did.

    Attributes:
        replayed: records brought in from the spool.
        sequenced: entries that got their place in the tree (inline on SQLite, hence 0 there).
        expired: reservations that had ended and were charged, or released at zero.
        reconciled: waiting reservations whose run the host no longer has.
        forecasts: forecasts fetched.
        signed_size: tree size of the checkpoint; None when nothing was signed.
        problems: what went wrong, one sentence each.
        notes: what went less well than it could, for example a grid source that did not answer: gates fall back then.
    """

    replayed: int
    sequenced: int
    expired: int
    reconciled: int
    forecasts: int
    signed_size: int | None
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def load_hosts(problems: list[str] | None = None) -> Mapping[str, HostRuns]:
    """Return the engines whose adapters are installed, by name.

    Args:
        problems: gets a sentence for each engine that is installed and whose adapter does not load; None = not wanted.
    """
    hosts: dict[str, HostRuns] = {}
    for point in entry_points(group="cagg.hosts"):
        try:
            hosts[point.name] = point.load()()
        except (ImportError, AttributeError) as error:
            if find_spec(point.name) is not None and problems is not None:
                problems.append(f"{point.name} is installed and its adapter does not load ({error}); reinstall cagg.")
    return hosts


def maintain(components: Components, *, hosts: Mapping[str, HostRuns] | None = None) -> MaintenanceReport:
    """Do one pass.

    Args:
        components: where to work.
        hosts: engines to ask about waiting runs; None = those that are installed.

    Raises:
        StoreUnavailable: the store is down; nothing was changed.
    """
    problems: list[str] = []
    notes: list[str] = []
    spooled = replay_spool(components)
    problems.extend(spooled.set_aside)
    with components.store.transaction() as tx:
        expired = len(book_expired(tx, now=tx.now(), limit=1_000, pue_ppm=components.settings.pue_ppm))
    sequenced = _sequence(components)
    reconciled = _reconcile(components, load_hosts(problems) if hosts is None else hosts, notes)
    fetched = _fetch(components, notes)
    return MaintenanceReport(
        replayed=spooled.replayed,
        sequenced=sequenced,
        expired=expired,
        reconciled=reconciled,
        forecasts=fetched,
        signed_size=_sign(components, problems),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _sequence(components: Components) -> int:
    """Give all waiting entries their places, batch by batch, so that no transaction gets long."""
    total = 0
    while True:
        with components.store.transaction() as tx:
            done = sequence(tx, _SEQUENCED_AT_ONCE)
        total += done
        if done < _SEQUENCED_AT_ONCE:
            return total


def _reconcile(components: Components, hosts: Mapping[str, HostRuns], notes: list[str]) -> int:
    """Release waiting reservations whose run was deleted or ended by hand. The hosts are asked outside of a lock.

    Meanwhile the same request may have been asked again, by a run that was started anew: what that holds is not what
    the host was asked about, and stays.
    """
    with components.store.snapshot() as tx:
        waiting = [item for item in tx.reservations(open_only=True) if item.state is ReservationState.WAITING]
    over: list[Reservation] = []
    silent: Counter[str] = Counter()
    for item in waiting:
        host = hosts.get(item.host)
        state = None if host is None else host.run_state(item.root_run_id, item.run_reference)
        if state in (RunState.GONE, RunState.ENDED):
            over.append(item)
        elif state is RunState.UNKNOWN:
            silent[item.host] += 1
    notes.extend(
        f"could not ask {name} about {count} waiting runs; their holds lapse at deadline + 15 min; check its address "
        "and credentials"
        for name, count in sorted(silent.items())
    )
    released = 0
    for judged in over:
        with components.store.transaction() as tx:
            now_known = tx.reservation(judged.request_key)
            if now_known is None or not _is_judged(now_known, judged):
                continue
            record_settlement(tx, now_known, reservations.release(tx, judged.request_key), None)
            released += 1
    return released


def _is_judged(now_known: Reservation, judged: Reservation) -> bool:
    """True when the reservation still waits for the very run, and since the very ask, that the host was asked about."""
    return (
        now_known.state is ReservationState.WAITING
        and now_known.run_reference == judged.run_reference
        and now_known.asks == judged.asks
    )


def _fetch(components: Components, notes: list[str]) -> int:
    """Fill the shared forecast cache, so that workers without internet can plan; returns how many were fetched."""
    return sum(_fetch_zone(components, zone_name, notes) for zone_name in sorted(_zones(components)))


def _zones(components: Components) -> set[str]:
    """Zones worth a forecast: the configured one, and those that gates named lately."""
    zones = {components.settings.zone} if components.settings.zone is not None else set()
    with components.store.snapshot() as tx:
        for entry in tx.entries(kind=EntryKind.DECISION, newest_first=True, limit=_DECISIONS_READ):
            try:
                named = (read_body(tx, entry).get("request") or {}).get("zone")
            except LedgerDamaged:
                continue  # `cagg ledger verify` tells that; it does not keep the others' forecasts from being fetched
            if named is not None:
                zones.add(named)
    return zones


def _fetch_zone(components: Components, zone_name: str, notes: list[str]) -> int:
    now = components.clock.now()
    try:
        with components.store.snapshot() as tx:
            cached = [
                row
                for provider, zone in components.grid.cache_keys(zone_name)
                for row in tx.forecasts(provider, zone, now - timedelta(hours=24))
            ]
        answer = components.grid.forecast(zone_name, Window(start=now, end=now + _FORECAST_REACH), cached)
    except CaggError as error:
        notes.append(str(error))
        return 0
    live = answer.quality in (GridQuality.LIVE, GridQuality.CACHED) or not components.grid.cache_keys(zone_name)
    notes.extend(() if live else answer.steps)  # a cache that never fills must not look healthy
    past = None if live else components.grid.past_day(zone_name, cached)  # readings are still to be priced
    fetched = [row for row in (answer.fetched, past) if row is not None]
    with components.store.transaction() as tx:
        for row in fetched:
            tx.put_forecast(row)
        tx.drop_forecasts(now - _FORECAST_KEPT)
    return len(fetched)


def _sign(components: Components, problems: list[str]) -> int | None:
    """Sign a checkpoint with the key in ``home/keys``, made at the first pass."""
    try:
        with components.store.snapshot() as tx:
            if tx.tree_size() == 0:
                return None
            signer = signer_for(tx, components.settings.home / "keys")
        with components.store.transaction() as tx:
            return sign_checkpoint(tx, signer).size
    except (SigningRefused, ConfigurationError) as error:
        problems.append(str(error))
        return None
