"""The core's tests never leave this machine."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any


def _is_loopback(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host)).is_loopback
    except ValueError:
        return False


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple) and not _is_loopback(arguments[1][0]):
        raise RuntimeError(f"a test wanted to connect to {arguments[1]!r}; tests use recorded answers or loopback")
    if event == "socket.getaddrinfo" and not _is_loopback(arguments[0]):
        raise RuntimeError(f"a test wanted to look up {arguments[0]!r}; tests use recorded answers or loopback")


def pytest_configure() -> None:
    """Watch the interpreter's own audit events: no library gets around them."""
    sys.addaudithook(_refuse_network)
