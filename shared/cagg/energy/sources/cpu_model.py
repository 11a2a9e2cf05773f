"""Processors by model: busy time of the host times the power curve of its processor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from cagg.energy.coefficients import DATASET, CpuPower
from cagg.energy.host import HostSample
from cagg.errors import MeterUnavailable
from cagg.ports import Clock, Sample
from cagg.provenance import Grade

__all__ = ["CpuModelSource"]

_NANOWATT_SECONDS_PER_MILLIJOULE = 1_000_000_000
"""milliwatts x nanoseconds are picojoules; 1e9 of them are a millijoule."""


class CpuModelSource:
    """The linear model of :mod:`cagg.energy.coefficients`, integrated exactly: n x min x dt + (max - min) x busy time.

    Grade C for a processor in the table, D for the default.

    Args:
        clock: wall time of the integral.
        look: the operating system's latest figures.
        cpus: logical processors of the host.
        power: power of one of them.
        own_time_only: the host's busy time is not readable (macOS): only this process's own counts, grade D.
    """

    name = "cpu_model"
    domain = "cpu"
    resolution_seconds = 0.0001
    """Our own time is exact to the microsecond; the wall clock between two looks is what blurs the boundary."""
    longest_interval_seconds = 3600.0

    def __init__(
        self,
        *,
        clock: Clock,
        look: Callable[[], HostSample],
        cpus: int,
        power: CpuPower,
        own_time_only: bool = False,
    ) -> None:
        self._clock = clock
        self._look = look
        self._cpus = cpus
        self._power = power
        self._own_time_only = own_time_only
        self.grade = Grade.C if power.recognised and not own_time_only else Grade.D
        self.sensor_uncertainty = 0.40 if self.grade is Grade.C else 2.0
        self.idle_milliwatts: int | None = cpus * power.idle_milliwatts
        self._lock = threading.Lock()
        self._then_ns = clock.monotonic_ns()
        self._busy_ns: int | None = None
        self._picojoules = 0

    def read(self) -> Sample:
        """Read the model; raises MeterUnavailable when the host's busy time cannot be read."""
        look = self._look()
        busy_ns = look.own_ns if self._own_time_only else look.busy_ns
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            if busy_ns is None:
                self._then_ns, self._busy_ns = now_ns, None
                raise MeterUnavailable("/proc/stat cannot be read, so nothing tells how busy the processors are.")
            before_ns = busy_ns if self._busy_ns is None else self._busy_ns
            idle = self._cpus * self._power.idle_milliwatts * (now_ns - self._then_ns)
            dynamic = (self._power.full_milliwatts - self._power.idle_milliwatts) * max(0, busy_ns - before_ns)
            self._picojoules += idle + dynamic
            self._then_ns, self._busy_ns = now_ns, busy_ns
            millijoules = self._picojoules // _NANOWATT_SECONDS_PER_MILLIJOULE
        return Sample(monotonic_ns=now_ns, millijoules=millijoules)

    def describe(self) -> Mapping[str, str]:
        """The coefficients in use."""
        watts = f"{self._power.idle_milliwatts / 1000:.3f} to {self._power.full_milliwatts / 1000:.3f} W per processor"
        scope = "; own processor time only" if self._own_time_only else ""
        return {"cpu_model_power": f"{self._power.name}: {watts} x {self._cpus}{scope}", "cpu_model_data": DATASET}
