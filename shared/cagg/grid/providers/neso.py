"""NESO's Carbon Intensity API for Great Britain and its regions: keyless, half-hourly, 48 hours ahead.

Average intensity of generation and imports with losses, direct CO2 only. Licence of the data: CC BY 4.0.
Source: https://carbon-intensity.github.io/api-definitions/ (version 2.0.0).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cagg.errors import IntensityUnavailable
from cagg.grid.providers._addresses import check_url
from cagg.grid.providers._http import HttpPolicy, JsonSource
from cagg.grid.providers._neso_answers import BLOCK, Block, read_blocks
from cagg.grid.zones import CONVENTIONS, KINDS, ZoneEntry, zones_of
from cagg.intensity import IntensityPoint, IntensitySeries, Zone
from cagg.ports import Clock
from cagg.provenance import IntensityKind
from cagg.windows import Window

if TYPE_CHECKING:
    import httpx

__all__ = ["NESO_URL", "NesoProvider"]

NESO_URL = "https://api.carbonintensity.org.uk"
"""Address of the public service."""

_LICENCE = "CC-BY-4.0; NESO Carbon Intensity API"
_LONGEST_RANGE = timedelta(days=13)
"""One request may ask for 14 days at most; a day less keeps clear of how the service rounds."""

_MOST_REQUESTS = 8
_PAUSE_SECONDS = 1.0
"""Between the requests of one long range: the terms name a rate limit without a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """One request: its path, and the window that the answer must be about."""

    path: str
    asked: Window


class NesoProvider:
    """Forecast and recent past of ``neso:GB`` and the regions ``neso:GB-1`` to ``neso:GB-17``.

    A series has one kind, so an answer that mixes past and future is labelled by its weakest part: it is ESTIMATED
    (the service calls its "actual" an estimate) only if every known point is an actual, else FORECAST. Each
    point is the actual where there is one, the forecast otherwise, and a visible gap where the service has
    neither. Regions have no actuals.

    Args:
        clock: time.
        base_url: address of the service, or of a mirror.
        policy: limits of each request.
        transport, async_transport: instead of the network, for tests.
    """

    name = "neso"
    convention = CONVENTIONS["neso"]
    kind = KINDS["neso"]
    local = False
    horizon = timedelta(hours=48)

    def __init__(
        self,
        *,
        clock: Clock,
        base_url: str = NESO_URL,
        policy: HttpPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._clock = clock
        self._source = JsonSource(
            name=self.name,
            base_url=check_url(base_url, "grid.neso.url"),
            policy=policy or HttpPolicy(),
            clock=clock,
            transport=transport,
            async_transport=async_transport,
        )

    def zones(self) -> tuple[ZoneEntry, ...]:
        """Great Britain and its 17 regions."""
        return zones_of(self.name)

    def knows(self, zone: Zone) -> bool:
        """True for the zones of :meth:`zones`."""
        return any(entry.zone == zone for entry in self.zones())

    def fresh_until(self, fetched_at: datetime) -> datetime:
        """The next hh:01 or hh:31: until then the service has no other answer."""
        shifted = fetched_at - timedelta(minutes=1)
        return _block_start(shifted) + BLOCK + timedelta(minutes=1)

    def fetch(self, zone: Zone, window: Window) -> IntensitySeries:
        """Return whole half hours that overlap the window, as far as the service knows them.

        Raises:
            IntensityUnavailable: unknown zone, no answer in time, or an answer that is not what was asked.
        """
        region = self._region(zone)
        blocks: list[Block] = []
        for number, question in enumerate(self._questions(region, window)):
            if number:
                self._clock.sleep(_PAUSE_SECONDS)
            blocks.extend(read_blocks(self._source.get(question.path), region=region, asked=question.asked))
        return self._series(zone, window, blocks)

    async def fetch_async(self, zone: Zone, window: Window) -> IntensitySeries:
        """As :meth:`fetch`, for callers in an event loop."""
        import asyncio  # synchronous callers need not load it

        region = self._region(zone)
        blocks: list[Block] = []
        for number, question in enumerate(self._questions(region, window)):
            if number:
                await asyncio.sleep(_PAUSE_SECONDS)
            document = await self._source.get_async(question.path)
            blocks.extend(read_blocks(document, region=region, asked=question.asked))
        return self._series(zone, window, blocks)

    def _region(self, zone: Zone) -> int | None:
        if not self.knows(zone):
            raise IntensityUnavailable(f"neso knows Great Britain and its regions, not {zone}; see `cagg zones`.")
        return None if zone.code == "GB" else int(zone.code.removeprefix("GB-"))

    def _questions(self, region: int | None, window: Window) -> list[_Question]:
        """Return the requests for a window.

        From now on: the 48 hours from the current half hour, at hh:01 or hh:31. Inside a block the answer's first
        block is unambiguous, and the address stays the same for half an hour, so that proxies can keep it.
        Otherwise: the range itself, in pieces.
        """
        current = _block_start(self._clock.now())
        prefix, suffix = ("", "") if region is None else ("/regional", f"/regionid/{region}")
        if window.start >= current + self.horizon:
            raise IntensityUnavailable(
                f"neso's forecast reaches 48 hours ahead and {window} lies later; ask again then."
            )
        if window.start >= current:
            path = f"{prefix}/intensity/{_text(current + timedelta(minutes=1))}/fw48h{suffix}"
            return [_Question(path=path, asked=Window(start=current, end=current + self.horizon))]
        start, end = _block_start(window.start), min(window.end, current + self.horizon)
        questions: list[_Question] = []
        while start < end:
            stop = min(_block_end(end), start + _LONGEST_RANGE)
            path = f"{prefix}/intensity/{_text(start + timedelta(minutes=1))}/{_text(stop)}{suffix}"
            questions.append(_Question(path=path, asked=Window(start=start, end=stop)))
            start = stop
        if len(questions) > _MOST_REQUESTS:
            days = _MOST_REQUESTS * _LONGEST_RANGE.days
            raise IntensityUnavailable(
                f"neso is asked for at most {days} days at once, not for {window}; ask in parts."
            )
        return questions

    def _series(self, zone: Zone, window: Window, blocks: Iterable[Block]) -> IntensitySeries:
        points: dict[datetime, IntensityPoint] = {}
        only_actuals = True
        for block in blocks:
            if block.window.overlap(window) > timedelta(0):
                intensity = block.actual if block.actual is not None else block.forecast
                only_actuals = only_actuals and (block.actual is not None or intensity is None)
                points[block.window.start] = IntensityPoint(window=block.window, intensity=intensity)
        if all(point.intensity is None for point in points.values()):
            raise IntensityUnavailable(f"neso knows no intensity of {zone} for {window}; ask for another time.")
        return IntensitySeries(
            zone=zone,
            points=tuple(points[start] for start in sorted(points)),
            convention=self.convention,
            kind=IntensityKind.ESTIMATED if only_actuals else IntensityKind.FORECAST,
            source=self.name,
            issued_at=None,
            fetched_at=self._clock.now(),
            licence=_LICENCE,
        )


def _block_start(instant: datetime) -> datetime:
    utc = instant.astimezone(UTC)
    return utc.replace(minute=utc.minute - utc.minute % 30, second=0, microsecond=0)


def _block_end(instant: datetime) -> datetime:
    start = _block_start(instant)
    return start if start == instant else start + BLOCK


def _text(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%MZ}"
