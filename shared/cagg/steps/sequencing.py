"""Gives waiting entries their places while ``cagg maintain`` runs: at each pass, and all the time between the passes.

Where many machines write (PostgreSQL) an entry waits in a queue until a sequencer gives it its place in the tree.
Nobody but ``maintain`` does that: a process that appends would make its caller wait for others' entries. Several may
run: the store lets one at a time do it, the others find nothing to do. Entries are taken from the queue, never by ids
above the last one seen. In a file each append does it for itself, and there is nothing to do here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from cagg.composition import Components
from cagg.errors import CaggError, LedgerDamaged
from cagg.ledger.sequencer import sequence
from cagg.ports import Transaction

__all__ = ["LONGEST_LAG", "Lag", "Sequencer", "lag_of"]

LONGEST_LAG = timedelta(minutes=1)
"""What still waits that long after a pass was passed over: something keeps the sequencer from it. Own choice: many
times what a tick takes."""

_AT_ONCE = 4_096
"""Entries that one transaction places: some tenths of a second, so that a stop or another sequencer waits no longer."""

_SIGNED_AFTER = 1_000
"""New entries after which the tree is signed although no pass is due."""

_SIGNED_EVERY_SECONDS = 10.0
"""... but not more often: each checkpoint is also published to places that may be slow, and is kept for ever."""

_TICK_SECONDS = 0.25
_LONGEST_TICK_SECONDS = 1.0
"""While nothing comes the queue is looked at less and less often, down to once a second: the first entry after a quiet
hour then waits no longer than that."""

_LONGEST_PAUSE_SECONDS = 30.0
"""While the store is down it is tried less and less often, down to that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far the sequencer is behind.

    Attributes:
        waiting: entries without a place.
        oldest: how long the one that waits longest has waited; None when none waits.
    """

    waiting: int
    oldest: timedelta | None


def lag_of(tx: Transaction) -> Lag:
    """Return what waits for its place now."""
    oldest = _longest_wait(tx)
    return Lag(waiting=0 if oldest is None else tx.queued(), oldest=oldest)


def _longest_wait(tx: Transaction) -> timedelta | None:
    """Return how long the entry that waits longest has waited; None when none waits."""
    try:
        since = tx.oldest_queued_at()
    except LedgerDamaged:  # whoever may queue may write any time; that must keep nobody's entry from its place
        return timedelta(0)
    return None if since is None else max(timedelta(0), tx.now() - since)


class Sequencer:
    """Places entries, and remembers what it did until it is asked.

    Args:
        components: where to work.
        stop: set from outside when the process is to end: no further batch is begun then; None = never.
    """

    def __init__(self, components: Components, *, stop: threading.Event | None = None) -> None:
        self._components = components
        self._stop = threading.Event() if stop is None else stop
        self._placed = 0
        self._unsigned = 0
        self._worst: timedelta | None = None
        self._inline = False
        self._looked_ns = 0
        self._signed_ns: int | None = None

    def drain(self) -> None:
        """Place all that waits, batch by batch, so that no transaction gets long.

        Raises:
            StoreUnavailable: the store is down; whole batches were kept.
            LedgerDamaged: stored hashes that a tile needs are missing.
        """
        while self._step() == _AT_ONCE and not self._stop.is_set():
            pass

    def keep_up(self) -> None:
        """Place all that waits, unless that was done a moment ago: for a pass that asks others and may be slow.

        Raises:
            StoreUnavailable, LedgerDamaged: as :meth:`drain`.
        """
        if self._components.clock.monotonic_ns() - self._looked_ns >= _TICK_SECONDS * 1e9:
            self.drain()

    def tally(self) -> tuple[int, timedelta | None]:
        """Return how many entries were placed since this was asked last, and how long the slowest of them had waited
        (None when none was found waiting)."""
        placed, worst = self._placed, self._worst
        self._placed, self._worst = 0, None
        return placed, worst

    def run(self, seconds: float, *, sign: Callable[[], object], say: Callable[[str], None]) -> None:
        """Place entries as they come, for so long or until the stop is set.

        A store that is down is said once, tried less and less often, and its return is said once.

        Args:
            seconds: how long.
            sign: signs the tree; called after every 1 000 new entries, at most every 10 s.
            say: gets the sentences.
        """
        clock = self._components.clock
        end_ns = clock.monotonic_ns() + round(seconds * 1e9)
        pause, trouble = _TICK_SECONDS, ""
        while not self._stop.is_set():
            left = (end_ns - clock.monotonic_ns()) / 1e9
            if left <= 0 or clock.wait(self._stop, left if self._inline else min(pause, left)):
                return
            try:
                placed = self._step()
                if self._unsigned >= _SIGNED_AFTER and self._may_sign():
                    self.signed()
                    sign()
            except CaggError as error:
                if not trouble:
                    say(str(error))
                trouble = str(error)
                pause = min(max(pause, _TICK_SECONDS) * 2, _LONGEST_PAUSE_SECONDS)
                continue
            if trouble:
                trouble = ""
                say("the store answers again; entries get their places.")
            if placed == _AT_ONCE:
                pause = 0.0
            elif placed:
                pause = _TICK_SECONDS
            else:
                pause = min(max(pause, _TICK_SECONDS) * 2, _LONGEST_TICK_SECONDS)

    def signed(self) -> None:
        """Hear that the tree was signed."""
        self._unsigned = 0
        self._signed_ns = self._components.clock.monotonic_ns()

    def _may_sign(self) -> bool:
        now_ns = self._components.clock.monotonic_ns()
        return self._signed_ns is None or now_ns - self._signed_ns >= _SIGNED_EVERY_SECONDS * 1e9

    def _step(self) -> int:
        """Place one batch; returns how many. Only looks, without a lock, while nothing waits."""
        store = self._components.store
        self._looked_ns = self._components.clock.monotonic_ns()
        with store.snapshot() as tx:
            self._inline = tx.sequences_inline
            waited = _longest_wait(tx)
        if waited is None:
            return 0
        with store.transaction() as tx:
            placed = sequence(tx, _AT_ONCE)
        if placed:
            self._placed += placed
            self._unsigned += placed
            self._worst = waited if self._worst is None else max(self._worst, waited)
        return placed
