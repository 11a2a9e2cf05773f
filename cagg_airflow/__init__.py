"""Carbon-aware gates for Airflow: ``@task.carbon_aware(...)``, any operator class, sensors, or no DAG change at all.

Importing this package starts nothing and does not import Airflow: names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cagg.errors import NotAdmitted
    from cagg.request import GateOptions
    from cagg_airflow.gate_operator import CarbonGateOperator
    from cagg_airflow.hooks import CaggHook
    from cagg_airflow.maintenance import maintain_dag
    from cagg_airflow.operators import carbon_aware
    from cagg_airflow.sensors import CarbonBudgetSensor, CarbonIntensitySensor

__all__ = [
    "CaggHook",
    "CarbonBudgetSensor",
    "CarbonGateOperator",
    "CarbonIntensitySensor",
    "GateOptions",
    "NotAdmitted",
    "carbon_aware",
    "maintain_dag",
]

_HOME = {
    "CaggHook": "cagg_airflow.hooks",
    "CarbonBudgetSensor": "cagg_airflow.sensors",
    "CarbonGateOperator": "cagg_airflow.gate_operator",
    "CarbonIntensitySensor": "cagg_airflow.sensors",
    "GateOptions": "cagg.request",
    "NotAdmitted": "cagg.errors",
    "carbon_aware": "cagg_airflow.operators",
    "maintain_dag": "cagg_airflow.maintenance",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cagg_airflow' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "airflow":
            raise
        from cagg.errors import MissingExtra

        raise MissingExtra("Airflow is not installed; install it with: pip install 'cagg[airflow]'.") from error


def __dir__() -> list[str]:
    return sorted(__all__)
