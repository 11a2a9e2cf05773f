"""The same question in every engine: cases whose recorded decision must be the same bytes whoever asks.

An adapter's suite builds the request of each case with its own code, in a context like its engine's, and compares
:func:`recorded_decision` with the file that ships with the tests. What names the asker (identity, engine, labels,
code and software versions) is left out, and so is the engine's shortest wait; the wake margin is the case's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cagg.budget.tree import parse_limit
from cagg.composition import compose
from cagg.energy.meter import Meter, MeterSettings
from cagg.gating import Gate
from cagg.ledger.encoding import canonical, decode
from cagg.ledger.entry import append
from cagg.records import Budget, BudgetMode, EntryDraft, EntryKind
from cagg.request import Request
from cagg.settings import load_settings
from cagg.steps.budgets import change_budget
from cagg.testing.clock import ManualClock
from cagg.testing.kinds import reading_body
from cagg.windows import format_instant

__all__ = ["WAKE_MARGIN", "DecisionCase", "decision_cases", "recorded_decision"]

WAKE_MARGIN = timedelta(seconds=60)
"""The wake margin of every case; an adapter with another one replaces it in the request."""

_TEN = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
_TRACE = (300, 250, 200, 100, 100, 200, 300, 400, 400, 400)
_NAMES_THE_ASKER = (
    "key",
    "series_key",
    "host",
    "root_run_id",
    "task_key",
    "ordinal",
    "inputs_digest",
    "labels",
    "code",
    "engine_run",
)

_NAMES_THE_ENTRY = ("entry_id", "idempotency_key", "log", "recorded_at", "request_key", "parents", "software")

_POLICY = """\
zone = "trace:GB"
timezone = "Europe/London"
[policy]
materiality = "5 Wh"
max_deferrals = 6
[grid]
planning_intensity = "500 g/kWh"
[grid.trace]
file = "trace.csv"
name = "GB"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionCase:
    """One question.

    Attributes:
        name: line of the golden file.
        options: fields of GateOptions, as a decorator takes them.
        asked_at: the clock.
        scheduled_start: when the schedule wanted the run; None = started by hand.
        time_zone: IANA zone of the schedule.
        attempt: the engine's own attempt.
        past_energy_millijoules: energies of earlier completed runs of the task, each of 45 minutes.
        budgets: (path, limit, mode) to set first.
    """

    name: str
    options: dict[str, Any]
    asked_at: datetime = _TEN
    scheduled_start: datetime | None = _TEN
    time_zone: str | None = "Europe/London"
    attempt: int = 1
    past_energy_millijoules: tuple[int, ...] = ()
    budgets: tuple[tuple[str, str, BudgetMode], ...] = field(default=())


_LARGE = {"energy": "2 kWh", "duration": "1h", "finish_by": "06:00"}
_BUDGETED = {**_LARGE, "budget": "acme/ml/nightly"}
_NIGHTLY = ("acme/ml/nightly", "5 kg/month", BudgetMode.ENFORCE)
_TEAM = (("acme", "10 kg/month", BudgetMode.ENFORCE), ("acme/ml", "2 kg/day", BudgetMode.ENFORCE), _NIGHTLY)
_TIGHT = (("acme/ml", "1 g/day", BudgetMode.ENFORCE), _NIGHTLY)
_WATCHED = (("acme/ml", "1 g/day", BudgetMode.OBSERVE), _NIGHTLY)

