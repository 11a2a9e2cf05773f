"""Fakes and the contract suite for energy: a source, the operating system, a GPU library, and a ready-made meter."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from cagg.energy.host import HostSample
from cagg.energy.meter import Meter, MeterSettings
from cagg.energy.sharing import UsageScope
from cagg.errors import CaggError, MeterUnavailable
from cagg.ports import Clock, EnergySource, Sample, UsageReader
from cagg.provenance import Grade

__all__ = ["EnergySourceContract", "FakeGpu", "FakePynvml", "FakeSource", "FakeUsage", "fake_meter"]

_NS_PER_SECOND = 1_000_000_000


class FakeSource:
    """An energy counter under a test's control; implements :class:`cagg.ports.EnergySource`.

    It integrates ``milliwatts`` over the clock; ``add`` puts energy on top, ``fail`` and ``heal`` make it unreadable.

    Args:
        clock: the test's clock.
        milliwatts: constant power of the host.
        idle_milliwatts: idle power; None = unknown.
        domain, grade, resolution_seconds, sensor_uncertainty, longest_interval_seconds: as in the port.
    """

    name = "fake"

    def __init__(
        self,
        clock: Clock,
        *,
        milliwatts: int = 100_000,
        idle_milliwatts: int | None = 0,
        domain: str = "cpu",
        grade: Grade = Grade.A,
        resolution_seconds: float = 0.001,
        sensor_uncertainty: float = 0.05,
        longest_interval_seconds: float = 3600.0,
    ) -> None:
        self.domain = domain
        self.grade = grade
        self.resolution_seconds = resolution_seconds
        self.sensor_uncertainty = sensor_uncertainty
        self.longest_interval_seconds = longest_interval_seconds
        self.idle_milliwatts = idle_milliwatts
        self.milliwatts = milliwatts
        self.reads = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._then_ns = clock.monotonic_ns()
        self._picojoules = 0
        self._failure: str | None = None

    def set_power(self, milliwatts: int) -> None:
        """Change the power from now on."""
        with self._lock:
            self._integrate()
            self.milliwatts = milliwatts

    def add(self, millijoules: int) -> None:
        """Add energy at once; a negative amount makes the counter run backwards."""
        with self._lock:
            self._picojoules += millijoules * _NS_PER_SECOND

    def fail(self, reason: str = "the fake source was told to fail.") -> None:
        """Make every read raise MeterUnavailable."""
        self._failure = reason

    def heal(self) -> None:
        """Make reads work again; the counter went on meanwhile."""
        self._failure = None

    def read(self) -> Sample:
        """Read the counter; raises MeterUnavailable after :meth:`fail`."""
        self.reads += 1
        if self._failure is not None:
            raise MeterUnavailable(self._failure)
        with self._lock:
            self._integrate()
            return Sample(monotonic_ns=self._then_ns, millijoules=self._picojoules // _NS_PER_SECOND)

    def describe(self) -> Mapping[str, str]:
        """Says that it is a fake."""
        return {f"fake_{self.domain}": "fake source"}

    def _integrate(self) -> None:
        now_ns = self._clock.monotonic_ns()
        self._picojoules += self.milliwatts * (now_ns - self._then_ns)
        self._then_ns = now_ns


class _FakeThread:
    name = "thread"

    def __init__(self, usage: FakeUsage, ident: int) -> None:
        self._usage = usage
        self._ident = ident

    def cpu_ns(self) -> int:
        return self._usage.thread_ns.get(self._ident, 0)


class FakeUsage:
    """The operating system's figures under a test's control; implements :class:`cagg.energy.host.HostUsage`.

    As made, this process alone keeps ``load`` processors busy while the clock runs; ``spend`` and ``others`` add to
    that. ``has_thread_clocks=False`` plays a platform without them.

    Args:
        clock: the test's clock.
        cpus: logical processors of the host.
        load: processors that this process keeps busy all the time.
        quota_milli_cpus: limit of processors, in thousandths; None = none.
        resident_bytes, used_bytes: memory of this process and of the host.
        has_thread_clocks: threads can be told apart.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        cpus: int | None = 2,
        load: float = 1.0,
        quota_milli_cpus: int | None = None,
        resident_bytes: int = 1_000_000_000,
        used_bytes: int = 4_000_000_000,
        has_thread_clocks: bool = True,
    ) -> None:
        self.reader = "process_tree"
        self.cpus = cpus
        self.quota_milli_cpus = quota_milli_cpus
        self.resident_bytes = resident_bytes
        self.used_bytes = used_bytes
        self.busy_known = True
        self.pids: frozenset[int] = frozenset({1000})
        self.thread_ns: dict[int, int] = {}
        self._clock = clock
        self._load = load
        self._start_ns = clock.monotonic_ns()
        self._own_ns = 0
        self._others_ns = 0
        self._has_thread_clocks = has_thread_clocks
        self._latest: HostSample | None = None

    def spend(self, seconds: float, *, thread: int | None = None) -> None:
        """This process used that much processor time; on a thread when its identity is given."""
        used = round(seconds * _NS_PER_SECOND)
        self._own_ns += used
        if thread is not None:
            self.thread_ns[thread] = self.thread_ns.get(thread, 0) + used

    def others(self, seconds: float) -> None:
        """Other processes of the host used that much processor time."""
        self._others_ns += round(seconds * _NS_PER_SECOND)

    def choose(self, scope: UsageScope) -> str:
        """Keeps the process tree."""
        return "" if scope is not UsageScope.CGROUP else "the fake host has no control group"

    def sample(self) -> HostSample:
        """The figures now."""
        own_ns = self._own_ns + round((self._clock.monotonic_ns() - self._start_ns) * self._load)
        self._latest = HostSample(
            own_ns=own_ns,
            busy_ns=own_ns + self._others_ns if self.busy_known else None,
            resident_bytes=self.resident_bytes,
            used_bytes=self.used_bytes,
            pids=self.pids,
        )
        return self._latest

    def latest(self) -> HostSample:
        """The figures as of the last sample."""
        return self._latest or self.sample()

    def thread(self) -> UsageReader | None:
        """A reader of the calling thread's fake clock."""
        return _FakeThread(self, threading.get_ident()) if self._has_thread_clocks else None


