"""A small client of Airflow's public REST API, version 2: bounded, read-only, without Airflow.

Only GET requests, and POST ``/auth/token`` for a token. Nothing is changed and no row is written to Airflow's audit
log, which its list-POST endpoints do. Failures that may pass are tried again; every other one is a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from cagg.clock import SystemClock
from cagg.errors import ConfigurationError, HostUnavailable
from cagg.ports import Clock
from cagg_airflow.api_settings import ApiSettings

__all__ = ["AirflowApi", "Page", "path_of"]

PAGE = 1_000
"""Rows asked for at once; the server gives what ``[api] maximum_page_limit`` allows, 100 unless configured."""

_PAUSES_SECONDS = (0.3, 1.5, 5.0)
"""Waits between attempts. A loop of our own instead of stamina's: where structlog is installed, as beside Airflow,
stamina writes a warning for each retry past every log filter (stamina 26.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a list.

    Attributes:
        rows: its items.
        total: how many items there are in all; None when the server does not say.
    """

    rows: list[dict[str, Any]]
    total: int | None


class _Transient(Exception):
    """A failure that may pass by itself."""


def path_of(*parts: str) -> str:
    """Join parts to an address below ``/api/v2``; every part is escaped, ``~`` stays."""
    return "/" + "/".join(quote(part, safe="~") for part in parts)


class AirflowApi:
    """Asks one Airflow. Use it in a ``with`` block; not for several threads at once.

    Args:
        settings: where, and who asks.
        timeout_seconds: longest wait for a connection, and for each part of an answer.
        attempts: how often a failure that may pass is tried, 1 to 4.
        clock: time, for the waits between attempts; None = the computer's.
        transport: instead of the network, for tests.
    """

    def __init__(
        self,
        settings: ApiSettings,
        *,
        timeout_seconds: float = 30.0,
        attempts: int = 3,
        clock: Clock | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._attempts = attempts
        self._clock = clock or SystemClock()
        self._timeout_seconds = timeout_seconds
        self._token = settings.token
        self._who = f"Airflow at {settings.url}"
        try:
            # a redirect could carry the token to another host
            self._client = httpx.Client(transport=transport, timeout=timeout_seconds, follow_redirects=False)
        except (ValueError, OSError) as error:  # the text may hold a proxy's password
            raise ConfigurationError(
                f"no connection can be made ({type(error).__name__}); check the proxy and certificate variables."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    # ---- questions ------------------------------------------------------------------------------------------------

    def version(self) -> str:
        """Return Airflow's version; raises HostUnavailable, also when something else answers at the address."""
        document = self.get("/version")
        version = document.get("version") if isinstance(document, dict) else None
        if not isinstance(version, str):
            raise HostUnavailable(f"{self._who} does not say its version; check that the address is Airflow's.")
        return version

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> Any:
        """Return the document at a path below ``/api/v2``; raises HostUnavailable."""
        response = self._ask(path, params)
        if response.status_code == 404:
            raise HostUnavailable(
                f"{self._who} has no API version 2 ({path} is not there); check the address, and that it is Airflow 3."
            )
        return self._document(response)

    def find(self, path: str) -> Any | None:
        """As :meth:`get`; None when Airflow itself says that what was asked for does not exist.

        A 404 of a proxy, or of an address that is no Airflow, is not taken for that: raises HostUnavailable.
        """
        response = self._ask(path, None)
        if response.status_code == 404:
            detail = self._document(response).get("detail", "") if _is_json(response) else ""
            if isinstance(detail, str) and "was not found" in detail:
                return None
            raise HostUnavailable(f"{self._who} does not know the address {path}; check that it is Airflow 3.")
        return self._document(response)

    def pages(self, path: str, key: str, params: Mapping[str, str | int] | None = None) -> Iterator[Page]:
        """Yield a list page by page; raises HostUnavailable.

        Args:
            path: address below ``/api/v2``.
            key: under which name the items lie in the answer.
            params: filters; name an order that is the same every time.
        """
        offset = 0
        while True:
            document = self.get(path, {**(params or {}), "limit": PAGE, "offset": offset})
            rows = document.get(key) if isinstance(document, dict) else None
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise HostUnavailable(f"{self._who} answered {path} without {key}; check that it is Airflow 3.")
            total = document.get("total_entries")
            total = total if isinstance(total, int) else None
            if rows:
                yield Page(rows=rows, total=total)
            offset += len(rows)
            if not rows or (total is not None and offset >= total):
                return

    # ---- requests -------------------------------------------------------------------------------------------------

    def _ask(self, path: str, params: Mapping[str, str | int] | None) -> httpx.Response:
        """Return an answer that is neither a refusal nor a failure: 200, or 404."""
        if not self._token:
            self._sign_in()
        response = self._send("GET", f"/api/v2{path}", params=params)
        if _unknown_token(response) and self._settings.username and self._token:
            self._token = ""  # tokens run out; a long history may outlive one
            self._sign_in()
            response = self._send("GET", f"/api/v2{path}", params=params)
        status = response.status_code
        if _unknown_token(response):
            refused = "refused the credentials" if self._token else "wants credentials"
            raise HostUnavailable(
                f"{self._who} {refused}; set CAGG_AIRFLOW_TOKEN, or CAGG_AIRFLOW_USERNAME and CAGG_AIRFLOW_PASSWORD, "
                "in the environment."
            )
        if status == 403:
            raise HostUnavailable(
                f"{self._who} does not let this user read {path.split('?')[0]}; give it the role Viewer, or read "
                "access to DAGs, runs and task instances."
            )
        if 300 <= status < 400:
            raise HostUnavailable(
                f"{self._who} redirects to another address (HTTP {status}), which is not followed; give that one."
            )
        if status not in {200, 404}:
            raise HostUnavailable(f"{self._who} refused the question with HTTP {status}; check its version and log.")
        return response

    def _sign_in(self) -> None:
        """Get a token with user and password; without them, one that an Airflow without users gives everybody."""
        settings = self._settings
        if settings.token and not settings.username:
            return
        if settings.username:
            body = {"username": settings.username, "password": settings.password}
            response = self._send("POST", "/auth/token", body=body)
        else:
            response = self._send("GET", "/auth/token")
        if response.status_code in {200, 201} and _is_json(response):
            document = self._document(response)
            token = document.get("access_token") if isinstance(document, dict) else None
            self._token = token if isinstance(token, str) else ""
        if settings.username and not self._token:
            raise HostUnavailable(
                f"{self._who} gave no token for the user and password (HTTP {response.status_code}); check "
                "CAGG_AIRFLOW_USERNAME and CAGG_AIRFLOW_PASSWORD, or set CAGG_AIRFLOW_TOKEN."
            )

    def _send(
        self, method: str, path: str, *, params: Mapping[str, str | int] | None = None, body: object = None
    ) -> httpx.Response:
        for pause_seconds in (*_PAUSES_SECONDS[: self._attempts - 1], None):
            try:
                return self._once(method, path, params, body)
            except _Transient as error:
                if pause_seconds is None:
                    raise HostUnavailable(
                        f"{self._who} {error}; check the address, and that its API server runs."
                    ) from error
                self._clock.sleep(pause_seconds)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _once(self, method: str, path: str, params: Mapping[str, str | int] | None, body: object) -> httpx.Response:
        headers = {"Accept": "application/json"}
        if self._token and path.startswith("/api/"):
            headers["Authorization"] = f"Bearer {self._token}"
        with self._network_errors():
            response = self._client.request(
                method, self._settings.url + path, params=params, json=body, headers=headers
            )
        if response.status_code == 429 or response.status_code >= 500:
            raise _Transient(f"answered with HTTP {response.status_code}")
        return response

    @contextmanager
    def _network_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise _Transient(f"did not answer within {self._timeout_seconds:g} s") from error
        except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError) as error:
            raise _Transient(f"cannot be reached ({type(error).__name__})") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, UnicodeError) as error:
            raise HostUnavailable(
                f"{self._who} could not be asked ({type(error).__name__}); check the address."
            ) from error

    def _document(self, response: httpx.Response) -> Any:
        if not _is_json(response):
            raise HostUnavailable(
                f"{self._who} answered with something else than data; check the address, and whether a proxy or a "
                "login page stands in between."
            )
        try:
            return json.loads(response.content)
        except (ValueError, RecursionError) as error:
            raise HostUnavailable(f"{self._who} sent an answer that is no complete JSON; ask again.") from error


def _unknown_token(response: httpx.Response) -> bool:
    """True for a token that is missing, expired (401) or no token at all (403 with "Invalid JWT token", 3.3.2)."""
    if response.status_code == 403 and _is_json(response):
        return b"token" in response.content[:500].lower()
    return response.status_code == 401


def _is_json(response: httpx.Response) -> bool:
    return "json" in response.headers.get("content-type", "").lower()
