"""Writes canonical bytes quickly: walks over the containers of a value only, and leaves the rest to the C encoder.

Whatever is not certainly within the profile is for the slow way, which also words the refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from json import encoder as json_encoder
from typing import Any

from cagg.ledger._quick_json import KEY, LARGEST_INTEGER, MOST_LEVELS

__all__ = ["encode_quickly"]

_MOST_CONTAINERS = 1_000_000
"""A value that holds itself several times is given up here; own choice, far above what a body can hold."""

_MOST_SHAPES = 10_000
"""Sets of keys that are remembered as good; own choice, some megabytes at most."""

_good_shapes: set[tuple[str, ...]] = set()


_SORTED_AND_STRICT = (True, False, False)
"""Keys in order, none left out, and neither NaN nor infinity."""


def _unknown(_: object) -> Any:
    raise TypeError  # the walk has seen none


def _writer() -> Callable[[Any, int], tuple[str, ...]] | None:
    make = getattr(json_encoder, "c_make_encoder", None)
    if make is None:
        return None
    write: Callable[[Any, int], tuple[str, ...]] = make(
        None, _unknown, json_encoder.encode_basestring, None, ":", ",", *_SORTED_AND_STRICT
    )
    return write


_write = _writer()


def encode_quickly(value: Any) -> bytes | None:
    """Return the canonical bytes of a value, or None when it is not certain that it has any."""
    if _write is None or not _is_plain(value):
        return None
    try:
        return "".join(_write(value, 0)).encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None


def _is_plain(value: Any) -> bool:
    """True for dicts, lists and tuples of text, whole numbers, truth values and null, all within the profile."""
    level, seen = [value], 0
    for _ in range(MOST_LEVELS):
        deeper: list[Any] = []
        seen += len(level)
        if seen > _MOST_CONTAINERS:
            return False
        for container in level:
            if type(container) is dict:
                shape = tuple(container)
                if shape not in _good_shapes and not _learn(shape):
                    return False
                items: Iterable[Any] = container.values()
            elif type(container) is list or type(container) is tuple:
                items = container
            else:
                return False
            for item in items:
                kind = type(item)
                if kind is str or item is None or kind is bool:
                    continue
                if kind is int:
                    if not -LARGEST_INTEGER <= item <= LARGEST_INTEGER:
                        return False
                elif kind is dict or kind is list or kind is tuple:
                    deeper.append(item)
                elif not isinstance(item, str):  # StrEnum and other kinds of text: json writes their value
                    return False
        if not deeper:
            return True
        level = deeper
    return False


def _learn(shape: tuple[Any, ...]) -> bool:
    """Remember the keys of an object when they are keys of the profile."""
    if any(type(key) is not str or KEY.fullmatch(key) is None for key in shape):
        return False
    if len(_good_shapes) >= _MOST_SHAPES:
        _good_shapes.clear()
    _good_shapes.add(shape)
    return True
