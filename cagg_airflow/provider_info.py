"""What Airflow asks a provider package about itself. Read in every Airflow process: imports nothing, plain values."""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]

_SECTION = """Carbon-aware gates in front of tasks.

Stronger than ``cagg.toml``, weaker than the Connection and than ``CAGG_*`` variables."""


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description in the shape of Airflow's provider_info schema (3.2, 3.3)."""
    return {
        "package-name": "cagg",
        "name": "cagg",
        "description": "Carbon-aware gates: budgets, a ledger and a gate in front of training and validation.",
        "integrations": [{"integration-name": "cagg", "tags": ["software"]}],
        "operators": [
            {"integration-name": "cagg", "python-modules": ["cagg_airflow.operators", "cagg_airflow.gate_operator"]}
        ],
        "sensors": [{"integration-name": "cagg", "python-modules": ["cagg_airflow.sensors"]}],
        "triggers": [{"integration-name": "cagg", "python-modules": ["cagg_airflow.triggers"]}],
        "hooks": [{"integration-name": "cagg", "python-modules": ["cagg_airflow.hooks"]}],
        "task-decorators": [{"name": "carbon_aware", "class-name": "cagg_airflow.decorators.carbon_aware_task"}],
        "connection-types": [_connection_type()],
        "config": {"cagg": {"description": _SECTION, "options": _options()}},
    }


def _connection_type() -> dict[str, Any]:
    return {
        "connection-type": "cagg",
        "hook-class-name": "cagg_airflow.hooks.CaggHook",
        "hook-name": "cagg (carbon gate)",
        "conn-fields": {
            "zone": _field("Grid zone", "Zone of the tasks, for example neso:GB or electricity_maps:DE"),
            "timezone": _field("Time zone", "IANA name in which times of day such as 06:00 are read"),
            "grid.electricity_maps.token": _field(
                "Electricity Maps token", "API token; needed for zones of Electricity Maps", format="password"
            ),
            "mode": {
                "label": "Mode",
                "description": "enforce: limits hold and tasks wait; observe: record only; off: ask nothing",
                "schema": {"type": ["string", "null"], "enum": ["enforce", "observe", "off"]},
            },
        },
        "ui-field-behaviour": {
            "hidden-fields": ["host", "schema", "login", "port"],
            # the password, because it is the field that Airflow encrypts and masks everywhere
            "relabeling": {"password": "Store URL", "extra": "Further settings"},
            "placeholders": {
                "password": "postgresql://user:secret@host/cagg (empty: the default store)",
                "extra": '{"grid.steering": "neso,climatology"}',
            },
        },
    }


def _field(label: str, description: str, **schema: str) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


def _options() -> dict[str, Any]:
    return {
        "enabled": _option(
            "Gate, meter and record tasks. Until it is set, decorated tasks run as if nothing were there.",
            kind="boolean",
            default="False",
        ),
        "connection_id": _option("Id of the Connection that holds store, zone and tokens.", default="cagg"),
        "home": _option("Folder of the default store, of keys and of the spool.", example="/var/lib/cagg"),
        "store": _option(
            "URL of the store. Workers on several machines need one that they share.",
            example="postgresql://cagg@db/cagg",
            sensitive=True,
        ),
        "zone": _option("Grid zone of tasks that do not name one.", example="neso:GB"),
        "timezone": _option("IANA time zone for times of day of DAGs without a schedule.", example="Europe/London"),
        "mode": _option("enforce, observe or off; empty = as ``cagg.toml`` says, else enforce.", example="observe"),
        "settings": _option(
            "Any other settings as a JSON object of settings keys.",
            example='{"grid.steering": "neso,climatology", "policy.max_deferrals": 3}',
            sensitive=True,
        ),
        "several_machines": _option(
            "Schedulers or workers run on several machines, though the executor is a local one: a store in one file "
            "is then refused for budgets, as with remote executors.",
            kind="boolean",
            default="False",
        ),
    }


def _option(
    description: str,
    *,
    kind: str = "string",
    default: str | None = None,
    example: str | None = None,
    sensitive: bool = False,
) -> dict[str, Any]:
    option = {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
    }
    return {**option, "sensitive": True} if sensitive else option
