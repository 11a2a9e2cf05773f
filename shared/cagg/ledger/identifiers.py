"""Identifiers of entries: UUIDs of version 7, which sort by time."""

from __future__ import annotations

import os
from datetime import datetime
from functools import lru_cache

from cagg.windows import to_epoch_ms

__all__ = ["uuid7"]


def uuid7(now: datetime) -> str:
    """Return a new UUID of version 7 for an instant, as text.

    48 bits of milliseconds since 1970, then 74 random bits. Source: RFC 9562 (May 2024) section 5.7.
    """
    random = os.urandom(10).hex()
    variant = "89ab"[int(random[4], 16) & 0b11]
    return f"{_time_part(now)}-7{random[:3]}-{variant}{random[5:8]}-{random[8:]}"


@lru_cache(maxsize=1)  # entries of one transaction share their instant
def _time_part(now: datetime) -> str:
    text = f"{to_epoch_ms(now) & (2**48 - 1):012x}"
    return f"{text[:8]}-{text[8:]}"
