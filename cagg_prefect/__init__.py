"""Carbon-aware gates for Prefect: ``@carbon_aware(...)`` above ``@flow`` or ``@task``, or on a plain function.

Importing this package starts nothing and does not import Prefect: names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cagg.errors import DeferralUnsupported, NotAdmitted
    from cagg.request import GateOptions
    from cagg_prefect.decorator import carbon_aware
    from cagg_prefect.deferral import AWAITING_GREEN_WINDOW
    from cagg_prefect.maintaining import maintain_flow

__all__ = [
    "AWAITING_GREEN_WINDOW",
    "DeferralUnsupported",
    "GateOptions",
    "NotAdmitted",
    "carbon_aware",
    "maintain_flow",
]

_HOME = {
    "AWAITING_GREEN_WINDOW": "cagg_prefect.deferral",
    "DeferralUnsupported": "cagg.errors",
    "GateOptions": "cagg.request",
    "NotAdmitted": "cagg.errors",
    "carbon_aware": "cagg_prefect.decorator",
    "maintain_flow": "cagg_prefect.maintaining",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cagg_prefect' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "prefect":
            raise
        from cagg.errors import MissingExtra

        raise MissingExtra("Prefect is not installed; install it with: pip install 'cagg[prefect]'.") from error


def __dir__() -> list[str]:
    return sorted(__all__)
