"""NESO's answers: recorded ones, and every way in which an answer can be wrong."""

from __future__ import annotations

import asyncio
import copy
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from cagg.errors import ConfigurationError, IntensityUnavailable
from cagg.grid.providers._http import HttpPolicy
from cagg.grid.providers.neso import NesoProvider
from cagg.intensity import Zone
from cagg.provenance import IntensityKind
from cagg.testing import ManualClock
from cagg.windows import Window

NOW = datetime(2023, 3, 14, 3, 12, tzinfo=UTC)
GB = Zone(provider="neso", code="GB")
NORTH_SCOTLAND = Zone(provider="neso", code="GB-1")
NIGHT = Window(start=NOW, end=NOW + timedelta(hours=8))


def provider(service, now=NOW, **policy):
    return NesoProvider(
        clock=ManualClock(now),
        transport=service.transport,
        async_transport=service.transport,
        policy=HttpPolicy(**policy) if policy else None,
    )


def blocks(start, *pairs, minutes=30):
    rows = []
    for number, (forecast, actual) in enumerate(pairs):
        begin = start + number * timedelta(minutes=minutes)
        rows.append(
            {
                "from": f"{begin:%Y-%m-%dT%H:%MZ}",
                "to": f"{begin + timedelta(minutes=minutes):%Y-%m-%dT%H:%MZ}",
                "intensity": {"forecast": forecast, "actual": actual, "index": "low"},
            }
        )
    return {"data": rows}


def values(series):
    return [None if point.intensity is None else point.intensity.g_per_kwh for point in series.points]


# ---- recorded -----------------------------------------------------------------------------------------------------


def test_a_recorded_forecast_is_read_whole(service, recorded) -> None:
    answers = service(recorded("national_fw48h_2023-03-14T0301Z.json"))
    series = provider(answers).fetch(GB, Window(start=NOW, end=NOW + timedelta(hours=72)))
    assert answers.paths == ["/intensity/2023-03-14T03:01Z/fw48h"]
    assert len(series.points) == 96
    assert values(series)[:4] == [68, 69, 72, 69]
    assert series.points[0].window.start == datetime(2023, 3, 14, 3, tzinfo=UTC)
    assert series.points[-1].window.end == datetime(2023, 3, 16, 3, tzinfo=UTC)
    assert (series.kind, series.source, series.fetched_at) == (IntensityKind.FORECAST, "neso", NOW)
    assert str(series.convention) == "average/direct/co2"
    assert "CC-BY-4.0" in series.licence


def test_only_what_overlaps_the_window_is_returned(service, recorded) -> None:
    series = provider(service(recorded("national_fw48h_2023-03-14T0301Z.json"))).fetch(GB, NIGHT)
    assert series.points[0].window.contains(NIGHT.start)
    assert series.points[-1].window.start < NIGHT.end <= series.points[-1].window.end


@pytest.mark.parametrize("as_list", [False, True])
def test_a_region_comes_as_object_or_list(service, recorded, as_list) -> None:
    document = recorded("regional_fw48h_regionid_1_2023-03-13T1231Z_excerpt.json")
    if as_list:
        document["data"] = [document["data"]]
    now = datetime(2023, 3, 13, 12, 40, tzinfo=UTC)
    answers = service(document)
    series = provider(answers, now).fetch(NORTH_SCOTLAND, Window(start=now, end=now + timedelta(hours=3)))
    assert answers.paths == ["/regional/intensity/2023-03-13T12:31Z/fw48h/regionid/1"]
    assert values(series)[0] == 0  # zero is a real value
    assert series.zone == NORTH_SCOTLAND


def test_a_region_is_found_in_a_list_of_all_regions(service, recorded) -> None:
    document = recorded("doc_regional_current.json")
    now = datetime(2018, 1, 20, 12, 10, tzinfo=UTC)
    window = Window(start=now, end=now + timedelta(minutes=5))
    series = provider(service(document), now).fetch(Zone(provider="neso", code="GB-3"), window)
    assert values(series) == [266]
    with pytest.raises(IntensityUnavailable, match="without region 1"):
        provider(service(document), now).fetch(NORTH_SCOTLAND, window)


def test_sync_and_async_agree(service, recorded) -> None:
    document = recorded("national_fw48h_2023-03-14T0301Z.json")
    one = provider(service(document)).fetch(GB, NIGHT)
    other = asyncio.run(provider(service(document)).fetch_async(GB, NIGHT))
    assert one == other


