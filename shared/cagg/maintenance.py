"""``cagg maintain``: replay, expire, give entries their places, reconcile with the hosts, fetch forecasts, sign.

One pass is safe to repeat. Between the passes of ``--every`` entries go on getting their places
(:func:`between_passes`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import entry_points
from importlib.util import find_spec

from cagg.budget import reservations
from cagg.composition import Components
from cagg.errors import CaggError, LedgerDamaged
from cagg.grid.chain import GridQuality
from cagg.ledger.entry import read_body
from cagg.ledger.lineage import entries_of_all_logs
from cagg.ports import HostRuns, RunState
from cagg.records import EntryKind, Reservation, ReservationState
from cagg.steps.expiring import book_expired
from cagg.steps.rolling import tend_logs
from cagg.steps.sequencing import LONGEST_LAG, Sequencer, lag_of
from cagg.steps.settlements import record_settlement
from cagg.steps.signing import sign_and_publish
from cagg.steps.spooling import replay_spool
from cagg.windows import Window, format_duration

__all__ = ["MaintenanceReport", "between_passes", "load_hosts", "maintain"]

logger = logging.getLogger("cagg")

_FORECAST_REACH = timedelta(hours=48)
_FORECAST_KEPT = timedelta(hours=48)
_DECISIONS_READ = 200
"""How many of the newest decisions are looked at for zones in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceReport:
    """What one pass did.

    Attributes:
        replayed: records brought in from the spool.
        sequenced: entries that got their place in the tree since the last report (inline on SQLite, hence 0 there).
        lag_seconds: how long the slowest of them had waited for it; None when none had to.
        waiting: entries that wait for their place after the pass.
        expired: reservations that had ended and were charged, or released at zero.
        reconciled: waiting reservations whose run the host no longer has.
        forecasts: forecasts fetched.
        signed_size: tree size of the newest checkpoint; None when nothing was signed.
        newly_signed: True when this pass signed it; otherwise there was nothing new to sign.
        problems: what went wrong, one sentence each.
        notes: what went less well than it could, for example a grid source that did not answer: gates fall back then.
    """

    replayed: int
    sequenced: int
    lag_seconds: float | None
    waiting: int
    expired: int
    reconciled: int
    forecasts: int
    signed_size: int | None
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    newly_signed: bool = False


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


def maintain(
    components: Components, *, hosts: Mapping[str, HostRuns] | None = None, sequencer: Sequencer | None = None
) -> MaintenanceReport:
    """Do one pass.

    Args:
        components: where to work.
        hosts: engines to ask about waiting runs; None = those that are installed.
        sequencer: the one that also works between the passes; None = one of this pass's own.

    Raises:
        StoreUnavailable: the store is down; nothing was changed.
    """
    problems: list[str] = []
    notes: list[str] = []
    spooled = replay_spool(components)
    problems.extend(spooled.set_aside)
    with components.store.transaction() as tx:
        expired = len(book_expired(tx, now=tx.now(), limit=1_000, pue_ppm=components.settings.pue_ppm))
    sequencer = Sequencer(components) if sequencer is None else sequencer
    sequencer.drain()
    asked = load_hosts(problems) if hosts is None else hosts
    reconciled = _reconcile(components, asked, notes, keep_up=sequencer.keep_up)
    fetched = _fetch(components, notes, keep_up=sequencer.keep_up)
    notes.extend(tend_logs(components, problems))
    sequencer.drain()
    before = _newest_note(components)
    signed_size = _sign(components, problems)
    newly_signed = signed_size is not None and _newest_note(components) != before
    sequencer.signed()
    waiting = _waiting(components, problems)
    sequenced, lag = sequencer.tally()
    return MaintenanceReport(
        replayed=spooled.replayed,
        sequenced=sequenced,
        lag_seconds=None if lag is None else lag.total_seconds(),
        waiting=waiting,
        expired=expired,
        reconciled=reconciled,
        forecasts=fetched,
        signed_size=signed_size,
        problems=tuple(problems),
        notes=tuple(notes),
        newly_signed=newly_signed,
    )


def between_passes(components: Components, sequencer: Sequencer, *, seconds: float, say: Callable[[str], None]) -> None:
    """Give entries their places as they come, and sign many new ones, until the next pass or the sequencer's stop.

    Args:
        components: where to work.
        sequencer: the one of the passes.
        seconds: how long.
        say: gets a sentence when the store goes down, and when it is back.
    """
    sequencer.run(seconds, sign=lambda: _sign(components, []), say=say)  # the next pass tells why it was refused


def _waiting(components: Components, problems: list[str]) -> int:
    """Return how many entries wait for their place although all were to get one; a long wait is a problem."""
    with components.store.snapshot() as tx:
        lag = lag_of(tx)
    if lag.oldest is not None and lag.oldest > LONGEST_LAG:
        problems.append(
            f"{lag.waiting} entries still wait for their place in the log, the oldest for "
            f"{format_duration(lag.oldest)}; look whether another `cagg maintain` hangs, then run `cagg ledger verify`."
        )
    return lag.waiting


def _reconcile(
    components: Components, hosts: Mapping[str, HostRuns], notes: list[str], *, keep_up: Callable[[], None]
) -> int:
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
        keep_up()
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


def _fetch(components: Components, notes: list[str], *, keep_up: Callable[[], None]) -> int:
    """Fill the shared forecast cache, so that workers without internet can plan; returns how many were fetched."""
    fetched = 0
    for zone_name, why in sorted(_zones(components).items()):
        found: list[str] = []
        fetched += _fetch_zone(components, zone_name, found)
        notes.extend(f"zone {zone_name} ({why}): {text}" for text in found)
        keep_up()
    return fetched


def _zones(components: Components) -> dict[str, str]:
    """Zones worth a forecast, and why: the configured one, and those that gates named lately."""
    configured = components.settings.zone
    zones = {} if configured is None else {configured: "of the settings"}
    with components.store.snapshot() as tx:
        for entry in entries_of_all_logs(tx, kind=EntryKind.DECISION, newest_first=True, limit=_DECISIONS_READ):
            try:
                request = read_body(tx, entry).get("request")
            except LedgerDamaged:
                continue  # `cagg ledger verify` tells that; it does not keep the others' forecasts from being fetched
            named = request.get("zone") if isinstance(request, Mapping) else None
            if isinstance(named, str):
                zones.setdefault(named, f"a gate named it, last on {entry.recorded_at:%Y-%m-%d}")
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


def _newest_note(components: Components) -> str | None:
    """Return the newest checkpoint of the log that grows; None without a readable one."""
    try:
        with components.store.snapshot() as tx:
            last = tx.last_checkpoint()
    except LedgerDamaged:
        return None  # signing tells it
    return None if last is None else last.note


def _sign(components: Components, problems: list[str]) -> int | None:
    """Sign and publish a checkpoint; returns its size, None when nothing was signed."""
    checkpoint = sign_and_publish(components, problems)
    return None if checkpoint is None else checkpoint.size
