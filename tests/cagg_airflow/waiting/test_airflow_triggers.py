"""The triggers: absolute instants, one event, one look at the grid for all, and a hold that is given back once."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from cagg.errors import ConfigurationError, HostUnavailable, IntensityUnavailable, InvalidInput, StoreUnavailable
from cagg.records import ReservationState
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.testing.intensity import series_of
from cagg.verdict import Defer
from cagg.windows import to_epoch_ms
from cagg_airflow import asking, opening, sharing, waiting
from cagg_airflow.naming import identity_from, identity_payload
from cagg_airflow.triggers import BudgetTrigger, GateTrigger, WindowTrigger

NOW = datetime.fromisoformat("2026-11-23T22:00:00+00:00")
HOUR = timedelta(hours=1)


def gate_trigger(*, until: timedelta, not_before: timedelta = timedelta(), deadline: timedelta | None = None) -> Any:
    return GateTrigger(
        until_ms=to_epoch_ms(NOW + until),
        not_before_ms=to_epoch_ms(NOW + not_before),
        deadline_ms=None if deadline is None else to_epoch_ms(NOW + deadline),
        identity={},
        echo={"decision_id": "d-1"},
    )


# ---- the gate's trigger -------------------------------------------------------------------------------------------


def test_it_fires_at_the_planned_instant_and_repeats_what_it_was_given(site: Any) -> None:
    event = site.fire(gate_trigger(until=3 * HOUR, deadline=8 * HOUR))
    assert event == {"status": "due", "decision_id": "d-1"}
    assert site.clock.now() == NOW + 3 * HOUR


def test_what_airflow_stores_is_plain_json(site: Any) -> None:
    _, arguments = gate_trigger(until=HOUR, deadline=2 * HOUR).serialize()
    assert json.loads(json.dumps(arguments)) == arguments


def test_it_never_fires_before_the_worker_has_reported(site: Any) -> None:
    site.fire(gate_trigger(until=timedelta(seconds=1), not_before=timedelta(seconds=15)))
    assert site.clock.now() == NOW + timedelta(seconds=15)


def test_the_deadline_ends_the_wait_and_says_so(site: Any) -> None:
    event = site.fire(gate_trigger(until=9 * HOUR, deadline=8 * HOUR))
    assert event["status"] == "deadline"
    assert site.clock.now() == NOW + 8 * HOUR


def test_one_that_is_started_after_its_instant_fires_at_once(site: Any) -> None:
    """A triggerer died and another took over late."""
    site.clock.advance(5 * HOUR)
    assert site.fire(gate_trigger(until=3 * HOUR, deadline=8 * HOUR))["status"] == "due"
    assert site.slept == []


def test_a_clock_that_is_set_back_lengthens_the_wait_and_one_that_is_set_forward_ends_it(site: Any) -> None:
    site.wakes.append(lambda: site.clock.step_wall_clock(-HOUR) if len(site.slept) == 1 else None)
    site.fire(gate_trigger(until=HOUR))
    assert site.clock.now() >= NOW + HOUR
    assert sum(site.slept) == 2 * 3600
    assert max(site.slept) <= waiting.LONGEST_SLEEP_SECONDS
    site.slept.clear()
    site.wakes[:] = [lambda: site.clock.step_wall_clock(5 * HOUR) if len(site.slept) == 1 else None]
    site.fire(gate_trigger(until=5 * HOUR))
    assert len(site.slept) == 1


def waiting_request(site: Any) -> Request:
    identity = RequestIdentity(host="airflow", root_run_id="d/r", task_key="d/t")
    options = GateOptions(duration="1h", energy="1 kWh", max_wait="8h", budget="acme")
    site.budget("acme", "10 kWh/day")
    request = Request(identity=identity, options=options, host=HostProfile(name="airflow"))
    assert isinstance(site.gate.ask(request).verdict, Defer)
    return request


def state_of(site: Any, request: Request) -> ReservationState:
    with site.gate.components.store.snapshot() as tx:
        return tx.reservation(request.identity.key).state


def killed(trigger: GateTrigger) -> None:
    async def kill() -> None:
        await trigger.on_kill()
        await trigger.cleanup()

    asyncio.run(kill())


def with_identity(request: Request) -> GateTrigger:
    trigger: GateTrigger = gate_trigger(until=HOUR)
    trigger.identity = identity_payload(request.identity)
    return trigger


def test_a_person_who_ends_the_wait_frees_the_hold_exactly_once(site: Any) -> None:
    request = waiting_request(site)
    trigger = with_identity(request)
    asyncio.run(trigger.cleanup())
    assert state_of(site, request) is ReservationState.WAITING  # a triggerer that shuts down releases nothing
    killed(trigger)
    assert state_of(site, request) is ReservationState.RELEASED
    killed(trigger)
    with site.gate.components.store.snapshot() as tx:
        assert [row.kind for row in tx.journal(request.identity.key)] == ["hold", "release"]


def test_a_run_that_has_begun_is_not_released(site: Any) -> None:
    request = waiting_request(site)
    site.clock.advance(3 * HOUR)
    site.gate.ask(request)
    assert state_of(site, request) is ReservationState.RUNNING
    killed(with_identity(request))
    assert state_of(site, request) is ReservationState.RUNNING


def test_a_store_that_is_down_does_not_fail_the_kill(
    site: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(payload: object) -> None:
        raise StoreUnavailable("the store is down.")

    monkeypatch.setattr(asking, "release_identity", down)
    with caplog.at_level("WARNING", logger="cagg"):
        killed(with_identity(waiting_request(site)))
    assert "maintain" in caplog.text


def test_a_payload_that_cannot_be_used_does_not_fail_the_kill(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    trigger = gate_trigger(until=HOUR)
    trigger.identity = {"host": "airflow", "ordinal": "many"}
    with caplog.at_level("WARNING", logger="cagg"):
        killed(trigger)
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is None
    with pytest.raises(InvalidInput, match="names no request"):
        identity_from({"host": "airflow", "root_run_id": "d/r", "task_key": "d/t", "attempt": None})


# ---- an Airflow or a store that does not answer --------------------------------------------------------------------


def silent_until(site: Any, monkeypatch: pytest.MonkeyPatch, end: timedelta, problem: Exception) -> None:
    def opened() -> Any:
        if site.clock.now() < NOW + end:
            raise problem
        return site.gate

    monkeypatch.setattr(opening, "open_gate", opened)


@pytest.mark.parametrize("problem", [HostUnavailable("no answer."), StoreUnavailable("down.")])
def test_a_look_up_that_fails_for_a_while_delays_the_sensors_only(
    site: Any, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    silent_until(site, monkeypatch, timedelta(minutes=5), problem)

    async def one() -> Any:
        return (await anext(window(duration=None, below="310 g/kWh").run())).payload["status"]

    assert site.together(*[one] * 50) == ["due"] * 50
    assert site.clock.now() - NOW < timedelta(minutes=60)
    site.budget("acme/ml", "2 kWh/day")
    assert site.fire(budget())["status"] == "due"


@pytest.mark.parametrize("changes", [{"timeout_seconds": 1800.0, "max_wait": None}, {"max_wait": "30m"}])
def test_an_airflow_that_stays_silent_ends_the_wait_at_its_deadline(
    site: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    silent_until(site, monkeypatch, 9 * HOUR, HostUnavailable("no answer."))
    event = site.fire(budget(**changes))
    assert event["status"] == "deadline"
    assert "no answer" in event["message"]
    assert site.clock.now() == NOW + timedelta(minutes=30)


def test_wrong_settings_are_not_asked_again(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    silent_until(site, monkeypatch, HOUR, ConfigurationError("wrong."))
    assert site.fire(window())["status"] == "refused"
    assert site.slept == []


def test_a_look_that_was_cut_off_is_not_handed_on(site: Any) -> None:
    async def run() -> Any:
        shared = sharing.shared()
        first = asyncio.create_task(shared.components())
        await asyncio.sleep(0)
        for flight in shared._flights.values():
            flight.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await shared.components()

    assert asyncio.run(run()) is site.gate.components


# ---- windows ------------------------------------------------------------------------------------------------------


def window(**changes: Any) -> WindowTrigger:
    arguments: dict[str, Any] = {
        "zone": None,
        "duration": "2h",
        "finish_by": None,
        "max_wait": "6h",
        "below": None,
        "timeout_seconds": 7 * 24 * 3600.0,
        "moment": {"asked_at": "2026-11-23T22:00:00Z"},
    }
    return WindowTrigger(**{**arguments, **changes})


def test_it_waits_for_the_cleanest_window(site: Any) -> None:
    event = site.fire(window())
    assert site.clock.now() == NOW + 3 * HOUR
    assert event["status"] == "due"
    assert event["intensity_milligrams_per_kwh"] == 100_000
    assert event["window"] == {
        "start": "2026-11-24T01:00:00.000000Z",
        "end": "2026-11-24T03:00:00.000000Z",
    }
    assert (event["zone"], event["source"], event["unshifted"]) == ("fake:GB", "fake", False)


def test_it_waits_for_a_threshold(site: Any) -> None:
    event = site.fire(window(duration=None, below="210 g/kWh"))
    assert site.clock.now() == NOW + 2 * HOUR
    assert (event["status"], event["intensity_milligrams_per_kwh"]) == ("due", 200_000)


def test_a_threshold_that_is_never_met_ends_at_the_deadline(site: Any) -> None:
    event = site.fire(window(duration=None, below="50 g/kWh"))
    assert site.clock.now() == NOW + 6 * HOUR
    assert event["status"] == "deadline"


def test_the_sensors_own_timeout_bounds_the_wait(site: Any) -> None:
    assert site.fire(window(below="50 g/kWh", max_wait=None, timeout_seconds=1800.0))["status"] == "deadline"
    assert site.clock.now() == NOW + timedelta(minutes=30)


def test_finish_by_leaves_room_for_the_run(site: Any) -> None:
    event = site.fire(window(finish_by="2026-11-24T01:30:00Z", max_wait=None))
    assert site.clock.now() == datetime.fromisoformat("2026-11-23T23:29:00+00:00")  # a minute is kept for the wake
    assert event["status"] == "due"


def test_a_newer_forecast_moves_the_wait(site: Any) -> None:
    site.source.will(
        series_of(300, 250, 200, 100, 100, 200, 300, 400, start=NOW, step=HOUR),
        series_of(300, 300, 300, 300, 300, 80, 80, 80, start=NOW, step=HOUR),
    )
    site.fire(window())
    assert site.clock.now() == NOW + 5 * HOUR


def test_a_restarted_triggerer_goes_on_from_absolute_instants(site: Any) -> None:
    site.clock.advance(2 * HOUR)
    site.fire(window())
    assert site.clock.now() == NOW + 3 * HOUR
    site.clock.advance(20 * HOUR)
    assert site.fire(window())["status"] == "deadline"


def test_without_a_worker_the_scheduler_s_backstop_tells_when_the_wait_began(site: Any) -> None:
    trigger = window(moment=None, below="50 g/kWh", duration=None, backstop_seconds=7200.0)
    trigger.timeout_after = (NOW + 2 * HOUR).replace(tzinfo=None)  # as SQLite hands it out
    site.clock.advance(HOUR)  # the first triggerer died
    site.fire(trigger)
    assert site.clock.now() == NOW + 6 * HOUR


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"zone": "Atlantis"}, "Atlantis"),
        ({"max_wait": None}, "finish_by"),
        ({"max_wait": "soon"}, "soon"),
        ({"below": "150"}, "150"),
        ({"finish_by": "2026-11-20T00:00:00Z", "max_wait": None}, "ago"),
    ],
)
def test_what_cannot_be_awaited_is_refused_with_the_reason(site: Any, changes: dict[str, Any], words: str) -> None:
    event = site.fire(window(**changes))
    assert event["status"] == "refused"
    assert words in event["message"]


def test_without_any_forecast_nothing_is_held_back(site: Any) -> None:
    site.source.will(IntensityUnavailable("nobody is there."))
    event = site.fire(window())
    assert site.slept == []
    assert (event["status"], event["unshifted"], event["intensity_milligrams_per_kwh"]) == ("due", True, None)
    assert "nobody is there" in event["message"]


def test_a_threshold_waits_until_the_source_is_back(site: Any) -> None:
    site.source.will(
        IntensityUnavailable("down."), IntensityUnavailable("down."), series_of(120, 120, 120, start=NOW, step=HOUR)
    )
    event = site.fire(window(duration=None, below="150 g/kWh"))
    assert event["status"] == "due"
    assert site.clock.now() == NOW + timedelta(minutes=30)


def test_nothing_is_awaited_while_cagg_is_off(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CAGG__ENABLED", "False")
    assert site.fire(window(zone="Atlantis"))["status"] == "off"


def test_a_thousand_triggers_ask_the_source_once_per_vintage(site: Any) -> None:
    async def one(number: int) -> Any:
        trigger = window(max_wait=f"{360 + number % 60}m")
        return (await anext(trigger.run())).payload["status"]

    statuses = site.together(*(partial(one, number) for number in range(1_000)))
    assert statuses == ["due"] * 1_000
    asked = [point.start for _, point in site.source.calls]
    assert len(asked) <= 1 + (site.clock.now() - NOW) / timedelta(minutes=30)
    assert all(later - earlier >= timedelta(minutes=30) for earlier, later in pairwise(asked))


def test_sensors_of_one_zone_share_one_look_however_far_they_see(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cagg.steps import outlook

    real, reaches = outlook.look_ahead, []

    def look(parts: Any, zone: str, until: datetime, **known: Any) -> Any:
        reaches.append(until - NOW)
        return real(parts, zone, until, **known)

    monkeypatch.setattr(outlook, "look_ahead", look)

    async def run() -> None:
        shared, parts = sharing.shared(), site.gate.components
        for hours in (6, 40, 60, 100, 50, 6):
            await shared.forecast(parts, "fake:GB", NOW + hours * HOUR)
        await asyncio.gather(*(shared.forecast(parts, "fake:GB", NOW + hours * HOUR) for hours in range(90, 130)))

    asyncio.run(run())
    assert reaches == [48 * HOUR, 60 * HOUR, 100 * HOUR, 129 * HOUR]


def test_a_trigger_that_is_cancelled_leaves_the_look_to_the_others(site: Any) -> None:
    async def run() -> tuple[bool, Any]:
        async def one() -> Any:
            return (await anext(window(duration=None, below="310 g/kWh").run())).payload

        first, second = asyncio.create_task(one()), asyncio.create_task(one())
        await asyncio.sleep(0)
        first.cancel()
        payload = await second
        return first.cancelled(), payload

    cancelled, payload = asyncio.run(run())
    assert cancelled
    assert payload["status"] == "due"
    assert len(site.source.calls) == 1


def test_a_forecast_in_the_store_is_used_before_the_network(site: Any) -> None:
    site.fire(window(duration=None, below="310 g/kWh"))
    site.fire(window(duration=None, below="310 g/kWh"))  # another loop, as another triggerer
    assert len(site.source.calls) == 1


# ---- budgets ------------------------------------------------------------------------------------------------------


def budget(**changes: Any) -> BudgetTrigger:
    arguments: dict[str, Any] = {
        "budget": "acme/ml",
        "amount": "1 kWh",
        "zone": None,
        "max_wait": "8h",
        "timeout_seconds": 7 * 24 * 3600.0,
        "moment": {"asked_at": "2026-11-23T22:00:00Z"},
    }
    return BudgetTrigger(**{**arguments, **changes})


def test_room_that_is_there_fires_at_once(site: Any) -> None:
    site.budget("acme", "2 kWh/day")
    site.budget("acme/ml", "1 kg/day")
    event = site.fire(budget())
    assert site.slept == []
    assert event["status"] == "due"
    assert [(item["path"], item["unit"], item["asked"]) for item in event["budgets"]] == [
        ("acme", "energy", 3_600_000_000),
        ("acme/ml", "carbon", 500_000_000_000 // 1_000),
    ]


def test_it_waits_for_the_next_period(site: Any) -> None:
    site.budget("acme", "2 kWh/day")
    site.budget("acme/ml", "2 kWh/day")
    request = running_request(site, "acme/ml", "1 kWh")
    assert state_of(site, request) is ReservationState.RUNNING
    event = site.fire(budget())
    assert site.clock.now() == datetime.fromisoformat("2026-11-24T00:00:00+00:00")
    assert event["status"] == "due"


def running_request(site: Any, path: str, energy: str) -> Request:
    identity = RequestIdentity(host="airflow", root_run_id="d/r", task_key="d/u")
    options = GateOptions(duration="1h", energy=energy, budget=path)
    request = Request(identity=identity, options=options, host=HostProfile(name="airflow"))
    site.gate.ask(request)
    return request


def test_it_wakes_within_a_minute_of_room_that_frees(site: Any) -> None:
    site.budget("acme/ml", "1 kWh/day")
    site.budget("acme/ml", "500 Wh/day")
    site.wakes.append(lambda: site.budget("acme/ml", "2 kWh/day") if len(site.slept) == 30 else None)
    assert site.fire(budget())["status"] == "due"
    assert len(site.slept) == 30


def test_a_wait_for_room_ends_at_its_deadline_and_says_what_is_missing(site: Any) -> None:
    site.budget("acme/ml", "500 Wh/day")
    event = site.fire(budget(max_wait="30m"))
    assert event["status"] == "deadline"
    assert site.clock.now() == NOW + timedelta(minutes=30)
    assert "acme/ml has 500 Wh" in event["message"]


def test_carbon_is_not_counted_by_energy_budgets_and_observing_budgets_never_refuse(site: Any) -> None:
    from cagg.records import BudgetMode

    site.budget("acme", "0 kWh/day")
    site.budget("acme/ml", "100 g/day", BudgetMode.OBSERVE)
    assert site.fire(budget(amount="200 g"))["status"] == "due"


@pytest.mark.parametrize(("changes", "words"), [({"budget": "nobody"}, "nobody"), ({"amount": "7 apples"}, "apples")])
def test_what_no_budget_can_answer_is_refused(site: Any, changes: dict[str, Any], words: str) -> None:
    site.budget("acme/ml", "500 Wh/day")
    event = site.fire(budget(**changes))
    assert event["status"] == "refused"
    assert words in event["message"]


def test_a_store_that_is_down_is_asked_again(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cagg.steps import room

    site.budget("acme/ml", "2 kWh/day")
    real, calls = room.budgets_now, []

    def flaky(parts: Any) -> Any:
        calls.append(1)
        if len(calls) < 4:
            raise StoreUnavailable("the store is down.")
        return real(parts)

    monkeypatch.setattr(room, "budgets_now", flaky)
    assert site.fire(budget())["status"] == "due"
    assert len(calls) == 4
    monkeypatch.setattr(room, "budgets_now", lambda parts: flaky(calls.clear()))
    assert "Nobody knows" in site.fire(budget(max_wait="1s"))["message"]


def test_all_sensors_share_one_reading_per_minute(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cagg.steps import room

    site.budget("acme/ml", "500 Wh/day")
    real, calls = room.budgets_now, []
    monkeypatch.setattr(room, "budgets_now", lambda parts: calls.append(parts.clock.now()) or real(parts))

    async def one() -> Any:
        return (await anext(budget(max_wait="10m").run())).payload["status"]

    assert site.together(*[one] * 200) == ["deadline"] * 200
    assert len(calls) <= 11