# ---- what is asked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minute", "path"),
    [
        (0, "/intensity/2023-03-14T03:01Z/fw48h"),
        (29, "/intensity/2023-03-14T03:01Z/fw48h"),
        (30, "/intensity/2023-03-14T03:31Z/fw48h"),
        (59, "/intensity/2023-03-14T03:31Z/fw48h"),
    ],
)
def test_the_address_stays_the_same_for_half_an_hour(service, minute, path) -> None:
    now = NOW.replace(minute=minute)
    answers = service(blocks(now.replace(minute=minute - minute % 30), (1, None), (2, None)))
    for start in (now, now + timedelta(minutes=5)):
        provider(answers, now).fetch(GB, Window(start=start, end=start + timedelta(minutes=20)))
    assert answers.paths == [path, path]


def test_the_past_is_asked_by_range(service) -> None:
    start = datetime(2023, 3, 13, 20, 10, tzinfo=UTC)
    answers = service(blocks(datetime(2023, 3, 13, 20, tzinfo=UTC), (90, 80), (91, 81), (92, 82)))
    series = provider(answers).fetch(GB, Window(start=start, end=start + timedelta(minutes=65)))
    assert answers.paths == ["/intensity/2023-03-13T20:01Z/2023-03-13T21:30Z"]
    assert values(series) == [80, 81, 82]
    assert series.kind is IntensityKind.ESTIMATED


