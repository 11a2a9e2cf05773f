"""Processor and memory models, the table of coefficients, and what is said about the hardware."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from cagg.energy.coefficients import DEFAULT, CpuPower, cpu_power
from cagg.energy.hardware import cpu_count, describe_hardware, memory_bytes
from cagg.energy.sources.cpu_model import CpuModelSource
from cagg.energy.sources.memory_model import MemoryModelSource
from cagg.errors import MeterUnavailable
from cagg.ports import EnergySource
from cagg.provenance import Grade
from cagg.testing.clock import ManualClock
from cagg.testing.energy import EnergySourceContract, FakeSource, FakeUsage

ZEN3 = cpu_power({"model name": "AMD EPYC 7763 64-Core Processor"})


def cpu_model(clock: ManualClock, usage: FakeUsage, *, cpus: int = 8, power: CpuPower = ZEN3) -> CpuModelSource:
    return CpuModelSource(clock=clock, look=usage.sample, cpus=cpus, power=power)


@pytest.mark.parametrize(("load", "watts"), [(0.0, 3.648), (4.0, 9.652), (8.0, 15.656)])
def test_power_is_linear_in_the_load(load: float, watts: float) -> None:
    clock = ManualClock()
    source = cpu_model(clock, FakeUsage(clock, cpus=8, load=load))
    start = source.read().millijoules
    clock.advance(1000)
    assert source.read().millijoules - start == pytest.approx(watts * 1_000_000, abs=2)
    assert source.idle_milliwatts == 3_648


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"model name": "AMD EPYC 7763 64-Core Processor"}, "EPYC 3rd Gen"),
        ({"model name": "AMD EPYC 7B13"}, "EPYC 3rd Gen"),
        ({"model name": "AMD EPYC 7R32"}, "EPYC 2nd Gen"),
        ({"model name": "AMD EPYC 9354P 32-Core Processor"}, "EPYC 4th Gen"),
        ({"model name": "AMD EPYC 9R14"}, "EPYC 4th Gen"),
        ({"model name": "AMD EPYC", "cpu family": "25", "model": "1"}, "EPYC 3rd Gen"),
        ({"model name": "AMD EPYC", "cpu family": "23", "model": "49"}, "EPYC 2nd Gen"),
        ({"model name": "AMD EPYC-Genoa Processor", "cpu family": "25", "model": "17"}, "EPYC 4th Gen"),
        (
            {"model name": "Intel(R) Xeon(R) Platinum 8259CL", "cpu family": "6", "model": "85", "stepping": "7"},
            "Cascade Lake",
        ),
        (
            {"model name": "Intel(R) Xeon(R) Platinum 8175M", "cpu family": "6", "model": "85", "stepping": "4"},
            "Skylake",
        ),
        ({"model name": "Intel(R) Xeon(R) Platinum 8375C", "cpu family": "6", "model": "106"}, "Ice Lake"),
        ({"model name": "Intel(R) Xeon(R) Platinum 8488C", "cpu family": "6", "model": "143"}, "Sapphire Rapids"),
    ],
)
def test_known_processors_are_recognised(fields: dict[str, str], name: str) -> None:
    power = cpu_power(fields)
    assert power.recognised
    assert power.name == name


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model name": "AMD EPYC 9755 128-Core Processor", "cpu family": "26", "model": "2"},
        {"model name": "AMD Ryzen Threadripper 3990X", "cpu family": "23", "model": "49"},
        {"model name": "Intel(R) Core(TM) i7-8700K", "cpu family": "6", "model": "158", "stepping": "10"},
        {"model name": "Intel(R) Xeon(R) Processor", "cpu family": "6", "model": "167", "stepping": "1"},
        {"model name": "Intel(R) Xeon(R)", "cpu family": "six", "model": ""},
    ],
)
def test_unknown_processors_get_the_default_and_grade_d(fields: dict[str, str]) -> None:
    clock = ManualClock()
    power = cpu_power(fields)
    assert power is DEFAULT
    assert cpu_model(clock, FakeUsage(clock), power=power).grade is Grade.D
    assert cpu_model(clock, FakeUsage(clock)).grade is Grade.C


def test_unknown_busy_time_is_no_energy() -> None:
    clock = ManualClock()
    usage = FakeUsage(clock)
    source = cpu_model(clock, usage)
    before = source.read().millijoules
    usage.busy_known = False
    clock.advance(10)
    with pytest.raises(MeterUnavailable, match="/proc/stat"):
        source.read()
    usage.busy_known = True
    assert source.read().millijoules == before


def test_memory_is_integrated_over_time() -> None:
    clock = ManualClock()
    usage = FakeUsage(clock, used_bytes=10_000_000_000)
    source = MemoryModelSource(clock=clock, look=usage.sample)
    start = source.read().millijoules
    clock.advance(100)
    assert source.read().millijoules - start == 392_000
    usage.used_bytes = 20_000_000_000
    clock.advance(100)
    assert source.read().millijoules - start == 392_000 + 588_000


def test_hardware_is_described_without_the_host_name(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7B13\n\n"
        "processor\t: 1\nmodel name\t: another\n"
    )
    (tmp_path / "stat").write_text("cpu 1 2\ncpu0 1 2\ncpu1 1 2\ncpu2 1 2\nintr 5\n")
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n")
    facts = describe_hardware(tmp_path)
    assert facts["cpu"] == "AMD EPYC 7B13"
    assert facts["cpus"] == "3"
    assert facts["memory_gib"] == "16"
    assert "EPYC 3rd Gen" in facts["cpu_model"]
    node = platform.node()
    assert len(node) < 4 or all(node not in text for text in facts.values())


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert memory_bytes(tmp_path) is None
    facts = describe_hardware(tmp_path)
    assert "memory_gib" not in facts
    assert "cpu" not in facts
    (tmp_path / "meminfo").write_text("MemTotal: much\n")
    assert memory_bytes(tmp_path) is None
    assert cpu_count(tmp_path) is None or cpu_count(tmp_path) == __import__("os").cpu_count()


class _Timed:
    clock: ManualClock

    @pytest.fixture(autouse=True)
    def _clock(self) -> None:
        self.clock = ManualClock()

    def let_time_pass(self) -> None:
        self.clock.advance(1)


class TestCpuModelContract(_Timed, EnergySourceContract):
    def make_source(self) -> EnergySource:
        return cpu_model(self.clock, FakeUsage(self.clock))


class TestMemoryModelContract(_Timed, EnergySourceContract):
    def make_source(self) -> EnergySource:
        return MemoryModelSource(clock=self.clock, look=FakeUsage(self.clock).sample)


class TestFakeSourceContract(_Timed, EnergySourceContract):
    def make_source(self) -> EnergySource:
        return FakeSource(self.clock)
