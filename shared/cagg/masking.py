"""Takes the secrets out of addresses, before anybody reads them."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["looks_like_an_address", "masked", "masked_message"]

_SECRET_OPTIONS = frozenset({"password", "sslpassword", "oauth_client_secret"})
"""Options of libpq that are secrets."""

_OPTION = re.compile(r"(?:^|\?)([^=?]+)=")
_SCHEME_ALONE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_ADDRESS = re.compile(r"[^\s'\"]+://\S+")
_SETTING = re.compile(r"(password\s*=\s*)('[^']*'|\S+)", re.IGNORECASE)


def looks_like_an_address(path: str) -> bool:
    """True for what was meant as an address with a user and is none: it starts as ``postgres:`` and holds an ``@``."""
    return "://" not in path and "@" in path and _SCHEME_ALONE.match(path) is not None


def masked(address: str) -> str:
    """Return an address as people may see it: without passwords, wherever in it they stand.

    Everything from the first ``:`` behind the scheme up to the last ``@`` is hidden, because a password that was not
    percent-encoded may hold any character. What is no address stays as it is.
    """
    if looks_like_an_address(address):
        scheme, colon, rest = address.partition(":")
        return f"{scheme}{colon}***@{_without_options(rest.rpartition('@')[2])}"
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    before, at, after = rest.rpartition("@")
    name, colon, _ = before.partition(":")
    if not colon:
        return f"{scheme}://{_without_options(rest)}"
    shown = f"{scheme}://{_without_options(name)}:***"
    if _secret_at(before.rpartition("&")[2]) is not None:  # the last '@' stands in a secret itself, which goes on
        return shown
    return f"{shown}{at}{_without_options(after)}"


def masked_message(text: str) -> str:
    """Return what a driver said, with the addresses in it masked and without the passwords that it quotes."""
    return _SETTING.sub(r"\1***", _ADDRESS.sub(lambda found: masked(found[0]), text))


def _without_options(text: str) -> str:
    pieces = []
    for piece in text.split("&"):
        end = _secret_at(piece)
        pieces.append(piece if end is None else f"{piece[:end]}***")
    return "&".join(pieces)


def _secret_at(piece: str) -> int | None:
    """Return where the value of a secret option begins in one piece of a query; None = it has none."""
    ends = (found.end() for found in _OPTION.finditer(piece) if unquote(found[1]).lower() in _SECRET_OPTIONS)
    return next(ends, None)
