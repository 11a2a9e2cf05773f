"""Names of grid areas: which provider calls what how, which names mean one physical area, and bare names.

A zone is written ``provider:code``. A bare code such as ``GB`` is accepted when every configured provider that knows
it means the same physical area; the zone of the first of them is taken. ``iso:DE`` is a country, and ``aws:eu-west-2``,
``gcp:europe-west1`` and ``azure:uksouth`` are the grids where these regions stand. Otherwise the name is refused with
the candidates: cagg does not guess where a machine stands.

Codes of Electricity Maps and places of cloud regions: compiled by hand in November 2026, with the pages that are the
authority; see ``grid/data/LICENSES.md``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cagg.errors import ZoneUnknown
from cagg.grid._data import cloud_regions, countries, grid_areas
from cagg.intensity import Zone
from cagg.provenance import Basis, Convention, Gas, IntensityKind, Signal

__all__ = [
    "CONVENTIONS",
    "KINDS",
    "ZoneEntry",
    "all_zones",
    "cloud_names",
    "default_providers",
    "equivalent_zone",
    "resolve_zone",
    "zones_of",
]

CONVENTIONS: Mapping[str, Convention] = {
    # National demand side incl. imports and losses, combustion only: NESO "Carbon Intensity Forecast Methodology", 2021
    "neso": Convention(signal=Signal.AVERAGE, basis=Basis.DIRECT, gas=Gas.CO2),
    # Electricity Maps through an extract that does not say whether its values are direct or life-cycle
    "climatology": Convention(signal=Signal.AVERAGE, basis=Basis.UNKNOWN, gas=Gas.CO2E),
    # Our World in Data, "Lifecycle carbon intensity of electricity generation" (Ember's factors)
    "yearly": Convention(signal=Signal.AVERAGE, basis=Basis.LIFE_CYCLE, gas=Gas.CO2E),
    # Flow-traced, "Electricity Maps - Carbon intensity and emission factors": life-cycle unless direct is asked for
    "electricity_maps": Convention(signal=Signal.AVERAGE, basis=Basis.LIFE_CYCLE, gas=Gas.CO2E),
}
"""What the numbers of each built-in provider mean."""

KINDS: Mapping[str, IntensityKind] = {
    "neso": IntensityKind.FORECAST,
    "climatology": IntensityKind.CLIMATOLOGY,
    "yearly": IntensityKind.YEARLY,
    "electricity_maps": IntensityKind.FORECAST,
}
"""What the numbers of each built-in provider are at best."""

_CLOUDS = frozenset({"aws", "azure", "gcp"})
_MOST_CANDIDATES = 8

_NESO_REGIONS = (
    # NESO Carbon Intensity API, list of region ids 1 to 17
    "North Scotland",
    "South Scotland",
    "North West England",
    "North East England",
    "Yorkshire",
    "North Wales and Merseyside",
    "South Wales",
    "West Midlands",
    "East Midlands",
    "East England",
    "South West England",
    "South England",
    "London",
    "South East England",
    "England",
    "Scotland",
    "Wales",
)

_CLIMATES = {
    "DE": "Germany",
    "GB": "Great Britain",
    "FR": "France",
    "ES": "Spain",
    "PL": "Poland",
    "SE-SE1": "Sweden, bidding zone SE1",
    "US-CAL-CISO": "California ISO",
    "US-TEX-ERCO": "Texas (ERCOT)",
    "US-MIDA-PJM": "PJM Interconnection",
    "US-NW-PACW": "PacifiCorp West",
    "CA-ON": "Ontario",
    "AU-SA": "South Australia",
    "AU-NSW": "New South Wales",
    "IN-MH": "Maharashtra",
    "JP-TK": "Tokyo",
    "ZA": "South Africa",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneEntry:
    """One zone of one provider.

    Attributes:
        zone: its name.
        name: for people.
        area: the physical area; entries of different providers with the same area are equivalents.
        wider: the area that holds this one; None when there is none. Used only where nothing knows the area itself.
        convention: signal, basis and gas of its numbers.
        kind: what its numbers are at best.
        aliases: other codes under which it is found, for example ISO 3166-1 alpha-2.
    """

    zone: Zone
    name: str
    area: str
    wider: str | None
    convention: Convention
    kind: IntensityKind
    aliases: tuple[str, ...] = ()

    def answers_to(self, code: str) -> bool:
        """True for the code and its aliases, as they are written."""
        return code == self.zone.code or code in self.aliases


def _entry(
    provider: str, code: str, name: str, *, area: str, wider: str | None = None, aliases: tuple[str, ...] = ()
) -> ZoneEntry:
    return ZoneEntry(
        zone=Zone(provider=provider, code=code),
        name=name,
        area=area,
        wider=wider,
        convention=CONVENTIONS[provider],
        kind=KINDS[provider],
        aliases=aliases,
    )


@lru_cache(maxsize=1)
def _iso3() -> Mapping[str, str]:
    """ISO 3166-1 alpha-3 codes by alpha-2."""
    return {country.iso2: country.iso3 for country in countries().values()}


@lru_cache(maxsize=1)
def all_zones() -> tuple[ZoneEntry, ...]:
    """Return every zone that cagg knows by name, by provider: NESO, climatology, yearly, Electricity Maps."""
    entries = [_entry("neso", "GB", "Great Britain", area="GB")]
    for number, name in enumerate(_NESO_REGIONS, start=1):
        entries.append(_entry("neso", f"GB-{number}", name, area=f"GB-{number}", wider="GB"))
    for code, name in _CLIMATES.items():
        wider = code.split("-", 1)[0] if "-" in code else None
        entries.append(_entry("climatology", code, name, area=code, wider=wider))
    # GBR covers the United Kingdom, GB on the grid Great Britain: equivalents for want of a finer figure
    entries.extend(
        _entry("yearly", country.iso3, country.name, area=country.iso2, aliases=(country.iso2,))
        for country in countries().values()
    )
    for area in grid_areas():
        country = area.code.split("-", 1)[0]
        entries.append(
            _entry(
                "electricity_maps",
                area.code,
                area.name,
                area=area.code,
                wider=country if "-" in area.code and not area.apart else None,
                aliases=(_iso3()[area.code],) if area.code in _iso3() else (),
            )
        )
    return tuple(entries)


def cloud_names(entry: ZoneEntry) -> tuple[str, ...]:
    """Return the cloud regions that stand, or may stand, in the zone's area, for example ``aws:eu-west-2``."""
    return tuple(name for name, region in cloud_regions().items() if entry.area in region.areas)


