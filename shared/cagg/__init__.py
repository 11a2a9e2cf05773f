"""cagg: carbon-aware governance gates. ``cagg.gate(...)`` asks before work runs and records what it used.

Importing this package starts nothing: names are loaded when they are first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cagg.errors import CaggError, NotAdmitted
    from cagg.gating import Gate, current_run, gate
    from cagg.request import GateOptions
    from cagg.verdict import Admit, Decision, Defer, Deny, Review

__all__ = [
    "Admit",
    "CaggError",
    "Decision",
    "Defer",
    "Deny",
    "Gate",
    "GateOptions",
    "NotAdmitted",
    "Review",
    "__version__",
    "current_run",
    "gate",
]

__version__ = "0.1.0"

_HOME = {
    "Admit": "cagg.verdict",
    "CaggError": "cagg.errors",
    "Decision": "cagg.verdict",
    "Defer": "cagg.verdict",
    "Deny": "cagg.verdict",
    "Gate": "cagg.gating",
    "GateOptions": "cagg.request",
    "NotAdmitted": "cagg.errors",
    "Review": "cagg.verdict",
    "current_run": "cagg.gating",
    "gate": "cagg.gating",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        if sys.platform == "win32" and _HOME[name] == "cagg.gating":
            from cagg.errors import CaggError

            raise CaggError("Windows is not supported; use Linux, for example in WSL, or macOS.")
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'cagg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
