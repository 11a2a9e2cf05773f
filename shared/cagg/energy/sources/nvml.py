"""NVIDIA GPUs through NVML (package nvidia-ml-py, module ``pynvml``): one source per visible device.

The library is imported and initialised when a window opens on a machine with a driver, once per process: handles do not
survive a fork. Source of the calls: NVML API Reference Guide (NVIDIA, release 555, 2024).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cagg.energy.devices import Holding
from cagg.energy.sources.visible_devices import Selector, visible_devices
from cagg.errors import MeterUnavailable, MissingExtra
from cagg.ports import Clock, Sample
from cagg.provenance import Grade, worst_grade
from cagg.quantities import PPM

__all__ = ["Nvml", "NvmlSource", "driver_present", "find_nvml"]

_DRIVER_FILES = ("proc/driver/nvidia/version", "dev/nvidiactl", "dev/dxg")
_POWER_INTERVAL_SECONDS = 1.0
_COUNTER_INTERVAL_SECONDS = 3600.0
_UPDATE_SECONDS = 0.1
"""The energy counter is refreshed about every 100 ms (ml.energy, "Measuring GPU energy: best practices", 2024)."""


def driver_present(root: Path = Path("/")) -> bool:
    """True when the NVIDIA driver's files are there; touches no library."""
    return any((root / name).exists() for name in _DRIVER_FILES)


class Nvml:
    """The library, initialised at most once per process.

    Args:
        module: ``pynvml`` or a stand-in; None = import it when first used.

    Raises (from every method):
        MissingExtra: nvidia-ml-py is not installed.
        MeterUnavailable: the library or the driver refuses.
    """

    def __init__(self, module: ModuleType | Any | None = None) -> None:
        self._module: Any = module
        self._pid: int | None = None
        self._lock = threading.Lock()

    def call(self, function: str, *arguments: Any) -> Any:
        """Call one NVML function; its errors become MeterUnavailable."""
        module = self._ready()
        try:
            return getattr(module, function)(*arguments)
        except module.NVMLError as error:
            raise MeterUnavailable(f"the GPU library refused {function} ({error}).") from None
        except AttributeError:
            raise MeterUnavailable(f"this version of nvidia-ml-py has no {function}; install a newer one.") from None

    def _ready(self) -> Any:
        with self._lock:
            if self._module is None:
                try:
                    import pynvml
                except ImportError:
                    raise MissingExtra(
                        "there is an NVIDIA GPU here, but nvidia-ml-py is not installed, so GPU energy is not counted; "
                        'run pip install "cagg[gpu]".'
                    ) from None
                self._module = pynvml
            if self._pid != os.getpid():
                try:
                    self._module.nvmlInit()
                except self._module.NVMLError as error:
                    raise MeterUnavailable(f"the NVIDIA driver does not answer ({error}); check nvidia-smi.") from None
                self._pid = os.getpid()
            return self._module


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identity:
    """Which device, so that its handle can be fetched again after a fork. ``slice_ppm`` is None without MIG."""

    uuid: str
    label: str
    model: str
    slice_ppm: int | None


