"""Triggers on a clock that stands still: a sleep moves it, so that hours pass at once and a test sees each wake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cagg.budget.tree import parse_limit
from cagg.composition import Grid, compose
from cagg.energy.meter import Meter, MeterSettings
from cagg.gating import Gate
from cagg.intensity import Zone
from cagg.ports import IntensityProvider, Sample
from cagg.provenance import Grade
from cagg.records import Budget, BudgetMode
from cagg.settings import load_settings
from cagg.steps.budgets import change_budget
from cagg.testing.clock import ManualClock
from cagg.testing.intensity import FakeProvider, series_of

NOW = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
GB = Zone(provider="fake", code="GB")


class Socket:
    """A counter that runs at the power that a test sets; all of it is idle power that the only open run owns."""

    name, domain, grade = "socket", "cpu", Grade.B
    resolution_seconds, sensor_uncertainty, longest_interval_seconds = 0.001, 0.05, 60.0
    idle_milliwatts: int | None = 10**9

    def __init__(self, site: Site) -> None:
        self._site, self._last_ns, self._millijoules = site, site.clock.monotonic_ns(), 0

    def read(self) -> Sample:
        now = self._site.clock.monotonic_ns()
        self._millijoules += (now - self._last_ns) * self._site.meter_milliwatts // 10**9
        self._last_ns = now
        return Sample(monotonic_ns=now, millijoules=self._millijoules)

    def describe(self) -> dict[str, str]:
        return {"socket": "as the test says"}


class Site:
    """One triggerer (or worker): a gate on a fake source, and the sleeps of its triggers."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(NOW)
        self.meter_milliwatts = 100_000
        self.slept: list[float] = []
        self.wakes: list[Callable[[], None]] = []
        self.source = FakeProvider(
            series_of(300, 250, 200, 100, 100, 200, 300, 400, start=NOW, step=timedelta(hours=1), zone=GB),
            clock=self.clock,
        )
        self.folder = folder
        self.gate = self._open()

    def _open(self, **arguments: Any) -> Gate:
        settings = load_settings(
            start=self.folder,
            environ={"CAGG_HOME": str(self.folder / "home")},
            arguments={
                "zone": "fake:GB",
                "meter.idle_policy": "active",
                "timezone": "UTC",
                "grid.steering": "fake",
                "grid.planning_intensity": "500 g/kWh",
                **arguments,
            },
        )
        meter = Meter(
            clock=self.clock,
            sources=[Socket(self)],
            settings=MeterSettings(background=False, idle_policy=settings.idle_policy),
        )
        parts = compose(settings, clock=self.clock, meter_factory=lambda: meter)
        with parts.store.transaction():
            pass
        return Gate(parts)

    def reopen(self, **arguments: Any) -> None:
        """Open the gate with other settings."""
        self.gate.components.store.close()
        self.gate = self._open(**arguments)

    def budget(self, path: str, limit: str, mode: BudgetMode = BudgetMode.ENFORCE) -> None:
        """Create or change a budget."""
        unit, amount, period = parse_limit(limit)
        with self.gate.components.store.transaction() as tx:
            change_budget(tx, Budget(path=path, unit=unit, period=period, time_zone="UTC", limit=amount, mode=mode))

    async def sleep(self, seconds: float) -> None:
        """Stand in for the loop's sleep."""
        self.slept.append(seconds)
        self.clock.advance(seconds)
        for wake in list(self.wakes):
            wake()
        await asyncio.sleep(0)

    def fire(self, trigger: Any) -> dict[str, Any]:
        """Build the trigger anew from what Airflow stores of it, as a triggerer does; return its one event."""
        from airflow.sdk.module_loading import import_string

        classpath, arguments = trigger.serialize()
        again = import_string(classpath)(**arguments)
        for name in ("timeout_after", "task_instance"):
            if getattr(trigger, name, None) is not None:
                setattr(again, name, getattr(trigger, name))
        assert again.serialize() == trigger.serialize()
        events = asyncio.run(_all(again.run()))
        assert len(events) == 1
        payload: dict[str, Any] = events[0].payload
        return payload

    def together(self, *work: Callable[[], Awaitable[Any]]) -> list[Any]:
        """Run coroutines on one loop, as one triggerer does."""

        async def run() -> list[Any]:
            return await asyncio.gather(*(one() for one in work))

        return asyncio.run(run())


async def _all(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with everything switched on."""
    # imported late: Airflow reads its home when it is imported, and the suite's own must be set by then
    from cagg_airflow import asking, opening, sharing, waiting

    monkeypatch.setenv("AIRFLOW__CAGG__ENABLED", "True")
    built: list[IntensityProvider] = []
    monkeypatch.setattr(Grid, "_build", lambda self, names: built)
    made = Site(tmp_path)
    built.append(made.source)
    monkeypatch.setattr(waiting, "_clock", made.clock)
    monkeypatch.setattr(waiting, "_sleep", made.sleep)
    monkeypatch.setattr(opening, "open_gate", lambda: made.gate)
    assert asking.opening is opening
    assert sharing.opening is opening
    yield made
    made.gate.components.store.close()
