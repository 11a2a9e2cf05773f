"""Names of zones: bare, qualified, ambiguous, unknown, and what other providers call the same area."""

from __future__ import annotations

import pytest

from cagg.errors import ZoneUnknown
from cagg.grid.zones import ZoneEntry, all_zones, default_providers, equivalent_zone, resolve_zone, zones_of
from cagg.intensity import Zone
from cagg.provenance import IntensityKind
from cagg.testing.intensity import FAKE_CONVENTION

ALL = ("neso", "climatology", "yearly")


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
    zones = [item.zone for item in all_zones()]
    assert len(set(zones)) == len(zones)
    for item in all_zones():
        assert item.name
        assert resolve_zone(str(item.zone), ALL) == item.zone
        # every bare code that people may write means one area
        for code in (item.zone.code, *item.aliases):
            resolve_zone(code, ALL)


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
