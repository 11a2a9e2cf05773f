"""Electricity Maps: hourly intensities of most of the world's grids, with a forecast where the plan has one.

Average, consumption-based (flow-traced) intensity in CO2-equivalent, life-cycle emission factors unless direct ones
are asked for. A token is needed; the data are proprietary and are not passed on.
Source: https://app.electricitymaps.com/developer-hub/api/reference (versions 3 and 4).
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cagg.errors import IntensityUnavailable
from cagg.grid.providers._addresses import check_carries_secret, check_no_user, check_url
from cagg.grid.providers._electricity_maps_answers import STEP, Answer, allowed_zones, read_answer
from cagg.grid.providers._http import HttpPolicy, JsonSource, Refused
from cagg.grid.zones import CONVENTIONS, KINDS, ZoneEntry, zones_of
from cagg.intensity import IntensityPoint, IntensitySeries, Zone
from cagg.ports import Clock
from cagg.provenance import Basis, IntensityKind
from cagg.secret import Secret
from cagg.windows import Window

if TYPE_CHECKING:
    import httpx

__all__ = ["ELECTRICITY_MAPS_URL", "TOKEN_REMEDY", "ElectricityMapsProvider"]

ELECTRICITY_MAPS_URL = "https://api.electricitymaps.com"
"""Address of the public service."""

TOKEN_REMEDY = "set grid.electricity_maps.token (environment: CAGG_GRID_ELECTRICITY_MAPS_TOKEN)"  # noqa: S105
"""What to do when there is no token."""

_LICENCE = "Electricity Maps API terms; proprietary, no redistribution"
_NOT_ALLOWED = (401, 403)
_NOT_THERE = (*_NOT_ALLOWED, 404)
"""What an account without a version of the interface hears there."""

_HISTORY = timedelta(hours=23)
"""``history`` has 24 hours, the present one included."""

_LONGEST_RANGE = timedelta(days=10)
"""One ``past-range`` request may ask for 10 days of hours at most (API reference, version 3)."""

_MOST_REQUESTS = 8
_REMEMBERED = timedelta(hours=1)
"""How long a refusal is not tried again: plans change rarely, and the free one allows about 50 requests an hour."""

_Conversation = Generator[str, Any, Answer]


class ElectricityMapsProvider:
    """Forecast and past of ``electricity_maps:DE`` and the other zones, by its codes.

    A series has one kind, so it is labelled by its weakest part: MEASURED only if the service says so of every
    number, ESTIMATED with estimates in it, FORECAST with any of the future. An account without forecasts serves the
    past, up to and with the present hour; what lies ahead is then unavailable with that reason. Version 4 is asked
    first, version 3 where the account has no version 4; an address that ends in ``/v3`` or ``/v4`` settles it.

    Args:
        clock: time.
        token: goes into a header and nowhere else; None = every answer is unavailable, with the remedy.
        base_url: address of the service.
        basis: which emission factors are asked for: LIFE_CYCLE or DIRECT.
        policy: limits of each request.
        transport, async_transport: instead of the network, for tests.
    """

    name = "electricity_maps"
    kind = KINDS["electricity_maps"]
    local = False
    horizon = timedelta(hours=72)

    def __init__(
        self,
        *,
        clock: Clock,
        token: Secret | None,
        base_url: str = ELECTRICITY_MAPS_URL,
        basis: Basis = Basis.LIFE_CYCLE,
        policy: HttpPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        check_no_user(base_url, "grid.electricity_maps.url")
        address = check_url(base_url, "grid.electricity_maps.url")
        pinned = re.search(r"/(v[34])$", address)
        self.convention = replace(CONVENTIONS[self.name], basis=basis)
        self._factors = "direct" if basis is Basis.DIRECT else "lifecycle"
        self._versions = ("v4", "v3") if pinned is None else (pinned[1],)
        self._horizon_hours: str | None = "72"
        self._paused: dict[str, tuple[datetime, str]] = {}
        self._clock = clock
        self._source = None
        if token is not None:
            check_carries_secret(address, "grid.electricity_maps.url")
            self._source = JsonSource(
                name=self.name,
                base_url=address if pinned is None else address[: pinned.start()],
                policy=policy or HttpPolicy(),
                clock=clock,
                transport=transport,
                async_transport=async_transport,
                secret_header=("auth-token", token),
            )

    def zones(self) -> tuple[ZoneEntry, ...]:
        """Every zone of the service that is one grid area, with this provider's convention."""
        return tuple(replace(entry, convention=self.convention) for entry in zones_of(self.name))

    def knows(self, zone: Zone) -> bool:
        """True for the zones of :meth:`zones`, whether or not the token's plan has them."""
        return any(entry.zone == zone for entry in zones_of(self.name))

    def fresh_until(self, fetched_at: datetime) -> datetime:
        """An hour: forecasts are made hourly."""
        return fetched_at + timedelta(hours=1)

    def fetch(self, zone: Zone, window: Window) -> IntensitySeries:
        """Return whole hours that overlap the window, as far as the service and the plan know them.

        Raises:
            IntensityUnavailable: no token, unknown zone, not in the plan, no answer in time, sandbox numbers, or an
                answer that is not what was asked.
        """
        source = self._ready(zone)
        conversation = self._conversation(zone, window)
        try:
            path = next(conversation)
            while True:
                try:
                    document = source.get(path)
                except Refused as refusal:
                    path = conversation.throw(refusal)
                else:
                    path = conversation.send(document)
        except StopIteration as done:
            return self._series(zone, window, done.value)

    async def fetch_async(self, zone: Zone, window: Window) -> IntensitySeries:
        """As :meth:`fetch`, for callers in an event loop."""
        source = self._ready(zone)
        conversation = self._conversation(zone, window)
        try:
            path = next(conversation)
            while True:
                try:
                    document = await source.get_async(path)
                except Refused as refusal:
                    path = conversation.throw(refusal)
                else:
                    path = conversation.send(document)
        except StopIteration as done:
            return self._series(zone, window, done.value)

    def _ready(self, zone: Zone) -> JsonSource:
        if not self.knows(zone):
            raise IntensityUnavailable(f"electricity_maps has no zone {zone}; see `cagg zones` for its codes.")
        if self._source is None:
            raise IntensityUnavailable(f"electricity_maps needs a token; {TOKEN_REMEDY}.")
        self._refuse_paused("all")
        self._refuse_paused(zone.code)
        return self._source

    # ---- what is asked: each yields a path and is sent the document, or thrown the refusal -------------------------

    def _conversation(self, zone: Zone, window: Window) -> _Conversation:
        """Past and present hour from the history, what lies ahead from the forecast; one request where one will do."""
        present = _hour(self._clock.now())
        if window.start >= present + self.horizon + STEP:
            raise IntensityUnavailable(
                f"the forecast of electricity_maps reaches 72 hours ahead and {window} lies later; ask again then."
            )
        if window.start >= present and window.end > present + STEP:
            return (yield from self._forecast(zone, present))
        past = yield from self._past(zone, Window(start=_hour(window.start), end=min(window.end, present + STEP)))
        if window.end <= present + STEP:
            return past
        try:
            ahead = yield from self._forecast(zone, present)
        except IntensityUnavailable:
            return past  # less than was asked, and the series ends where it ends
        seam = max((point.window.end for point in past.points if point.intensity is not None), default=present)
        points = [point for point in past.points if point.window.end <= seam]
        points += [point for point in ahead.points if point.window.start >= seam]
        return Answer(points=tuple(points), measured=past.measured, issued_at=ahead.issued_at)

    def _forecast(self, zone: Zone, present: datetime) -> _Conversation:
        self._refuse_paused(f"{zone.code} ahead")
        asked = Window(start=present, end=present + self.horizon + STEP)
        if self._horizon_hours is not None:
            try:
                return (yield from self._ask("forecast", zone, asked, horizonHours=self._horizon_hours))
            except Refused as refusal:
                if refusal.status not in (400, *_NOT_ALLOWED):
                    raise self._no_data(zone, refusal) from refusal
                if refusal.status in _NOT_ALLOWED:
                    yield from self._accepted(zone, refusal)
        try:  # a plan may have the default horizon only
            answer = yield from self._ask("forecast", zone, asked)
        except Refused as refusal:
            if refusal.status not in _NOT_ALLOWED:
                raise self._no_data(zone, refusal) from refusal
            raise self._remembered(
                f"{zone.code} ahead",
                f"the forecast of {zone} is not in the plan of this token (HTTP {refusal.status}), which does serve "
                "its past for pricing; ask for a plan with forecasts to steer by it.",
            ) from refusal
        self._horizon_hours = None
        return answer

    def _accepted(self, zone: Zone, refusal: Refused) -> Generator[str, Any, None]:
        """Return if the token may ask for the zone at all, so that only the forecast is refused.

        Raises:
            IntensityUnavailable: the token or the zone is refused as well; remembered.
        """
        present = _hour(self._clock.now())
        try:
            yield from self._ask("latest", zone, Window(start=present - 24 * STEP, end=present + STEP))
        except Refused as other:
            if other.status in _NOT_ALLOWED:
                raise (yield from self._diagnosed(zone, refusal)) from refusal

    def _diagnosed(self, zone: Zone, refusal: Refused) -> Generator[str, Any, IntensityUnavailable]:
        """Tell a bad token from a plan without the zone: the list of zones says what a good token may ask for."""
        allowed: tuple[str, ...] = ()
        with suppress(Refused):  # a token that may not even read the list
            allowed = allowed_zones((yield f"/{self._versions[-1]}/zones"))
        if allowed and zone.code not in allowed:
            some = ", ".join(allowed[:5]) + (" and others" if len(allowed) > 5 else "")
            return self._remembered(
                zone.code,
                f"zone {zone} is not in the plan of this token (HTTP {refusal.status}), which has {some}; choose "
                "another zone, or another plan.",
            )
        return self._remembered(
            zone.code,
            f"the service does not accept the token for {zone} (HTTP {refusal.status}); correct "
            "grid.electricity_maps.token, or ask for a plan that has the zone.",
        )

    def _past(self, zone: Zone, window: Window) -> _Conversation:
        present = _hour(self._clock.now())
        last_day = Window(start=present - _HISTORY, end=present + STEP)
        try:
            if window.start >= last_day.start:
                return (yield from self._ask("history", zone, last_day))
            return (yield from self._range(zone, window))
        except Refused as refusal:
            if refusal.status not in _NOT_ALLOWED:
                raise self._no_data(zone, refusal) from refusal
            yield from self._accepted(zone, refusal)
            if window.start < last_day.start < window.end:
                return (yield from self._past(zone, Window(start=last_day.start, end=window.end)))
            raise IntensityUnavailable(
                f"the past of {zone} over {window} is not in the plan of this token (HTTP {refusal.status}); ask for "
                "the last 24 hours only, or for another plan."
            ) from refusal

    def _range(self, zone: Zone, window: Window) -> _Conversation:
        pieces, start = [], window.start
        end = _hour(window.end) + STEP if _hour(window.end) < window.end else window.end
        while start < end:
            pieces.append(Window(start=start, end=min(end, start + _LONGEST_RANGE)))
            start = pieces[-1].end
        if len(pieces) > _MOST_REQUESTS:
            days = _MOST_REQUESTS * _LONGEST_RANGE.days
            raise IntensityUnavailable(
                f"electricity_maps is asked for at most {days} days at once, not for {window}; ask in parts."
            )
        points: dict[datetime, IntensityPoint] = {}
        measured: frozenset[datetime] = frozenset()
        for piece in pieces:
            limits = {"start": _text(piece.start), "end": _text(piece.end)}
            answer = yield from self._ask("past-range", zone, piece, **limits)
            points.update({point.window.start: point for point in answer.points})
            measured |= answer.measured
        return Answer(points=tuple(points[start] for start in sorted(points)), measured=measured, issued_at=None)

    def _ask(self, what: str, zone: Zone, asked: Window, **more: str) -> _Conversation:
        """One question to the first version that the account has; which one that is, is remembered.

        Raises:
            Refused: every version refuses; the one that says why.
        """
        refusals: list[Refused] = []
        for version in self._versions:
            parameters = {
                "zone": zone.code,
                "emissionFactorType": self._factors,
                "temporalGranularity": "hourly",
                # without these an unknown zone is answered for the place where the caller's address seems to be
                **({"disableCallerLookup": "true"} if version == "v4" else {"shouldUseFallbackCallerLookup": "false"}),
                **more,
            }
            try:
                document = yield f"/{version}/carbon-intensity/{what}?{urlencode(parameters)}"
            except Refused as refusal:
                if refusal.status == 429 and refusal.wait_seconds:
                    pause = min(_REMEMBERED, timedelta(seconds=refusal.wait_seconds))
                    self._paused["all"] = self._clock.now() + pause, str(refusal)
                if refusal.status not in _NOT_THERE:
                    raise
                refusals.append(refusal)
                continue
            self._versions = (version,)
            return read_answer(document, zone=zone.code, asked=asked, factors=self._factors)
        raise next((refusal for refusal in refusals if refusal.status in _NOT_ALLOWED), refusals[0])

    # ---- refusals -------------------------------------------------------------------------------------------------

    @staticmethod
    def _no_data(zone: Zone, refusal: Refused) -> IntensityUnavailable:
        if refusal.status != 404:
            return IntensityUnavailable(str(refusal))
        return IntensityUnavailable(
            f"electricity_maps has no data for zone {zone} (HTTP 404); see `cagg zones` for other zones."
        )

    def _remembered(self, key: str, message: str) -> IntensityUnavailable:
        self._paused[key] = self._clock.now() + _REMEMBERED, message
        return IntensityUnavailable(message)

    def _refuse_paused(self, key: str) -> None:
        until, message = self._paused.get(key, (None, ""))
        if until is not None:
            if self._clock.now() < until:
                raise IntensityUnavailable(message)
            del self._paused[key]

    # ---- what is answered -----------------------------------------------------------------------------------------

    def _series(self, zone: Zone, window: Window, answer: Answer) -> IntensitySeries:
        points = tuple(point for point in answer.points if point.window.overlap(window) > timedelta(0))
        if all(point.intensity is None for point in points):
            raise IntensityUnavailable(
                f"electricity_maps knows no intensity of {zone} for {window}; ask for another time."
            )
        known = {point.window.start for point in points if point.intensity is not None}
        kind = IntensityKind.MEASURED if known <= answer.measured else IntensityKind.ESTIMATED
        if answer.issued_at is not None or max(known) > self._clock.now():
            kind = IntensityKind.FORECAST
        return IntensitySeries(
            zone=zone,
            points=points,
            convention=self.convention,
            kind=kind,
            source=self.name,
            issued_at=answer.issued_at,
            fetched_at=self._clock.now(),
            licence=_LICENCE,
        )


def _hour(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _text(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}"
