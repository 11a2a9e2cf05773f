"""GPUs against a stand-in library: visibility, counters, fallback to power, sharing, partitions, faults."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cagg.energy.sources.nvml import Nvml, NvmlSource, driver_present, find_nvml
from cagg.energy.sources.visible_devices import visible_devices
from cagg.errors import MeterUnavailable, MissingExtra
from cagg.ports import EnergySource
from cagg.provenance import Grade
from cagg.quantities import PPM
from cagg.testing.clock import ManualClock
from cagg.testing.energy import EnergySourceContract, FakeGpu, FakePynvml

OURS = {100, 101}


def gpus(count: int = 2) -> list[FakeGpu]:
    return [FakeGpu(f"GPU-{index:04d}-aaaa") for index in range(count)]


def find(
    library: FakePynvml, visible: str | None = None, *, clock: ManualClock | None = None, proc: Path = Path("/proc")
) -> list[NvmlSource]:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return find_nvml(clock or ManualClock(), nvml=Nvml(library), environment=environment, proc=proc)


@pytest.mark.parametrize(
    ("visible", "domains"),
    [
        (None, ["gpu:0", "gpu:1", "gpu:2"]),
        ("", []),
        ("-1", []),
        ("1", ["gpu:1"]),
        ("2,0", ["gpu:2", "gpu:0"]),
        (" 0 , 1 ", ["gpu:0", "gpu:1"]),
        ("0,-1,2", ["gpu:0"]),
        ("0,7,1", ["gpu:0"]),
        ("nonsense", []),
        ("0,0", ["gpu:0"]),
        ("GPU-0002", ["gpu:2"]),
        ("gpu-0001-AAAA", ["gpu:1"]),
        ("GPU-", []),
        ("MIG-0001/3", []),
    ],
)
def test_only_the_devices_that_cuda_shows_are_counted(visible: str | None, domains: list[str]) -> None:
    assert [source.domain for source in find(FakePynvml(gpus(3)), visible)] == domains


def test_the_variable_unset_shows_all_and_empty_shows_none() -> None:
    assert visible_devices(None) is None
    assert visible_devices("") == []


def test_with_no_device_visible_the_library_is_not_even_initialised() -> None:
    library = FakePynvml(gpus())
    assert find(library, "") == []
    assert library.inits == 0


def test_the_counter_is_read_and_the_best_grade_is_a() -> None:
    library = FakePynvml(gpus(1))
    library.gpus[0].energy_millijoules = 5_000_000
    source = find(library)[0]
    library.gpus[0].energy_millijoules = 5_070_000
    assert source.read().millijoules == 70_000
    assert source.grade is Grade.A
    assert source.longest_interval_seconds > 60


def test_without_a_counter_power_is_integrated_every_second() -> None:
    clock = ManualClock()
    gpu = FakeGpu("GPU-old", energy_millijoules=None)
    gpu.milliwatts = 100_000
    source = find(FakePynvml([gpu]), clock=clock)[0]
    assert source.longest_interval_seconds == 1.0
    clock.advance(1)
    gpu.milliwatts = 200_000
    assert source.read().millijoules == 150_000
    clock.advance(1)
    assert source.read().millijoules == 350_000
    assert source.grade is Grade.B


def test_a_counter_that_runs_backwards_is_a_fault_and_then_starts_anew() -> None:
    gpu = gpus(1)[0]
    gpu.energy_millijoules = 900
    source = find(FakePynvml([gpu]))[0]
    gpu.energy_millijoules = 10
    with pytest.raises(MeterUnavailable, match="ran backwards"):
        source.read()
    gpu.energy_millijoules = 25
    assert source.read().millijoules == 15


def test_a_lost_device_is_unavailable_and_its_holding_answers_with_a_reason() -> None:
    library = FakePynvml(gpus(1))
    source = find(library, "0")[0]
    library.lost = True
    with pytest.raises(MeterUnavailable, match="GPU is lost"):
        source.read()
    assert "not listed" in source.holding(OURS).reason


def test_a_sole_holder_has_all_of_it() -> None:
    library = FakePynvml(gpus(1))
    library.gpus[0].pids = [101]
    holding = find(library)[0].holding(OURS)
    assert (holding.dynamic_ppm, holding.idle_ppm, holding.grade) == (PPM, PPM, Grade.A)


def test_a_device_of_others_is_not_ours() -> None:
    library = FakePynvml(gpus(1))
    library.gpus[0].pids = [os.getpid()]  # a live process, but not one of the run's
    holding = find(library, "0")[0].holding(OURS)
    assert (holding.dynamic_ppm, holding.idle_ppm) == (0, 0)


def test_an_idle_device_is_ours_only_when_it_was_assigned() -> None:
    library = FakePynvml(gpus(1))
    assert find(library)[0].holding(OURS).idle_ppm == 0
    assigned = find(library, "0")[0].holding(OURS)
    assert (assigned.dynamic_ppm, assigned.idle_ppm) == (0, PPM)


def test_a_shared_device_is_divided_by_utilisation_since_the_last_look() -> None:
    library = FakePynvml(gpus(1))
    gpu = library.gpus[0]
    gpu.pids = [100, 555]
    gpu.utilisation = [(100, 10, 30), (555, 10, 90)]
    source = find(library)[0]
    first = source.holding(OURS)
    assert (first.dynamic_ppm, first.idle_ppm, first.grade) == (PPM // 4, PPM // 2, Grade.B)
    gpu.utilisation += [(100, 20, 50), (555, 20, 50)]
    assert source.holding(OURS).dynamic_ppm == PPM // 2


def test_without_utilisation_a_shared_device_is_divided_equally_and_graded_down() -> None:
    library = FakePynvml(gpus(1))
    library.gpus[0].pids = [100, 555]
    library.gpus[0].utilisation = None
    holding = find(library)[0].holding(OURS)
    assert (holding.dynamic_ppm, holding.grade) == (PPM // 2, Grade.C)
    assert "shared equally" in holding.reason


def test_in_a_container_process_ids_are_foreign_and_the_assignment_decides(tmp_path: Path) -> None:
    library = FakePynvml(gpus(1))
    library.gpus[0].pids = [88_001]
    assigned = find(library, "0", proc=tmp_path)[0].holding(OURS)
    assert (assigned.dynamic_ppm, assigned.grade) == (PPM, Grade.C)
    assert "namespace" in assigned.reason
    assert find(library, proc=tmp_path)[0].holding(OURS).dynamic_ppm == 0


def test_a_partition_is_its_slice_of_the_board_with_grade_d() -> None:
    gpu = gpus(1)[0]
    gpu.most_instances = 7
    gpu.instances = {0: ("MIG-aaaa", 4), 3: ("MIG-bbbb", 2)}
    source = find(FakePynvml([gpu]), "MIG-bbbb")[0]
    assert source.domain == "gpu:0.3"
    assert source.grade is Grade.D
    holding = source.holding(OURS)
    assert holding.dynamic_ppm == PPM * 2 // 7
    assert "whole board" in holding.reason


def test_the_library_is_initialised_once_per_process_and_again_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakePynvml(gpus(1))
    source = find(library)[0]
    source.read()
    assert library.inits == 1
    monkeypatch.setattr(os, "getpid", lambda: 4_242)
    library.gpus[0].energy_millijoules = 77
    assert source.read().millijoules == 0  # the base is taken anew, nothing of the parent's is reported
    assert library.inits == 2


def test_no_driver_is_said_clearly() -> None:
    with pytest.raises(MeterUnavailable, match="driver does not answer"):
        find(FakePynvml(gpus(), driver=False))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingExtra, match=r"cagg\[gpu\]"):
        find_nvml(ManualClock(), environment={})


def test_an_old_library_without_a_function_is_unavailable() -> None:
    library = Nvml(FakePynvml(gpus(1)))
    with pytest.raises(MeterUnavailable, match="nvmlSomethingNew"):
        library.call("nvmlSomethingNew")


def test_the_driver_is_looked_for_by_its_files(tmp_path: Path) -> None:
    assert not driver_present(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    assert driver_present(tmp_path)


def test_no_uuid_is_recorded() -> None:
    facts = find(FakePynvml(gpus(1)))[0].describe()
    assert "aaaa" not in str(facts)
    assert "energy counter" in str(facts)


class TestNvmlContract(EnergySourceContract):
    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        self.clock = ManualClock()
        self.gpu = FakeGpu("GPU-1", energy_millijoules=10)

    def make_source(self) -> EnergySource:
        return find(FakePynvml([self.gpu]), clock=self.clock)[0]

    def let_time_pass(self) -> None:
        self.clock.advance(1)
        assert self.gpu.energy_millijoules is not None
        self.gpu.energy_millijoules += 300_000


class TestNvmlPowerContract(EnergySourceContract):
    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        self.clock = ManualClock()
        self.gpu = FakeGpu("GPU-1", energy_millijoules=None)
        self.gpu.milliwatts = 250_000

    def make_source(self) -> EnergySource:
        return find(FakePynvml([self.gpu]), clock=self.clock)[0]

    def let_time_pass(self) -> None:
        self.clock.advance(1)
