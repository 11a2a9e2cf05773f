"""What one run has used so far: totals per domain and energy by stretches of time."""

from __future__ import annotations

from dataclasses import dataclass, field

from cagg.provenance import Grade, worst_grade

__all__ = ["Account", "DomainAccount", "SliceList"]


@dataclass(slots=True, kw_only=True)
class DomainAccount:
    """One run in one domain; energies in millijoules, sums over the slices so far.

    Attributes:
        dynamic, idle: the run's parts.
        ambiguous: part of ``dynamic`` that was spread over runs because nothing told them apart.
        host, host_dynamic, other, unowned_idle: the host's.
        measured_ns, gap_ns: time with and without a usable counter.
        slices: how many slices were read.
        grade: best grade that every slice so far allows; None before the first.
        methods, reasons: in order of first appearance.
    """

    dynamic: int = 0
    idle: int = 0
    ambiguous: int = 0
    host: int = 0
    host_dynamic: int = 0
    other: int = 0
    unowned_idle: int = 0
    measured_ns: int = 0
    gap_ns: int = 0
    slices: int = 0
    grade: Grade | None = None
    methods: dict[str, None] = field(default_factory=dict)
    reasons: dict[str, None] = field(default_factory=dict)

    @property
    def energy(self) -> int:
        """The run's energy."""
        return self.dynamic + self.idle

    def note(self, grade: Grade, method: str, reason: str = "") -> None:
        """Record how one slice was shared; the grade only ever gets worse."""
        self.grade = grade if self.grade is None else worst_grade(self.grade, grade)
        if method:
            self.methods[method] = None
        if reason:
            self.reasons[reason] = None


class SliceList:
    """Energy by stretches of time, in bounded memory.

    A stretch grows until it is as long as ``grain_ns``; beyond ``most`` stretches neighbours are merged pairwise and
    the grain doubles, so the list never loses energy, only detail.
    """

    def __init__(self, *, start_ns: int, grain_ns: int, most: int) -> None:
        self._start_ns = start_ns
        self._grain_ns = grain_ns
        self._most = most
        self._ends: list[int] = []
        self._energies: list[int] = []

    def add(self, end_ns: int, millijoules: int) -> None:
        """Append the stretch from the last end to ``end_ns``."""
        if self._ends:
            start_ns = self._ends[-2] if len(self._ends) > 1 else self._start_ns
            if end_ns - start_ns <= self._grain_ns or end_ns <= self._ends[-1]:
                self._ends[-1] = max(end_ns, self._ends[-1])
                self._energies[-1] += millijoules
                return
        self._ends.append(end_ns)
        self._energies.append(millijoules)
        if len(self._ends) > self._most:
            self._merge()

    def __len__(self) -> int:
        return len(self._ends)

    def spans(self) -> list[tuple[int, int, int]]:
        """Return (start, end, millijoules), in order, without overlap."""
        starts = [self._start_ns, *self._ends][:-1]
        return list(zip(starts, self._ends, self._energies, strict=True))

    def _merge(self) -> None:
        ends, energies = self._ends, self._energies
        self._ends = [ends[min(index + 1, len(ends) - 1)] for index in range(0, len(ends), 2)]
        self._energies = [sum(energies[index : index + 2]) for index in range(0, len(energies), 2)]
        self._grain_ns *= 2


@dataclass(slots=True, kw_only=True)
class Account:
    """One run over all domains.

    Attributes:
        slices: its energy by stretches of time.
        domains: by domain.
        cpu_ns: its processor time.
        gpu_ns: device time it held.
        notes: in order of first appearance.
    """

    slices: SliceList
    domains: dict[str, DomainAccount] = field(default_factory=dict)
    cpu_ns: int = 0
    gpu_ns: int = 0
    notes: dict[str, None] = field(default_factory=dict)

    def domain(self, name: str) -> DomainAccount:
        """Return the domain's account, made when new."""
        return self.domains.setdefault(name, DomainAccount())

    @property
    def energy(self) -> int:
        """Energy over all domains."""
        return sum(account.energy for account in self.domains.values())
