"""One domain of the host: reads its source slice by slice, refuses impossible ones, and keeps its idle power."""

from __future__ import annotations

from dataclasses import dataclass

from cagg.energy.attribution import Splitter, idle_energy
from cagg.energy.devices import Device, Holding
from cagg.errors import MeterUnavailable
from cagg.ports import EnergySource, Sample
from cagg.provenance import Grade

__all__ = ["Domain", "DomainSlice", "Missing", "Selection", "plausible_milliwatts"]

_SHORTEST_CALIBRATION_NS = 1_000_000_000
_NS_PER_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A domain that is not measured by a source, and why.

    Attributes:
        domain: ``cpu``, ``memory`` or ``gpu``.
        source: the source that was tried.
        reason: what is wrong and the remedy.
    """

    domain: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a meter reads.

    Attributes:
        sources: one per domain.
        missing: domains that exist here but cannot be read by anything.
        notes: sources that were tried first and could not be read, where another one stands in.
    """

    sources: tuple[EnergySource, ...]
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]


def plausible_milliwatts(domain: str, cpus: int | None) -> int:
    """Return a power that no host passes in this domain; what a counter shows beyond it is a fault, not energy.

    Processors: 500 W, or 25 W per logical processor where that is more (twice the densest desktop parts). Memory: 4 kW.
    One accelerator: 3 kW (NVIDIA GB200: 1.2 kW). Anything else: 10 kW.
    """
    if domain == "cpu":
        return max(500_000, 25_000 * (cpus or 1))
    if domain == "memory":
        return 4_000_000
    if domain.startswith("gpu:"):
        return 3_000_000
    return 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSlice:
    """One slice of one domain.

    Attributes:
        dynamic, idle: the host's energy in millijoules; both zero in a gap.
        gap: the slice could not be measured and is left out.
        reason: why; empty otherwise.
        holding: our part of a device; None for what the kernel schedules.
    """

    dynamic: int
    idle: int
    gap: bool
    reason: str
    holding: Holding | None


class Domain:
    """State of one source between slices. The meter holds its lock.

    Args:
        source: the counter.
        idle_milliwatts: measured idle power from the settings; None = calibrate, else the source's own.
        cpus: logical processors, for the bound of what is plausible.
    """

    def __init__(self, *, source: EnergySource, idle_milliwatts: int | None, cpus: int | None) -> None:
        self.source = source
        self.splitter = Splitter()
        self._configured_idle = idle_milliwatts
        self._calibrated_idle: int | None = None
        self._most = plausible_milliwatts(source.domain, cpus)
        self._last: Sample | None = None
        self._recent_milliwatts: int | None = None
        self._device = source if isinstance(source, Device) else None
        self._holding: Holding | None = None

    @property
    def shares_memory(self) -> bool:
        """True when the domain is divided by bytes held: memory by model. A memory counter goes by activity."""
        return self.source.domain == "memory" and self.source.grade in (Grade.C, Grade.D)

    @property
    def idle_milliwatts(self) -> int | None:
        """Idle power: configured, else calibrated in quiet moments, else the source's; None when unknown."""
        if self._configured_idle is not None:
            return self._configured_idle
        return self.source.idle_milliwatts if self._calibrated_idle is None else self._calibrated_idle

    @property
    def recent_milliwatts(self) -> int:
        """The host's power in the last slice long enough to tell; before one, the most that is plausible."""
        return self._most if self._recent_milliwatts is None else self._recent_milliwatts

    def start(self, pids: frozenset[int]) -> None:
        """Begin anew: what the counter shows now is the base."""
        self._last = None
        self.advance(pids=pids, quiet=False)

    def advance(self, *, pids: frozenset[int], quiet: bool) -> DomainSlice:
        """Read the source and return what was added since the last call.

        Args:
            pids: our processes, to tell who holds a device.
            quiet: the host's processors were idle in the slice, so its power is the idle power.
        """
        before, self._last = self._last, None
        try:
            sample = self.source.read()
        except MeterUnavailable as error:
            return _gap(str(error))
        self._last = sample
        holding = self._holding_now(pids)
        if before is None:
            return _gap(f"{self.source.domain} could not be read before, so this stretch has no beginning")
        energy = sample.millijoules - before.millijoules
        elapsed_ns = sample.monotonic_ns - before.monotonic_ns
        if energy < 0:
            return _gap(f"the counter of {self.source.domain} ran backwards")
        margin_ns = round(2 * self.source.resolution_seconds * _NS_PER_SECOND)
        if energy * _NS_PER_SECOND > self._most * (elapsed_ns + margin_ns) + _NS_PER_SECOND:
            return _gap(f"the counter of {self.source.domain} showed more than {self._most // 1000} W")
        self._learn(energy, elapsed_ns, quiet=quiet, holding=holding)
        idle = idle_energy(energy, self.idle_milliwatts, elapsed_ns)
        return DomainSlice(dynamic=energy - idle, idle=idle, gap=False, reason="", holding=holding)

    def _holding_now(self, pids: frozenset[int]) -> Holding | None:
        """Our part of the device at either end of the slice, whichever is more: work may have ended within it."""
        if self._device is None:
            return None
        before, now = self._holding, self._device.holding(pids)
        self._holding = now
        return before if before is not None and before.dynamic_ppm > now.dynamic_ppm else now

    def _learn(self, energy: int, elapsed_ns: int, *, quiet: bool, holding: Holding | None) -> None:
        if elapsed_ns <= 0:
            return
        power = energy * _NS_PER_SECOND // elapsed_ns
        if elapsed_ns >= self.source.resolution_seconds * _NS_PER_SECOND:
            self._recent_milliwatts = power
        is_idle = quiet if holding is None else holding.method == "no process on the device"
        measured = self.source.grade in (Grade.A, Grade.B)
        if is_idle and measured and elapsed_ns >= _SHORTEST_CALIBRATION_NS:
            self._calibrated_idle = min(power, self._calibrated_idle or power)


def _gap(reason: str) -> DomainSlice:
    return DomainSlice(dynamic=0, idle=0, gap=True, reason=reason, holding=None)