def test_a_long_past_is_asked_in_parts_with_pauses(service) -> None:
    start = datetime(2023, 2, 1, tzinfo=UTC)

    def answer(request):
        first = datetime.strptime(request.url.path.split("/")[2], "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC)
        return blocks(first - timedelta(minutes=1), (5, 4))

    answers = service(answer)
    clock = ManualClock(NOW)
    neso = NesoProvider(clock=clock, transport=answers.transport)
    series = neso.fetch(GB, Window(start=start, end=start + timedelta(days=30)))
    assert [path.count("/") for path in answers.paths] == [3, 3, 3]
    assert answers.paths[1].startswith("/intensity/2023-02-14T00:01Z/")
    assert len(series.points) == 3
    assert clock.now() == NOW + timedelta(seconds=2)
    with pytest.raises(IntensityUnavailable, match="at most 104 days"):
        neso.fetch(GB, Window(start=start - timedelta(days=300), end=start))


def test_after_the_horizon_nothing_is_asked(service) -> None:
    answers = service(RuntimeError("asked"))
    start = NOW + timedelta(hours=49)
    with pytest.raises(IntensityUnavailable, match="48 hours"):
        provider(answers).fetch(GB, Window(start=start, end=start + timedelta(hours=1)))
    assert answers.requests == []


def test_nothing_secret_and_no_redirect(service) -> None:
    answers = service(httpx.Response(302, headers={"location": "https://elsewhere.example/"}))
    with pytest.raises(IntensityUnavailable, match="redirects"):
        provider(answers).fetch(GB, NIGHT)
    assert len(answers.requests) == 1
    assert answers.requests[0].headers["user-agent"].startswith("cagg/")


# ---- gaps and kinds -----------------------------------------------------------------------------------------------


def test_actuals_where_there_are_some_and_the_weakest_label(service) -> None:
    start = datetime(2023, 3, 14, 2, tzinfo=UTC)
    answers = service(blocks(start, (70, 65), (71, 66), (72, None), (73, None)))
    series = provider(answers).fetch(GB, Window(start=start, end=start + timedelta(hours=2)))
    assert values(series) == [65, 66, 72, 73]
    assert series.kind is IntensityKind.FORECAST


def test_what_the_service_leaves_out_stays_a_gap(service) -> None:
    start = NOW.replace(minute=0)
    document = blocks(start, (70, None), (None, None), (72, None))
    document["data"][2]["intensity"] = None
    series = provider(service(document)).fetch(GB, NIGHT)
    assert values(series) == [70, None, None]
    with pytest.raises(IntensityUnavailable, match="knows no intensity"):
        provider(service(blocks(start, (None, None)))).fetch(GB, NIGHT)


def test_repeated_and_unordered_blocks_are_put_right(service) -> None:
    start = NOW.replace(minute=0)
    document = blocks(start - timedelta(minutes=30), (69, None), (70, None), (71, None))
    document["data"] = [document["data"][2], *document["data"], copy.deepcopy(document["data"][1])]
    assert values(provider(service(document)).fetch(GB, NIGHT)) == [70, 71]


# ---- wrong answers ------------------------------------------------------------------------------------------------


def wrong(**changes):
    row = {"from": "2023-03-14T03:00Z", "to": "2023-03-14T03:30Z", "intensity": {"forecast": 68, "actual": None}}
    return {"data": [row | changes]}


WRONG = [
    (None, "empty document"),
    ([], "empty document"),
    ({}, "no data"),
    ({"data": []}, "no data"),
    ({"data": None}, "no data"),
    ({"error": {"code": "400 Bad Request", "message": "Please enter a valid date"}}, "Please enter a valid date"),
    ({"data": "text"}, "another zone"),
    ({"data": {"regionid": 1, "data": []}}, "another zone"),
    ({"data": [{"regionid": 1, "data": []}]}, "another zone"),
    (blocks(datetime(2023, 3, 13, 3, tzinfo=UTC), *[(68, None)] * 96), "which is another time"),
    (blocks(datetime(2023, 3, 15, 3, tzinfo=UTC), *[(68, None)] * 96), "which is another time"),
    (blocks(datetime(2023, 3, 14, 3, tzinfo=UTC), (68, None), minutes=60), "unknown shape"),
    (wrong(**{"from": "2023-03-14 03:00"}), "unknown shape"),
    (wrong(to=None), "unknown shape"),
    (wrong(intensity=[1]), "unknown shape"),
    (wrong(intensity={"forecast": "68"}), "unusable number"),
    (wrong(intensity={"forecast": -1}), "unusable number"),
    (wrong(intensity={"forecast": True}), "unusable number"),
    ({"data": [*wrong()["data"], *wrong(intensity={"forecast": 9})["data"]]}, "contradicts itself"),
]


@pytest.mark.parametrize(("document", "words"), WRONG, ids=[words for _, words in WRONG])
def test_an_answer_that_is_not_what_was_asked_is_no_answer(service, document, words) -> None:
    answers = service(httpx.Response(200, text=json.dumps(document)))
    with pytest.raises(IntensityUnavailable, match=words):
        provider(answers).fetch(GB, NIGHT)
    with pytest.raises(IntensityUnavailable, match=words):
        asyncio.run(provider(answers).fetch_async(GB, NIGHT))


def test_another_region_is_no_answer(service, recorded) -> None:
    document = recorded("regional_fw48h_regionid_1_2023-03-13T1231Z_excerpt.json")
    now = datetime(2023, 3, 13, 12, 40, tzinfo=UTC)
    window = Window(start=now, end=now + timedelta(hours=3))
    with pytest.raises(IntensityUnavailable, match="for region 1 when asked for region 13"):
        provider(service(document), now).fetch(Zone(provider="neso", code="GB-13"), window)
    national = recorded("national_fw48h_2023-03-14T0301Z.json")
    with pytest.raises(IntensityUnavailable, match="Great Britain when asked for region 1"):
        provider(service(national)).fetch(NORTH_SCOTLAND, NIGHT)


def test_a_zone_of_somebody_else_is_not_asked_for(service) -> None:
    answers = service(RuntimeError("asked"))
    with pytest.raises(IntensityUnavailable, match="see `cagg zones`"):
        provider(answers).fetch(Zone(provider="climatology", code="GB"), NIGHT)
    with pytest.raises(IntensityUnavailable):
        provider(answers).fetch(Zone(provider="neso", code="GB-18"), NIGHT)


# ---- freshness and settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fetched", "until"),
    [
        ((3, 0), (3, 1)),
        ((3, 1), (3, 31)),
        ((3, 12), (3, 31)),
        ((3, 30), (3, 31)),
        ((3, 31), (4, 1)),
        ((23, 45), (24, 1)),
    ],
)
def test_an_answer_is_fresh_until_the_next_edition(service, fetched, until) -> None:
    day = datetime(2023, 3, 14, tzinfo=UTC)
    neso = provider(service({}))
    expected = day + timedelta(hours=until[0], minutes=until[1])
    assert neso.fresh_until(day + timedelta(hours=fetched[0], minutes=fetched[1])) == expected


@pytest.mark.parametrize(
    "url", ["", "api.carbonintensity.org.uk", "ftp://x", "https://", "http://x:port", "https://x/?a=1"]
)
def test_an_unusable_address_is_refused_at_once(url) -> None:
    with pytest.raises(ConfigurationError, match=r"grid\.neso\.url"):
        NesoProvider(clock=ManualClock(NOW), base_url=url)


@pytest.mark.parametrize("policy", [{"timeout_seconds": 0}, {"total_seconds": float("inf")}, {"attempts": 0}])
def test_an_unusable_limit_is_refused_at_once(policy) -> None:
    with pytest.raises(ConfigurationError):
        HttpPolicy(**policy)
