"""Electricity Maps: its shapes, its plans, its traps, and what a chain makes of them."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cagg.errors import ConfigurationError, IntensityUnavailable
from cagg.grid.chain import Chain, GridQuality, Use
from cagg.grid.codec import pack, unpack
from cagg.grid.providers import GridSettings, build_providers
from cagg.grid.providers._electricity_maps_answers import read_answer
from cagg.grid.providers.electricity_maps import ElectricityMapsProvider
from cagg.intensity import Zone
from cagg.provenance import Basis, IntensityKind
from cagg.secret import Secret
from cagg.testing import ManualClock
from cagg.testing.electricity_maps import ElectricityMapsDouble, electricity_maps_server
from cagg.testing.intensity import IntensityProviderContract
from cagg.windows import Window

NOW = datetime(2026, 3, 1, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DE = Zone(provider="electricity_maps", code="DE")
FR = Zone(provider="electricity_maps", code="FR")
NIGHT = Window(start=NOW, end=NOW + 8 * HOUR)
YESTERDAY = Window(start=NOW - 20 * HOUR, end=NOW - 3 * HOUR)
SHAPES = Path(__file__).parents[2] / "data" / "electricity_maps"
TOKEN = "s3cr3t-token-0123456789"


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture
def double(clock):
    return ElectricityMapsDouble(clock=clock, token=TOKEN)


def provider(double, *, token=TOKEN, **options):
    def answer(request):
        status, headers, body = double.answer(str(request.url), request.headers.get("auth-token"))
        return httpx.Response(status, headers=headers, text=body)

    transport = httpx.MockTransport(answer)
    return ElectricityMapsProvider(
        clock=double.clock,
        token=None if token is None else Secret(value=token),
        transport=transport,
        async_transport=transport,
        **options,
    )


def values(series):
    return [None if point.intensity is None else point.intensity.g_per_kwh for point in series.points]


class TestElectricityMaps(IntensityProviderContract):
    @pytest.fixture(autouse=True)
    def _double(self, double):
        self.double = double

    def make_provider(self):
        return provider(self.double)

    def make_zone(self):
        return DE

    def make_window(self):
        return NIGHT


class TestElectricityMapsDirect(TestElectricityMaps):
    def make_provider(self):
        return provider(self.double, basis=Basis.DIRECT)


# ---- what is asked and answered -----------------------------------------------------------------------------------


def test_a_forecast_is_one_request_and_starts_with_the_present_hour(double) -> None:
    series = provider(double).fetch(DE, Window(start=NOW, end=NOW + 200 * HOUR))
    (asked,) = double.asked
    assert (asked.version, asked.what, asked.token) == ("v4", "forecast", TOKEN)
    assert asked.parameters == {
        "zone": "DE",
        "emissionFactorType": "lifecycle",
        "temporalGranularity": "hourly",
        "disableCallerLookup": "true",
        "horizonHours": "72",
    }
    assert TOKEN not in asked.target
    assert len(series.points) == 73
    assert series.points[0].window == Window(start=NOW.replace(minute=0), end=NOW.replace(minute=0) + HOUR)
    assert values(series)[:3] == [400, 410, 420]
    assert (series.kind, series.source) == (IntensityKind.FORECAST, "electricity_maps")
    assert series.issued_at == datetime(2026, 3, 1, 10, 3, tzinfo=UTC)
    assert str(series.convention) == "average/life_cycle/co2e"
    assert unpack(pack(series)) == series


def test_sync_and_async_agree_request_by_request(clock) -> None:
    one, other = (ElectricityMapsDouble(clock=clock, token=TOKEN, versions=("v3",)) for _ in range(2))
    window = Window(start=NOW - 5 * HOUR, end=NOW + 5 * HOUR)
    assert provider(one).fetch(DE, window) == asyncio.run(provider(other).fetch_async(DE, window))
    assert one.asked == other.asked


def test_direct_factors_are_asked_for_and_labelled(double) -> None:
    series = provider(double, basis=Basis.DIRECT).fetch(DE, YESTERDAY)
    assert double.asked[0].parameters["emissionFactorType"] == "direct"
    assert str(series.convention) == "average/direct/co2e"
    double.changes = {"emissionFactorType": "lifecycle", "history": [{"carbonIntensity": 1, "datetime": "x"}]}
    with pytest.raises(IntensityUnavailable, match=r"'lifecycle' emission factors.*grid\.electricity_maps\.basis"):
        provider(double, basis=Basis.DIRECT).fetch(DE, YESTERDAY)


def test_the_last_day_comes_from_the_history_and_measured_is_what_is_said_to_be(double) -> None:
    series = provider(double).fetch(DE, YESTERDAY)
    assert [item.what for item in double.asked] == ["history"]
    assert (len(series.points), series.kind, series.issued_at) == (18, IntensityKind.MEASURED, None)
    until_now = provider(double).fetch(DE, Window(start=NOW - 2 * HOUR, end=NOW))
    assert until_now.kind is IntensityKind.ESTIMATED


@pytest.mark.parametrize("flags", [{}, {"isEstimated": None}, {"isEstimated": False, "estimationMethod": "MEAN"}])
def test_what_does_not_say_that_it_is_measured_is_an_estimate(double, flags) -> None:
    row = {"zone": "DE", "carbonIntensity": 5, "datetime": "2026-03-01T07:00:00.000Z", **flags}
    double.changes = {"history": [row]}
    assert provider(double).fetch(DE, YESTERDAY).kind is IntensityKind.ESTIMATED


def test_a_long_past_is_asked_in_ranges_of_ten_days(double) -> None:
    start = NOW - timedelta(days=25)
    series = provider(double).fetch(DE, Window(start=start, end=NOW - 2 * HOUR))
    assert [item.what for item in double.asked] == ["past-range"] * 3
    assert double.asked[0].parameters["start"] == "2026-02-04T10:00:00Z"
    assert double.asked[0].parameters["end"] == "2026-02-14T10:00:00Z"
    assert double.asked[2].parameters["end"] == "2026-03-01T09:00:00Z"
    assert len(series.points) == 25 * 24 - 1
    with pytest.raises(IntensityUnavailable, match="at most 80 days"):
        provider(double).fetch(DE, Window(start=NOW - timedelta(days=90), end=NOW))


def test_past_and_future_meet_without_overlap(double) -> None:
    series = provider(double).fetch(DE, Window(start=NOW - 3 * HOUR, end=NOW + 3 * HOUR))
    assert [item.what for item in double.asked] == ["history", "forecast"]
    starts = [point.window.start for point in series.points]
    assert starts == [NOW.replace(minute=0) + number * HOUR for number in range(-3, 4)]
    assert series.kind is IntensityKind.FORECAST


def test_beyond_the_horizon_nothing_is_asked(double) -> None:
    with pytest.raises(IntensityUnavailable, match="72 hours ahead"):
        provider(double).fetch(DE, Window(start=NOW + 80 * HOUR, end=NOW + 81 * HOUR))
    assert double.asked == []


def test_holes_stay_holes_and_zero_is_a_number(double) -> None:
    double.g_per_kwh = (1.5, None, 0)
    series = provider(double).fetch(DE, Window(start=NOW, end=NOW + 3 * HOUR))
    assert values(series) == [None, 0, 1.5, None]
    double.g_per_kwh = (None,)
    with pytest.raises(IntensityUnavailable, match="knows no intensity"):
        provider(double).fetch(DE, NIGHT)


def test_finer_steps_are_read_as_what_they_are(double) -> None:
    rows = [{"carbonIntensity": n, "datetime": f"2026-03-01T10:{n:02}:00Z"} for n in (0, 15, 30, 45)]
    double.changes = {"temporalGranularity": "15_minutes", "forecast": rows}
    series = provider(double).fetch(DE, NIGHT)
    assert {point.window.duration for point in series.points} == {timedelta(minutes=15)}
    assert values(series) == [0, 15, 30, 45]


# ---- the documented shapes ----------------------------------------------------------------------------------------


def replay(double, name):
    text = (SHAPES / name).read_text(encoding="utf-8")
    double.instead = [(200, {"content-type": "application/json"}, text)]
    return provider(double)


def test_a_documented_forecast_is_read_whole(double) -> None:
    series = replay(double, "synthetic_v3_forecast_24h.json").fetch(DE, Window(start=NOW, end=NOW + 72 * HOUR))
    assert len(series.points) == 25
    assert values(series)[:5] == [310, 298, 281, 265, 254]
    assert series.issued_at == datetime(2026, 3, 1, 10, 12, 31, 4_000, tzinfo=UTC)


def test_a_documented_past_range_is_read_and_labelled_by_its_weakest_hour(double) -> None:
    window = Window(start=NOW.replace(hour=7, minute=0), end=NOW.replace(hour=10, minute=0))
    series = replay(double, "synthetic_past_range.json").fetch(DE, window)
    assert values(series) == [330, 322, 315]
    assert series.kind is IntensityKind.ESTIMATED
    first = Window(start=window.start, end=window.start + HOUR)
    assert replay(double, "synthetic_past_range.json").fetch(DE, first).kind is IntensityKind.MEASURED


def test_a_documented_sandbox_answer_is_refused(double) -> None:
    double.zones = ("FR",)
    now = Window(start=NOW - 5 * HOUR, end=NOW)
    with pytest.raises(IntensityUnavailable, match="made-up sandbox numbers"):
        replay(double, "synthetic_sandbox_latest.json").fetch(FR, now)


# ---- versions and plans -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [401, 403, 404])
def test_an_account_with_version_3_only_is_served_by_it(double, refusal) -> None:
    double.versions = ("v3",)
    double.instead = [(refusal, {}, '{"message": "no v4"}')]
    one = provider(double)
    assert len(one.fetch(DE, NIGHT).points) == 9
    assert [item.version for item in double.asked] == ["v4", "v3"]
    assert double.asked[1].parameters["shouldUseFallbackCallerLookup"] == "false"
    one.fetch(DE, NIGHT)
    assert [item.version for item in double.asked] == ["v4", "v3", "v3"]


def test_an_address_with_a_version_settles_it(double) -> None:
    provider(double, base_url="https://mirror.example/em/v3/").fetch(DE, NIGHT)
    (asked,) = double.asked
    assert asked.target.startswith("https://mirror.example/em/v3/carbon-intensity/forecast?")


def test_a_plan_without_forecasts_serves_the_past_and_says_so(double, clock) -> None:
    double.plan = frozenset({"latest", "history"})
    one = provider(double)
    with pytest.raises(IntensityUnavailable, match=r"forecast of electricity_maps:DE is not in the plan.*HTTP 401"):
        one.fetch(DE, NIGHT)
    before = len(double.asked)
    assert before <= 5
    with pytest.raises(IntensityUnavailable, match="not in the plan"):
        one.fetch(DE, NIGHT)
    assert len(double.asked) == before  # remembered
    assert len(one.fetch(DE, YESTERDAY).points) == 18
    both = one.fetch(DE, Window(start=NOW - 2 * HOUR, end=NOW + 5 * HOUR))
    assert both.window.end == NOW.replace(minute=0) + HOUR
    with pytest.raises(IntensityUnavailable, match=r"past of electricity_maps:DE over .* not in the plan"):
        one.fetch(DE, Window(start=NOW - 50 * HOUR, end=NOW - 40 * HOUR))
    assert one.fetch(DE, Window(start=NOW - 50 * HOUR, end=NOW)).window.start == NOW.replace(minute=0) - 23 * HOUR
    double.plan = frozenset({"latest", "history", "forecast"})
    clock.advance(3_601)
    assert one.fetch(DE, Window(start=clock.now(), end=clock.now() + 5 * HOUR)).kind is IntensityKind.FORECAST


def test_a_bad_token_is_another_message(double) -> None:
    one = provider(double, token="wrong-token-987")
    with pytest.raises(
        IntensityUnavailable, match=r"does not accept the token.*grid\.electricity_maps\.token"
    ) as caught:
        one.fetch(DE, NIGHT)
    assert "plan of this token" not in str(caught.value)
    assert "wrong-token-987" not in str(caught.value)
    before = len(double.asked)
    for window in (NIGHT, YESTERDAY):
        with pytest.raises(IntensityUnavailable, match="does not accept the token"):
            one.fetch(DE, window)
    assert len(double.asked) == before


def test_a_zone_outside_the_plan_names_what_the_plan_has(double) -> None:
    with pytest.raises(IntensityUnavailable, match=r"zone electricity_maps:FR is not in the plan.*which has DE"):
        provider(double).fetch(FR, NIGHT)


def test_a_plan_with_the_default_horizon_only(double) -> None:
    double.instead = [(400, {}, '{"message": "horizonHours must be 24"}')]
    one = provider(double)
    assert len(one.fetch(DE, Window(start=NOW, end=NOW + 70 * HOUR)).points) == 25
    one.fetch(DE, NIGHT)
    assert [item.parameters.get("horizonHours") for item in double.asked] == ["72", None, None]


def test_a_zone_that_the_service_does_not_have(double) -> None:
    double.instead = [(404, {}, "{}")] * 2
    with pytest.raises(IntensityUnavailable, match=r"no data for zone electricity_maps:DE .*404"):
        provider(double).fetch(DE, NIGHT)


def test_without_a_token_nothing_is_asked(double) -> None:
    one = provider(double, token=None)
    with pytest.raises(IntensityUnavailable, match=r"needs a token.*CAGG_GRID_ELECTRICITY_MAPS_TOKEN"):
        one.fetch(DE, NIGHT)
    assert double.asked == []
    with pytest.raises(IntensityUnavailable, match="cagg zones"):
        one.fetch(Zone(provider="electricity_maps", code="US"), NIGHT)


def test_being_asked_to_wait_is_obeyed(double, clock) -> None:
    double.instead = [(429, {"retry-after": "600"}, "slow down")]
    one = provider(double)
    for _ in range(2):
        with pytest.raises(IntensityUnavailable, match="429"):
            one.fetch(DE, NIGHT)
    assert len(double.asked) == 1
    clock.advance(601)
    assert one.fetch(DE, Window(start=clock.now(), end=clock.now() + HOUR)).points
    double.instead = [(429, {"retry-after": "2"}, "slow down")]
    assert one.fetch(DE, Window(start=clock.now(), end=clock.now() + 5 * HOUR)).points


def test_server_errors_are_tried_again(double) -> None:
    double.instead = [(503, {}, "<html>"), (500, {}, "{}")]
    assert provider(double).fetch(DE, NIGHT).points
    double.instead = [(503, {}, "<html>")] * 3
    with pytest.raises(IntensityUnavailable, match="503; it was asked 3 times"):
        provider(double).fetch(DE, NIGHT)


# ---- answers that are no answers ----------------------------------------------------------------------------------

ROW = {"carbonIntensity": 310, "datetime": "2026-03-01T10:00:00.000Z"}
WRONG = [
    ({"_disclaimer": "SANDBOX MODE: the data is wrong on purpose"}, "sandbox"),
    ({"sandbox": True}, "sandbox"),
    ({"forecast": [{**ROW, "estimationMethod": "SANDBOX_MODE_DATA"}]}, "sandbox"),
    ({"forecast": [{**ROW, "estimationMethod": "synthetic"}]}, "sandbox"),
    ({"zone": "FR"}, "for zone 'FR' when asked for 'DE'"),
    ({"zone": None}, "for zone 'None'"),
    ({"forecast": [{**ROW, "zone": "FR"}]}, "for zone 'FR'"),
    ({"temporalGranularity": "daily"}, "steps of 'daily'"),
    ({"forecast": []}, "no data"),
    ({"forecast": None}, "unknown shape"),
    ({"forecast": [1]}, "unknown shape"),
    ({"forecast": [{"datetime": ROW["datetime"]}]}, "no intensity at"),
    ({"forecast": [{**ROW, "datetime": "2026-03-01T10:00:00"}]}, "unknown shape"),
    ({"forecast": [{**ROW, "datetime": "2026-03-01T10:30:00Z"}]}, "unknown shape"),
    ({"forecast": [{**ROW, "datetime": None}]}, "unknown shape"),
    ({"forecast": [{**ROW, "carbonIntensity": "310"}]}, "unusable number"),
    ({"forecast": [{**ROW, "carbonIntensity": -1}]}, "unusable number"),
    ({"forecast": [{**ROW, "carbonIntensity": True}]}, "unusable number"),
    ({"forecast": [ROW, {**ROW, "carbonIntensity": 9}]}, "contradicts itself"),
    ({"forecast": [{**ROW, "datetime": "2026-02-28T10:00:00Z"}]}, "another time"),
    ({"forecast": [{**ROW, "datetime": "2026-03-09T10:00:00Z"}]}, "another time"),
    ({"error": "no recent data"}, "an error .no recent data"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[f"{n} {words}" for n, (_, words) in enumerate(WRONG)])
def test_an_answer_that_is_not_what_was_asked_is_no_answer(double, changes, words) -> None:
    double.changes = changes
    with pytest.raises(IntensityUnavailable, match=words) as caught:
        provider(double).fetch(DE, NIGHT)
    assert str(caught.value).endswith(".")
    with pytest.raises(IntensityUnavailable, match=words):
        asyncio.run(provider(double).fetch_async(DE, NIGHT))


@pytest.mark.parametrize("body", ["[]", "null", "{}", '{"zone": "DE"}', "7"])
def test_documents_of_another_shape(double, body) -> None:
    double.instead = [(200, {"content-type": "application/json"}, body)]
    with pytest.raises(IntensityUnavailable, match="unknown shape"):
        provider(double).fetch(DE, NIGHT)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TIMES = st.sampled_from(
    ["2026-03-01T10:00:00.000Z", "2026-03-01T11:00:00Z", "9999-12-31T23:00:00Z", "0001-01-01T00:00:00+14:00", "soon"]
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "zone": st.sampled_from(["DE", "FR"]) | JSON,
        "datetime": TIMES | JSON,
        "carbonIntensity": st.integers(0, 900) | st.sampled_from([1e308, -0.0, 10**400]) | JSON,
        "isEstimated": JSON,
        "estimationMethod": JSON,
        "emissionFactorType": st.just("lifecycle") | JSON,
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"zone": st.just("DE") | JSON},
    optional={
        "forecast": st.lists(ROWS, max_size=3) | JSON,
        "data": st.lists(ROWS, max_size=3) | JSON,
        "carbonIntensity": JSON,
        "datetime": TIMES | JSON,
        "updatedAt": TIMES | JSON,
        "temporalGranularity": st.sampled_from(["hourly", "15_minutes"]) | JSON,
        "error": JSON,
        "status": JSON,
    },
)


@given(document=DOCUMENTS | JSON)
@settings(max_examples=150, deadline=None)
def test_any_document_is_read_or_refused_in_a_sentence(document) -> None:
    refusal = ""
    points = ()
    try:
        points = read_answer(document, zone="DE", asked=NIGHT, factors="lifecycle").points
    except IntensityUnavailable as error:
        refusal = str(error)
    assert refusal == "" or refusal.endswith(".")
    starts = [point.window.start for point in points]
    assert starts == sorted(set(starts))
    assert all(point.window.overlap(NIGHT) > timedelta(0) for point in points)


# ---- the token stays where it is ----------------------------------------------------------------------------------


def test_the_token_is_in_no_message_log_repr_or_series(double, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    one = provider(double)
    series = one.fetch(DE, NIGHT)
    said = [repr(one), repr(vars(one)), repr(one._source), repr(vars(one._source)), repr(series), caplog.text]
    said += [str(pack(series))]
    # the service quotes the token, whole and cut off
    for words in (f"token {TOKEN} is bad", "x" * 190 + TOKEN):
        double.instead = [(400, {}, json.dumps({"message": words}))] * 2
        with pytest.raises(IntensityUnavailable) as caught:
            provider(double).fetch(DE, NIGHT)
        said.append("".join(traceback.format_exception(caught.value)))
        assert "***" in str(caught.value) or "xxx" in str(caught.value)
    assert not [text for text in said if TOKEN in text or TOKEN[:10] in text]
    assert [item.token for item in double.asked] == [TOKEN] * len(double.asked)


def test_no_redirect_carries_the_token_away(double) -> None:
    double.instead = [(302, {"location": "https://elsewhere.example/"}, "")]
    with pytest.raises(IntensityUnavailable, match="redirects"):
        provider(double).fetch(DE, NIGHT)
    assert len(double.asked) == 1


def test_an_unusable_address_is_refused_at_once(clock) -> None:
    with pytest.raises(ConfigurationError, match=r"grid\.electricity_maps\.url"):
        ElectricityMapsProvider(clock=clock, token=None, base_url="api.electricitymaps.com")


@pytest.mark.parametrize(
    "url",
    ["https://me:hidden@mirror.example", "https://hidden@mirror.example", "http://mirror.example", "x://a:hidden@b"],
)
def test_an_address_that_would_give_a_secret_away_is_refused(clock, url) -> None:
    with pytest.raises(ConfigurationError, match=r"grid\.electricity_maps\.url") as caught:
        ElectricityMapsProvider(clock=clock, token=Secret(value=TOKEN), base_url=url)
    assert "hidden" not in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "https://mirror.example"]
)
def test_a_token_goes_to_this_computer_and_over_tls(clock, url) -> None:
    ElectricityMapsProvider(clock=clock, token=Secret(value=TOKEN), base_url=url)
    ElectricityMapsProvider(clock=clock, token=None, base_url="http://mirror.example")


# ---- in a chain ---------------------------------------------------------------------------------------------------


def chain(double, *others, use=Use.STEERING):
    named = build_providers(others, GridSettings(), double.clock)
    return Chain(providers=[provider(double), *named], clock=double.clock, use=use)


def test_a_forecast_steers_and_is_asked_for_once_an_hour(double, clock) -> None:
    grid = chain(double, "climatology")
    answer = grid.forecast(DE, NIGHT)
    assert (answer.quality, answer.steps) == (GridQuality.LIVE, ())
    again = grid.forecast(DE, NIGHT, [answer.fetched])
    assert again.quality is GridQuality.CACHED
    assert len(double.asked) == 1
    clock.advance(3_700)
    assert grid.forecast(DE, Window(start=clock.now(), end=NIGHT.end), [answer.fetched]).quality is GridQuality.LIVE


def test_without_forecasts_in_the_plan_climatology_steers_visibly(double) -> None:
    double.plan = frozenset({"latest", "history"})
    answer = chain(double, "climatology", "yearly").forecast(DE, NIGHT)
    assert answer.quality is GridQuality.CLIMATOLOGY
    assert any("not in the plan" in step for step in answer.steps)
    priced = chain(double, use=Use.ACCOUNTING).forecast(DE, YESTERDAY)
    assert priced.series is not None
    assert priced.series.kind is IntensityKind.MEASURED


def test_sandbox_numbers_steer_nothing(double) -> None:
    double.changes = {"_disclaimer": "SANDBOX MODE"}
    answer = chain(double, "climatology").forecast(DE, NIGHT)
    assert answer.quality is GridQuality.CLIMATOLOGY
    assert any("sandbox" in step for step in answer.steps)


def test_a_worker_without_token_steers_by_what_others_cached(double) -> None:
    row = chain(double).forecast(DE, NIGHT).fetched
    poor = Chain(providers=[provider(double, token=None)], clock=double.clock)
    assert poor.forecast(DE, NIGHT, [row]).quality is GridQuality.CACHED
    assert any("needs a token" in step for step in poor.forecast(DE, NIGHT).steps)


def test_without_forecasts_readings_are_priced_by_the_history(double, clock) -> None:
    double.plan = frozenset({"latest", "history"})
    books = chain(double, use=Use.ACCOUNTING)
    row = books.past_day(DE)
    assert row is not None
    assert books.past_day(DE, [row]) is None
    run = Window(start=NOW - 3 * HOUR, end=NOW)
    (series,) = books.on_hand(DE, run, [row])
    assert values(series)[-1] == 400
    before = len(double.asked)
    clock.advance(3_600)
    later = books.past_day(DE, [row])
    assert len(double.asked) == before + 1
    (joined,) = books.on_hand(DE, Window(start=NOW - 23 * HOUR, end=clock.now()), [row, later])
    assert joined.window.start <= NOW - 23 * HOUR
    assert joined.kind is IntensityKind.ESTIMATED


def test_a_forecast_that_covers_the_day_needs_no_history(double, clock) -> None:
    row = chain(double).forecast(DE, NIGHT).fetched
    clock.advance(24 * 3_600)
    before = len(double.asked)
    assert chain(double, use=Use.ACCOUNTING).past_day(DE, [row]) is None
    assert len(double.asked) == before


# ---- a real server ------------------------------------------------------------------------------------------------


def test_a_real_server_is_asked_both_ways(clock, monkeypatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with electricity_maps_server(clock, zones=("DE", "FR")) as double:
        where = GridSettings(electricity_maps_token=Secret(value="test-token"), electricity_maps_url=double.url)
        (one,) = build_providers(["electricity_maps"], where, clock)
        assert asyncio.run(one.fetch_async(FR, NIGHT)).points == one.fetch(FR, NIGHT).points
        assert double.count("forecast") == 2
