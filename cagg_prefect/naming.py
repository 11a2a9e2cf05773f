"""Names that Prefect shows, and digests that tell one call from another."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["AWAITING_GREEN_WINDOW", "HOST", "LOCAL", "SKIPPED", "inputs_digest"]

AWAITING_GREEN_WINDOW = "AwaitingGreenWindow"
"""Name of the Scheduled state in which a deferred run waits."""

SKIPPED = "Skipped"
"""Name of the Completed state of work that was denied with ``on_deny="skip"``."""

HOST = "prefect"
"""Runs that Prefect knows, in request identities and in the entry point group ``cagg.hosts``."""

LOCAL = "local"
"""Calls outside of any flow run: no engine could say what became of them."""

_MOST_VALUES = 10_000


def inputs_digest(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], salt: str = ""
) -> str:
    """Return the hex SHA-256 of the arguments in canonical JSON, mixed with ``salt``.

    Values themselves are never recorded. Arguments that are no plain data (frames, arrays, open files, secrets), or
    more than 10 000 values, give the digest of the salt alone; without a salt the empty text.
    """
    text = _canonical(function, args, kwargs)
    if text is None and not salt:
        return ""
    return hashlib.sha256(f"{salt}\n{text or ''}".encode()).hexdigest()


def _canonical(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
    except (TypeError, ValueError):
        return None
    try:
        if _count(bound.arguments, 0) > _MOST_VALUES:
            return None
        return json.dumps(bound.arguments, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None


def _count(value: object, seen: int) -> int:
    if seen > _MOST_VALUES:
        return seen
    if isinstance(value, Mapping):
        for item in value.values():
            seen = _count(item, seen + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            seen = _count(item, seen + 1)
    return seen + 1