def zones_of(provider: str) -> tuple[ZoneEntry, ...]:
    """Return the built-in zones of one provider; empty for a provider without any."""
    return tuple(entry for entry in all_zones() if entry.zone.provider == provider)


def equivalent_zone(zone: Zone, provider: str, *, more: Iterable[ZoneEntry] = ()) -> Zone | None:
    """Return what a provider calls the physical area of a zone.

    Args:
        zone: any provider's zone.
        provider: whose name is wanted.
        more: entries beside the built-in ones, for example of a trace file.

    Returns:
        The zone itself if it is that provider's; its entry for the same area; else its entry for the wider area
        (London: Great Britain); None when it has neither.
    """
    if zone.provider == provider:
        return zone
    entries = (*all_zones(), *more)
    own = next((entry for entry in entries if entry.zone == zone), None)
    if own is None:
        return None
    for area in (own.area, own.wider):
        if area is not None:
            for entry in entries:
                if entry.zone.provider == provider and entry.area == area:
                    return entry.zone
    return None


def resolve_zone(text: str, providers: Sequence[str], *, more: Iterable[ZoneEntry] = ()) -> Zone:
    """Return the zone that a person means.

    Args:
        text: ``provider:code``, a bare code, ``iso:`` and a country, or ``aws:``, ``gcp:``, ``azure:`` and a region.
        providers: names of the configured providers, in order of preference; bare codes are looked up in them.
        more: entries beside the built-in ones, for example of a trace file.

    Raises:
        ZoneUnknown: nobody knows it, or several providers know it as different places.
    """
    more = tuple(more)
    entries = (*all_zones(), *more)
    text = text.strip()
    if ":" in text:
        kind, code = (part.strip() for part in text.split(":", 1))
        if kind in _CLOUDS:
            return _cloud(f"{kind}:{code}", entries, providers)
        if kind != "iso":
            return _qualified(text, entries, providers)
        text = _country(text, code)
    if "electricity_maps" in providers:
        _refuse_divided(text, entries)
    found = [entry for name in providers for entry in entries if entry.zone.provider == name and entry.answers_to(text)]
    if not found:
        elsewhere = [str(entry.zone) for entry in entries if entry.answers_to(text)]
        if elsewhere:
            raise ZoneUnknown(
                f"zone {text!r} is known as {' and '.join(elsewhere)}, but of the providers only "
                f"{', '.join(providers)} are configured; {_how_to_add(elsewhere)}."
            )
        raise ZoneUnknown(f"zone {text!r} is unknown; {_hint(text, entries)}")
    if len({entry.area for entry in found}) > 1:
        names = " or ".join(str(entry.zone) for entry in found)
        raise ZoneUnknown(f"zone {text!r} is ambiguous; write {names}.")
    return found[0].zone


def _how_to_add(zones: Sequence[str]) -> str:
    if all(zone.startswith("electricity_maps:") for zone in zones):
        return f"set grid.electricity_maps.token, and write {zones[0]} or keep the bare code"
    return "add one under grid.steering"


def _country(text: str, code: str) -> str:
    """Return the ISO 3166-1 alpha-2 code of ``iso:DE`` or ``iso:DEU``."""
    for iso2, iso3 in _iso3().items():
        if code.upper() in (iso2, iso3):
            return iso2
    raise ZoneUnknown(f"zone {text!r} names no country; write iso: and an ISO 3166-1 code, for example iso:DE.")


