"""Memory by model: bytes in use on the host times a power per gigabyte."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from cagg.energy.coefficients import DATASET, MEMORY_MILLIWATTS_PER_GB
from cagg.energy.host import HostSample
from cagg.errors import MeterUnavailable
from cagg.ports import Clock, Sample
from cagg.provenance import Grade

__all__ = ["MemoryModelSource"]

_BYTES_PER_GB = 1_000_000_000


class MemoryModelSource:
    """0.392 W per GB of memory in use on the host, integrated between looks by the trapezoidal rule.

    The host total is that of all used memory (MemTotal - MemAvailable); a run's part is its resident memory over the
    used memory, so that runs, others and the total close. All of it counts as dynamic: memory that nobody holds is not
    counted at all. Grade C.

    Args:
        clock: wall time of the integral.
        look: the operating system's latest figures.
    """

    name = "memory_model"
    domain = "memory"
    grade = Grade.C
    resolution_seconds = 0.0001
    sensor_uncertainty = 0.40
    longest_interval_seconds = 3600.0
    idle_milliwatts: int | None = 0

    def __init__(self, *, clock: Clock, look: Callable[[], HostSample]) -> None:
        self._clock = clock
        self._look = look
        self._lock = threading.Lock()
        self._then_ns = clock.monotonic_ns()
        self._bytes: int | None = None
        self._half_units = 0  # milliwatts per GB x (bytes + bytes) x nanoseconds

    def read(self) -> Sample:
        """Read the model; raises MeterUnavailable when the memory in use cannot be read."""
        used = self._look().used_bytes
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            if used is None:
                self._then_ns, self._bytes = now_ns, None
                raise MeterUnavailable("/proc/meminfo cannot be read, so nothing tells how much memory is in use.")
            before = used if self._bytes is None else self._bytes
            self._half_units += MEMORY_MILLIWATTS_PER_GB * (used + before) * (now_ns - self._then_ns)
            self._then_ns, self._bytes = now_ns, used
            millijoules = self._half_units // (2 * _BYTES_PER_GB * 1_000_000_000)
        return Sample(monotonic_ns=now_ns, millijoules=millijoules)

    def describe(self) -> Mapping[str, str]:
        """The coefficient in use."""
        return {"memory_model_power": f"{MEMORY_MILLIWATTS_PER_GB / 1000} W per GB in use ({DATASET})"}
