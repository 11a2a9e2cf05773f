"""The meter: what each run in this process used, so that runs, others and idle energy add up to the host's.

Counters are read when a window opens, at each heartbeat and when a window closes; each stretch between two reads is
divided by :mod:`cagg.energy.sharing` and :mod:`cagg.energy.attribution`. Nothing is opened or started before the first
window. Metering never fails a run unless the settings say strict; it takes over no signal and uses no network.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from cagg.clock import SystemClock
from cagg.energy.domain import Domain, Selection
from cagg.energy.hardware import describe_hardware
from cagg.energy.heartbeat import Heartbeat
from cagg.energy.host import HostUsage, SystemUsage
from cagg.energy.options import SOURCE_NAMES, IdlePolicy, MeterSettings
from cagg.energy.reading import make_reading, unknown_reading
from cagg.energy.settling import OpenWindow, Settler
from cagg.energy.sharing import UsageScope, thread_identity
from cagg.energy.windows import MeterWindow, Progress
from cagg.errors import CaggError, ConfigurationError, InvalidInput, MeterUnavailable, MissingExtra
from cagg.ports import Clock, EnergySource
from cagg.records import Reading
from cagg.windows import Window

if TYPE_CHECKING:
    from cagg.energy.crosscheck import CrossCheck
    from cagg.energy.selection import SourceFinder

__all__ = [
    "IdlePolicy",
    "Meter",
    "MeterSettings",
    "MeterWindow",
    "Progress",
    "SourceStatus",
    "UsageScope",
    "describe_hardware",
    "probe",
]

_CLOCK_JUMP = timedelta(seconds=5)
_NO_CODECARBON = 'not installed; run pip install "cagg[codecarbon]" if you want it'


class Meter:
    """Measures runs of this process. Safe from any thread; one per process is enough (:meth:`shared`).

    Args:
        sources: what to read, one per domain; None = choose for this machine when the first window opens.
        clock: time.
        settings: how it works; None = defaults.
        usage: the operating system's figures; None = this machine's.
    """

    _shared: dict[int, Meter] = {}  # noqa: RUF012 - one per process id; setdefault is atomic, and no lock survives a fork

    def __init__(
        self,
        *,
        clock: Clock,
        sources: Sequence[EnergySource] | None = None,
        settings: MeterSettings | None = None,
        usage: HostUsage | None = None,
    ) -> None:
        self._clock = clock
        self._settings = settings or MeterSettings()
        self._given_sources = None if sources is None else tuple(sources)
        self._given_usage = usage
        self._begin()

    @classmethod
    def shared(cls, settings: MeterSettings, clock: Clock) -> Meter:
        """Return this process's meter; a forked child gets its own.

        The first caller's settings stand while a window is open: two meters would claim the same idle energy twice.
        Other settings, or another clock, take effect when none is.
        """
        pid = os.getpid()
        meter = cls._shared.get(pid)
        if meter is not None and (meter.open_windows or (meter._settings == settings and meter._keeps(clock))):
            return meter
        fresh = cls(clock=clock, settings=settings)
        if meter is None:
            for other in [key for key in list(cls._shared) if key != pid]:
                cls._shared.pop(other, None)
            return cls._shared.setdefault(pid, fresh)
        cls._shared[pid] = fresh
        return fresh

    def _keeps(self, clock: Clock) -> bool:
        """True for the clock in use; one SystemClock is as good as another."""
        return self._clock is clock or (isinstance(clock, SystemClock) and isinstance(self._clock, SystemClock))

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._usage = self._given_usage
        self._selection: Selection | None = None
        self._settler: Settler | None = None
        self._hardware: Mapping[str, str] = {}
        self._next_key = 1
        self._heart = Heartbeat(clock=self._clock, beat=self.beat)
        self._check: CrossCheck | None = None
        if self._settings.cross_check is not None:
            from cagg.energy.crosscheck import CrossCheck

            self._check = CrossCheck(clock=self._clock, country_iso3=self._settings.codecarbon_country)

    @property
    def open_windows(self) -> int:
        """How many windows of this process are open."""
        return len(self._settler.windows) if self._settler is not None and self._pid == os.getpid() else 0

    @property
    def heartbeat_seconds(self) -> float:
        """The period in use: the settings', or what the most demanding source needs."""
        needs = [source.longest_interval_seconds for source in self._selection.sources] if self._selection else []
        return min([self._settings.heartbeat_seconds, *needs])

    def open(
        self,
        name: str,
        *,
        scope: UsageScope = UsageScope.AUTO,
        reserved_cpus: int | None = None,
        parent: MeterWindow | None = None,
        on_beat: Callable[[MeterWindow], None] | None = None,
    ) -> MeterWindow:
        """Begin to measure a run.

        Args:
            name: for people; need not be unique.
            scope: what counts as the run's own processor time.
            reserved_cpus: processors held for it, for its part of the idle energy; None = the control group's limit,
                divided among the open runs, or one per run.
            parent: the run it is part of; its energy is then part of the parent's and never added to it. A parent that
                has ended, or belongs to another process, counts as none.
            on_beat: called once per heartbeat from the heartbeat's thread, without the meter's lock. A CaggError is
                noted and the next beat calls again; any other error goes to ``threading.excepthook``, after which
                this window is not called again.

        Raises:
            InvalidInput: ``reserved_cpus`` is not a positive whole number.
            MeterUnavailable: the settings are strict and something cannot be measured.
        """
        if reserved_cpus is not None and (isinstance(reserved_cpus, bool) or reserved_cpus < 1):
            raise InvalidInput(f"reserved_cpus of {name!r} must be a whole number from 1, got {reserved_cpus!r}.")
        if self._pid != os.getpid():
            self._begin()  # we are a forked child: the parent keeps its windows, we start with none
        with self._lock:
            settler, selection = self._prepare()
            if self._settings.strict and (selection.missing or not selection.sources):
                reasons = "; ".join(miss.reason for miss in selection.missing) or "no energy source was found."
                raise MeterUnavailable(f"strict metering is asked for, and something cannot be measured: {reasons}")
            notes = list(selection.notes)
            if settler.windows:
                settler.settle()
            else:
                notes.append(settler.start(scope))
            window = MeterWindow(meter=self, key=self._next_key, name=name, started_at=self._clock.now())
            self._next_key += 1
            state = OpenWindow(
                window=window,
                scope=scope,
                reserved_milli_cpus=None if reserved_cpus is None else reserved_cpus * 1_000,
                parent=None if parent is None else parent.key_in(self),
                thread=thread_identity(),
                on_main_thread=threading.current_thread() is threading.main_thread(),
                thread_reader=settler.usage.thread(),
                start_ns=settler.now_ns,
                account=settler.new_account(),
                on_beat=on_beat,
                check=None if self._check is None else self._check.begin(),
            )
            state.account.notes.update(dict.fromkeys(note for note in notes if note))
            settler.add(state)
            if self._settings.background:
                self._heart.start(self.heartbeat_seconds)
            return window

    def beat(self) -> None:
        """Settle the open windows and call their ``on_beat``: what the heartbeat does once per period."""
        if self._pid != os.getpid() or self._settler is None:
            return
        with self._lock:
            if not self._settler.windows:
                return
            self._settler.settle()
            callers = [state for state in self._settler.windows.values() if state.on_beat is not None]
        for state in callers:
            callback, state.on_beat = state.on_beat, None
            if callback is None:
                continue
            try:
                callback(state.window)
            except CaggError as error:
                with self._lock:
                    state.account.notes[f"a heartbeat was not taken: {error}"] = None
            state.on_beat = callback  # not reached after another error: that window is not called again

    def _prepare(self) -> tuple[Settler, Selection]:
        """Look at the hardware once."""
        if self._settler is None or self._selection is None:
            if self._usage is None:
                self._usage = SystemUsage()
            if self._given_sources is None:
                from cagg.energy.selection import SourceFinder, select_sources  # only where hardware is probed

                finder = SourceFinder(clock=self._clock, usage=self._usage, settings=self._settings)
                self._selection = select_sources(self._settings, finder)
            else:
                self._selection = Selection(sources=self._given_sources, missing=(), notes=())
            self._hardware = describe_hardware()
            idle = self._settings.idle_milliwatts
            cpus = self._usage.cpus
            domains = [
                Domain(source=source, idle_milliwatts=idle.get(source.domain), cpus=cpus)
                for source in self._selection.sources
            ]
            self._settler = Settler(clock=self._clock, usage=self._usage, domains=domains, settings=self._settings)
        return self._settler, self._selection

    def _progress(self, window: MeterWindow) -> Progress:
        with self._lock:
            state = None if self._settler is None else self._settler.windows.get(window.key)
            if self._settler is None or state is None:
                raise InvalidInput(f"the window {window.name!r} is closed; its reading is what close() returned.")
            self._settler.settle()
            return self._settler.progress(state)

    def _close(self, window: MeterWindow) -> Reading:
        with self._lock:
            settler, selection = self._prepare()
            settler.settle()
            state = settler.remove(window.key)
            if not settler.windows:
                self._heart.stop()
        start_ns, started_at = state.start_ns, window.started_at

        def instant(monotonic_ns: int) -> datetime:
            return started_at + timedelta(microseconds=(monotonic_ns - start_ns) // 1_000)

        drift = self._clock.now() - instant(state.end_ns)
        if abs(drift) > _CLOCK_JUMP:
            state.account.notes[
                f"the computer slept or its clock was set by {drift.total_seconds():.0f} s; "
                "times follow the steady clock from the start"
            ] = None
        reading = make_reading(
            account=state.account,
            domains=settler.domains,
            missing=selection.missing,
            start_ns=start_ns,
            end_ns=state.end_ns,
            instant=instant,
            hardware=self._hardware,
        )
        if self._check is None or state.check is None:
            return reading
        return _with_note(reading, self._check.end(state.check, reading.host_total))

    def _check_strict(self, name: str, reading: Reading) -> None:
        lost = [part for part in reading.components if part.energy is None]
        if self._settings.strict and (lost or reading.energy is None):
            reasons = "; ".join(part.reason for part in lost) or reading.reason
            raise MeterUnavailable(f"strict metering is asked for, and {name!r} was not fully measured: {reasons}")

    def _foreign(self, window: MeterWindow) -> Reading | None:
        """A reading for a window that another process opened: that process reports it, this one must not."""
        if self._pid == os.getpid() and self._pid == window.pid:
            return None
        started_at = window.started_at
        end = max(self._clock.now(), started_at + timedelta(microseconds=1))
        return unknown_reading(
            window=Window(start=started_at, end=end),
            reason=f"{window.name!r} was opened by process {window.pid}, which reports it; a forked child must not.",
        )


def _with_note(reading: Reading, note: str) -> Reading:
    return replace(reading, notes=(*reading.notes, note))


class SourceStatus(NamedTuple):
    """Whether one source can be used here.

    Attributes:
        name: the source.
        available: it can be read now.
        reason: what it reads, or what is wrong and the remedy.
    """

    name: str
    available: bool
    reason: str


def probe(settings: MeterSettings, clock: Clock | None = None) -> list[SourceStatus]:
    """Return, for each source, whether it can be used on this machine and what to do if not; starts nothing.

    Args:
        settings: the meter's settings.
        clock: time; None = the computer's.
    """
    from cagg.energy.selection import SourceFinder

    finder = SourceFinder(clock=clock or SystemClock(), usage=SystemUsage(), settings=settings)
    return [_probe_one(name, finder, settings) for name in SOURCE_NAMES]


def _probe_one(name: str, finder: SourceFinder, settings: MeterSettings) -> SourceStatus:
    if name == "codecarbon":
        from importlib.util import find_spec

        if find_spec("codecarbon") is None:
            return SourceStatus(name=name, available=False, reason=_NO_CODECARBON)
        if settings.codecarbon_country is None:
            reason = "set codecarbon_country to a three-letter code, for example 'FRA'"
            return SourceStatus(name=name, available=False, reason=reason)
        return SourceStatus(name=name, available=True, reason="installed")
    from cagg.energy.sources.nvml import driver_present

    if name == "nvml" and not driver_present():
        reason = "no NVIDIA driver on this machine, so there is no GPU to count"
        return SourceStatus(name=name, available=False, reason=reason)
    try:
        sources = finder.find(name)
    except (MeterUnavailable, MissingExtra, ConfigurationError) as error:
        return SourceStatus(name=name, available=False, reason=str(error))
    if not sources:
        reason = "no device is visible to this process (CUDA_VISIBLE_DEVICES)"
        return SourceStatus(name=name, available=False, reason=reason)
    details = [f"{source.domain}: {', '.join(source.describe().values())} (grade {source.grade})" for source in sources]
    return SourceStatus(name=name, available=True, reason="; ".join(details))
