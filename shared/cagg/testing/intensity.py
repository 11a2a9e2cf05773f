"""Intensity providers for tests: a scripted fake, a builder of series, and the contract that every provider keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from cagg.errors import CaggError, IntensityUnavailable
from cagg.grid.traits import GridProvider
from cagg.grid.zones import ZoneEntry
from cagg.intensity import IntensityPoint, IntensitySeries, Zone
from cagg.ports import Clock, IntensityProvider
from cagg.provenance import Basis, Convention, Gas, IntensityKind, Signal
from cagg.quantities import CarbonIntensity
from cagg.windows import Window

__all__ = ["FAKE_CONVENTION", "FakeProvider", "IntensityProviderContract", "series_of"]

FAKE_CONVENTION = Convention(signal=Signal.AVERAGE, basis=Basis.DIRECT, gas=Gas.CO2)
"""What a fake's numbers mean unless a test says otherwise."""


def series_of(
    *g_per_kwh: float | None,
    start: datetime,
    zone: Zone | None = None,
    step: timedelta = timedelta(minutes=30),
    convention: Convention = FAKE_CONVENTION,
    kind: IntensityKind = IntensityKind.FORECAST,
    source: str | None = None,
    fetched_at: datetime | None = None,
) -> IntensitySeries:
    """Return a series of equal steps; None is a gap.

    Args:
        g_per_kwh: values in order.
        start: beginning of the first interval.
        zone: None = ``fake:GB``.
        step: length of each interval.
        convention, kind: labels.
        source: None = the zone's provider.
        fetched_at: None = ``start``.
    """
    zone = zone or Zone(provider="fake", code="GB")
    points = tuple(
        IntensityPoint(
            window=Window(start=start + number * step, end=start + (number + 1) * step),
            intensity=None if value is None else CarbonIntensity.from_g_per_kwh(value),
        )
        for number, value in enumerate(g_per_kwh)
    )
    return IntensitySeries(
        zone=zone,
        points=points,
        convention=convention,
        kind=kind,
        source=source or zone.provider,
        issued_at=None,
        fetched_at=fetched_at or start,
        licence="CC0-1.0; made up for tests",
    )


class FakeProvider:
    """Answers from a script: each call takes the next item, the last one is repeated for ever.

    Args:
        script: series to return (cut to the intervals that overlap the window, stamped with the clock) or errors to
            raise. A series of another zone is returned as it is, so that a test can let a source answer wrongly.
        clock: time.
        name: namespace of its zones.
        zones: entries that it lists; empty = it knows every zone of its namespace and lists none.
        convention, kind: labels.
        local: it answers without the network.
        lifetime: how long an answer is fresh.
        horizon: how far ahead it claims to reach.
        delay_seconds: how long each answer takes, on the clock.

    Attributes:
        calls: (zone, window) of every call so far.
    """

    def __init__(
        self,
        *script: IntensitySeries | CaggError,
        clock: Clock,
        name: str = "fake",
        zones: Sequence[ZoneEntry] = (),
        convention: Convention = FAKE_CONVENTION,
        kind: IntensityKind = IntensityKind.FORECAST,
        local: bool = False,
        lifetime: timedelta = timedelta(minutes=30),
        horizon: timedelta = timedelta(hours=48),
        delay_seconds: float = 0.0,
    ) -> None:
        self.name = name
        self.convention = convention
        self.kind = kind
        self.local = local
        self.horizon = horizon
        self.calls: list[tuple[Zone, Window]] = []
        self._script = list(script)
        self._clock = clock
        self._entries = tuple(zones)
        self._lifetime = lifetime
        self._delay_seconds = delay_seconds

    def will(self, *script: IntensitySeries | CaggError) -> None:
        """Replace what is left of the script."""
        self._script = list(script)

    def zones(self) -> tuple[ZoneEntry, ...]:
        """The entries given by the test."""
        return self._entries

    def knows(self, zone: Zone) -> bool:
        """True for the listed zones, or for the whole namespace without a list; never for the code ``NOWHERE``."""
        if self._entries:
            return any(entry.zone == zone for entry in self._entries)
        return zone.provider == self.name and zone.code != "NOWHERE"

    def fresh_until(self, fetched_at: datetime) -> datetime:
        """The lifetime after the fetch."""
        return fetched_at + self._lifetime

    def fetch(self, zone: Zone, window: Window) -> IntensitySeries:
        """Take the next item of the script."""
        self.calls.append((zone, window))
        self._clock.sleep(self._delay_seconds)
        if not self.knows(zone):
            raise IntensityUnavailable(f"{self.name} does not know {zone}; ask for another zone.")
        if not self._script:
            raise IntensityUnavailable(f"the script of {self.name} is empty; give it a series.")
        item = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(item, CaggError):
            raise item
        points = tuple(point for point in item.points if point.window.overlap(window) > timedelta(0))
        if all(point.intensity is None for point in points):
            raise IntensityUnavailable(f"{self.name} knows nothing of {window}; ask for another time.")
        return replace(item, points=points, fetched_at=self._clock.now())

    async def fetch_async(self, zone: Zone, window: Window) -> IntensitySeries:
        """As :meth:`fetch`."""
        return self.fetch(zone, window)


