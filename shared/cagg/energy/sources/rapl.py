"""Running Average Power Limit counters through the kernel's power capping interface.

Layout (Linux kernel documentation "Power Capping Framework", 6.10, 2024): ``/sys/class/powercap/intel-rapl:0`` is a
package (AMD packages use the same name), ``intel-rapl:0:1`` a part of it, each with ``name``, ``energy_uj`` and
``max_energy_range_uj``.

What is counted once: packages; ``core`` and ``uncore`` lie inside a package and are left out; ``dram`` is listed below
a package but not part of its energy, and is the memory's counter; ``psys`` is the whole platform including packages and
is used only where there is no package; ``intel-rapl-mmio`` shows the packages of ``intel-rapl`` again; dies that mirror
one counter (equal, non-zero and moving alike) count once.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cagg.errors import MeterUnavailable
from cagg.ports import Clock, Sample
from cagg.provenance import Grade

__all__ = ["POWERCAP", "RaplAbsent", "RaplSource", "find_rapl"]

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows RAPL (kernel documentation, power/powercap)."""

_ZONE = re.compile(r"^(?P<driver>intel-rapl(?:-mmio)?):(?P<package>\d+)(?::(?P<part>\d+))?$")
_MIRROR_TOLERANCE_MICROJOULES = 1_000_000
"""Two meters of different dies differ by more than a joule; two reads of one are microseconds apart."""

_WRAP_POWER_WATTS = 500
"""A package's highest sustained power, to be sure to read four times per wrap (Xeon 6980P, EPYC 9965: 500 W TDP)."""

_UNKNOWN_WRAP_SECONDS = 30.0

_PERMISSION = (
    "the energy counters in {path} may be read by root only; run 'sudo chmod a+r /sys/class/powercap/*/energy_uj' "
    "(again after each boot, or by a udev rule), in a container mount them readable"
)


class RaplAbsent(MeterUnavailable):
    """This machine shows no RAPL counters at all, which is normal in virtual machines."""


def _read_text(path: Path) -> str:
    return path.read_text()


@dataclass(slots=True, kw_only=True)
class _Counter:
    """One energy_uj file. ``range_microjoules`` is None when the kernel does not say where it wraps."""

    path: Path
    name: str
    range_microjoules: int | None
    last: int = 0
    mirrors: _Counter | None = None

    def advance(self, value: int) -> int | None:
        """Return what was added since the last value, wraps undone; None when it ran backwards for no known reason."""
        added = value - self.last
        self.last = value
        if added >= 0:
            return added
        if self.range_microjoules is None or -added > self.range_microjoules:
            return None
        return added + self.range_microjoules


