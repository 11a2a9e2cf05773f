"""The gate of this process, opened with what Prefect's own settings store says."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from prefect.exceptions import PrefectException

from cagg.errors import ConfigurationError
from cagg_prefect.compat import api_address, sync_client

if TYPE_CHECKING:
    from cagg.gating import Gate

__all__ = ["VARIABLE", "host_settings", "open_gate"]

VARIABLE = "cagg"
"""Name of the Prefect Variable that holds settings: a JSON object from keys such as ``zone`` or ``grid.steering``."""

_guard = threading.Lock()
_opened: dict[tuple[str, ...], Gate] = {}


def open_gate() -> Gate:
    """Return the gate of this process; it is opened again only when ``CAGG_*`` or the working directory changes.

    Raises:
        ConfigurationError: the settings cannot be read; names the place.
    """
    from cagg.gating import Gate

    place = (
        str(Path.cwd()),
        api_address() or "",
        *sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("CAGG_")),
    )
    with _guard:
        if place not in _opened:
            _opened.clear()
            _opened[place] = Gate.open(host_settings(), host_name=f"Prefect Variable {VARIABLE!r}")
        return _opened[place]


def host_settings() -> Mapping[str, Any]:
    """Return the settings in the Prefect Variable ``cagg``; empty when there is none.

    Without an API address nothing is asked, because that would start a temporary server.

    Raises:
        ConfigurationError: the variable is no JSON object, or the API cannot be asked.
    """
    if api_address() is None:
        return {}
    try:
        with sync_client() as client:
            variable = client.read_variable_by_name(VARIABLE)
    except (httpx.HTTPError, PrefectException, OSError) as problem:
        raise ConfigurationError(
            f"the Prefect API at {api_address()} could not be asked for the Variable {VARIABLE!r} ({problem}), so the "
            "gate does not know which store and budgets hold; start the server or correct PREFECT_API_URL."
        ) from problem
    if variable is None:
        return {}
    value = variable.value
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"the Prefect Variable {VARIABLE!r} must be a JSON object such as "
            '{"zone": "neso:GB"}; correct or delete it.'
        )
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        if isinstance(entry, dict):
            flat.update({f"{key}.{name}": item for name, item in entry.items()})
        else:
            flat[key] = entry
    return flat
