"""Identifiers of entries: UUIDs of version 7, which sort by time."""

from __future__ import annotations

import os
from datetime import datetime
from uuid import UUID

from cagg.windows import to_epoch_ms

__all__ = ["uuid7"]


def uuid7(now: datetime) -> str:
    """Return a new UUID of version 7 for an instant, as text.

    48 bits of milliseconds since 1970, then 74 random bits. Source: RFC 9562 (May 2024) section 5.7.
    """
    random = int.from_bytes(os.urandom(10), "big")
    value = (to_epoch_ms(now) & (2**48 - 1)) << 80
    value |= 0x7 << 76 | (random >> 68 & 0xFFF) << 64
    value |= 0b10 << 62 | random & (2**62 - 1)
    return str(UUID(int=value))