def _refuse_divided(code: str, entries: Sequence[ZoneEntry]) -> None:
    """Raise for a country that is several grids: a machine stands in one of them, and they differ widely."""
    iso2 = next((iso2 for iso2, iso3 in _iso3().items() if code in (iso2, iso3)), None)
    if iso2 is None or any(entry.zone == Zone(provider="electricity_maps", code=iso2) for entry in entries):
        return
    parts = [str(entry.zone) for entry in entries if entry.zone.provider == "electricity_maps" and entry.wider == iso2]
    if parts:
        some = ", ".join(parts[:_MOST_CANDIDATES]) + (" …" if len(parts) > _MOST_CANDIDATES else "")
        raise ZoneUnknown(
            f"zone {code!r} is ambiguous: it is {len(parts)} grids of electricity_maps ({some}); write one of them, "
            f"see `cagg zones {iso2}-`, or yearly:{_iso3()[iso2]} for the country's yearly average."
        )


def _cloud(text: str, entries: Sequence[ZoneEntry], providers: Sequence[str]) -> Zone:
    """Return the zone of the grid where a cloud region stands, as the first configured provider calls it."""
    region = cloud_regions().get(text)
    if region is None:
        near = difflib.get_close_matches(text, list(cloud_regions()), n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "name the grid's zone instead, see `cagg zones`."
        raise ZoneUnknown(f"cloud region {text!r} is unknown; {hint}")
    candidates = [Zone(provider="electricity_maps", code=area) for area in region.areas]
    if len(candidates) > 1:
        names = " or ".join(map(str, candidates))
        raise ZoneUnknown(
            f"cloud region {text!r} ({region.place}) is ambiguous: more than one grid serves the place; write {names}."
        )
    own = next(entry for entry in entries if entry.zone == candidates[0])
    for area in (own.area, own.wider):
        for provider in providers:
            for entry in entries:
                if area is not None and entry.area == area and entry.zone.provider == provider:
                    return entry.zone
    raise ZoneUnknown(
        f"cloud region {text!r} ({region.place}) is {candidates[0]}, which none of {', '.join(providers)} knows; "
        "set grid.electricity_maps.token."
    )


def _qualified(text: str, entries: Sequence[ZoneEntry], providers: Sequence[str]) -> Zone:
    provider, code = (part.strip() for part in text.split(":", 1))
    own = [entry for entry in entries if entry.zone.provider == provider]
    for entry in own:
        if entry.answers_to(code):
            return entry.zone
    if provider == "electricity_maps":
        _refuse_divided(code, entries)
    if own:
        raise ZoneUnknown(f"zone {text!r} is unknown to {provider}; {_hint(code, own)}")
    if provider == "trace" and provider not in providers:
        raise ZoneUnknown(f"zone {text!r} needs a trace; set grid.trace.file, or name a zone of `cagg zones`.")
    if provider in providers and code:
        return Zone(provider=provider, code=code)
    known = ", ".join(dict.fromkeys((*(entry.zone.provider for entry in entries), *providers)))
    raise ZoneUnknown(f"zone {text!r} names no known provider; write provider:code with one of {known}.")


def _hint(code: str, entries: Sequence[ZoneEntry]) -> str:
    """Suggest zones whose code, alias or name is close."""
    words: dict[str, Zone] = {}
    for entry in entries:
        for word in (entry.zone.code, *entry.aliases, entry.name):
            words.setdefault(word.casefold(), entry.zone)
    near = difflib.get_close_matches(code.casefold(), list(words), n=3, cutoff=0.6)
    if not near:
        return "see `cagg zones` for all of them."
    return f"did you mean {' or '.join(dict.fromkeys(str(words[word]) for word in near))}?"


def default_providers(zone: str, *, has_trace: bool, has_token: bool = False) -> tuple[str, ...]:
    """Return which providers to ask when nobody configured any, best first.

    Args:
        zone: as a person wrote it; need not exist.
        has_trace: a trace file is configured; it is asked only for zones written ``trace:NAME``.
        has_token: a token of Electricity Maps is configured. It then steers the areas that NESO, which needs none and
            publishes its own numbers, does not know. A zone written ``electricity_maps:CODE`` is asked there first
            in any case: without a token its answers say what to set, and forecasts that others cached still count.

    Returns:
        NESO, Electricity Maps, climatology and yearly, less those that know nothing of the area. For an unknown zone
        all of them, so that resolving it gives the helpful error.
    """
    zone = zone.strip()
    if zone.startswith("trace:") and has_trace:
        return ("trace", "climatology", "yearly")
    stated = zone.startswith("electricity_maps:")
    names = ("electricity_maps", "neso") if stated else ("neso", "electricity_maps") if has_token else ("neso",)
    names = (*names, "climatology", "yearly")
    try:
        resolved = resolve_zone(zone, names)
    except ZoneUnknown:
        return names
    able = tuple(name for name in names if equivalent_zone(resolved, name) is not None)
    if "neso" in able and not stated:
        return tuple(name for name in able if name != "electricity_maps")
    return able