class NvmlSource:
    """One GPU: its total-energy counter, or its power integrated where there is no counter (before Volta).

    A GPU instance (MIG) has no meter of its own: its board is read, and its part is its share of the board's compute
    slices, grade D. Sensor 5 % (the documented +-5 % is of Fermi and Kepler; on A100 and H100 only a quarter of the
    time is sampled: Yang et al., "Part-time Power Measurements", SC24, arXiv 2312.02741), so bursty loads are worse.

    Args:
        clock: gives the samples their time.
        nvml: the library.
        identity: which device.
        domain: ``gpu:0`` ...
        assigned: the scheduler or user assigned this device to the process by name, so its idle energy is ours.
        proc: to tell whether process ids that NVML reports are of this namespace.

    Raises:
        MeterUnavailable: neither energy nor power can be read.
    """

    name = "nvml"
    resolution_seconds = _UPDATE_SECONDS
    sensor_uncertainty = 0.05

    def __init__(
        self,
        *,
        clock: Clock,
        nvml: Nvml,
        identity: _Identity,
        domain: str,
        assigned: bool,
        proc: Path = Path("/proc"),
    ) -> None:
        self.domain = domain
        self.idle_milliwatts: int | None = None  # calibrated by the meter: the least power seen
        self._clock = clock
        self._nvml = nvml
        self._identity = identity
        self._assigned = assigned
        self._proc = proc
        self._lock = threading.Lock()
        self._handle: Any = None
        self._handle_pid: int | None = None
        self._last_seen = 0
        self._total = 0
        self._last_counter: int | None = None
        self._last_power: tuple[int, int] | None = None
        self._picojoules = 0
        try:
            self._last_counter = int(self._call("nvmlDeviceGetTotalEnergyConsumption"))
            self.counts_energy = True
        except MeterUnavailable:
            self._last_power = (clock.monotonic_ns(), int(self._call("nvmlDeviceGetPowerUsage")))
            self.counts_energy = False
        self.longest_interval_seconds = _COUNTER_INTERVAL_SECONDS if self.counts_energy else _POWER_INTERVAL_SECONDS
        self.grade = Grade.D if identity.slice_ppm is not None else Grade.A if self.counts_energy else Grade.B

    def read(self) -> Sample:
        """Read the device; raises MeterUnavailable when it does not answer or its counter ran backwards."""
        with self._lock:
            return self._read_counter() if self.counts_energy else self._read_power()

    def _read_counter(self) -> Sample:
        now_ns = self._clock.monotonic_ns()
        counter = int(self._call("nvmlDeviceGetTotalEnergyConsumption"))  # millijoules since the driver was loaded
        before, self._last_counter = self._last_counter, counter
        if before is not None and counter < before:
            raise MeterUnavailable(f"the energy counter of {self.domain} ran backwards (the driver was reloaded?).")
        self._total += 0 if before is None else counter - before
        return Sample(monotonic_ns=now_ns, millijoules=self._total)

    def _read_power(self) -> Sample:
        now_ns = self._clock.monotonic_ns()
        power = int(self._call("nvmlDeviceGetPowerUsage"))  # milliwatts
        if self._last_power is not None:
            then_ns, before = self._last_power
            self._picojoules += (power + before) * (now_ns - then_ns) // 2
        self._last_power = (now_ns, power)
        return Sample(monotonic_ns=now_ns, millijoules=self._picojoules // 1_000_000_000)

    def holding(self, own_pids: Collection[int]) -> Holding:
        """Our part of the device since the last call: sole holder, share by utilisation, or slice of the board."""
        best = self.grade
        if self._identity.slice_ppm is not None:
            part = self._identity.slice_ppm
            return Holding(
                dynamic_ppm=part,
                idle_ppm=part,
                grade=Grade.D,
                method="slice of a partitioned GPU",
                reason="NVML reports a partitioned GPU's power for the whole board only",
            )
        try:
            with self._lock:
                holders = {int(process.pid) for process in self._call("nvmlDeviceGetComputeRunningProcesses")}
        except MeterUnavailable as error:
            return self._by_assignment(Grade.C, f"the processes on {self.domain} are not listed: {error}")
        ours = holders & set(own_pids)
        if holders and ours == holders:
            return Holding(dynamic_ppm=PPM, idle_ppm=PPM, grade=best, method="sole holder of the device")
        if not holders:
            idle = PPM if self._assigned else 0
            return Holding(dynamic_ppm=0, idle_ppm=idle, grade=best, method="no process on the device")
        if not ours and not any((self._proc / str(pid)).exists() for pid in holders):
            return self._by_assignment(Grade.C, f"the process ids on {self.domain} are of another namespace")
        if not ours:
            return Holding(dynamic_ppm=0, idle_ppm=0, grade=best, method="held by other processes")
        return self._shared(holders, ours)

    def _by_assignment(self, grade: Grade, reason: str) -> Holding:
        part = PPM if self._assigned else 0
        method = "device assigned to this process" if self._assigned else "device not assigned to this process"
        grade = worst_grade(grade, self.grade)
        return Holding(dynamic_ppm=part, idle_ppm=part, grade=grade, method=method, reason=reason)

    def _shared(self, holders: set[int], ours: set[int]) -> Holding:
        """Share by streaming-multiprocessor utilisation summed over the samples since the last call."""
        idle = PPM * len(ours) // len(holders)
        best = worst_grade(self.grade, Grade.B)
        try:
            with self._lock:
                samples = list(self._call("nvmlDeviceGetProcessUtilization", self._last_seen))
                self._last_seen = max([self._last_seen, *(int(sample.timeStamp) for sample in samples)])
        except MeterUnavailable as error:
            reason = f"utilisation by process is not reported, so {self.domain} is shared equally: {error}"
            return Holding(dynamic_ppm=idle, idle_ppm=idle, grade=Grade.C, method="equal share", reason=reason)
        used = {pid: sum(int(sample.smUtil) for sample in samples if int(sample.pid) == pid) for pid in holders}
        whole = sum(used.values())
        if whole == 0:
            return Holding(dynamic_ppm=idle, idle_ppm=idle, grade=Grade.C, method="equal share of an idle device")
        part = PPM * sum(used[pid] for pid in ours) // whole
        return Holding(dynamic_ppm=part, idle_ppm=idle, grade=best, method="share of utilisation")

    def describe(self) -> Mapping[str, str]:
        """Model and method; no serial number or UUID."""
        method = "energy counter" if self.counts_energy else "power, integrated"
        part = "" if self._identity.slice_ppm is None else f", slice of {self._identity.slice_ppm / 10_000:.1f} %"
        return {self.domain: f"{self._identity.model} ({method}{part})"}

    def _call(self, function: str, *arguments: Any) -> Any:
        if self._handle is None or self._handle_pid != os.getpid():
            self._handle = self._nvml.call("nvmlDeviceGetHandleByUUID", self._identity.uuid)
            self._handle_pid = os.getpid()
            self._last_counter = None
            self._last_power = None
        return self._nvml.call(function, self._handle, *arguments)


def find_nvml(
    clock: Clock,
    *,
    nvml: Nvml | None = None,
    environment: Mapping[str, str] | None = None,
    proc: Path = Path("/proc"),
) -> list[NvmlSource]:
    """Return a source for each GPU that CUDA would show to this process; empty when it is told to use none.

    Args:
        clock: gives the samples their time.
        nvml: the library; None = the real one.
        environment: where CUDA_VISIBLE_DEVICES is read; None = this process's.
        proc: where ``/proc`` is mounted.

    Raises:
        MissingExtra: nvidia-ml-py is not installed.
        MeterUnavailable: the library, the driver or a device does not answer.
    """
    library = Nvml() if nvml is None else nvml
    selection = visible_devices((os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES"))
    if selection is not None and not selection:
        return []
    boards = []
    for index in range(int(library.call("nvmlDeviceGetCount"))):
        handle = library.call("nvmlDeviceGetHandleByIndex", index)
        boards.append((index, handle, _text(library.call("nvmlDeviceGetUUID", handle))))
    chosen = _choose(library, boards, selection)
    return [
        NvmlSource(
            clock=clock,
            nvml=library,
            identity=identity,
            domain=f"gpu:{identity.label}",
            assigned=selection is not None,
            proc=proc,
        )
        for identity in chosen
    ]


def _choose(nvml: Nvml, boards: list[tuple[int, Any, str]], selection: list[Selector] | None) -> list[_Identity]:
    if selection is None:
        return [_board(nvml, board) for board in boards]
    chosen: list[_Identity] = []
    for selector in selection:
        identity = _match(nvml, boards, selector)
        if identity is None:
            break  # CUDA shows the devices before the first one that does not exist, and none after it
        if identity not in chosen:
            chosen.append(identity)
    return chosen


def _match(nvml: Nvml, boards: list[tuple[int, Any, str]], selector: Selector) -> _Identity | None:
    for board in boards:
        index, handle, uuid = board
        if selector.instance is None:
            by_index = selector.index is not None and index == selector.index
            by_uuid = selector.uuid is not None and uuid.lower().startswith(selector.uuid.lower())
            if by_index or by_uuid:
                return _board(nvml, board)
        elif (identity := _instance(nvml, index, handle, uuid, selector.instance)) is not None:
            return identity
    return None


def _board(nvml: Nvml, board: tuple[int, Any, str]) -> _Identity:
    index, handle, uuid = board
    return _Identity(uuid=uuid, label=str(index), model=_text(nvml.call("nvmlDeviceGetName", handle)), slice_ppm=None)


def _instance(nvml: Nvml, index: int, handle: Any, uuid: str, wanted: str) -> _Identity | None:
    """Find a MIG instance on a board; its part is its compute slices over the most the board can have."""
    try:
        most = int(nvml.call("nvmlDeviceGetMaxMigDeviceCount", handle))
    except MeterUnavailable:
        return None
    for number in range(most):
        try:
            instance = nvml.call("nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
        except MeterUnavailable:
            continue  # NVML numbers instances with gaps
        if _text(nvml.call("nvmlDeviceGetUUID", instance)).lower() != wanted.lower():
            continue
        attributes = nvml.call("nvmlDeviceGetAttributes_v2", instance)
        part = PPM * int(attributes.gpuInstanceSliceCount) // max(1, most)
        model = _text(nvml.call("nvmlDeviceGetName", handle))
        return _Identity(uuid=uuid, label=f"{index}.{number}", model=model, slice_ppm=min(PPM, part))
    return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
