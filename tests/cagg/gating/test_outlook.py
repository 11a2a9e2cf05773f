"""When the grid is clean enough, and whether a budget has room: what sensors ask, without a trace in the store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cagg.budget.standing import read_standing
from cagg.errors import BudgetUnknown, InvalidInput
from cagg.gating import Gate
from cagg.grid.chain import GridAnswer, GridQuality
from cagg.intensity import IntensitySeries
from cagg.provenance import IntensityKind
from cagg.quantities import CarbonIntensity
from cagg.records import BudgetMode
from cagg.request import GateOptions
from cagg.steps.outlook import Readiness, cleanest, first_within, latest_start, look_ahead
from cagg.steps.room import budgets_now, price_need, room_for
from cagg.testing.intensity import series_of

NOW = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def answer(*g_per_kwh: float | None, kind: IntensityKind = IntensityKind.FORECAST) -> GridAnswer:
    series: IntensitySeries | None = None
    if g_per_kwh:
        series = series_of(*g_per_kwh, start=NOW, step=HOUR, kind=kind)
    quality = GridQuality.LIVE if series else GridQuality.NONE
    return GridAnswer(series=series, quality=quality, steps=("asked",), age=None, fetched=None)


def limit(g_per_kwh: int) -> CarbonIntensity:
    return CarbonIntensity(milligrams_per_kwh=g_per_kwh * 1_000)


def test_the_cleanest_start_is_the_optimum_and_now_on_ties() -> None:
    found = cleanest(answer(300, 200, 100, 100, 400), now=NOW, duration=2 * HOUR, latest=NOW + 3 * HOUR)
    assert (found.readiness, found.start) == (Readiness.LATER, NOW + 2 * HOUR)
    assert found.intensity == limit(100)
    assert found.now_intensity == limit(250)
    flat = cleanest(answer(100, 100, 100), now=NOW, duration=HOUR, latest=NOW + 2 * HOUR)
    assert (flat.readiness, flat.start) == (Readiness.NOW, NOW)


def test_a_latest_start_that_has_passed_leaves_now() -> None:
    found = cleanest(answer(300, 100), now=NOW, duration=HOUR, latest=NOW - HOUR)
    assert found.readiness is Readiness.NOW


def test_nothing_is_held_back_without_knowledge_of_now() -> None:
    assert cleanest(answer(), now=NOW, duration=HOUR, latest=NOW + HOUR).readiness is Readiness.UNKNOWN
    assert cleanest(answer(None, 100), now=NOW, duration=HOUR, latest=NOW + HOUR).readiness is Readiness.UNKNOWN


def test_a_threshold_is_met_by_the_moment_or_by_the_mean_of_a_run() -> None:
    series = answer(300, 200, 100)
    found = first_within(series, now=NOW, duration=None, latest=NOW + 3 * HOUR, most=limit(200))
    assert (found.readiness, found.start) == (Readiness.LATER, NOW + HOUR)
    mean = first_within(series, now=NOW, duration=2 * HOUR, latest=NOW + HOUR, most=limit(200))
    assert mean.start == NOW + timedelta(minutes=30)
    never = first_within(series, now=NOW, duration=None, latest=NOW + 3 * HOUR, most=limit(50))
    assert (never.readiness, never.now_intensity) == (Readiness.NOT_FORESEEN, limit(300))
    unknown = first_within(answer(), now=NOW, duration=None, latest=NOW + HOUR, most=limit(1))
    assert unknown.readiness is Readiness.UNKNOWN


def test_the_latest_start_leaves_room_for_the_run(make_gate: Callable[..., Gate]) -> None:
    def latest(**said: Any) -> datetime | None:
        return latest_start(
            GateOptions(**said),
            make_gate().components,
            first_asked_at=NOW,
            scheduled_start=None,
            time_zone=None,
            duration=HOUR,
            wake_margin=timedelta(minutes=1),
        )

    assert latest(finish_by="06:00") == datetime(2026, 11, 24, 4, 59, tzinfo=UTC)
    assert latest(max_wait="90m") == NOW + timedelta(minutes=90)
    assert latest() is None
    with pytest.raises(InvalidInput, match="ago"):
        latest(finish_by="2026-11-23T00:00:00Z")


def test_looking_ahead_records_nothing(bench: Any, make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    found = look_ahead(gate.components, "trace:GB", NOW + 10 * HOUR)
    assert found.series is not None
    bench.budget(gate, "acme", "1 kg/day")
    assert [body["budget_path"] for body in bench.bodies(gate)] == ["acme"]


def test_room_is_what_the_gate_would_let_in(bench: Any, make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    for path, amount in (("acme", "2 kWh/day"), ("acme/ml", "800 g/day")):
        bench.budget(gate, path, amount)
    parts = gate.components
    fits = price_need(parts, path="acme/ml", amount="1.5 kWh", zone=None, until=NOW + HOUR)
    assert fits.carbon is not None
    assert fits.carbon.micrograms == 750_000_000  # 500 g/kWh is declared
    assert not room_for(fits, budgets_now(parts), pue_ppm=None).lacking
    more = price_need(parts, path="acme/ml", amount="1.7 kWh", zone=None, until=NOW + HOUR)
    room = room_for(more, budgets_now(parts), pue_ppm=None)
    assert [item.allotment.budget.path for item in room.lacking] == ["acme/ml"]
    assert room.changes_at == datetime(2026, 11, 24, tzinfo=UTC)
    assert "acme/ml has 800 g" in room.describe()
    carbon = price_need(parts, path="acme/ml", amount="801 g", zone=None, until=NOW + HOUR)
    assert [str(item.allotment.budget.unit) for item in room_for(carbon, budgets_now(parts), pue_ppm=None).lacking] == [
        "carbon"
    ]


def test_what_is_held_counts_and_reading_changes_nothing(bench: Any, make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    bench.budget(gate, "acme", "4 kWh/day")
    with gate.components.store.snapshot() as tx:
        untouched = read_standing(tx)
    assert untouched.allotments["acme"][0].available == 4 * 3_600_000_000
    decision = gate.ask(bench.request(budget="acme", finish_by=None, energy="1 kWh"))
    assert decision.lease_epoch is not None
    with gate.components.store.snapshot() as tx:
        held = read_standing(tx).allotments["acme"][0]
        assert held == tx.allotments("acme")[0]
    assert held.available < untouched.allotments["acme"][0].available


def test_what_observes_never_lacks_and_an_unknown_path_is_an_error(bench: Any, make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    bench.budget(gate, "acme", "0 kWh/day", BudgetMode.OBSERVE)
    parts = gate.components
    need = price_need(parts, path="acme", amount="1 kWh", zone=None, until=NOW)
    assert not room_for(need, budgets_now(parts), pue_ppm=None).lacking
    other = price_need(parts, path="acme/ml", amount="1 kWh", zone=None, until=NOW)
    with pytest.raises(BudgetUnknown, match="acme/ml"):
        room_for(other, budgets_now(parts), pue_ppm=None)
    with pytest.raises(InvalidInput, match="neither energy nor carbon"):
        price_need(parts, path="acme", amount="3 bananas", zone=None, until=NOW)
