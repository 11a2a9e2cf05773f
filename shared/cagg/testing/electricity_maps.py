"""A stand-in for Electricity Maps on the loopback interface: scripted answers, counted requests, made-up numbers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cagg.ports import Clock

__all__ = ["Asked", "ElectricityMapsDouble", "electricity_maps_server"]

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request.

    Attributes:
        version: ``v3`` or ``v4``.
        what: ``latest``, ``history``, ``past-range``, ``forecast`` or ``zones``.
        parameters: of the query.
        token: the header ``auth-token``; None when there was none.
        target: path and query as they were sent.
    """

    version: str
    what: str
    parameters: dict[str, str]
    token: str | None
    target: str


@dataclass(slots=True, kw_only=True)
class ElectricityMapsDouble:
    """What the service knows and allows; tests change the attributes while it runs.

    Attributes:
        clock: its time.
        token: the one that it accepts.
        plan: what the token may ask for: ``latest``, ``history``, ``past-range``, ``forecast``.
        zones: zones of the plan; others are refused with 401, unknown ones with 404.
        versions: of the interface; others answer 404.
        g_per_kwh: numbers by hour of the day, repeated; None is a hole.
        estimates: how many of the newest hours are estimates; the others are measured.
        url: its address while it runs.
        changes: laid over every document, for example ``{"_disclaimer": "SANDBOX MODE"}``.
        instead: (status, headers, body) sent for the next requests, one each, before anything else is looked at.
        asked: every request so far.
    """

    clock: Clock
    token: str = "test-token"  # noqa: S105 - made up
    plan: frozenset[str] = frozenset({"latest", "history", "past-range", "forecast"})
    zones: Sequence[str] = ("DE",)
    versions: Sequence[str] = ("v3", "v4")
    g_per_kwh: Sequence[float | None] = tuple(300.0 + 10 * hour for hour in range(24))
    estimates: int = 2
    changes: dict[str, Any] = field(default_factory=dict)
    instead: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def count(self, what: str) -> int:
        """Return how often something was asked for."""
        return sum(1 for item in self.asked if item.what == what)

    def answer(self, target: str, token: str | None) -> tuple[int, dict[str, str], str]:
        """Return status, headers and body of one request."""
        parts = urlsplit(target)
        segments = parts.path.split("/")
        version = next((item for item in segments if item in ("v3", "v4")), "")
        what = segments[-1]
        parameters = dict(parse_qsl(parts.query))
        self.asked.append(Asked(version=version, what=what, parameters=parameters, token=token, target=target))
        if self.instead:
            return self.instead.pop(0)
        if version not in self.versions:
            return self._error(404, "no such route")
        if token != self.token:
            return self._error(401, f"Invalid auth-token {token}")
        if what == "zones":
            access = sorted(f"carbon-intensity/{item}" for item in self.plan)
            return self._good({zone: {"zoneName": zone, "access": access} for zone in self.zones})
        zone = parameters.get("zone", "")
        if zone not in self.zones:
            return self._error(401, "zone not in plan")
        if what not in self.plan:
            return self._error(401, "Request unauthorized: not in plan")
        return self._good({**self._document(what, zone, parameters), **self.changes})

    def _document(self, what: str, zone: str, parameters: dict[str, str]) -> dict[str, Any]:
        present = self.clock.now().astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        factors = parameters.get("emissionFactorType", "lifecycle")
        common = {"zone": zone, "temporalGranularity": parameters.get("temporalGranularity", "hourly")}
        if what == "forecast":
            hours = int(parameters.get("horizonHours", "24"))
            rows = [self._point(present + number * _HOUR) for number in range(hours + 1)]
            return {**common, "forecast": rows, "updatedAt": _text(present + timedelta(minutes=3))}
        if what == "latest":
            return {**common, **self._past(zone, present, present, factors)}
        if what == "history":
            starts = [present - number * _HOUR for number in reversed(range(24))]
            return {**common, "history": [self._past(zone, start, present, factors) for start in starts]}
        start, end = (datetime.fromisoformat(parameters[name]) for name in ("start", "end"))
        rows = []
        while start < min(end, present + _HOUR):
            rows.append(self._past(zone, start, present, factors))
            start += _HOUR
        return {**common, "data": rows}

    def _point(self, start: datetime) -> dict[str, Any]:
        return {"carbonIntensity": self.g_per_kwh[start.hour % len(self.g_per_kwh)], "datetime": _text(start)}

    def _past(self, zone: str, start: datetime, present: datetime, factors: str) -> dict[str, Any]:
        estimated = start > present - self.estimates * _HOUR
        return {
            "zone": zone,
            **self._point(start),
            "updatedAt": _text(present),
            "createdAt": _text(start),
            "emissionFactorType": factors,
            "isEstimated": estimated,
            "estimationMethod": "TIME_SLICER_AVERAGE" if estimated else None,
        }

    @staticmethod
    def _good(document: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        return 200, {"content-type": "application/json"}, json.dumps(document)

    @staticmethod
    def _error(status: int, words: str) -> tuple[int, dict[str, str], str]:
        return status, {"content-type": "application/json"}, json.dumps({"error": words})


@contextmanager
def electricity_maps_server(clock: Clock, **settings: Any) -> Iterator[ElectricityMapsDouble]:
    """Run the double on a free port of 127.0.0.1 for the time of the block; ``url`` is its address.

    Args:
        clock: the service's time.
        settings: attributes of the double.
    """
    double = ElectricityMapsDouble(clock=clock, **settings)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = double.answer(self.path, self.headers.get("auth-token"))
            data = body.encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - named by the base class
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        double.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield double
        finally:
            server.shutdown()
            thread.join()


def _text(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%S}.000Z"
