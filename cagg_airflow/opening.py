"""The gate of this process, opened with what Airflow's configuration and Connection say. Off until enabled."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cagg.errors import ConfigurationError
from cagg_airflow.compat import configuration, find_connection, task_logger
from cagg_airflow.naming import CONNECTION, SECTION

if TYPE_CHECKING:
    from cagg.gating import Gate

__all__ = [
    "connection_id",
    "connection_settings",
    "enabled",
    "flatten",
    "host_settings",
    "open_gate",
    "read_connection",
    "remote_workers",
    "section_settings",
]

_CONFIGURED: Final = ("home", "store", "zone", "timezone", "mode")
"""Options of ``[cagg]`` that are settings keys too; other keys go into its ``settings`` option or the Connection."""

_LOCAL_EXECUTORS: Final = frozenset({"LocalExecutor", "SequentialExecutor", "DebugExecutor"})
"""Executors that run every task on the machine of the scheduler (Airflow 3.2 and 3.3)."""

_guard = threading.Lock()
_opened: dict[tuple[str, ...], Gate] = {}
_warned = threading.Event()

_SERVERS: Final = ("postgres", "mysql")
"""Airflow's databases that schedulers on several machines can share."""


def enabled() -> bool:
    """True when ``[cagg] enabled`` is set; nothing is gated, metered or opened before."""
    return bool(configuration().getboolean(SECTION, "enabled", fallback=False))


def connection_id() -> str:
    """Return the id of the Connection that holds settings."""
    return _option("connection_id") or CONNECTION


def open_gate() -> Gate:
    """Return the gate of this process; it is opened again when the settings or the working directory change.

    Raises:
        ConfigurationError: the settings cannot be read; names the place.
    """
    from cagg.gating import Gate

    name = connection_id()
    configured, connected = section_settings(), connection_settings(name)
    place = (
        str(Path.cwd()),
        json.dumps([configured, connected], sort_keys=True, default=str),
        *sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("CAGG_")),
    )
    with _guard:
        if place not in _opened:
            for dropped in _opened.values():
                dropped.components.store.close()  # whoever still works with it connects anew
            _opened.clear()
            where = f"Airflow Connection {name!r} or [{SECTION}] of its configuration"
            _opened[place] = Gate.open({**configured, **connected}, host_name=where)
            _warn_of_a_file(_opened[place].components.store.url)
        return _opened[place]


def _warn_of_a_file(store_url: str) -> None:
    """Say once per process that schedulers on several machines would each enforce budgets of their own.

    Only where Airflow's database can be read from the configuration (the triggerer; tasks may not) and is a server.
    """
    database = str(configuration().get("database", "sql_alchemy_conn", fallback="") or "")
    if _warned.is_set() or remote_workers() or not store_url.startswith("sqlite") or not database.startswith(_SERVERS):
        return
    _warned.set()
    task_logger().warning(
        "carbon gate: the store is a file of this machine; if schedulers run on several machines, each enforces "
        "budgets of its own: set [cagg] several_machines, and a store that they share."
    )


def host_settings() -> Mapping[str, Any]:
    """Return what Airflow says, by settings key: the Connection, and below it the section ``[cagg]``.

    Raises:
        ConfigurationError: one of them cannot be read.
    """
    return {**section_settings(), **connection_settings(connection_id())}


def connection_settings(name: str) -> Mapping[str, Any]:
    """Return the settings in a Connection: its password is the store's URL, its extras are settings keys.

    Without such a Connection, or where nobody can be asked for one, the result is empty.

    Raises:
        ConfigurationError: the extras are no JSON object, or the Connection cannot be read now.
    """
    connection = find_connection(name)
    if connection is None:
        return {}
    return read_connection(connection, name)


def read_connection(connection: Any, name: str) -> Mapping[str, Any]:
    """Return the settings in a Connection that was read; see :func:`connection_settings`."""
    stated: dict[str, Any] = {}
    if connection.extra:
        stated.update(flatten(_json_object(connection.extra, f"the extras of the Airflow Connection {name!r}")))
    if connection.password:
        stated["store"] = connection.password
    return {key: value for key, value in stated.items() if value not in (None, "")}


def flatten(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables as one, ``{"grid": {"steering": …}}`` as ``{"grid.steering": …}``."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{inner}": item for inner, item in flatten(value).items()})
        else:
            flat[key] = value
    return flat


def remote_workers() -> bool:
    """True when tasks may run on several machines: any configured executor may, or ``[cagg] several_machines`` says so.

    Reads every form of ``[core] executor``: a list, ``alias:module.Class`` and ``team=Executor`` (Airflow 3.2, 3.3).
    Local executors of schedulers on several machines look like those of one: a task cannot see the schedulers.
    """
    if configuration().getboolean(SECTION, "several_machines", fallback=False):
        return True
    configured = str(configuration().get("core", "executor", fallback="LocalExecutor"))
    names = [item.strip() for item in configured.replace(";", ",").split(",") if item.strip()]
    return any(_class_name(name) not in _LOCAL_EXECUTORS for name in names)


def _class_name(executor: str) -> str:
    return executor.rpartition("=")[2].rpartition(":")[2].rpartition(".")[2].strip()


def section_settings() -> dict[str, Any]:
    """Return the settings in the section ``[cagg]`` of Airflow's configuration, by settings key.

    Raises:
        ConfigurationError: its ``settings`` option is no JSON object.
    """
    stated: dict[str, Any] = {}
    more = _option("settings")
    if more is not None:
        stated.update(flatten(_json_object(more, f"[{SECTION}] settings in Airflow's configuration")))
    for key in _CONFIGURED:
        value = _option(key)
        if value is not None:
            stated[key] = value
    return stated


def _option(key: str) -> str | None:
    value = configuration().get(SECTION, key, fallback=None)
    return str(value).strip() or None if value is not None else None


def _json_object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        # the text may hold a token, so it is not repeated
        raise ConfigurationError(f'{where} must be a JSON object such as {{"zone": "neso:GB"}}; correct it.')
    return value
