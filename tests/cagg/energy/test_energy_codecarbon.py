"""CodeCarbon under safe settings, against a stand-in package; and once against the real one where it is installed."""

from __future__ import annotations

import importlib.util
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cagg.energy.meter import Meter, MeterSettings
from cagg.energy.sources.codecarbon import CodeCarbon, find_codecarbon
from cagg.errors import ConfigurationError, MeterUnavailable, MissingExtra
from cagg.ports import EnergySource
from cagg.provenance import Grade
from cagg.testing.clock import ManualClock
from cagg.testing.energy import EnergySourceContract, FakeSource, FakeUsage


class Library:
    """What the stand-in package saw, and what it will answer."""

    def __init__(self) -> None:
        self.trackers: list[Any] = []
        self.kwh = {"cpu_energy": 0.0, "ram_energy": 0.0, "gpu_energy": 0.0}
        self.silent = False


@pytest.fixture(autouse=True)
def _fresh_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CodeCarbon, "_ours", None)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    state = Library()

    class BaseOutput:
        pass

    class OfflineEmissionsTracker:
        def __init__(self, **options: Any) -> None:
            self._external_conf = {"pue": "9"}
            self.options = options
            self.seen_conf = self._external_conf
            self.started = 0
            logging.getLogger("codecarbon").addHandler(logging.StreamHandler())
            logging.getLogger("codecarbon").propagate = False
            state.trackers.append(self)

        def start(self) -> None:
            self.started += 1

        def flush(self) -> None:
            if not state.silent:
                data = SimpleNamespace(**state.kwh, energy_consumed=sum(state.kwh.values()))
                for handler in self.options["output_handlers"]:
                    handler.out(data, data)

    package, source, output = (ModuleType(name) for name in ("codecarbon", "codecarbon.input", "codecarbon.output"))
    package.OfflineEmissionsTracker = OfflineEmissionsTracker  # type: ignore[attr-defined]
    source.DataSource = lambda: SimpleNamespace(  # type: ignore[attr-defined]
        get_global_energy_mix_data=lambda: {"FRA": {}, "DEU": {}}
    )
    output.BaseOutput = BaseOutput  # type: ignore[attr-defined]
    for module in (package, source, output):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    logger = logging.getLogger("codecarbon")
    before = list(logger.handlers), logger.propagate, logger.level
    yield state
    logger.handlers, logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


def test_one_tracker_per_process_under_safe_settings(library: Library) -> None:
    clock = ManualClock()
    find_codecarbon(clock, country_iso3="FRA")
    find_codecarbon(clock, country_iso3="FRA")
    assert len(library.trackers) == 1
    tracker = library.trackers[0]
    assert tracker.started == 1
    options = tracker.options
    assert options["output_methods"] == []
    assert options["allow_multiple_runs"] is True
    assert (options["pue"], options["wue"], options["tracking_mode"]) == (1.0, 0.0, "machine")
    assert options["country_iso_code"] == "FRA"
    assert tracker.seen_conf == {}, "settings from CODECARBON_* and files must not be read"


def test_logging_is_left_as_it_was(library: Library) -> None:
    logger = logging.getLogger("codecarbon")
    find_codecarbon(ManualClock(), country_iso3="FRA")
    assert logger.handlers == []
    assert logger.propagate is True
    assert library.trackers


def test_energies_are_exact_integers_by_domain(library: Library) -> None:
    clock = ManualClock()
    sources = {source.domain: source for source in find_codecarbon(clock, country_iso3="FRA")}
    library.kwh = {"cpu_energy": 0.001, "ram_energy": 0.0005, "gpu_energy": 0.25}
    clock.advance(1)
    assert {domain: source.read().millijoules for domain, source in sources.items()} == {
        "cpu": 3_600_000,
        "memory": 1_800_000,
        "gpu:all": 900_000_000,
    }
    assert all(source.grade is Grade.D for source in sources.values())


