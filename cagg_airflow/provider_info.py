"""What Airflow asks a provider package about itself."""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description."""
    return {"package-name": "cagg", "name": "cagg", "description": "Carbon-aware governance gates."}
