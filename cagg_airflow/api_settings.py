"""Where Airflow's REST API is and who asks it; found without importing Airflow, so that no configuration is created.

| what | from, strongest first |
|---|---|
| address | the caller (``--url``), ``CAGG_AIRFLOW_URL``, ``[api] base_url`` of the local Airflow configuration |
| bearer token | ``CAGG_AIRFLOW_TOKEN`` |
| user and password, for a token of its own | ``CAGG_AIRFLOW_USERNAME``, ``CAGG_AIRFLOW_PASSWORD`` |

Secrets come from the environment only: command lines and files are read by others.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from cagg.errors import ConfigurationError

__all__ = ["ApiSettings", "locally"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """How to ask one Airflow.

    Attributes:
        url: address of the API server, with a path prefix if it has one, without ``/api/v2`` and trailing slash.
        origin: where the address came from.
        token: bearer token; empty = none.
        username, password: what a token is asked for with; empty = none.
    """

    url: str
    origin: str = "argument"
    token: str = field(default="", repr=False)
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _checked(self.url, self.origin))
        if bool(self.username) != bool(self.password):
            raise ConfigurationError(
                "CAGG_AIRFLOW_USERNAME and CAGG_AIRFLOW_PASSWORD belong together and one of them is missing; set both."
            )

    @classmethod
    def find(cls, url: str | None = None, environ: Mapping[str, str] | None = None) -> Self | None:
        """Return the settings; None when nobody says where Airflow is.

        Args:
            url: the caller's word; None = look.
            environ: environment; None = the process's.

        Raises:
            ConfigurationError: the address cannot be used, or half of the credentials is missing.
        """
        environ = os.environ if environ is None else environ
        address, origin = (url or "").strip(), "argument"
        if not address:
            address, origin = environ.get("CAGG_AIRFLOW_URL", "").strip(), "CAGG_AIRFLOW_URL"
        if not address:
            address, origin = locally("api", "base_url", environ), "Airflow's [api] base_url"
        if not address:
            return None
        return cls(
            url=address,
            origin=origin,
            token=environ.get("CAGG_AIRFLOW_TOKEN", "").strip(),
            username=environ.get("CAGG_AIRFLOW_USERNAME", "").strip(),
            password=environ.get("CAGG_AIRFLOW_PASSWORD", ""),
        )


def _checked(text: str, origin: str) -> str:
    """Return the address in one form; the message never repeats an address that holds a password."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.query and not parts.fragment
        secret = parts.username is not None or parts.password is not None
        _ = parts.port
    except ValueError:
        usable, secret = False, "@" in text
    if secret:
        raise ConfigurationError(
            f"the address of Airflow ({origin}) holds a user or password; take them out and set "
            "CAGG_AIRFLOW_USERNAME and CAGG_AIRFLOW_PASSWORD in the environment."
        )
    if not usable:
        raise ConfigurationError(
            f"the address of Airflow ({origin}) must be like https://airflow.example.org, got {text[:100]!r}."
        )
    return text.rstrip("/").removesuffix("/api/v2").rstrip("/")


def locally(section: str, key: str, environ: Mapping[str, str] | None = None) -> str:
    """Return what the local Airflow's configuration says, empty when Airflow is not installed or does not say.

    The file is read as it lies there: asking Airflow itself takes seconds and creates a configuration where there is
    none. Values that a command or a secrets backend would give are not looked up.
    """
    environ = os.environ if environ is None else environ
    if find_spec("airflow") is None:
        return ""
    stated = environ.get(f"AIRFLOW__{section.upper()}__{key.upper()}", "").strip()
    if stated:
        return stated
    home = Path(environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    path = Path(environ.get("AIRFLOW_CONFIG") or home / "airflow.cfg").expanduser()
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(path, encoding="utf-8")
    except (OSError, UnicodeDecodeError, configparser.Error):
        return ""
    return parser.get(section, key, fallback="").strip()
