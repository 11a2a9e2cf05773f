"""Short ways to past runs and intensities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cagg.assessment.history import SLOT_MS, FoldedHistory
from cagg.assessment.intensities import SlotIntensities
from cagg.assessment.judging import Assumptions
from cagg.assessment.power import PowerAssumption, PowerRange
from cagg.pastruns import PastRun, RunOutcome, RunTrigger
from cagg.provenance import IntensityKind
from cagg.quantities import Energy
from cagg.windows import Window, to_epoch_ms

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
WEEK = Window(start=MONDAY, end=MONDAY + timedelta(days=7))


def past_run(start: datetime, minutes: float, **fields: Any) -> PastRun:
    """A run of ``nightly`` that succeeded; scheduled for its start."""
    stated: dict[str, Any] = {
        "pipeline": "nightly",
        "run_id": f"r{start.isoformat()}",
        "task": "train",
        "outcome": RunOutcome.SUCCEEDED,
        "trigger": RunTrigger.SCHEDULED,
        "scheduled_at": start,
        "started_at": start,
        "ended_at": start + timedelta(minutes=minutes),
    }
    return PastRun(**{**stated, **fields})


def intensities(by_hour: Callable[[datetime], int | None], *, days: int = 9) -> SlotIntensities:
    """Half hours from Monday on; the function gives g/kWh, None = unknown."""
    first = to_epoch_ms(MONDAY) // SLOT_MS
    known: dict[int, int] = {}
    for number in range(48 * days):
        value = by_hour(MONDAY + timedelta(minutes=30 * number))
        if value is not None:
            known[first + number] = 1_000 * value
    return SlotIntensities(by_slot=known, label="test for neso:GB (measured)", kind=IntensityKind.MEASURED)


@pytest.fixture
def fold() -> Callable[..., FoldedHistory]:
    def make(*runs: PastRun, power: str = "1 kW..2 kW", stated: bool = True) -> FoldedHistory:
        history = FoldedHistory(window=WEEK, power=PowerAssumption(default=PowerRange.parse(power), stated=stated))
        for run in runs:
            history.add(run)
        return history

    return make


@pytest.fixture
def assume() -> Callable[..., Assumptions]:
    def make(**fields: Any) -> Assumptions:
        night = intensities(lambda at: 100 if at.hour < 6 else 300)
        stated: Mapping[str, Any] = {
            "zone": "neso:GB",
            "actual": night,
            "actual_reason": "",
            "typical": night,
            "typical_reason": "",
            "pue_ppm": None,
            "materiality": Energy.parse("5 Wh"),
            "max_wait": timedelta(hours=8),
        }
        return Assumptions(**{**stated, **fields})

    return make


@pytest.fixture
def build() -> Callable[..., PastRun]:
    return past_run


@pytest.fixture
def emitted() -> Callable[..., SlotIntensities]:
    return intensities
