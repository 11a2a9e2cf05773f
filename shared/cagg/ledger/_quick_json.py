"""Reads canonical bytes quickly: says what they hold, or that it is not sure. It never says yes to other bytes.

Writing a value again only to compare it with its bytes costs more than reading it. Instead the reader of the standard
library is watched, and what it forgives is looked for: white space and a key that comes twice (fewer keys in the
objects than colons) in what stands outside of the texts, a minus before zero. Bytes with escapes are written again
and compared after all. Everything else is for the slow way, which also words the refusal.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from json import JSONDecoder, JSONEncoder
from typing import Any, Final

__all__ = ["KEY", "LARGEST_INTEGER", "MOST_LEVELS", "UNSURE", "decode_quickly"]

LARGEST_INTEGER = 2**53 - 1
"""Largest whole number that every JSON reader keeps exact (RFC 7493, I-JSON, March 2015, section 2.2)."""

KEY = re.compile(r"[a-z0-9_]+")
"""What a key may be."""

MOST_LEVELS = 65
"""How many lists and objects may lie within each other, the outermost included; own choice."""

UNSURE: Final = object()
"""Stands for bytes that are not canonical, or might not be."""

_SAFE_DIGITS = 15
"""Any whole number of so many characters is below 2^53."""

_REMEMBERED_DIGITS = 4

_MOST_SHAPES = 10_000
"""Sets of keys that are remembered as good; own choice, some megabytes at most."""

_SPACE = b" \t\n\r"
"""White space of JSON (RFC 8259, December 2017, section 2)."""


class _OutsideError(ValueError):
    """The value is outside of the profile."""


class _Reader(threading.local):
    """The library's reader, watched; one per thread, because it counts."""

    def __init__(self) -> None:
        sizes: list[int] = []
        self.sizes = sizes

        def watched(found: dict[str, Any]) -> dict[str, Any]:
            shape = tuple(found)
            if shape not in _good_shapes:
                _learn(shape)
            sizes.append(len(found))
            return found

        self.read: Callable[[str], tuple[Any, int]] = JSONDecoder(
            object_hook=watched, parse_float=_refuse, parse_constant=_refuse, parse_int=_Whole().__getitem__
        ).raw_decode


_good_shapes: set[tuple[str, ...]] = set()


def _learn(shape: tuple[str, ...]) -> None:
    """Remember the keys of an object when they are keys of the profile, in ascending order."""
    before = ""
    for key in shape:
        if key <= before or KEY.fullmatch(key) is None:
            raise _OutsideError
        before = key
    if len(_good_shapes) >= _MOST_SHAPES:
        _good_shapes.clear()
    _good_shapes.add(shape)


def _refuse(text: str) -> Any:
    raise _OutsideError(text)


class _Whole(dict[str, int]):
    """Whole numbers by their text; small ones, which come again and again, are remembered."""

    def __missing__(self, text: str) -> int:
        number = int(text)
        if len(text) > _SAFE_DIGITS:
            if not -LARGEST_INTEGER <= number <= LARGEST_INTEGER:
                raise _OutsideError
        elif text == "-0":
            raise _OutsideError
        elif len(text) < _REMEMBERED_DIGITS:
            self[text] = number
        return number


_reader = _Reader()
_writer = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)


def decode_quickly(data: bytes) -> Any:
    """Return the value of bytes that are canonical for certain, else :data:`UNSURE`."""
    reader = _reader
    sizes = reader.sizes
    try:
        text = data.decode()
        sizes.clear()
        value, end = reader.read(text)
        if end != len(text):
            return UNSURE
        escaped = b"\\" in data
        # without escapes a quote is always the beginning or the end of a text
        outside = data if escaped else b"".join(data.split(b'"')[::2])
        if outside.count(b"{") + outside.count(b"[") > MOST_LEVELS and _levels(value) > MOST_LEVELS:
            return UNSURE
        if escaped:
            return value if _writer.encode(value) == text else UNSURE
    except (ValueError, RecursionError):
        return UNSURE
    if outside.count(b":") != sum(sizes) or len(outside.translate(None, _SPACE)) != len(outside):
        return UNSURE
    return value if outside.isascii() else UNSURE


def _levels(value: Any) -> int:
    """Return how many lists and objects lie within each other."""
    if type(value) is dict:
        return 1 + max(map(_levels, value.values()), default=0)
    if type(value) is list:
        return 1 + max(map(_levels, value), default=0)
    return 0