class RaplSource:
    """The sum of one kind of RAPL counters: packages (``cpu``) or memory (``memory``).

    Wraps are undone as long as it is read at least once per wrap (``longest_interval_seconds`` is a quarter of one at
    500 W). Microjoules inside; the millijoules it returns are the sum rounded down. Grade A, sensor 5 % (Khan et al.,
    "RAPL in Action", ACM TOMPECS 3(2), 2018, report errors of a few per cent).

    Args:
        clock: gives the samples their time.
        domain: ``cpu`` or ``memory``.
        counters: (name, energy_uj file, range in microjoules or None).
        idle_milliwatts: idle power of these parts; None when unknown.
        read_text: how a file is read.

    Raises:
        MeterUnavailable: a counter cannot be read.
    """

    name = "rapl"
    grade = Grade.A
    resolution_seconds = 0.001
    sensor_uncertainty = 0.05

    def __init__(
        self,
        *,
        clock: Clock,
        domain: str,
        counters: Sequence[tuple[str, Path, int | None]],
        idle_milliwatts: int | None = None,
        read_text: Callable[[Path], str] = _read_text,
    ) -> None:
        self.domain = domain
        self.idle_milliwatts = idle_milliwatts
        self._clock = clock
        self._read_text = read_text
        self._lock = threading.Lock()
        self._microjoules = 0
        self._counters = [_Counter(path=path, name=name, range_microjoules=top) for name, path, top in counters]
        ranges = [top for _, _, top in counters if top]
        shortest = min(ranges) / 1_000_000 / _WRAP_POWER_WATTS / 4 if ranges else _UNKNOWN_WRAP_SECONDS
        self.longest_interval_seconds = max(1.0, shortest)
        for counter in self._counters:
            counter.last = self._value(counter)
        if domain == "cpu":
            self._find_mirrors()

    def read(self) -> Sample:
        """Read the counters; raises MeterUnavailable when one cannot be read or ran backwards, and starts anew."""
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            added = 0
            values = [self._value(counter) for counter in self._counters]
            moved = [counter.advance(value) for counter, value in zip(self._counters, values, strict=True)]
            by_name = {id(counter): step for counter, step in zip(self._counters, moved, strict=True)}
            for counter, step in zip(self._counters, moved, strict=True):
                if step is None:
                    raise MeterUnavailable(
                        f"the energy counter {counter.path} ran backwards and its range does not explain it; "
                        "this stretch is left out."
                    )
                if counter.mirrors is not None:
                    reference = by_name[id(counter.mirrors)]
                    if reference is None or abs(step - reference) > _MIRROR_TOLERANCE_MICROJOULES + reference // 100:
                        counter.mirrors = None  # it moves on its own: another die after all
                        added += step
                    continue
                added += step
            self._microjoules += added
            return Sample(monotonic_ns=now_ns, millijoules=self._microjoules // 1_000)

    def describe(self) -> Mapping[str, str]:
        """The counters in use."""
        used = ", ".join(counter.name for counter in self._counters if counter.mirrors is None)
        return {f"rapl_{self.domain}": used}

    def _value(self, counter: _Counter) -> int:
        try:
            return int(self._read_text(counter.path))
        except PermissionError:
            raise MeterUnavailable(_PERMISSION.format(path=counter.path) + ".") from None
        except (OSError, ValueError) as error:
            raise MeterUnavailable(f"the energy counter {counter.path} cannot be read ({error}).") from None

    def _find_mirrors(self) -> None:
        references: list[_Counter] = []
        for counter in self._counters:
            if counter.last <= 0:
                continue  # a counter at zero tells nothing
            for reference in references:
                same_range = reference.range_microjoules == counter.range_microjoules
                if same_range and abs(counter.last - reference.last) <= _MIRROR_TOLERANCE_MICROJOULES:
                    counter.mirrors = reference
                    break
            else:
                references.append(counter)


def find_rapl(
    clock: Clock,
    *,
    root: Path = POWERCAP,
    idle_milliwatts: int | None = None,
    read_text: Callable[[Path], str] = _read_text,
) -> list[RaplSource]:
    """Return the sources for ``cpu`` and, where there are memory counters, ``memory``.

    Args:
        clock: gives the samples their time.
        root: the power capping directory.
        idle_milliwatts: idle power of the processors, from a model; None when unknown.
        read_text: how a file is read.

    Raises:
        RaplAbsent: no counters here.
        MeterUnavailable: they may not be read; the message names the remedy.
    """
    zones = _zones(root, read_text)
    packages = [zone for zone in zones if zone[0].startswith("package")]
    platform = [zone for zone in zones if zone[0] == "psys"][:1]
    memory = [zone for zone in zones if zone[0].startswith("dram")]
    sources = []
    processors = packages or platform
    if processors:
        sources.append(
            RaplSource(
                clock=clock,
                domain="cpu",
                counters=processors,
                idle_milliwatts=idle_milliwatts,
                read_text=read_text,
            )
        )
    if memory and packages:
        sources.append(RaplSource(clock=clock, domain="memory", counters=memory, read_text=read_text))
    if not sources:
        raise RaplAbsent(
            f"{root} has no RAPL package; on bare metal load the kernel module intel_rapl_msr, in a virtual machine "
            "the counters are not passed through and the model is used."
        )
    return sources


def _zones(root: Path, read_text: Callable[[Path], str]) -> list[tuple[str, Path, int | None]]:
    """All zones with a counter, each once: (name, energy file, range), those of the MSR driver before MMIO's."""
    found: dict[tuple[str, str], tuple[str, Path, int | None]] = {}
    driver_of: dict[tuple[str, str], str] = {}
    directories = sorted({path.resolve(): path for path in _directories(root)}.values(), key=_order)
    packages: dict[tuple[str, str], str] = {}
    for directory in directories:
        match = _ZONE.match(directory.name)
        if match is None or not (directory / "energy_uj").exists():
            continue
        try:
            name = read_text(directory / "name").strip()
        except OSError:
            continue
        owner = (match["driver"], match["package"])
        if match["part"] is None:
            packages[owner] = name
        # A part is told apart by its package's name: package-0/dram of MMIO is package-0/dram of the MSR driver.
        key = (packages.get(owner, match["package"]), "" if match["part"] is None else name)
        if driver_of.setdefault(key, match["driver"]) == match["driver"]:
            while key in found:  # the same name twice from one driver: another die, or a mirror (told by its values)
                key = (key[0], key[1] + "'")
            found[key] = (name, directory / "energy_uj", _range(directory, read_text))
    return list(found.values())


def _directories(root: Path) -> list[Path]:
    """Zone directories of the class directory (links to all zones) and one and two levels below its control types."""
    try:
        return [path for pattern in ("*", "*/*", "*/*/*") for path in root.glob(pattern) if _ZONE.match(path.name)]
    except OSError:
        return []


def _order(path: Path) -> tuple[bool, int, int]:
    match = _ZONE.match(path.name)
    if match is None:
        return True, 0, 0
    return match["driver"].endswith("mmio"), int(match["package"]), -1 if match["part"] is None else int(match["part"])


def _range(directory: Path, read_text: Callable[[Path], str]) -> int | None:
    try:
        return int(read_text(directory / "max_energy_range_uj")) or None
    except (OSError, ValueError):
        return None