@pytest.mark.parametrize("country", [None, "", "FR", "fra", "France", "XXX"])
def test_a_country_that_codecarbon_would_replace_silently_is_refused(library: Library, country: str | None) -> None:
    with pytest.raises(ConfigurationError, match="codecarbon"):
        find_codecarbon(ManualClock(), country_iso3=country)
    assert library.trackers == []


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(MissingExtra, match=r"cagg\[codecarbon\]"):
        find_codecarbon(ManualClock(), country_iso3="FRA")


@pytest.mark.parametrize("kwh", [float("nan"), -1.0, float("inf")])
def test_unusable_figures_are_unavailable(library: Library, kwh: float) -> None:
    clock = ManualClock()
    source = find_codecarbon(clock, country_iso3="FRA")[0]
    library.kwh["cpu_energy"] = kwh
    with pytest.raises(MeterUnavailable, match="no usable energy"):
        source.read()


def test_silence_and_running_backwards_are_unavailable(library: Library) -> None:
    clock = ManualClock()
    source = find_codecarbon(clock, country_iso3="FRA")[0]
    library.kwh["cpu_energy"] = 1.0
    source.read()
    clock.advance(1)
    library.kwh["cpu_energy"] = 0.5
    with pytest.raises(MeterUnavailable, match="backwards"):
        source.read()
    clock.advance(1)
    library.silent = True
    with pytest.raises(MeterUnavailable, match="no figures"):
        source.read()


def check_reading(cross_check: str | None, library: Library | None) -> tuple[Any, tuple[str, ...]]:
    clock = ManualClock()
    settings = MeterSettings(cross_check=cross_check, codecarbon_country="FRA", background=False)
    meter = Meter(clock=clock, sources=[FakeSource(clock)], settings=settings, usage=FakeUsage(clock))
    window = meter.open("run")
    clock.advance(36)
    if library is not None:
        library.kwh["cpu_energy"] += 0.002
    reading = window.close()
    return (reading.energy, reading.low, reading.high, reading.grade, reading.components), reading.notes


def test_the_cross_check_adds_a_note_and_changes_nothing(library: Library) -> None:
    plain, _ = check_reading(None, library)
    checked, notes = check_reading("codecarbon", library)
    assert plain == checked
    assert any("codecarbon says 2 Wh" in note and "this meter 1 Wh" in note for note in notes)


def test_a_cross_check_that_fails_says_so_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    plain, _ = check_reading(None, None)
    checked, notes = check_reading("codecarbon", None)
    assert plain == checked
    assert any("cross-check by codecarbon failed" in note for note in notes)


class TestCodeCarbonContract(EnergySourceContract):
    @pytest.fixture(autouse=True)
    def _library(self, library: Library) -> None:
        self.clock = ManualClock()
        self.library = library

    def make_source(self) -> EnergySource:
        return find_codecarbon(self.clock, country_iso3="FRA")[0]

    def let_time_pass(self) -> None:
        self.clock.advance(1)
        self.library.kwh["cpu_energy"] += 0.0001


@pytest.mark.skipif(importlib.util.find_spec("codecarbon") is None, reason="needs the extra codecarbon")
def test_the_real_package_stays_offline_quiet_and_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import socket

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODECARBON_PUE", "9")
    monkeypatch.setenv("CODECARBON_OUTPUT_METHODS", "csv")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    clock = ManualClock()
    source = next(source for source in find_codecarbon(clock, country_iso3="FRA") if source.domain == "memory")
    first = source.read()
    threading.Event().wait(1.2)  # CodeCarbon measures on the computer's own clock
    clock.advance(1.2)
    second = source.read()
    assert second.millijoules > first.millijoules
    # Nine times its own figure would show if CODECARBON_PUE had been read: its memory model stays below 100 W here.
    assert second.millijoules - first.millijoules < 100_000 * 3
    assert list(tmp_path.iterdir()) == []
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
