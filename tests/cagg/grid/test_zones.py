"""Names of zones: bare, qualified, ambiguous, unknown, and what other providers call the same area."""

from __future__ import annotations

import pytest

from cagg.errors import ZoneUnknown
from cagg.grid._data import cloud_regions
from cagg.grid.zones import (
    ZoneEntry,
    all_zones,
    cloud_names,
    default_providers,
    equivalent_zone,
    resolve_zone,
    zones_of,
)
from cagg.intensity import Zone
from cagg.provenance import IntensityKind
from cagg.testing.intensity import FAKE_CONVENTION

ALL = ("neso", "climatology", "yearly")
WITH_TOKEN = ("neso", "electricity_maps", "climatology", "yearly")


def entry(provider: str, code: str, area: str) -> ZoneEntry:
    return ZoneEntry(
        zone=Zone(provider=provider, code=code),
        name=code,
        area=area,
        wider=None,
        convention=FAKE_CONVENTION,
        kind=IntensityKind.FORECAST,
    )


@pytest.mark.parametrize(
    ("text", "providers", "zone"),
    [
        ("GB", ALL, "neso:GB"),
        (" GB ", ("climatology", "neso"), "climatology:GB"),
        ("GB", ("yearly",), "yearly:GBR"),
        ("DE", ALL, "climatology:DE"),
        ("DEU", ALL, "yearly:DEU"),
        ("GB-13", ALL, "neso:GB-13"),
        ("US-CAL-CISO", ALL, "climatology:US-CAL-CISO"),
        ("neso:GB", ("yearly",), "neso:GB"),
        ("yearly:DE", ALL, "yearly:DEU"),
        ("mine:X", ("mine",), "mine:X"),
    ],
)
def test_names_resolve(text, providers, zone) -> None:
    assert str(resolve_zone(text, providers)) == zone


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gb", "did you mean .*neso:GB"),
        ("London", "neso:GB-13"),
        ("neso:GB-18", "neso:GB-1"),
        ("neso:DE", "unknown to neso"),
        ("nesso:GB", "no known provider"),
        ("trace:x", r"set grid\.trace\.file"),
        ("Atlantis-42", "cagg zones"),
        ("", "unknown"),
        (":", "no known provider"),
        ("neso:", "unknown to neso"),
    ],
)
def test_unknown_names_are_refused_with_a_hint(text, words) -> None:
    with pytest.raises(ZoneUnknown, match=words):
        resolve_zone(text, ALL)


def test_a_name_known_elsewhere_says_where() -> None:
    with pytest.raises(ZoneUnknown, match=r"known as climatology:ZA and yearly:ZAF.*grid\.steering"):
        resolve_zone("ZA", ("neso",))


def test_one_name_for_two_places_is_ambiguous() -> None:
    more = [entry("trace", "GB", "trace:GB")]
    with pytest.raises(ZoneUnknown, match="ambiguous; write trace:GB or neso:GB"):
        resolve_zone("GB", ("trace", "neso"), more=more)
    same = [entry("trace", "GB", "GB")]
    assert str(resolve_zone("GB", ("trace", "neso"), more=same)) == "trace:GB"


def test_providers_names_of_one_area() -> None:
    gb = Zone(provider="neso", code="GB")
    assert str(equivalent_zone(gb, "climatology")) == "climatology:GB"
    assert str(equivalent_zone(gb, "yearly")) == "yearly:GBR"
    london = Zone(provider="neso", code="GB-13")
    assert str(equivalent_zone(london, "climatology")) == "climatology:GB"
    assert equivalent_zone(london, "neso") == london
    assert str(equivalent_zone(Zone(provider="climatology", code="JP-TK"), "yearly")) == "yearly:JPN"
    assert equivalent_zone(Zone(provider="climatology", code="JP-TK"), "neso") is None
    assert str(equivalent_zone(Zone(provider="yearly", code="GBR"), "neso")) == "neso:GB"
    assert equivalent_zone(Zone(provider="trace", code="x"), "yearly") is None


def test_the_list_of_zones_is_complete_and_unambiguous() -> None:
    assert [len(zones_of(name)) for name in ALL] == [18, 16, 213]
    assert len(zones_of("electricity_maps")) > 350
    zones = [item.zone for item in all_zones()]
    assert len(set(zones)) == len(zones)
    for item in all_zones():
        assert item.name
        assert resolve_zone(str(item.zone), ALL) == item.zone
        # every bare code that people may write means one area
        for code in (item.zone.code, *item.aliases):
            resolve_zone(code, WITH_TOKEN if item.zone.provider == "electricity_maps" else ALL)