class IntensityProviderContract:
    """What every intensity provider keeps. Subclass it as ``Test…`` and override the factories; pytest runs it."""

    def make_provider(self) -> IntensityProvider:
        """Return a provider that has data for the zone and window below."""
        raise NotImplementedError

    def make_zone(self) -> Zone:
        """Return a zone that the provider knows."""
        raise NotImplementedError

    def make_window(self) -> Window:
        """Return a window of which it knows something."""
        raise NotImplementedError

    def make_unknown_zone(self) -> Zone:
        """Return a zone in the provider's namespace that does not exist."""
        return Zone(provider=self.make_provider().name, code="NOWHERE")

    def test_a_zone_belongs_to_its_provider(self) -> None:
        """It knows its own zone, no unknown one, and none of another namespace."""
        provider, zone = self.make_provider(), self.make_zone()
        assert zone.provider == provider.name, "the zone is not in the provider's namespace"
        assert provider.knows(zone), "the provider does not know its own zone"
        assert not provider.knows(Zone(provider="elsewhere", code=zone.code)), "it claims a foreign zone"
        assert not provider.knows(self.make_unknown_zone()), "it claims a zone that does not exist"

    def test_an_answer_is_about_what_was_asked(self) -> None:
        """Zone and convention are the ones promised, every point overlaps the window, and something is known."""
        provider, zone, window = self.make_provider(), self.make_zone(), self.make_window()
        self._check(provider.fetch(zone, window), provider, zone, window)

    def test_the_async_answer_is_the_same(self) -> None:
        """Both ways of asking give the same points."""
        provider, zone, window = self.make_provider(), self.make_zone(), self.make_window()
        answer = asyncio.run(provider.fetch_async(zone, window))
        self._check(answer, provider, zone, window)
        assert answer.points == provider.fetch(zone, window).points, "fetch and fetch_async differ"

    def test_an_unknown_zone_is_unavailable(self) -> None:
        """A zone that does not exist raises IntensityUnavailable, never the data of another place."""
        provider, window = self.make_provider(), self.make_window()
        message = ""
        try:
            provider.fetch(self.make_unknown_zone(), window)
        except IntensityUnavailable as error:
            message = str(error)
        assert message.strip().endswith("."), "an unknown zone was answered, or the message is no sentence"

    def test_its_catalogue_is_its_own(self) -> None:
        """Every listed zone is in its namespace and known, with the provider's own convention."""
        provider = self.make_provider()
        if isinstance(provider, GridProvider):
            for entry in provider.zones():
                assert provider.knows(entry.zone), f"{entry.zone} is listed but not known"
                assert entry.zone.provider == provider.name, f"{entry.zone} is of another provider"
                assert entry.convention == provider.convention, f"{entry.zone} has another convention"

    def test_an_answer_is_fresh_for_a_while(self) -> None:
        """An answer is fresh when it is fetched, and not for ever."""
        provider, window = self.make_provider(), self.make_window()
        if isinstance(provider, GridProvider):
            until = provider.fresh_until(window.start)
            assert window.start < until <= window.start + timedelta(days=1), f"fresh until {until}"
            assert provider.horizon > timedelta(0), "no horizon"

    def _check(self, series: IntensitySeries, provider: IntensityProvider, zone: Zone, window: Window) -> None:
        assert series.zone == zone, f"answered for {series.zone}"
        assert series.convention == provider.convention, f"answered in {series.convention}"
        assert bool(series.source), "no source"
        assert any(point.intensity is not None for point in series.points), "nothing is known"
        for point in series.points:
            assert point.window.overlap(window) > timedelta(0), f"{point.window} does not overlap {window}"
