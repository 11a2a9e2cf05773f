"""One bounded GET: few attempts, a total time, a size limit, no redirects, and errors in one sentence.

Retried are only failures that may pass by themselves: no connection, a broken or late answer, 429 and 5xx.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cagg.errors import ConfigurationError, IntensityUnavailable
from cagg.ports import Clock
from cagg.secret import Secret

if TYPE_CHECKING:
    import httpx
    from stamina.instrumentation import RetryHook

__all__ = ["HttpPolicy", "JsonSource", "Refused"]

_RETRYING: ContextVar[bool] = ContextVar("cagg_http_retrying", default=False)
_LEAST_SECONDS = 0.05
"""With less time left than this, another attempt is not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPolicy:
    """Limits of one request.

    Attributes:
        timeout_seconds: longest time of one attempt, from connecting to the last byte.
        attempts: how often to try at most.
        total_seconds: longest time of all attempts and the waits between them.
        max_bytes: an answer longer than this is refused.
    """

    timeout_seconds: float = 5.0
    attempts: int = 3
    total_seconds: float = 10.0
    max_bytes: int = 4_000_000

    def __post_init__(self) -> None:
        if not 0 < self.timeout_seconds < float("inf") or not 0 < self.total_seconds < float("inf"):
            raise ConfigurationError("a grid timeout must be longer than zero and finite; correct grid.timeout.")
        if self.attempts < 1 or self.max_bytes < 1:
            raise ConfigurationError("attempts and the size limit of a grid source must be at least 1.")


class Refused(IntensityUnavailable):
    """The service answered with a status that says no.

    Attributes:
        status: the HTTP status.
        wait_seconds: how long the service wants to be left alone; None when it does not say.
    """

    def __init__(self, message: str, *, status: int, wait_seconds: float | None = None) -> None:
        self.status = status
        self.wait_seconds = wait_seconds
        super().__init__(message)


class _Transient(Exception):
    """A failure that may pass; ``wait_seconds`` is what the server asked for, ``status`` None without an answer."""

    def __init__(self, reason: str, wait_seconds: float | None = None, *, status: int | None = None) -> None:
        self.wait_seconds = wait_seconds
        self.status = status
        super().__init__(reason)


class _Deadline:
    """Time left of one request's total, on the monotonic clock."""

    def __init__(self, clock: Clock, policy: HttpPolicy) -> None:
        self._clock = clock
        self._policy = policy
        self._started_ns = clock.monotonic_ns()
        self.attempts = 0

    def left_seconds(self) -> float:
        return self._policy.total_seconds - (self._clock.monotonic_ns() - self._started_ns) / 1e9

    def attempt(self) -> _Attempt:
        self.attempts += 1
        return _Attempt(self._clock, self)

    def limit_seconds(self) -> float:
        return max(_LEAST_SECONDS, min(self._policy.timeout_seconds, self.left_seconds()))

    def worth_another(self, error: Exception) -> bool | float:
        """Hook of the retry loop: False stops, True waits as it likes, a number waits as the server asked."""
        if not isinstance(error, _Transient):
            return False
        wait = error.wait_seconds or 0.0
        if self.left_seconds() - wait < _LEAST_SECONDS:
            return False
        return wait if wait > 0 else True


class _Attempt:
    """One attempt's own limit: a server that sends a byte now and then does not hold us."""

    def __init__(self, clock: Clock, deadline: _Deadline) -> None:
        self._clock = clock
        self._deadline = deadline
        self.begin()

    def begin(self) -> float:
        """Start the limit, and return it in seconds: loading the client and its certificates comes out of the total,
        not on top of it."""
        self.limit_seconds = self._deadline.limit_seconds()
        self._started_ns = self._clock.monotonic_ns()
        return self.limit_seconds

    @property
    def limit_text(self) -> str:
        return f"{round(self.limit_seconds, 2):g} s"

    def check(self) -> None:
        if (self._clock.monotonic_ns() - self._started_ns) / 1e9 > self.limit_seconds:
            raise _Transient(f"sent no complete answer within {self.limit_text}")


