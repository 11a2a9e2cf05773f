"""The chain: order, freshness, the 3 am policy with its visible steps, homogeneity, and the price of holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest

from cagg.errors import ConfigurationError, IntensityUnavailable, InvalidInput, ZoneUnknown
from cagg.grid.chain import Chain, GridQuality, Use, accounting_providers
from cagg.grid.codec import pack, unpack
from cagg.grid.providers.climatology import ClimatologyProvider
from cagg.grid.providers.yearly import YearlyProvider
from cagg.grid.series import gaps, mean_over
from cagg.intensity import Zone
from cagg.provenance import Basis, Convention, Gas, IntensityKind, Signal
from cagg.testing import ManualClock
from cagg.testing.intensity import FAKE_CONVENTION, FakeProvider, series_of
from cagg.windows import Window

NOW = datetime(2026, 3, 2, 22, 5, tzinfo=UTC)
BLOCK = NOW.replace(minute=0)
GB = Zone(provider="neso", code="GB")
NIGHT = Window(start=NOW, end=NOW + timedelta(hours=8))
DOWN = IntensityUnavailable("neso (test) did not answer within 5 s; it was asked 3 times.")
OTHER = Convention(signal=Signal.AVERAGE, basis=Basis.LIFE_CYCLE, gas=Gas.CO2E)


@pytest.fixture
def clock():
    return ManualClock(NOW)


def day(*values, start=BLOCK, **options):
    return series_of(*(values or range(100, 196)), start=start, zone=GB, **options)


def neso(clock, *script, **options):
    return FakeProvider(*script, clock=clock, name="neso", **options)


def cached(clock, hours_ago, **options):
    fetched = clock.now() - timedelta(hours=hours_ago)
    return pack(day(start=BLOCK - timedelta(hours=hours_ago), fetched_at=fetched, **options))


def full(clock, *script):
    return Chain(
        providers=[neso(clock, *script), ClimatologyProvider(clock=clock), YearlyProvider(clock=clock)], clock=clock
    )


# ---- live and cached ----------------------------------------------------------------------------------------------


def test_live_first_and_the_answer_is_to_be_cached(clock) -> None:
    answer = full(clock, day()).forecast(GB, NIGHT)
    assert (answer.quality, answer.steps, answer.age) == (GridQuality.LIVE, (), timedelta(0))
    assert unpack(answer.fetched) == answer.series
    assert (answer.fetched.provider, answer.fetched.zone) == ("neso", "neso:GB")
    assert answer.horizon == BLOCK + timedelta(hours=48)


def test_a_source_is_asked_for_all_it_has(clock) -> None:
    provider = neso(clock, day())
    Chain(providers=[provider], clock=clock).forecast(GB, NIGHT)
    assert provider.calls == [(GB, Window(start=NOW, end=NOW + timedelta(hours=48)))]


def test_a_fresh_cache_spares_the_network(clock) -> None:
    provider = neso(clock, DOWN)
    chain = Chain(providers=[provider], clock=clock)
    row = cached(clock, 0.25)
    answer = chain.forecast(GB, NIGHT, [cached(clock, 5), row])
    assert (answer.quality, answer.steps, answer.fetched) == (GridQuality.CACHED, (), None)
    assert answer.series == unpack(row)
    assert answer.age == timedelta(minutes=15)
    assert provider.calls == []


def test_an_old_cache_is_replaced(clock) -> None:
    provider = neso(clock, day())
    answer = Chain(providers=[provider], clock=clock).forecast(GB, NIGHT, [cached(clock, 0.5)])
    assert answer.quality is GridQuality.LIVE
    assert len(provider.calls) == 1


def test_a_window_beyond_the_horizon_is_answered_as_far_as_it_goes(clock) -> None:
    week = Window(start=NOW, end=NOW + timedelta(days=7))
    answer = full(clock, day()).forecast(GB, week)
    assert answer.quality is GridQuality.LIVE
    assert answer.horizon == BLOCK + timedelta(hours=48)


def test_a_local_source_is_not_cached(clock) -> None:
    chain = Chain(providers=[neso(clock, day(), local=True)], clock=clock)
    answer = chain.forecast(GB, NIGHT)
    assert (answer.quality, answer.fetched) == (GridQuality.LIVE, None)
    assert chain.cache_keys(GB) == ()


def test_cache_keys_are_the_providers_own_names(clock) -> None:
    chain = full(clock, day())
    assert chain.cache_keys(GB) == (("neso", "neso:GB"),)
    assert chain.cache_keys(Zone(provider="climatology", code="GB")) == (("neso", "neso:GB"),)
    assert chain.cache_keys(Zone(provider="climatology", code="DE")) == ()


# ---- at 3 am ------------------------------------------------------------------------------------------------------


def test_down_with_a_cache_the_last_forecast_up_to_a_day_old(clock) -> None:
    row = cached(clock, 23.9)
    answer = full(clock, DOWN).forecast(GB, NIGHT, [cached(clock, 24.5), row])
    assert answer.quality is GridQuality.STALE
    assert answer.series == unpack(row)
    assert answer.age == timedelta(hours=23.9)
    assert answer.steps == (f"neso: {DOWN}",)
    assert answer.fetched is None


def test_down_without_a_cache_the_climatology(clock) -> None:
    answer = full(clock, DOWN).forecast(GB, NIGHT, [cached(clock, 24.1)])
    assert answer.quality is GridQuality.CLIMATOLOGY
    assert str(answer.series.zone) == "climatology:GB"
    assert answer.steps[0] == f"neso: {DOWN}"
    assert "more than 24 h old" in answer.steps[1]
    assert mean_over(answer.series, NIGHT).coverage == 1


def test_down_where_only_a_yearly_average_is_known(clock) -> None:
    italy = Zone(provider="yearly", code="ITA")
    answer = full(clock, DOWN).forecast(italy, NIGHT)
    assert answer.quality is GridQuality.YEARLY
    assert answer.series.kind is IntensityKind.YEARLY
    assert answer.steps == ("neso: knows nothing of yearly:ITA", "climatology: knows nothing of yearly:ITA")


def test_down_with_nothing_left(clock) -> None:
    answer = Chain(providers=[neso(clock, DOWN)], clock=clock).forecast(GB, NIGHT)
    assert (answer.quality, answer.series, answer.age, answer.horizon) == (GridQuality.NONE, None, None, None)
    assert answer.steps == (f"neso: {DOWN}", "neso: no forecast of neso:GB is cached")


def test_yesterdays_cache_that_ends_before_the_window_is_no_answer(clock) -> None:
    old = pack(day(1, 2, 3, start=BLOCK - timedelta(hours=20), fetched_at=NOW - timedelta(hours=20)))
    answer = full(clock, DOWN).forecast(GB, NIGHT, [old])
    assert answer.quality is GridQuality.CLIMATOLOGY


def test_the_second_live_source_before_any_cache(clock) -> None:
    second = FakeProvider(
        series_of(*range(50), start=BLOCK, zone=Zone(provider="mine", code="GB"), convention=OTHER),
        clock=clock,
        name="mine",
        convention=OTHER,
    )
    chain = Chain(providers=[neso(clock, DOWN), second], clock=clock)
    answer = chain.forecast(Zone(provider="mine", code="GB"), NIGHT, [cached(clock, 2)])
    assert answer.quality is GridQuality.LIVE
    assert answer.series.source == "mine"
    assert answer.steps == ("neso: knows nothing of mine:GB",)


@pytest.mark.parametrize("error", [DOWN, ConfigurationError("c."), InvalidInput("i.")])
def test_no_error_of_a_source_reaches_the_gate(clock, error) -> None:
    assert full(clock, error).forecast(GB, NIGHT).quality is GridQuality.CLIMATOLOGY


@pytest.mark.parametrize(
    "wrong",
    [replace(day(), zone=Zone(provider="neso", code="GB-13")), day(convention=OTHER)],
    ids=["zone", "convention"],
)
def test_an_answer_about_something_else_is_passed_over(clock, wrong) -> None:
    answer = full(clock, wrong).forecast(GB, NIGHT)
    assert answer.quality is GridQuality.CLIMATOLOGY
    assert "instead of neso:GB" in answer.steps[0]


def test_damaged_foreign_and_future_rows_are_passed_over(clock) -> None:
    good = cached(clock, 3)
    rows = [
        replace(cached(clock, 1), data=b"{}"),
        replace(cached(clock, 2), digest="0" * 64),
        cached(clock, -1),
        cached(clock, 1, convention=OTHER),
        replace(cached(clock, 1), provider="stranger"),
        good,
    ]
    answer = full(clock, DOWN).forecast(GB, NIGHT, rows)
    assert answer.quality is GridQuality.STALE
    assert answer.series == unpack(good)
    assert [step for step in answer.steps if step.startswith("cache: ")] == [
        "cache: the cached series of neso:GB does not match its digest and is ignored; fetch it again."
    ]


def test_a_slow_failure_is_not_repeated_at_once(clock) -> None:
    provider = neso(clock, DOWN, delay_seconds=10)
    chain = Chain(providers=[provider, ClimatologyProvider(clock=clock)], clock=clock)
    chain.forecast(GB, NIGHT)
    clock.advance(20)
    again = chain.forecast(GB, NIGHT)
    assert again.steps[0].startswith("neso: failed 20 s ago and is not asked again yet (neso (test) did not answer")
    assert len(provider.calls) == 1
    clock.advance(11)
    provider.will(day())
    assert chain.forecast(GB, NIGHT).quality is GridQuality.LIVE


def test_a_quick_failure_is_tried_again_at_once(clock) -> None:
    chain = full(clock, DOWN, day())
    assert chain.forecast(GB, NIGHT).quality is GridQuality.CLIMATOLOGY
    assert chain.forecast(GB, NIGHT).quality is GridQuality.LIVE


# ---- gaps ---------------------------------------------------------------------------------------------------------

LATER = day(*range(50, 90), start=BLOCK + timedelta(hours=6))
NULLS = day(*[None] * 12, *range(50, 90))
HOLE = "gap from 2026-03-02 22:05:00Z to 2026-03-03 04:00:00Z"


@pytest.mark.parametrize("series", [LATER, NULLS], ids=["begins later", "first blocks null"])
def test_a_live_answer_that_does_not_know_now_is_no_answer(clock, series) -> None:
    answer = full(clock, series).forecast(GB, NIGHT)
    assert (answer.quality, answer.fetched) == (GridQuality.CLIMATOLOGY, None)
    assert answer.steps[0] == f"neso: {HOLE}, so that a start now cannot be compared with a later one"
    row = cached(clock, 5)
    stale = full(clock, series).forecast(GB, NIGHT, [row])
    assert (stale.quality, stale.series) == (GridQuality.STALE, unpack(row))
    assert HOLE in stale.steps[0]


def test_a_live_answer_that_does_not_know_now_is_none_where_nothing_else_is(clock) -> None:
    answer = Chain(providers=[neso(clock, LATER)], clock=clock).forecast(GB, NIGHT)
    assert (answer.quality, answer.series) == (GridQuality.NONE, None)
    assert HOLE in answer.steps[0]


def test_a_cached_forecast_that_does_not_know_now_is_passed_over(clock) -> None:
    gappy = pack(replace(LATER, fetched_at=NOW - timedelta(minutes=5)))
    older = cached(clock, 3)
    live = full(clock, day()).forecast(GB, NIGHT, [gappy])
    assert (live.quality, live.steps) == (GridQuality.LIVE, ())
    stale = full(clock, DOWN).forecast(GB, NIGHT, [gappy, older])
    assert (stale.quality, stale.series) == (GridQuality.STALE, unpack(older))
    typical = full(clock, DOWN).forecast(GB, NIGHT, [gappy])
    assert typical.quality is GridQuality.CLIMATOLOGY
    assert typical.steps[1].startswith(f"neso, cached: {HOLE}")


def test_what_the_run_needs_must_be_known_without_a_gap(clock) -> None:
    series = day(1, 2, None, *range(4, 100))
    hole = "gap from 2026-03-02 23:00:00Z to 2026-03-02 23:30:00Z"
    enough = full(clock, series).forecast(GB, NIGHT, needed=timedelta(minutes=55))
    assert (enough.quality, enough.steps) == (GridQuality.LIVE, (f"neso: {hole}",))
    longer = full(clock, series).forecast(GB, NIGHT, needed=timedelta(minutes=56))
    assert longer.quality is GridQuality.CLIMATOLOGY
    assert longer.steps[0].startswith(f"neso: {hole}, so that")
    assert full(clock, series).forecast(GB, NIGHT).quality is GridQuality.LIVE
    for nothing in (timedelta(0), timedelta(hours=-1)):
        assert full(clock, series).forecast(GB, NIGHT, needed=nothing).quality is GridQuality.LIVE
    beyond = full(clock, day()).forecast(GB, NIGHT, needed=timedelta.max)
    assert (beyond.quality, beyond.steps) == (GridQuality.LIVE, ())


def test_a_run_longer_than_the_forecast_is_compared_by_the_climatology(clock) -> None:
    week = Window(start=NOW, end=NOW + timedelta(days=7))
    answer = full(clock, day()).forecast(GB, week, needed=timedelta(hours=60))
    assert answer.quality is GridQuality.CLIMATOLOGY
    assert answer.steps[0].startswith("neso: gap from 2026-03-04 22:00:00Z to 2026-03-09 22:05:00Z")


def test_later_gaps_and_an_early_end_are_named(clock) -> None:
    series = day(*(value for number in range(7) for value in (number, None)), 5)
    answer = full(clock, series).forecast(GB, Window(start=NOW, end=NOW + timedelta(hours=12)))
    assert answer.quality is GridQuality.LIVE
    assert answer.steps == (
        *(f"neso: gap from 2026-03-{start}:30:00Z to 2026-03-{end}:00:00Z" for start, end in HOURS),
        "neso: 3 more gaps until 2026-03-03 05:00:00Z",
        "neso: knows nothing from 2026-03-03 05:30:00Z on",
    )
    row = pack(replace(series, fetched_at=NOW - timedelta(minutes=5)))
    again = full(clock, DOWN).forecast(GB, Window(start=NOW, end=NOW + timedelta(hours=2)), [row])
    assert (again.quality, len(again.steps)) == (GridQuality.CACHED, 2)


HOURS = [("02 22", "02 23"), ("02 23", "03 00"), ("03 00", "03 01"), ("03 01", "03 02")]


# ---- far deadlines ------------------------------------------------------------------------------------------------

FAR = [NOW + timedelta(days=401), NOW + timedelta(days=3000), datetime.max.replace(tzinfo=UTC)]


@pytest.mark.parametrize("deadline", FAR, ids=str)
def test_a_far_deadline_does_not_cost_the_intensity(clock, deadline) -> None:
    window = Window(start=NOW, end=deadline)
    reach = Window(start=NOW, end=NOW + timedelta(days=400))
    words = "only the first 400 days are looked at, until 2027-04-06 22:05Z"
    live = full(clock, day()).forecast(GB, window)
    assert (live.quality, live.steps) == (GridQuality.LIVE, (words, "neso: knows nothing from 2026-03-04 22:00:00Z on"))
    down = full(clock, DOWN).forecast(GB, window)
    assert (down.quality, down.steps[0]) == (GridQuality.CLIMATOLOGY, words)
    assert gaps(down.series, reach) == ()
    flat = full(clock, DOWN).forecast(Zone(provider="yearly", code="ITA"), window)
    assert (flat.quality, flat.steps[0]) == (GridQuality.YEARLY, words)
    assert [point.window for point in flat.series.points] == [reach]


def test_400_days_are_looked_at_in_full(clock) -> None:
    answer = full(clock, DOWN).forecast(GB, Window(start=NOW, end=NOW + timedelta(days=400)))
    assert answer.quality is GridQuality.CLIMATOLOGY
    assert not any("400 days" in step for step in answer.steps)


@pytest.mark.parametrize("deadline", FAR, ids=str)
def test_holds_until_a_far_deadline_are_priced_over_all_months_and_hours(clock, deadline) -> None:
    zone = Zone(provider="climatology", code="GB")
    year = Window(start=NOW, end=NOW + timedelta(days=366))
    price, basis = full(clock, day()).planning_intensity(GB, Window(start=NOW, end=deadline))
    assert price == ClimatologyProvider(clock=clock).percentile_95(zone, year)
    assert basis.startswith("95th percentile of climatology:GB")


# ---- pricing ------------------------------------------------------------------------------------------------------

PAST = Window(start=BLOCK - timedelta(hours=3), end=BLOCK - timedelta(hours=1))


def test_a_price_comes_from_joined_vintages_of_one_provider(clock) -> None:
    start = PAST.start
    older = pack(day(1, 2, start=start, fetched_at=start))
    newer = pack(day(20, 30, 40, start=start + timedelta(minutes=30), fetched_at=start + timedelta(minutes=31)))
    provider = neso(clock, DOWN)
    (found,) = Chain(providers=[provider], clock=clock, use=Use.ACCOUNTING).on_hand(GB, PAST, [older, newer])
    assert [point.intensity.g_per_kwh for point in found.points] == [1, 20, 30, 40]
    assert provider.calls == []


def test_what_is_on_hand_needs_no_network_and_may_be_a_part(clock) -> None:
    provider = neso(clock, DOWN)
    chain = Chain(providers=[provider, ClimatologyProvider(clock=clock)], clock=clock)
    found = chain.on_hand(GB, PAST, [pack(day(1, start=PAST.start, fetched_at=PAST.start))])
    assert [(str(series.zone), mean_over(series, PAST).coverage) for series in found] == [
        ("neso:GB", Fraction(1, 4)),
        ("climatology:GB", 1),
    ]
    assert [str(series.zone) for series in chain.on_hand(GB, PAST)] == ["climatology:GB"]
    assert provider.calls == []


def test_a_chain_of_several_conventions_may_steer_but_not_price(clock) -> None:
    providers = [neso(clock, day()), ClimatologyProvider(clock=clock)]
    with pytest.raises(ConfigurationError, match=r"average/direct/co2\).*average/unknown/co2e"):
        Chain(providers=providers, clock=clock, use=Use.ACCOUNTING)
    assert Chain(providers=providers, clock=clock).forecast(GB, NIGHT).quality is GridQuality.LIVE
    with pytest.raises(ConfigurationError, match=r"climatology \(average/unknown/co2e\)"):
        accounting_providers(providers, declared=True)


def test_the_homogeneous_start_prices(clock) -> None:
    providers = [neso(clock, day()), ClimatologyProvider(clock=clock), YearlyProvider(clock=clock)]
    assert accounting_providers(providers, declared=False) == ("neso",)
    assert accounting_providers(providers[1:2], declared=True) == ("climatology",)
    germany = Zone(provider="climatology", code="DE")
    assert accounting_providers(providers, declared=False, zone=germany) == ("climatology",)
    assert accounting_providers(providers, declared=False, zone=Zone(provider="yearly", code="ITA")) == ("yearly",)
    assert accounting_providers([], declared=False) == ()
    twin = FakeProvider(clock=clock, name="twin", convention=FAKE_CONVENTION)
    assert accounting_providers([providers[0], twin, providers[1]], declared=False) == ("neso", "twin")


# ---- construction -------------------------------------------------------------------------------------------------


def test_chains_that_make_no_sense(clock) -> None:
    with pytest.raises(ConfigurationError, match="at least one provider"):
        Chain(providers=[], clock=clock)
    with pytest.raises(ConfigurationError, match="twice"):
        Chain(providers=[neso(clock), neso(clock)], clock=clock)


def test_a_zone_that_no_provider_knows(clock) -> None:
    chain = full(clock, day())
    chain.require(GB)
    chain.require(Zone(provider="climatology", code="DE"))
    with pytest.raises(ZoneUnknown, match="known to none of the providers neso, climatology, yearly"):
        chain.require(Zone(provider="trace", code="nothing"))


# ---- the price of holds -------------------------------------------------------------------------------------------


def test_holds_are_priced_at_the_95th_percentile_of_the_climatology(clock) -> None:
    chain = Chain(providers=[neso(clock, day())], clock=clock)
    price, basis = chain.planning_intensity(GB, NIGHT, day())
    expected = ClimatologyProvider(clock=clock).percentile_95(Zone(provider="climatology", code="GB"), NIGHT)
    assert price == expected
    assert basis == "95th percentile of climatology:GB 2022 for the months and hours of the window"
    london, _ = chain.planning_intensity(Zone(provider="neso", code="GB-13"), NIGHT)
    assert london == expected


def test_holds_elsewhere_are_priced_at_the_forecasts_maximum_or_twice_the_year(clock) -> None:
    chain = full(clock, day())
    mine = Zone(provider="mine", code="X")
    series = series_of(5, 9, 7, start=BLOCK, zone=mine)
    price, basis = chain.planning_intensity(mine, NIGHT, series)
    assert (price.g_per_kwh, basis) == (9, "forecast maximum (mine)")
    assert chain.planning_intensity(mine, NIGHT) == (None, "unknown")
    italy = Zone(provider="yearly", code="ITA")
    flat = YearlyProvider(clock=clock).fetch(italy, NIGHT)
    price, basis = chain.planning_intensity(italy, NIGHT, flat)
    assert price.milligrams_per_kwh == 2 * flat.points[0].intensity.milligrams_per_kwh
    assert basis.startswith("twice the yearly average of yearly:ITA")