def fake_meter(
    clock: Clock, *, milliwatts: int = 100_000, idle_milliwatts: int = 0, settings: MeterSettings | None = None
) -> Meter:
    """Return a meter whose host draws a constant power that the runs of this process alone cause.

    With the default of 100 W one run of 36 s has used exactly 1 Wh.
    """
    source = FakeSource(clock, milliwatts=milliwatts, idle_milliwatts=idle_milliwatts)
    return Meter(clock=clock, sources=[source], settings=settings, usage=FakeUsage(clock))


# ---- GPUs ---------------------------------------------------------------------------------------------------------


class FakeGpu:
    """One GPU of :class:`FakePynvml`.

    Attributes:
        uuid, name: identity.
        energy_millijoules: total-energy counter; None = not supported (before Volta).
        milliwatts: present power.
        pids: compute processes on it.
        utilisation: (process id, time stamp in microseconds, SM utilisation in per cent).
        instances: MIG instances by number: (uuid, compute slices).
        most_instances: how many instances the board can have; None = no MIG.
    """

    def __init__(self, uuid: str, *, name: str = "NVIDIA Fake 100", energy_millijoules: int | None = 0) -> None:
        self.uuid = uuid
        self.name = name
        self.energy_millijoules = energy_millijoules
        self.milliwatts = 0
        self.pids: list[int] = []
        self.utilisation: list[tuple[int, int, int]] | None = []
        self.instances: dict[int, tuple[str, int]] = {}
        self.most_instances: int | None = None


class FakePynvml:
    """Stands in for the module ``pynvml``.

    Args:
        gpus: the devices.
        driver: False = ``nvmlInit`` fails, as without a driver.
    """

    class NVMLError(Exception):
        """As the library's."""

    def __init__(self, gpus: list[FakeGpu], *, driver: bool = True) -> None:
        self.gpus = gpus
        self.driver = driver
        self.inits = 0
        self.lost = False

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name
        """Initialise."""
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")
        self.inits += 1

    def __getattr__(self, name: str) -> Any:
        function = _NVML.get(name)
        if function is None:
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            if not self.inits:
                raise self.NVMLError("Uninitialized")
            if self.lost:
                raise self.NVMLError("GPU is lost")
            result = function(self, *arguments)
            if result is None:
                raise self.NVMLError("Not Supported")
            return result

        return call