class JsonSource:
    """Fetches JSON documents from one service.

    Args:
        name: the provider, for messages.
        base_url: checked address without a trailing slash.
        policy: limits.
        clock: time.
        transport, async_transport: instead of the network, for tests; None = the network, with proxies from the
            environment.
        secret_header: name and value of a header that proves who asks; the value is blotted out of every message.
            None = nothing is sent.
    """

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        policy: HttpPolicy,
        clock: Clock,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
        secret_header: tuple[str, Secret] | None = None,
    ) -> None:
        self._base_url = base_url
        self._secret_header = secret_header
        self._policy = policy
        self._clock = clock
        self._transport = transport
        self._async_transport = async_transport
        self._who = f"{name} ({urlsplit(base_url).hostname})"

    def get(self, path: str) -> Any:
        """Return the parsed document at a path; raises IntensityUnavailable."""
        stamina = _retrying()
        deadline = _Deadline(self._clock, self._policy)
        with self._failures(deadline), _our_retries():
            for attempt in stamina.retry_context(on=deadline.worth_another, **self._waits()):
                with attempt:
                    return self._document(*self._once(path, deadline.attempt()))
        raise AssertionError("unreachable: the retry loop returns or raises")

    async def get_async(self, path: str) -> Any:
        """As :meth:`get`, for callers in an event loop."""
        stamina = _retrying()
        deadline = _Deadline(self._clock, self._policy)
        with self._failures(deadline), _our_retries():
            async for attempt in stamina.retry_context(on=deadline.worth_another, **self._waits()):
                with attempt:
                    return self._document(*await self._once_async(path, deadline.attempt()))
        raise AssertionError("unreachable: the retry loop returns or raises")

    def _waits(self) -> dict[str, Any]:
        return {
            "attempts": self._policy.attempts,
            "timeout": self._policy.total_seconds,
            "wait_initial": 0.2,
            "wait_max": 2.0,
            "wait_jitter": 0.2,
        }

    def _once(self, path: str, attempt: _Attempt) -> tuple[int, httpx.Headers, bytes]:
        import httpx

        body = bytearray()
        with (
            self._network_errors(attempt),
            httpx.Client(transport=self._transport, **self._client_options()) as client,
            client.stream("GET", self._base_url + path, timeout=attempt.begin()) as response,
        ):
            for chunk in response.iter_bytes():
                self._collect(body, chunk, attempt)
            return response.status_code, response.headers, bytes(body)

    async def _once_async(self, path: str, attempt: _Attempt) -> tuple[int, httpx.Headers, bytes]:
        import httpx

        body = bytearray()
        async with (
            self._network_errors_async(attempt),
            httpx.AsyncClient(transport=self._async_transport, **self._client_options()) as client,
            client.stream("GET", self._base_url + path, timeout=attempt.begin()) as response,
        ):
            async for chunk in response.aiter_bytes():
                self._collect(body, chunk, attempt)
            return response.status_code, response.headers, bytes(body)

    def _client_options(self) -> dict[str, Any]:
        from cagg import __version__

        headers = {"Accept": "application/json", "User-Agent": f"cagg/{__version__}"}
        if self._secret_header is not None:
            headers[self._secret_header[0]] = self._secret_header[1].value
        # a redirect could carry the request, and with it the token, to another host
        return {"follow_redirects": False, "headers": headers}

    def _message(self, body: bytes) -> str:
        return _message(body, None if self._secret_header is None else self._secret_header[1])

    def _collect(self, body: bytearray, chunk: bytes, attempt: _Attempt) -> None:
        body.extend(chunk)
        if len(body) > self._policy.max_bytes:
            raise IntensityUnavailable(
                f"{self._who} sent more than {self._policy.max_bytes} bytes; check that the address is the service's."
            )
        attempt.check()

    @asynccontextmanager
    async def _network_errors_async(self, attempt: _Attempt) -> AsyncIterator[None]:
        with self._network_errors(attempt):
            yield

    @contextmanager
    def _network_errors(self, attempt: _Attempt) -> Iterator[None]:
        import httpx

        try:
            yield
        except httpx.TimeoutException as error:
            raise _Transient(f"did not answer within {attempt.limit_text}") from error
        except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError) as error:
            raise _Transient(f"cannot be reached ({str(error) or type(error).__name__})") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise IntensityUnavailable(f"{self._who} could not be read ({type(error).__name__}: {error}).") from error
        except (ValueError, OSError) as error:
            # raised while the client is made; the text may hold a proxy's password
            raise IntensityUnavailable(
                f"{self._who} could not be asked ({type(error).__name__}); check the proxy and certificate variables."
            ) from error

    @contextmanager
    def _failures(self, deadline: _Deadline) -> Iterator[None]:
        try:
            yield
        except _Transient as error:
            times = "once" if deadline.attempts == 1 else f"{deadline.attempts} times"
            message = f"{self._who} {error}; it was asked {times}."
            if error.status is None:
                raise IntensityUnavailable(message) from error
            raise Refused(message, status=error.status, wait_seconds=error.wait_seconds) from error

    def _document(self, status: int, headers: httpx.Headers, body: bytes) -> Any:
        """Return the parsed body of a good answer; raises _Transient or IntensityUnavailable for any other."""
        if status == 429:
            raise _Transient("asks to be asked less often (HTTP 429)", self._retry_after(headers), status=status)
        if status >= 500:
            reason = f"failed with HTTP {status}{self._message(body)}"
            raise _Transient(reason, self._retry_after(headers), status=status)
        if 300 <= status < 400:
            raise IntensityUnavailable(
                f"{self._who} redirects to another address (HTTP {status}), which is not followed; set its new address."
            )
        if status != 200:
            message = f"{self._who} refused the request with HTTP {status}{self._message(body)}."
            raise Refused(message, status=status)
        if "html" in headers.get("content-type", "").lower() or body.lstrip()[:1] == b"<":
            raise IntensityUnavailable(
                f"{self._who} answered with a web page instead of data; check its address, and whether a proxy or a "
                "login page stands in between."
            )
        try:
            return json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise IntensityUnavailable(
                f"{self._who} sent an answer that is no complete JSON ({len(body)} bytes); ask again later."
            ) from error

    def _retry_after(self, headers: httpx.Headers) -> float | None:
        """Seconds of a Retry-After header, as number or date (RFC 9110, section 10.2.3); None without a usable one."""
        from email.utils import parsedate_to_datetime

        text = headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            instant = parsedate_to_datetime(text)
        except (TypeError, ValueError):
            return None
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=UTC)
        return max(0.0, (instant - self._clock.now()).total_seconds())


@contextmanager
def _our_retries() -> Iterator[None]:
    token = _RETRYING.set(True)
    try:
        yield
    finally:
        _RETRYING.reset(token)


@cache
def _retrying() -> ModuleType:
    """Load stamina on first use, and keep its words about *our* retries out of other people's logs and terminals.

    They carry a bare event name, and the chain's steps already say what failed and how often it was tried. Retries of
    other code that uses stamina are reported as ever.
    """
    import stamina
    from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

    def quiet(hook: RetryHook) -> RetryHook:
        return lambda details: None if _RETRYING.get() else hook(details)

    set_on_retry_hooks([quiet(hook) for hook in get_on_retry_hooks()])
    return stamina


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number")


def _message(body: bytes, hidden: Secret | None) -> str:
    """Return `` (the service's own words)`` if the body is one of the usual error documents, else nothing.

    A service that quotes the token it was sent does not put it into our messages.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if isinstance(document, dict):
        inner = document.get("error", document)
        words = inner.get("message") if isinstance(inner, dict) else inner
        if isinstance(words, str) and words.strip():
            if hidden is not None:
                words = hidden.hidden_in(words)
            clean = "".join(character if character.isprintable() else " " for character in words.strip())
            return f" ({clean[:200]})"
    return ""
