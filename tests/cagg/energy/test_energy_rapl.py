"""RAPL against a made-up powercap directory: nothing twice, nothing missing, wraps, faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from cagg.energy.sources.rapl import RaplAbsent, RaplSource, find_rapl
from cagg.errors import MeterUnavailable
from cagg.ports import EnergySource
from cagg.provenance import Grade
from cagg.testing.clock import ManualClock
from cagg.testing.energy import EnergySourceContract

JOULE = 1_000_000
RANGE = 262_143 * JOULE


class Powercap:
    """A directory laid out like /sys/class/powercap, with links to the zones as the kernel makes them."""

    def __init__(self, root: Path) -> None:
        self.root = root / "class"
        self.devices = root / "devices"
        self.root.mkdir()
        self.zones: dict[str, Path] = {}

    def zone(self, key: str, name: str, microjoules: int, top: int | None = RANGE) -> None:
        driver, *numbers = key.split(":")
        path = self.devices / driver / f"{driver}:{numbers[0]}"
        if len(numbers) == 2:
            path = path / key
        path.mkdir(parents=True, exist_ok=True)
        (path / "name").write_text(name + "\n")
        if top is not None:
            (path / "max_energy_range_uj").write_text(f"{top}\n")
        (self.root / key).symlink_to(path)
        self.zones[key] = path
        self.set(key, microjoules)

    def set(self, key: str, microjoules: int) -> None:
        (self.zones[key] / "energy_uj").write_text(f"{microjoules}\n")


@pytest.fixture
def cap(tmp_path: Path) -> Powercap:
    return Powercap(tmp_path)


def millijoules(sources: list[RaplSource]) -> dict[str, int]:
    return {source.domain: source.read().millijoules for source in sources}


def test_packages_are_summed_parts_are_not_and_dram_is_the_memorys(cap: Powercap) -> None:
    cap.zone("intel-rapl:0", "package-0", 100 * JOULE)
    cap.zone("intel-rapl:0:0", "core", 5 * JOULE)
    cap.zone("intel-rapl:0:1", "dram", 7 * JOULE)
    cap.zone("intel-rapl:1", "package-1", 900 * JOULE)
    cap.zone("intel-rapl:1:1", "dram", 30 * JOULE)
    cap.zone("intel-rapl:2", "psys", 5_000 * JOULE)
    sources = find_rapl(ManualClock(), root=cap.root)
    cap.set("intel-rapl:0", 200 * JOULE)
    cap.set("intel-rapl:0:0", 80 * JOULE)
    cap.set("intel-rapl:0:1", 67 * JOULE)
    cap.set("intel-rapl:1", 950 * JOULE)
    cap.set("intel-rapl:1:1", 40 * JOULE)
    cap.set("intel-rapl:2", 9_000 * JOULE)
    assert millijoules(sources) == {"cpu": 150_000, "memory": 70_000}
    assert all(source.grade is Grade.A for source in sources)


def test_psys_stands_in_where_there_is_no_package(cap: Powercap) -> None:
    cap.zone("intel-rapl:0", "psys", 100 * JOULE)
    sources = find_rapl(ManualClock(), root=cap.root)
    cap.set("intel-rapl:0", 103 * JOULE)
    assert millijoules(sources) == {"cpu": 3_000}


def test_mmio_shows_the_same_package_again(cap: Powercap) -> None:
    cap.zone("intel-rapl:0", "package-0", 100 * JOULE)
    cap.zone("intel-rapl-mmio:0", "package-0", 41 * JOULE)
    sources = find_rapl(ManualClock(), root=cap.root)
    cap.set("intel-rapl:0", 110 * JOULE)
    cap.set("intel-rapl-mmio:0", 51 * JOULE)
    assert millijoules(sources) == {"cpu": 10_000}


def test_dies_that_mirror_one_counter_count_once(cap: Powercap) -> None:
    cap.zone("intel-rapl:0", "package-0-die-0", 1_000 * JOULE)
    cap.zone("intel-rapl:1", "package-0-die-1", 1_000 * JOULE + 900)
    sources = find_rapl(ManualClock(), root=cap.root)
    cap.set("intel-rapl:0", 1_100 * JOULE)
    cap.set("intel-rapl:1", 1_100 * JOULE + 1_000)
    assert millijoules(sources) == {"cpu": 100_000}
    # Equal by chance at the start, but moving on its own: from then on it counts.
    cap.set("intel-rapl:0", 1_200 * JOULE)
    cap.set("intel-rapl:1", 1_150 * JOULE)
    assert millijoules(sources) == {"cpu": 249_999}


def test_dies_of_their_own_count_both_also_when_they_start_at_zero(cap: Powercap) -> None:
    cap.zone("intel-rapl:0", "package-0-die-0", 0)
    cap.zone("intel-rapl:1", "package-0-die-1", 0)
    sources = find_rapl(ManualClock(), root=cap.root)
    cap.set("intel-rapl:0", 40 * JOULE)
    cap.set("intel-rapl:1", 50 * JOULE)
    assert millijoules(sources) == {"cpu": 90_000}


def test_wraps_are_undone(cap: Powercap) -> None:
    cap.zone("intel-rapl:0", "package-0", RANGE - 10 * JOULE)
    source = find_rapl(ManualClock(), root=cap.root)[0]
    cap.set("intel-rapl:0", 5 * JOULE)
    assert source.read().millijoules == 15_000
    cap.set("intel-rapl:0", RANGE - JOULE)
    source.read()
    cap.set("intel-rapl:0", JOULE)
    assert source.read().millijoules == 15_000 + RANGE // 1000 - 6_000 + 2_000
    assert source.longest_interval_seconds * 4 * 500 <= RANGE / JOULE


def test_backwards_without_a_range_is_a_fault_and_the_next_read_starts_anew(cap: Powercap) -> None:
    cap.zone("intel-rapl:0", "package-0", 100 * JOULE, top=None)
    source = find_rapl(ManualClock(), root=cap.root)[0]
    cap.set("intel-rapl:0", 10 * JOULE)
    with pytest.raises(MeterUnavailable, match="ran backwards"):
        source.read()
    before = source.read().millijoules
    cap.set("intel-rapl:0", 12 * JOULE)
    assert source.read().millijoules - before == 2_000


def test_microjoules_are_not_lost_between_reads(cap: Powercap) -> None:
    cap.zone("intel-rapl:0", "package-0", 0)
    source = find_rapl(ManualClock(), root=cap.root)[0]
    for step in range(1, 201):
        cap.set("intel-rapl:0", step * 1_005)
        source.read()
    assert source.read().millijoules == 201


def test_permission_denied_names_the_remedy(cap: Powercap) -> None:
    cap.zone("intel-rapl:0", "package-0", 100 * JOULE)

    def read_text(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return path.read_text()

    with pytest.raises(MeterUnavailable, match="chmod a\\+r"):
        find_rapl(ManualClock(), root=cap.root, read_text=read_text)


def test_permission_may_be_lost_and_come_back(cap: Powercap) -> None:
    cap.zone("intel-rapl:0", "package-0", 100 * JOULE)
    denied = False

    def read_text(path: Path) -> str:
        if denied:
            raise PermissionError(13, "Permission denied")
        return path.read_text()

    source = find_rapl(ManualClock(), root=cap.root, read_text=read_text)[0]
    denied = True
    with pytest.raises(MeterUnavailable):
        source.read()
    denied = False
    assert source.read().millijoules == 0


def test_a_machine_without_counters_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RaplAbsent, match="virtual machine"):
        find_rapl(ManualClock(), root=tmp_path / "nothing")


@pytest.mark.parametrize("content", ["", "nonsense"])
def test_an_unreadable_counter_is_reported(cap: Powercap, content: str) -> None:
    cap.zone("intel-rapl:0", "package-0", 1)
    source = find_rapl(ManualClock(), root=cap.root)[0]
    (cap.zones["intel-rapl:0"] / "energy_uj").write_text(content)
    with pytest.raises(MeterUnavailable, match="cannot be read"):
        source.read()


class TestRaplContract(EnergySourceContract):
    @pytest.fixture(autouse=True)
    def _powercap(self, tmp_path: Path) -> None:
        self.clock = ManualClock()
        self.cap = Powercap(tmp_path)
        self.microjoules = RANGE - 3 * JOULE
        self.cap.zone("intel-rapl:0", "package-0", self.microjoules)

    def make_source(self) -> EnergySource:
        return find_rapl(self.clock, root=self.cap.root)[0]

    def let_time_pass(self) -> None:
        self.clock.advance(1)
        self.microjoules = (self.microjoules + JOULE) % RANGE
        self.cap.set("intel-rapl:0", self.microjoules)
