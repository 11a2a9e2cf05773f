"""Settle one slice: read everything, divide it among the open windows, book it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cagg.energy.account import Account, SliceList
from cagg.energy.attribution import Splitter
from cagg.energy.domain import Domain, DomainSlice
from cagg.energy.host import HostSample, HostUsage
from cagg.energy.options import IdlePolicy, MeterSettings
from cagg.energy.sharing import Claimant, Share, UsageScope, share_usage
from cagg.energy.windows import MeterWindow, Progress
from cagg.ports import Clock, UsageReader
from cagg.provenance import Grade, worst_grade
from cagg.quantities import PPM, Energy

__all__ = ["OpenWindow", "Settler"]

_NS_PER_SECOND = 1_000_000_000
_QUIET_PERCENT = 2


@dataclass(slots=True, kw_only=True)
class OpenWindow:
    """State of one open window; all under the meter's lock.

    Attributes:
        parent: key of the window it is part of; None at the top.
        reserved_milli_cpus: processors held for it, in thousandths; None = the default.
        thread_reader: clock of the opening thread; None where there is none.
        start_ns, end_ns: on the meter's clock; the end is set when it is removed.
        splitters: rounding left over among its children, by domain.
        mark: (ns, millijoules) of the last progress.
        check: where the cross-check stood at the start; None without one.
    """

    window: MeterWindow
    scope: UsageScope
    reserved_milli_cpus: int | None
    parent: int | None
    thread: int
    on_main_thread: bool
    thread_reader: UsageReader | None
    start_ns: int
    account: Account
    on_beat: Callable[[MeterWindow], None] | None
    check: int | str | None
    end_ns: int = 0
    thread_ns: int = 0
    splitters: dict[str, Splitter] = field(default_factory=dict)
    mark: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    """One slice of time: how long it was, and who used the processors and memory in it."""

    elapsed_ns: int
    shares: Mapping[int, Share]
    busy_ns: int | None
    resident_bytes: int
    used_bytes: int


class Settler:
    """The open windows and what is settled among them. Not thread-safe: the meter holds its lock.

    Args:
        clock: time.
        usage: the operating system's figures.
        domains: what is read.
        settings: idle policy and limits.
    """

    def __init__(self, *, clock: Clock, usage: HostUsage, domains: Sequence[Domain], settings: MeterSettings) -> None:
        self.usage = usage
        self.domains = tuple(domains)
        self.windows: dict[int, OpenWindow] = {}
        self.now_ns = clock.monotonic_ns()
        self._clock = clock
        self._settings = settings
        self._host: HostSample | None = None
        self._levels: dict[int | None, list[int]] = {}
        self._lent_ns = 0

    def start(self, scope: UsageScope) -> str:
        """Take everything as it stands now for the base of the first window; returns a note, or nothing."""
        note = self.usage.choose(scope)
        self._host = self.usage.sample()
        self._lent_ns = 0
        self.now_ns = self._clock.monotonic_ns()
        for domain in self.domains:
            domain.start(self._host.pids)
        return note

    def new_account(self) -> Account:
        """An account for a window that opens now."""
        grain_ns = round(self._settings.heartbeat_seconds * _NS_PER_SECOND)
        return Account(slices=SliceList(start_ns=self.now_ns, grain_ns=grain_ns, most=self._settings.most_slices))

    def add(self, state: OpenWindow) -> None:
        """Take a window in; its thread's clock counts from now."""
        state.thread_ns = 0 if state.thread_reader is None else state.thread_reader.cpu_ns()
        if state.parent not in self.windows:
            state.parent = None
        self.windows[state.window.key] = state

    def remove(self, key: int) -> OpenWindow:
        """Let a window go; windows inside it now belong to what it was part of."""
        state = self.windows.pop(key)
        state.end_ns = self.now_ns
        for domain in self.domains:
            domain.splitter.forget(key)
        for other in self.windows.values():
            for splitter in other.splitters.values():
                splitter.forget(key)
            if other.parent == key:
                other.parent = state.parent
        return state

    def progress(self, state: OpenWindow) -> Progress:
        """What a window has used as of the last settlement, and its power since the last progress."""
        energy = state.account.energy
        known = any(account.slices for account in state.account.domains.values())
        then_ns, then_energy = state.mark or (state.start_ns, 0)
        if self.now_ns - then_ns < _NS_PER_SECOND:
            then_ns, then_energy = state.start_ns, 0
        elapsed_ns = self.now_ns - then_ns
        power = (energy - then_energy) * _NS_PER_SECOND // elapsed_ns if elapsed_ns > 0 else 0
        state.mark = (self.now_ns, energy)
        return Progress(energy=Energy(millijoules=energy), power_milliwatts=power, at=self._clock.now(), known=known)

    def settle(self) -> None:
        """Divide what was used since the last settlement."""
        before, host = self._host, self.usage.sample()
        now_ns = self._clock.monotonic_ns()
        elapsed_ns, self.now_ns, self._host = now_ns - self.now_ns, now_ns, host
        if before is None:
            return
        self._levels = {}
        for key, state in self.windows.items():
            self._levels.setdefault(state.parent, []).append(key)
        piece = self._slice(before, host, elapsed_ns)
        for key, share in piece.shares.items():
            self.windows[key].account.cpu_ns += share.usage_ns
        totals = dict.fromkeys(self.windows, 0)
        quiet = self._quiet(piece)
        for domain in self.domains:
            reading = domain.advance(pids=host.pids, quiet=quiet)
            for key, energy in self._book(domain, reading, piece).items():
                totals[key] += energy
        for key, energy in totals.items():
            self.windows[key].account.slices.add(now_ns, energy)

    # ---- who used the processors ----------------------------------------------------------------------------------

    def _slice(self, before: HostSample, host: HostSample, elapsed_ns: int) -> _Slice:
        claimants = {key: self._claimant(key, state) for key, state in self.windows.items()}
        own_ns = self._pool(max(0, host.own_ns - before.own_ns), claimants)
        shares: dict[int, Share] = {}
        self._share_below(None, own_ns, claimants, shares)
        busy_ns = None
        if host.busy_ns is not None and before.busy_ns is not None:
            busy_ns = max(0, host.busy_ns - before.busy_ns)
        return _Slice(
            elapsed_ns=elapsed_ns,
            shares=shares,
            busy_ns=busy_ns,
            resident_bytes=((host.resident_bytes or 0) + (before.resident_bytes or 0)) // 2,
            used_bytes=((host.used_bytes or 0) + (before.used_bytes or 0)) // 2,
        )

    def _pool(self, own_ns: int, claimants: Mapping[int, Claimant]) -> int:
        """What the process used in the slice, not less than its threads' clocks show.

        The clocks are read one after the other, and other threads run in between: they may show time that the process
        clock will show in the next slice only. That much is lent to this slice and taken from the next.
        """
        available_ns = own_ns - self._lent_ns
        by_thread = {claimant.thread: claimant.thread_ns or 0 for claimant in claimants.values()}
        pool_ns = max(0, available_ns, sum(by_thread.values()))
        self._lent_ns = pool_ns - available_ns
        return pool_ns

    def _claimant(self, key: int, state: OpenWindow) -> Claimant:
        used: int | None = None
        if state.thread_reader is not None:
            now = state.thread_reader.cpu_ns()
            used, state.thread_ns = max(0, now - state.thread_ns), now
        return Claimant(
            key=key, scope=state.scope, thread=state.thread, on_main_thread=state.on_main_thread, thread_ns=used
        )

    def _share_below(
        self, parent: int | None, pool_ns: int, claimants: Mapping[int, Claimant], shares: dict[int, Share]
    ) -> None:
        level = [claimants[key] for key in self._children(parent)]
        if not level:
            return
        for key, share in share_usage(pool_ns, level, None if parent is None else claimants[parent]).items():
            shares[key] = share
            self._share_below(key, share.usage_ns, claimants, shares)

    def _children(self, parent: int | None) -> list[int]:
        return self._levels.get(parent, [])

    def _quiet(self, piece: _Slice) -> bool:
        if piece.busy_ns is None or not self.usage.cpus or piece.elapsed_ns <= 0:
            return False
        return piece.busy_ns * 100 < _QUIET_PERCENT * self.usage.cpus * piece.elapsed_ns

    # ---- whose energy it was --------------------------------------------------------------------------------------

    def _book(self, domain: Domain, reading: DomainSlice, piece: _Slice) -> dict[int, int]:
        """Divide one domain's slice and book it; returns the energy by window."""
        name = domain.source.domain
        if reading.gap:
            for state in self.windows.values():
                account = state.account.domain(name)
                account.gap_ns += piece.elapsed_ns
                account.reasons[reading.reason] = None
            return {}
        roots = self._children(None)
        usage, rest, idle, rest_idle = self._weights(domain, reading, piece, roots)
        split = domain.splitter.split(
            dynamic_millijoules=reading.dynamic,
            idle_millijoules=reading.idle,
            usage=usage,
            rest_usage=rest,
            idle_weights=idle,
            rest_idle_weight=rest_idle,
        )
        booked: dict[int, int] = {}
        parts = {key: (split.dynamic[key], split.idle[key]) for key in roots}
        while parts:
            below: dict[int, tuple[int, int]] = {}
            for key, (dynamic, idle_part) in parts.items():
                account = self.windows[key].account.domain(name)
                account.host += reading.dynamic + reading.idle
                account.host_dynamic += reading.dynamic
                account.other += split.other
                account.unowned_idle += split.unowned_idle
                account.measured_ns += piece.elapsed_ns
                account.slices += 1
                account.dynamic += dynamic
                account.idle += idle_part
                self._remark(domain, reading, piece, key, dynamic)
                booked[key] = dynamic + idle_part
                below.update(self._below(domain, reading, piece, key, (dynamic, idle_part)))
            parts = below
        return booked

    def _weights(
        self, domain: Domain, reading: DomainSlice, piece: _Slice, roots: Sequence[int]
    ) -> tuple[dict[int, int], int, dict[int, int], int]:
        """(use by run, use by others, claim on idle by run, claim of nobody)."""
        count = max(1, len(roots))
        if reading.holding is not None:
            held = reading.holding
            usage = dict.fromkeys(roots, held.dynamic_ppm)
            idle = dict.fromkeys(roots, 0 if self._settings.idle_policy is IdlePolicy.NONE else held.idle_ppm)
            return usage, (PPM - held.dynamic_ppm) * count, idle, PPM * count - sum(idle.values())
        idle, rest_idle = self._idle_claims(roots)
        if domain.shares_memory:
            usage = dict.fromkeys(roots, piece.resident_bytes)
            return usage, max(0, piece.used_bytes - piece.resident_bytes) * count, idle, rest_idle
        usage = {key: piece.shares[key].usage_ns for key in roots}
        rest = 0 if piece.busy_ns is None else max(0, piece.busy_ns - sum(usage.values()))
        return usage, rest, idle, rest_idle

    def _idle_claims(self, roots: Sequence[int]) -> tuple[dict[int, int], int]:
        match self._settings.idle_policy:
            case IdlePolicy.NONE:
                return dict.fromkeys(roots, 0), 1
            case IdlePolicy.ACTIVE:
                return dict.fromkeys(roots, 1), 0 if roots else 1
            case IdlePolicy.RESERVED:
                quota = self.usage.quota_milli_cpus
                default = 1_000 if quota is None else max(1, quota // max(1, len(roots)))
                reserved = {key: self.windows[key].reserved_milli_cpus or default for key in roots}
                # More reserved than there is: the weights then share what there is, and nothing is left unowned.
                return reserved, max(0, (self.usage.cpus or 1) * 1_000 - sum(reserved.values()))

    def _below(
        self, domain: Domain, reading: DomainSlice, piece: _Slice, parent: int, parts: tuple[int, int]
    ) -> dict[int, tuple[int, int]]:
        """Divide a window's part among the windows inside it: activity by activity, the rest in equal parts."""
        children = self._children(parent)
        if not children:
            return {}
        equal = dict.fromkeys(children, 1)
        usage, rest = equal, 0
        if reading.holding is None and not domain.shares_memory:
            usage = {key: piece.shares[key].usage_ns for key in children}
            rest = max(0, piece.shares[parent].usage_ns - sum(usage.values()))
        splitter = self.windows[parent].splitters.setdefault(domain.source.domain, Splitter())
        split = splitter.split(
            dynamic_millijoules=parts[0],
            idle_millijoules=parts[1],
            usage=usage,
            rest_usage=rest,
            idle_weights=equal,
            rest_idle_weight=0,
        )
        return {key: (split.dynamic[key], split.idle[key]) for key in children}

    def _remark(self, domain: Domain, reading: DomainSlice, piece: _Slice, key: int, dynamic: int) -> None:
        """Record how the slice was shared, what was ambiguous in it, and the grade that allows."""
        state = self.windows[key]
        account = state.account.domain(domain.source.domain)
        peers = len(self._children(state.parent))
        alone = peers == 1
        grade = domain.source.grade
        if reading.holding is not None:
            held = reading.holding
            if held.dynamic_ppm or held.idle_ppm:
                state.account.gpu_ns += piece.elapsed_ns // peers
            if not alone:
                reason = "runs of one process share the device equally"
                account.note(worst_grade(held.grade, Grade.C), held.method, reason)
                account.ambiguous += dynamic
            else:
                account.note(held.grade, held.method, held.reason)
            return
        if domain.shares_memory:
            account.note(grade, "resident memory" if alone else "equal part of the process's resident memory")
            return
        share = piece.shares[key]
        if share.usage_ns > 0 and share.ambiguous_ns > 0:
            account.ambiguous += dynamic * share.ambiguous_ns // share.usage_ns
            state.account.notes[f"processor time was divided by: {share.method}"] = None
        method = self.usage.reader if share.method == "process" else share.method
        if piece.busy_ns is None:
            grade = worst_grade(grade, Grade.C)
            account.note(grade, method, "the host's busy time is unknown, so all activity is charged to runs")
            return
        account.note(grade, method)
