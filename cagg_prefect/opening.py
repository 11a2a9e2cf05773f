"""The gate of this process, opened with what Prefect's own settings store says."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from prefect.exceptions import ObjectNotFound, PrefectException

from cagg.errors import ConfigurationError
from cagg_prefect.compat import SyncPrefectClient, api_address, sync_client

if TYPE_CHECKING:
    from cagg.gating import Gate

__all__ = ["BLOCK_TYPE", "VARIABLE", "host_settings", "open_gate"]

VARIABLE = "cagg"
"""Name of the Prefect Variable that holds settings: a JSON object from keys such as ``zone`` or ``grid.steering``.

Also the name of the block that holds secrets. Where both say something, the Variable is stronger."""

BLOCK_TYPE = "cagg-credentials"
"""Slug of the type of :class:`cagg_prefect.blocks.CaggCredentials`."""

_BLOCK_KEYS = {"store": "store", "electricity_maps_token": "grid.electricity_maps.token", "zone": "zone"}
"""Settings key of each field of the block."""

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
            variable, block = _stated()
            places = " and ".join(name for name, said in (("Variable", variable), ("Block", block)) if said)
            _opened[place] = Gate.open({**block, **variable}, host_name=f"Prefect {places or 'Variable'} {VARIABLE!r}")
        return _opened[place]


def host_settings() -> Mapping[str, Any]:
    """Return the settings in the Prefect Block and Variable ``cagg``, the Variable's over the Block's.

    Empty when there is neither. Without an API address nothing is asked, because that would start a temporary server.

    Raises:
        ConfigurationError: the variable is no JSON object, or the API cannot be asked.
    """
    variable, block = _stated()
    return {**block, **variable}


def _stated() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What the Variable says, and what the Block says."""
    if api_address() is None:
        return {}, {}
    try:
        with sync_client() as client:
            variable = client.read_variable_by_name(VARIABLE)
            block = _block_settings(client)
    except (httpx.HTTPError, PrefectException, OSError) as problem:
        raise ConfigurationError(
            f"the Prefect API at {api_address()} could not be asked for Variable and Block {VARIABLE!r} ({problem}), "
            "so the gate does not know which store and budgets hold; start the server or correct PREFECT_API_URL."
        ) from problem
    if variable is None:
        return {}, block
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
    return _flat("", value), block


def _flat(prefix: str, table: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, entry in table.items():
        flat.update(_flat(f"{prefix}{name}.", entry) if isinstance(entry, dict) else {f"{prefix}{name}": entry})
    return flat


def _block_settings(client: SyncPrefectClient) -> dict[str, Any]:
    """Return what the block says, secrets in plain text; empty when nobody made one."""
    try:
        document = client.read_block_document_by_name(VARIABLE, BLOCK_TYPE, include_secrets=True)
    except ObjectNotFound:
        return {}
    stated = {key: document.data.get(field) for field, key in _BLOCK_KEYS.items()}
    return {key: value for key, value in stated.items() if value}