def _by_uuid(library: FakePynvml, uuid: str) -> FakeGpu | None:
    return next((gpu for gpu in library.gpus if gpu.uuid == uuid), None)


def _instance(_: FakePynvml, gpu: FakeGpu, number: int) -> Any:
    found = gpu.instances.get(number)
    return None if found is None else SimpleNamespace(uuid=found[0], slices=found[1])


def _utilisation(_: FakePynvml, gpu: FakeGpu, since: int) -> Any:
    if gpu.utilisation is None:
        return None
    return [
        SimpleNamespace(pid=pid, timeStamp=stamp, smUtil=used) for pid, stamp, used in gpu.utilisation if stamp > since
    ]


_NVML: dict[str, Any] = {
    "nvmlDeviceGetCount": lambda library: len(library.gpus),
    "nvmlDeviceGetHandleByIndex": lambda library, index: library.gpus[index],
    "nvmlDeviceGetHandleByUUID": _by_uuid,
    "nvmlDeviceGetUUID": lambda _, device: device.uuid,
    "nvmlDeviceGetName": lambda _, gpu: gpu.name,
    "nvmlDeviceGetTotalEnergyConsumption": lambda _, gpu: gpu.energy_millijoules,
    "nvmlDeviceGetPowerUsage": lambda _, gpu: gpu.milliwatts,
    "nvmlDeviceGetComputeRunningProcesses": lambda _, gpu: [SimpleNamespace(pid=pid) for pid in gpu.pids],
    "nvmlDeviceGetProcessUtilization": _utilisation,
    "nvmlDeviceGetMaxMigDeviceCount": lambda _, gpu: gpu.most_instances,
    "nvmlDeviceGetMigDeviceHandleByIndex": _instance,
    "nvmlDeviceGetAttributes_v2": lambda _, instance: SimpleNamespace(gpuInstanceSliceCount=instance.slices),
}


# ---- contract -----------------------------------------------------------------------------------------------------


class EnergySourceContract:
    """What every energy source promises. Subclass it in a test module, implement both methods, name it ``Test...``."""

    def make_source(self) -> EnergySource:
        """Return a source that can be read."""
        raise NotImplementedError

    def let_time_pass(self) -> None:
        """Make time pass, and energy be used, between two reads."""
        raise NotImplementedError

    def test_says_what_it_is(self) -> None:
        """Attributes are as the port says."""
        source = self.make_source()
        assert source.name
        assert source.name == source.name.lower()
        assert source.domain in {"cpu", "memory"} or source.domain.startswith("gpu:")
        assert isinstance(source.grade, Grade)
        assert source.resolution_seconds > 0
        assert source.sensor_uncertainty >= 0
        assert source.longest_interval_seconds >= 1
        assert source.idle_milliwatts is None or source.idle_milliwatts >= 0

    def test_counts_upwards_in_whole_millijoules(self) -> None:
        """Energy and time are integers that never decrease, and energy is used while time passes."""
        source = self.make_source()
        samples = [source.read()]
        for _ in range(5):
            self.let_time_pass()
            samples.append(source.read())
        for before, after in pairwise(samples):
            assert type(after.millijoules) is int
            assert type(after.monotonic_ns) is int
            assert after.millijoules >= before.millijoules
            assert after.monotonic_ns >= before.monotonic_ns
        assert samples[-1].millijoules > samples[0].millijoules

    def test_reading_twice_at_once_adds_nothing(self) -> None:
        """A second read without time in between shows the same energy."""
        source = self.make_source()
        self.let_time_pass()
        assert source.read().millijoules == source.read().millijoules

    def test_describes_itself_without_identifying_the_host(self) -> None:
        """Facts are text; no host name."""
        import platform

        facts = self.make_source().describe()
        assert facts
        assert all(isinstance(key, str) and isinstance(text, str) for key, text in facts.items())
        node = platform.node()
        assert not node or len(node) < 4 or all(node not in text for text in facts.values())

    def test_is_read_from_several_threads(self) -> None:
        """Concurrent reads raise nothing but a CaggError and leave the counter monotone."""
        source = self.make_source()
        source.read()
        failures: list[CaggError] = []

        def read() -> None:
            for _ in range(20):
                try:
                    source.read()
                except CaggError as error:
                    failures.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        before = source.read().millijoules
        self.let_time_pass()
        assert source.read().millijoules >= before
        assert not failures
