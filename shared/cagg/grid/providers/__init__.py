"""One file per source of carbon intensity; ``build_providers`` makes them by name."""

from __future__ import annotations

from cagg.grid.providers.registry import PROVIDER_NAMES, GridSettings, build_providers

__all__ = ["PROVIDER_NAMES", "GridSettings", "build_providers"]