decision_cases: tuple[DecisionCase, ...] = (
    DecisionCase(name="nothing said", options={}),
    DecisionCase(name="deferred to the cleanest window", options=_LARGE),
    DecisionCase(name="held while it waits", options=_BUDGETED, budgets=_TEAM),
    DecisionCase(name="no budget of that name", options=_BUDGETED),
    DecisionCase(name="enforced budget too small", options=_BUDGETED, budgets=_TIGHT),
    DecisionCase(name="observed budget too small", options=_BUDGETED, budgets=_WATCHED),
    DecisionCase(name="monitor passes a limit", options={**_BUDGETED, "purpose": "monitor"}, budgets=_TIGHT),
    DecisionCase(name="a release, started by hand", options={**_LARGE, "kind": "validation"}, scheduled_start=None),
    DecisionCase(name="a retry runs now", options=_BUDGETED, attempt=2, budgets=_TEAM),
    DecisionCase(
        name="learned from history", options={"finish_by": "06:00"}, past_energy_millijoules=(3_600_000_000,) * 12
    ),
    DecisionCase(name="too small to matter", options={"energy": "1 Wh", "duration": "10m", "finish_by": "06:00"}),
    DecisionCase(name="the latest start", options={"energy": "2 kWh", "duration": "1h", "max_wait": "30m"}),
    DecisionCase(name="no zone data for so long", options={"energy": "2 kWh", "duration": "9h", "finish_by": "09:00"}),
    DecisionCase(name="not worth the wait", options={**_LARGE, "min_difference": "90 %"}),
    DecisionCase(
        name="late in the schedule", options=_LARGE, asked_at=_TEN + timedelta(hours=7), time_zone="Europe/Berlin"
    ),
)
"""Every case of the golden file, in its order."""


def recorded_decision(case: DecisionCase, build: Callable[[DecisionCase], Request], folder: Path) -> bytes:
    """Ask one case in a store of its own and return its recorded decision, without what names the asker.

    Args:
        case: what to ask.
        build: the adapter's code: makes the request of a case.
        folder: an empty folder.
    """
    rows = ["start,g_per_kwh,end"]
    for number, value in enumerate(_TRACE):
        start = _TEN + timedelta(hours=number)
        rows.append(f"{start.isoformat()},{value},{(start + timedelta(hours=1)).isoformat()}")
    (folder / "trace.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "cagg.toml").write_text(_POLICY, encoding="utf-8")
    clock = ManualClock(case.asked_at)
    settings = load_settings(start=folder, environ={"CAGG_HOME": str(folder / "home")})
    meter = Meter(clock=clock, sources=(), settings=MeterSettings(background=False))
    gate = Gate(compose(settings, clock=clock, meter_factory=lambda: meter))
    request = build(case)
    request = replace(request, host=replace(request.host, wake_margin=WAKE_MARGIN))
    store = gate.components.store
    try:
        with store.transaction() as tx:
            for path, limit, mode in case.budgets:
                unit, amount, period = parse_limit(limit)
                change_budget(tx, Budget(path=path, unit=unit, period=period, time_zone="UTC", limit=amount, mode=mode))
            for number, energy in enumerate(case.past_energy_millijoules):
                append(tx, _past_run(request.identity.task_key, case.asked_at, number, energy))
        decision = gate.ask(request)
        with store.snapshot() as tx:
            entry = tx.entry(decision.decision_id or "")
        assert entry is not None
        body = decode(entry.body)
    finally:
        store.close()
    assert isinstance(body, dict)
    return canonical(_without_asker(body))


def _past_run(task_key: str, now: datetime, number: int, energy_millijoules: int) -> EntryDraft:
    start = now - timedelta(days=number + 1)
    body = reading_body(
        start=format_instant(start),
        end=format_instant(start + timedelta(minutes=45)),
        energy=str(energy_millijoules),
        request={"task_key": task_key, "host": "past", "root_run_id": f"r{number}", "attempt": 1},
    )
    return EntryDraft(kind=EntryKind.MEASUREMENT, request_key=f"past-{number}", ordinal=0, body=body)


def _without_asker(body: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in body.items() if name not in _NAMES_THE_ENTRY}
    kept["request"] = {name: value for name, value in body["request"].items() if name not in _NAMES_THE_ASKER}
    kept["question"] = {name: value for name, value in body["question"].items() if name != "shortest_wait_ms"}
    return kept
