"""What an address of a grid source must be before anything is sent there."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from cagg.errors import ConfigurationError
from cagg.masking import masked

__all__ = ["check_carries_secret", "check_no_user", "check_url"]


def check_url(url: str, setting: str) -> str:
    """Return a base URL without a trailing slash; raises ConfigurationError unless it is http(s) with a host."""
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.query and not parts.fragment
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"{setting} must be an address such as https://example.org, got {masked(url)!r}.")
    return url.strip().rstrip("/")


def check_no_user(url: str, setting: str) -> None:
    """Check that an address holds no user and no password.

    Raises:
        ConfigurationError: it does, or may; the message does not repeat them.
    """
    if "@" in url:
        raise ConfigurationError(
            f"{setting} must be an address without user, password and '@', such as https://example.org; what was given "
            "may hold a secret and is not shown."
        )


def check_carries_secret(url: str, setting: str) -> None:
    """Check that a secret may be sent there: over TLS, or without leaving this computer.

    Raises:
        ConfigurationError: it is plain http to another computer.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" or _is_loopback(parts.hostname or ""):
        return
    raise ConfigurationError(
        f"{setting} would send the token unencrypted to {parts.hostname}; use https://, or http:// to this computer "
        "only."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
