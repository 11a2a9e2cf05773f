"""An admitted run under the meter: beats while it runs, settles when it ends, however it ends."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from contextvars import ContextVar, Token
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cagg.artefacts import Artefacts
from cagg.budget import reservations
from cagg.composition import Components
from cagg.errors import CaggError, InvalidInput, MeterUnavailable, ReservationConflict, StoreUnavailable
from cagg.records import Reading
from cagg.request import Kind, RequestIdentity
from cagg.steps.provenance import Conclusion
from cagg.steps.settling import RunSummary, Settler
from cagg.verdict import Decision
from cagg.windows import Window

if TYPE_CHECKING:
    from datetime import datetime

    from cagg.energy.meter import MeterWindow

__all__ = ["ENCLOSING_VARIABLE", "GatedRun", "RunSummary", "current_run", "enclosing_run"]

logger = logging.getLogger("cagg")

ENCLOSING_VARIABLE = "CAGG_ENCLOSING_REQUEST"
"""Environment variable in which ``cagg run`` tells the processes it starts whose reservation they are inside of."""

_SHORTEST = timedelta(microseconds=1)

_CURRENT: ContextVar[GatedRun | None] = ContextVar("cagg_current_run", default=None)
_MAIN_THREAD_RUNS: list[GatedRun] = []


def enclosing_run(identity: RequestIdentity) -> GatedRun | None:
    """Return the admitted run of this process that a request is inside of; None outside of any.

    Code on another thread that has no copy of the context is inside the run that the main thread has open only if
    both belong to the same run of the engine.
    """
    run = _CURRENT.get()
    if run is None and threading.current_thread() is not threading.main_thread():
        for candidate in _MAIN_THREAD_RUNS:
            other = candidate.decision.request.identity
            if (other.host, other.root_run_id) == (identity.host, identity.root_run_id):
                return candidate
    return run if run is not None and run.in_this_process else None


def current_run() -> GatedRun | None:
    """Return the gated run that this code is inside of, the innermost; None outside of any.

    Works in the body of a gated Prefect flow or task and of a gated Airflow task as in a ``with cagg.gate(...)`` block.
    A thread that the work starts itself is inside only if it runs in a copy of the context
    (``contextvars.copy_context().run``); a child process is never inside of it.
    """
    run = _CURRENT.get()
    return run if run is not None and run.in_this_process else None


class GatedRun:
    """Context manager around the work of one admitted request; made by ``Gate.run``.

    Attributes:
        decision: the admission.
        summary: what it came to; None until the block has ended, and with metering off.
    """

    def __init__(self, components: Components, decision: Decision) -> None:
        self.decision = decision
        self.summary: RunSummary | None = None
        self._components = components
        self._token: Token[GatedRun | None] | None = None
        self._window: MeterWindow | None = None
        self._unmetered = ""
        self._started_at: datetime | None = None
        self._pid = 0
        self._ended = False
        self._last_beat_ns = 0
        self._fenced = ""
        self._artefacts = Artefacts()
        self._conclusion: Conclusion | None = None

    @property
    def key(self) -> str:
        """Request key of the outermost gate around the work, this one or the one that encloses it."""
        return self.decision.outer_key or self.decision.request.identity.key

    @property
    def in_this_process(self) -> bool:
        """False in a child that was forked while the run was open: the run stays the parent's."""
        return self._pid == os.getpid()

    @property
    def reading(self) -> Reading | None:
        """The finished reading; None before the end."""
        return self.summary.reading if self.summary else None

    # ---- what the work says about itself ------------------------------------------------------------------------

    def add_input(self, name: str, value: str | os.PathLike[str] | bytes, *, role: str = "") -> str | None:
        """Record what the work reads, by name and digest, in its measurement; returns the digest.

        Args:
            name: what people call it, for example ``"holdout"``; no path, no secret, no personal name.
            value: a file, a folder or bytes, of which the digest is taken now, or a digest such as ``"sha256:…"``.
                Neither content nor path is recorded. See cagg.artefacts for the formats.
            role: ``dataset``, ``model``, ``code``, ``subject`` (what a validation checks) …; empty = not said.

        What cannot be read never fails the work: the digest is None, and the measurement's notes say why.

        Raises:
            InvalidInput: the arguments are of another type, the name stands for another digest already, or the run
                has ended.
        """
        self._check_open(name)
        return self._artefacts.add_input(name, value, role)

    def add_output(self, name: str, value: str | os.PathLike[str] | bytes, *, role: str = "") -> str | None:
        """Record what the work made. Arguments, result and errors as of :meth:`add_input`."""
        self._check_open(name)
        return self._artefacts.add_output(name, value, role)

    def conclude(self, outcome: str, *, validator: str | None = None, tier: str | None = None) -> None:
        """Say what a validation came to, where ending or raising does not say it; the last word stands.

        Args:
            outcome: ``passed``, ``failed``, ``inconclusive`` or ``not_validated``. Unsaid, a validation passed when its
                block ended, failed when it raised, and is inconclusive when it was interrupted.
            validator: which check; None = the task's name.
            tier: how thoroughly, for example ``"quick"``; None = it has no tiers.

        Raises:
            InvalidInput: the outcome is none of these, the gate's kind is not validation, or the run has ended.
        """
        self._check_open("the conclusion")
        if self.decision.request.options.kind != Kind.VALIDATION:
            raise InvalidInput("only a validation can be concluded; open its gate with kind='validation'.")
        self._conclusion = Conclusion.of(outcome, validator, tier)

    def _check_open(self, name: object) -> None:
        if self._ended:
            raise InvalidInput(
                f"the run of {self._name} has ended, so {name!r} is too late; say it inside of the block."
            )
        if not self.in_this_process:
            logger.warning("cagg: %r was said in a child process of %s and is not recorded", name, self._name)

    @property
    def _name(self) -> str:
        return self.decision.request.identity.task_key

    def __enter__(self) -> Self:
        self._pid = os.getpid()
        self._started_at = self._components.clock.now()
        self._last_beat_ns = self._components.clock.monotonic_ns()
        if self.decision.metered:
            self._open_window()
        self._token = _CURRENT.set(self)
        if threading.current_thread() is threading.main_thread():
            _MAIN_THREAD_RUNS.append(self)
        self._components.store.rest()
        return self

    def _open_window(self) -> None:
        """Begin to meter. What cannot be measured becomes a reading of null with the reason, never a failed task."""
        outer = enclosing_run(self.decision.request.identity)
        try:
            self._window = self._components.meter().open(
                self._name, parent=outer._window if outer is not None else None, on_beat=self._beat
            )
        except MeterUnavailable:
            raise  # only with strict metering
        except (CaggError, OSError) as problem:
            self._unmetered = f"the meter could not start: {problem}"
            logger.warning("cagg: %s runs unmetered, %s", self._name, self._unmetered)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.in_this_process:
            return
        self._ended = True
        try:
            if self.decision.metered:
                settler = Settler(
                    self._components, self.decision, artefacts=self._artefacts, conclusion=self._conclusion
                )
                self.summary = settler.settle(self._close(), _outcome(kind))
        finally:
            if self in _MAIN_THREAD_RUNS:
                _MAIN_THREAD_RUNS.remove(self)
            if self._token is not None:
                with suppress(ValueError):  # an asynchronous host may leave the block in another context
                    _CURRENT.reset(self._token)

    def _close(self) -> Reading:
        if self._window is not None:
            return self._window.close()
        now = self._components.clock.now()
        start = self._started_at or now
        return Reading(
            window=Window(start=min(start, now - _SHORTEST), end=now),
            energy=None,
            low=None,
            high=None,
            grade=None,
            components=(),
            slices=(),
            host_total=None,
            other=None,
            unowned_idle=None,
            siblings=None,
            cpu_milliseconds=None,
            gpu_milliseconds=None,
            reason=self._unmetered or "the run was not metered",
        )

    def _beat(self, window: MeterWindow) -> None:
        """Report to the reservation's lease; called by the meter's heartbeat thread."""
        clock, settings = self._components.clock, self._components.settings
        now_ns = clock.monotonic_ns()
        if self.decision.lease_epoch is None or self._fenced or not self.in_this_process:
            return
        if now_ns - self._last_beat_ns < settings.beat.total_seconds() * 1e9:
            return
        self._last_beat_ns = now_ns
        progress = window.progress()
        try:
            with self._components.store.transaction() as tx:
                reservations.beat(
                    tx,
                    self.decision.request.identity.key,
                    self.decision.lease_epoch,
                    used_energy=progress.energy,
                    power_milliwatts=progress.power_milliwatts,
                    lease_seconds=int(settings.lease.total_seconds()),
                )
        except StoreUnavailable as problem:
            logger.warning("cagg could not extend the lease of %s: %s", self._name, problem)
        except ReservationConflict as problem:
            self._fenced = str(problem)
            logger.warning("cagg: the reservation of %s is gone: %s", self._name, problem)
        self._components.store.rest()


def _outcome(kind: type[BaseException] | None) -> str:
    if kind is None:
        return "completed"
    return "failed" if issubclass(kind, Exception) else "interrupted"
