"""``cagg ledger list`` and ``cagg ledger verify``: read what happened, check that nobody changed it."""

from __future__ import annotations
