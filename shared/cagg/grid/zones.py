"""Names of grid areas: which provider calls what how, which names mean one physical area, and bare names.

A zone is written ``provider:code``. A bare code such as ``GB`` is accepted when every configured provider that knows
it means the same physical area; the zone of the first of them is taken. Otherwise the name is refused with the
candidates: cagg does not guess where a machine stands.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cagg.errors import ZoneUnknown
from cagg.grid._data import countries
from cagg.intensity import Zone
from cagg.provenance import Basis, Convention, Gas, IntensityKind, Signal

__all__ = [
    "CONVENTIONS",
    "KINDS",
    "ZoneEntry",
    "all_zones",
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
}
"""What the numbers of each built-in provider mean."""

KINDS: Mapping[str, IntensityKind] = {
    "neso": IntensityKind.FORECAST,
    "climatology": IntensityKind.CLIMATOLOGY,
    "yearly": IntensityKind.YEARLY,
}
"""What the numbers of each built-in provider are at best."""

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
def all_zones() -> tuple[ZoneEntry, ...]:
    """Return every zone that cagg knows without configuration, by provider: NESO, climatology, yearly."""
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
    return tuple(entries)


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
        text: ``provider:code`` or a bare code.
        providers: names of the configured providers, in order of preference; bare codes are looked up in them.
        more: entries beside the built-in ones, for example of a trace file.

    Raises:
        ZoneUnknown: nobody knows it, or several providers know it as different places.
    """
    more = tuple(more)
    entries = (*all_zones(), *more)
    text = text.strip()
    if ":" in text:
        return _qualified(text, entries, providers)
    found = [entry for name in providers for entry in entries if entry.zone.provider == name and entry.answers_to(text)]
    if not found:
        elsewhere = [str(entry.zone) for entry in entries if entry.answers_to(text)]
        if elsewhere:
            raise ZoneUnknown(
                f"zone {text!r} is known as {' and '.join(elsewhere)}, but of the providers only "
                f"{', '.join(providers)} are configured; add one under grid.steering."
            )
        raise ZoneUnknown(f"zone {text!r} is unknown; {_hint(text, entries)}")
    if len({entry.area for entry in found}) > 1:
        names = " or ".join(str(entry.zone) for entry in found)
        raise ZoneUnknown(f"zone {text!r} is ambiguous; write {names}.")
    return found[0].zone


def _qualified(text: str, entries: Sequence[ZoneEntry], providers: Sequence[str]) -> Zone:
    provider, code = (part.strip() for part in text.split(":", 1))
    own = [entry for entry in entries if entry.zone.provider == provider]
    for entry in own:
        if entry.answers_to(code):
            return entry.zone
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


def default_providers(zone: str, *, has_trace: bool) -> tuple[str, ...]:
    """Return which providers to ask when nobody configured any, best first.

    Args:
        zone: as a person wrote it; need not exist.
        has_trace: a trace file is configured; it is asked only for zones written ``trace:NAME``.

    Returns:
        NESO, climatology and yearly, less those that know nothing of the area. For an unknown zone all of them, so
        that resolving it gives the helpful error.
    """
    if zone.strip().startswith("trace:") and has_trace:
        return ("trace", "climatology", "yearly")
    built_in = tuple(CONVENTIONS)
    try:
        resolved = resolve_zone(zone, built_in)
    except ZoneUnknown:
        return built_in
    return tuple(name for name in built_in if equivalent_zone(resolved, name) is not None)