@pytest.mark.parametrize(
    ("zone", "has_trace", "names"),
    [
        ("GB", False, ALL),
        ("neso:GB-13", True, ALL),
        ("DE", False, ("climatology", "yearly")),
        ("FJ", False, ("yearly",)),
        ("trace:x", True, ("trace", "climatology", "yearly")),
        ("nowhere", False, ALL),
    ],
)
def test_default_providers_are_those_that_know_the_area(zone, has_trace, names) -> None:
    assert default_providers(zone, has_trace=has_trace) == names


# ---- Electricity Maps, countries, clouds --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zone", "names"),
    [
        ("DE", "electricity_maps:DE", ("electricity_maps", "climatology", "yearly")),
        ("DEU", "electricity_maps:DE", ("electricity_maps", "climatology", "yearly")),
        ("iso:de", "electricity_maps:DE", ("electricity_maps", "climatology", "yearly")),
        ("FJ", "electricity_maps:FJ", ("electricity_maps", "yearly")),
        ("SE-SE3", "electricity_maps:SE-SE3", ("electricity_maps", "yearly")),
        ("GB", "neso:GB", ALL),
        ("iso:GBR", "neso:GB", ALL),
        ("electricity_maps:GB", "electricity_maps:GB", ("electricity_maps", "neso", "climatology", "yearly")),
        ("GB-NIR", "electricity_maps:GB-NIR", ("electricity_maps",)),
        ("aws:eu-west-2", "neso:GB", ALL),
        ("azure:uksouth", "neso:GB", ALL),
        ("gcp:europe-west1", "electricity_maps:BE", ("electricity_maps", "yearly")),
        ("aws:eu-north-1", "electricity_maps:SE-SE3", ("electricity_maps", "yearly")),
        ("aws:us-east-1", "electricity_maps:US-MIDA-PJM", ("electricity_maps", "climatology", "yearly")),
    ],
)
def test_with_a_token_electricity_maps_steers_what_neso_does_not_know(text, zone, names) -> None:
    assert default_providers(text, has_trace=False, has_token=True) == names
    assert str(resolve_zone(text, names)) == zone


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("iso:DE", "climatology:DE"),
        ("iso:US", "yearly:USA"),
        ("aws:eu-central-1", "climatology:DE"),
        ("gcp:us-east4", "climatology:US-MIDA-PJM"),
        ("aws:eu-north-1", "yearly:SWE"),
        ("electricity_maps:DE", "electricity_maps:DE"),
    ],
)
def test_without_a_token_the_same_names_mean_the_same_places(text, zone) -> None:
    assert str(resolve_zone(text, default_providers(text, has_trace=False))) == zone


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("US", r"'US' is ambiguous: .* grids of electricity_maps .*US-CAL-CISO.*yearly:USA"),
        ("USA", "ambiguous"),
        ("iso:AU", r"ambiguous.*electricity_maps:AU-NSW"),
        ("electricity_maps:SE", r"ambiguous.*SE-SE1.*SE-SE4"),
        ("electricity_maps:XX", "unknown to electricity_maps"),
        ("iso:XX", "names no country"),
        ("iso:", "names no country"),
        ("aws:us-west-2", r"\(Oregon\) is ambiguous.*US-NW-BPAT or electricity_maps:US-NW-PACW"),
        ("aws:eu-west-9", "did you mean aws:eu-west-"),
        ("azure:", "cloud region 'azure:' is unknown"),
    ],
)
def test_what_cannot_be_told_surely_is_refused_with_candidates(text, words) -> None:
    with pytest.raises(ZoneUnknown, match=words) as caught:
        resolve_zone(text, WITH_TOKEN)
    assert str(caught.value).endswith((".", "?"))


def test_a_zone_that_needs_a_token_says_what_to_set() -> None:
    with pytest.raises(ZoneUnknown, match=r"electricity_maps:SE-SE3.*set grid\.electricity_maps\.token"):
        resolve_zone("SE-SE3", ALL)
    with pytest.raises(ZoneUnknown, match=r"is electricity_maps:TW.*set grid\.electricity_maps\.token"):
        resolve_zone("gcp:asia-east1", ("neso",))


def test_a_grid_apart_from_its_country_is_not_taken_for_it() -> None:
    for code in ("GB-NIR", "FR-COR", "ES-CN-TE"):
        zone = Zone(provider="electricity_maps", code=code)
        assert all(equivalent_zone(zone, name) is None for name in ALL)
    assert str(equivalent_zone(Zone(provider="neso", code="GB-13"), "electricity_maps")) == "electricity_maps:GB"


def test_every_cloud_region_stands_in_known_grids() -> None:
    known = {item.zone.code for item in zones_of("electricity_maps")}
    for name, region in cloud_regions().items():
        assert region.place
        assert region.areas
        assert set(region.areas) <= known, name
        if len(region.areas) == 1:
            assert resolve_zone(name, WITH_TOKEN)
    london = next(item for item in all_zones() if str(item.zone) == "neso:GB")
    assert {"aws:eu-west-2", "gcp:europe-west2", "azure:uksouth"} <= set(cloud_names(london))
