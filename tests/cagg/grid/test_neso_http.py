"""The way to the service: failures that pass, failures that stay, limits, and a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from cagg.clock import SystemClock
from cagg.errors import IntensityUnavailable
from cagg.grid.providers import GridSettings, build_providers
from cagg.grid.providers._http import HttpPolicy, _Deadline, _Transient
from cagg.grid.providers.neso import NesoProvider
from cagg.intensity import Zone
from cagg.testing import ManualClock
from cagg.windows import Window

NOW = datetime(2023, 3, 14, 3, 12, tzinfo=UTC)
GB = Zone(provider="neso", code="GB")
NIGHT = Window(start=NOW, end=NOW + timedelta(hours=8))


def fetch(service, **policy):
    neso = NesoProvider(
        clock=ManualClock(NOW),
        transport=service.transport,
        async_transport=service.transport,
        policy=HttpPolicy(**policy),
    )
    return neso.fetch(GB, NIGHT)


def fetch_async(service):
    neso = NesoProvider(clock=ManualClock(NOW), async_transport=service.transport)
    return asyncio.run(neso.fetch_async(GB, NIGHT))


@pytest.fixture
def good(recorded):
    return recorded("national_fw48h_2023-03-14T0301Z.json")


PASSING = [
    httpx.ConnectError("refused"),
    httpx.ReadError("reset"),
    httpx.ConnectTimeout("late"),
    httpx.ReadTimeout("late"),
    httpx.RemoteProtocolError("Server disconnected without sending a response."),
    httpx.Response(500, json={"error": {"code": "500 Internal Server Error", "message": "string"}}),
    httpx.Response(503, text="<html>busy</html>"),
    httpx.Response(429),
]


@pytest.mark.parametrize("failure", PASSING, ids=str)
@pytest.mark.parametrize("ask", [fetch, fetch_async])
def test_a_failure_that_passes_is_tried_again(service, good, failure, ask) -> None:
    answers = service(failure, failure, good)
    assert len(ask(answers).points) == 17
    assert len(answers.requests) == 3


@pytest.mark.parametrize("failure", PASSING, ids=str)
def test_after_three_attempts_it_is_unavailable(service, failure) -> None:
    answers = service(failure)
    with pytest.raises(IntensityUnavailable, match=r"neso \(api\.carbonintensity\.org\.uk\).*3 times"):
        fetch(answers)
    assert len(answers.requests) == 3


def test_the_services_own_words_are_passed_on(service, recorded) -> None:
    with pytest.raises(IntensityUnavailable, match=r"HTTP 500 \(string\)"):
        fetch(service(httpx.Response(500, json=recorded("doc_error_500.json"))))
    with pytest.raises(IntensityUnavailable, match=r"HTTP 400 \(string\)"):
        fetch(service(httpx.Response(400, json=recorded("doc_error_400.json"))))


STAYING = [
    (httpx.Response(400), "HTTP 400"),
    (httpx.Response(401), "HTTP 401"),
    (httpx.Response(403, text="<html>"), "HTTP 403"),
    (httpx.Response(404), "HTTP 404"),
    (httpx.Response(204), "HTTP 204"),
    (httpx.Response(301, headers={"location": "/x"}), "redirects"),
    (httpx.Response(200, html="<!DOCTYPE html><title>Sign in</title>"), "web page"),
    (httpx.Response(200, text="  \n<html>"), "web page"),
    (httpx.Response(200, text='{"data":[{"from":"2023-03-14T03:00Z"'), "no complete JSON"),
    (httpx.Response(200, text=""), "no complete JSON"),
    (httpx.Response(200, text='{"data": NaN}'), "no complete JSON"),
    (httpx.Response(200, content=b"\xff\xfe\x00"), "no complete JSON"),
    (httpx.Response(200, text="[" * 100_000), "no complete JSON"),
    (httpx.Response(200, text="x" * 300_000), "more than 100000 bytes"),
]


@pytest.mark.parametrize(("answer", "words"), STAYING, ids=[words for _, words in STAYING])
def test_a_failure_that_stays_is_not_tried_again(service, answer, words) -> None:
    answers = service(answer)
    with pytest.raises(IntensityUnavailable, match=words) as caught:
        fetch(answers, max_bytes=100_000)
    assert len(answers.requests) == 1
    assert str(caught.value).endswith(".")


def test_the_server_says_how_long_to_wait() -> None:
    clock = ManualClock(NOW)
    deadline = _Deadline(clock, HttpPolicy(total_seconds=10))
    assert deadline.worth_another(_Transient("busy", 4.0)) == 4.0
    assert deadline.worth_another(_Transient("busy")) is True
    assert deadline.worth_another(_Transient("busy", 11.0)) is False
    assert deadline.worth_another(ValueError("other")) is False
    clock.advance(9.97)
    assert deadline.worth_another(_Transient("busy")) is False


@pytest.mark.parametrize("header", ["3600", "Tue, 14 Mar 2023 04:12:00 GMT"])
def test_a_wait_beyond_the_total_is_not_waited_for(service, header) -> None:
    answers = service(httpx.Response(429, headers={"retry-after": header}))
    with pytest.raises(IntensityUnavailable, match=r"429.*once"):
        fetch(answers)
    assert len(answers.requests) == 1


@pytest.mark.parametrize("header", ["2", "Tue, 14 Mar 2023 03:12:02 GMT", "soon", "-1", "", "²"])
def test_a_short_or_unreadable_wait_is_tried_again(service, good, header) -> None:
    answers = service(httpx.Response(429, headers={"retry-after": header.encode()}), good)
    assert fetch(answers).points
    assert len(answers.requests) == 2


def test_one_attempt_has_an_end_even_if_bytes_keep_coming(service) -> None:
    clock = ManualClock(NOW)

    class Drip(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                clock.advance(2)
                yield b" "

    def answer(request):
        asked.append(request)
        return httpx.Response(200, stream=Drip())

    asked: list[httpx.Request] = []
    neso = NesoProvider(clock=clock, transport=httpx.MockTransport(answer))
    with pytest.raises(IntensityUnavailable, match="no complete answer within"):
        neso.fetch(GB, NIGHT)
    assert len(asked) == 2  # 6 s and 4 s of 10
    assert clock.now() - NOW <= timedelta(seconds=12)


def test_the_last_attempt_gets_what_is_left_and_says_so_in_round_numbers() -> None:
    clock = ManualClock(NOW)
    limits: list[float] = []

    def hang(request):
        limits.append(request.extensions["timeout"]["read"])
        clock.advance(limits[-1] + 0.444_35)
        raise httpx.ReadTimeout("late")

    neso = NesoProvider(clock=clock, transport=httpx.MockTransport(hang))
    with pytest.raises(IntensityUnavailable, match=r"did not answer within 4\.56 s; it was asked 2 times\.$"):
        neso.fetch(GB, NIGHT)
    assert limits == [5.0, pytest.approx(4.555_65)]


@pytest.mark.parametrize(
    ("timeout_seconds", "limits"), [(5.0, [5.0, 4.9]), (2.0, [2.0, 1.9]), (8.0, [8.0, 1.9]), (30.0, [30.0])]
)
def test_a_hanging_service_is_waited_for_two_timeouts_or_10_seconds(timeout_seconds, limits) -> None:
    clock = ManualClock(NOW)
    asked: list[float] = []

    def hang(request):
        asked.append(request.extensions["timeout"]["read"])
        clock.advance(asked[-1] + (0.1 if len(asked) == 1 else 0.0))
        raise httpx.ReadTimeout("late")

    settings = GridSettings(timeout_seconds=timeout_seconds, transport=httpx.MockTransport(hang))
    (neso,) = build_providers(["neso"], settings, clock)
    with pytest.raises(IntensityUnavailable, match="did not answer within"):
        neso.fetch(GB, NIGHT)
    assert asked == pytest.approx(limits)


def test_a_password_in_the_address_is_not_repeated(service) -> None:
    answers = service(httpx.ConnectError("refused"))
    neso = NesoProvider(
        clock=ManualClock(NOW), base_url="https://user:secret@mirror.example", transport=answers.transport
    )
    with pytest.raises(IntensityUnavailable) as caught:
        neso.fetch(GB, NIGHT)
    assert "secret" not in str(caught.value)
    assert "mirror.example" in str(caught.value)


# ---- a real server ------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    document: bytes = b""

    def do_GET(self) -> None:
        self.send_response(200 if self.path.startswith("/mirror/intensity/") else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.document)))
        self.end_headers()
        self.wfile.write(self.document)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(good):
    handler = type("Good", (Handler,), {"document": json.dumps(good).encode()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}/mirror/"
        http.shutdown()
        thread.join()


def test_a_real_server_is_asked_both_ways(server, monkeypatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    neso = NesoProvider(clock=ManualClock(NOW), base_url=server)
    assert len(neso.fetch(GB, NIGHT).points) == 17
    assert asyncio.run(neso.fetch_async(GB, NIGHT)).points == neso.fetch(GB, NIGHT).points


def test_a_real_server_that_never_answers_is_given_up(monkeypatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        policy = HttpPolicy(timeout_seconds=0.2, total_seconds=0.5)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        neso = NesoProvider(clock=SystemClock(), base_url=address, policy=policy)
        soon = SystemClock().now()
        window = Window(start=soon, end=soon + timedelta(hours=1))
        with pytest.raises(IntensityUnavailable, match="did not answer within"):
            neso.fetch(GB, window)
        with pytest.raises(IntensityUnavailable, match="did not answer within"):
            asyncio.run(neso.fetch_async(GB, window))


def test_a_port_where_nobody_listens_is_unavailable(monkeypatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    neso = NesoProvider(clock=ManualClock(NOW), base_url=f"http://127.0.0.1:{port}")
    with pytest.raises(IntensityUnavailable, match="cannot be reached"):
        neso.fetch(GB, NIGHT)
