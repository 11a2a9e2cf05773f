"""A gate over a real store on each backend, a trace, a clock that stands still and a machine of steady power."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cagg.budget.tree import parse_limit
from cagg.composition import compose
from cagg.energy.meter import Meter, MeterSettings
from cagg.gating import Gate
from cagg.ledger.encoding import decode
from cagg.ledger.sequencer import sequence
from cagg.ports import Sample
from cagg.provenance import Grade
from cagg.records import Budget, BudgetMode, EntryKind
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.settings import load_settings
from cagg.steps import running
from cagg.steps.budgets import change_budget
from cagg.testing import ManualClock

NOW = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)


class SteadySource:
    """Draws the same power for ever; all of it is idle power that the only open run owns."""

    name, domain, grade = "steady", "cpu", Grade.B
    resolution_seconds, sensor_uncertainty, longest_interval_seconds = 0.001, 0.05, 60.0

    def __init__(self, clock: ManualClock, milliwatts: int) -> None:
        self._clock, self._milliwatts = clock, milliwatts
        self.idle_milliwatts: int | None = milliwatts

    def read(self) -> Sample:
        now = self._clock.monotonic_ns()
        return Sample(monotonic_ns=now, millijoules=now * self._milliwatts // 10**9)

    def describe(self) -> Mapping[str, str]:
        return {"steady": f"{self._milliwatts} mW"}


class Bench:
    """A gate with everything a test may want to move."""

    def __init__(self, folder: Path, store: str | None) -> None:
        self.folder = folder
        self.clock = ManualClock(NOW)
        self.environ = {"CAGG_HOME": str(folder / "home")}
        self.overrides: dict[str, Any] = {"meter.idle_policy": "active"}
        if store is not None:
            self.overrides["store"] = store
        self.write_trace([300, 250, 200, 100, 100, 200, 300, 400, 400, 400])

    def write_trace(self, g_per_kwh: list[float], *, minutes: int = 60) -> None:
        rows = ["start,g_per_kwh,end"]
        for number, value in enumerate(g_per_kwh):
            start = NOW + timedelta(minutes=minutes * number)
            rows.append(f"{start.isoformat()},{value},{(start + timedelta(minutes=minutes)).isoformat()}")
        (self.folder / "trace.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (self.folder / "cagg.toml").write_text(
            'zone = "trace:GB"\ntimezone = "UTC"\n'
            '[grid]\nplanning_intensity = "500 g/kWh"\n[grid.trace]\nfile = "trace.csv"\nname = "GB"\n',
            encoding="utf-8",
        )

    def open(self, **overrides: Any) -> Gate:
        settings = load_settings(start=self.folder, environ=self.environ, arguments={**self.overrides, **overrides})
        meter = Meter(
            clock=self.clock,
            sources=[SteadySource(self.clock, 100_000)],
            settings=MeterSettings(background=False, idle_policy=settings.idle_policy),
        )
        return Gate(compose(settings, clock=self.clock, meter_factory=lambda: meter))

    def budget(self, gate: Gate, path: str, limit: str, mode: BudgetMode = BudgetMode.ENFORCE, **more: Any) -> None:
        unit, amount, period = parse_limit(limit)
        with gate.components.store.transaction() as tx:
            change_budget(
                tx, Budget(path=path, unit=unit, period=period, time_zone="UTC", limit=amount, mode=mode, **more)
            )

    def request(
        self, run: str = "run-1", *, host: HostProfile | None = None, attempt: int = 1, **options: Any
    ) -> Request:
        stated = {"energy": "2 kWh", "duration": "1h", "finish_by": "06:00", **options}
        return Request(
            identity=RequestIdentity(host="local", root_run_id=run, task_key="nightly", attempt=attempt),
            options=GateOptions(**{name: value for name, value in stated.items() if value is not None}),
            host=host or HostProfile(name="local"),
        )

    def bodies(self, gate: Gate, kind: EntryKind | None = None) -> list[dict[str, Any]]:
        with gate.components.store.transaction() as tx:  # what `cagg maintain` does where appends do not
            while sequence(tx):
                pass
        with gate.components.store.snapshot() as tx:
            found = [decode(entry.body) for entry in tx.entries(kind=kind)]
        return [body for body in found if isinstance(body, dict)]


@pytest.fixture(autouse=True)
def _outside_of_any_run() -> Iterator[None]:
    """Tests that let a run die must not leave the next test inside of it."""
    token = running._CURRENT.set(None)
    yield
    running._CURRENT.reset(token)
    running._MAIN_THREAD_RUNS.clear()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_address(request: pytest.FixtureRequest) -> str | None:
    """Where the gate keeps everything; None = where it does when nobody says."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def bench(tmp_path: Path, store_address: str | None) -> Bench:
    """A fresh bench."""
    return Bench(tmp_path, store_address)


@pytest.fixture
def make_gate(bench: Bench) -> Iterator[Callable[..., Gate]]:
    """Opens gates and closes their stores."""
    opened: list[Gate] = []

    def make(**overrides: Any) -> Gate:
        gate = bench.open(**overrides)
        opened.append(gate)
        return gate

    yield make
    for gate in opened:
        gate.components.store.close()
