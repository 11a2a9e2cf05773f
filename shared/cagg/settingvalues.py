"""Reads the values of settings: text, lists, amounts, durations, from TOML, the environment or an argument.

Each reader raises InvalidInput with what the value must be; the caller names the key and the place.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from cagg.errors import InvalidInput
from cagg.quantities import PPM
from cagg.secret import Secret
from cagg.windows import parse_duration, parse_instant, time_zone

__all__ = [
    "METER_SOURCES",
    "boolean_of",
    "choice_of",
    "duration_of",
    "factor_from",
    "instant_of",
    "meter_sources_of",
    "names_of",
    "one_of",
    "place_in",
    "places_of",
    "quantity_of",
    "scale_of",
    "secret_of",
    "text_of",
    "whole_from",
    "zone_name_of",
]

METER_SOURCES = ("auto", "rapl", "cpu_model", "memory_model", "nvml", "codecarbon")
"""What ``meter.sources`` may name."""

_E = TypeVar("_E", bound=StrEnum)
_Q = TypeVar("_Q")


def text_of(value: object) -> str:
    """Return text without spaces around it; it must not be empty."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"must be text, got {value!r}.")
    return value.strip()


def names_of(value: object) -> tuple[str, ...]:
    """Return names from a list or from text with commas; at least one."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise InvalidInput(f"must be a list of names, got {value!r}.")
    names = tuple(item.strip() for item in items if item.strip())
    if not names:
        raise InvalidInput("must name at least one.")
    return names


def quantity_of(parse: Callable[[str], _Q], example: str, *, zero: bool = True) -> Callable[[object], _Q]:
    """Return a reader of amounts with a unit; ``zero`` says whether none is an amount."""

    def read(value: object) -> _Q:
        if not isinstance(value, str):
            raise InvalidInput(f"must be text with a unit such as {example!r}, got {value!r}.")
        amount = parse(value)
        if not zero and amount == parse("0" + example.lstrip("0123456789.")):
            raise InvalidInput(f"must be more than zero, for example {example!r}.")
        return amount

    return read


def boolean_of(value: object) -> bool:
    """Return true or false, also from text."""
    known = {"true": True, "1": True, "false": False, "0": False}
    if str(value).lower() not in known:
        raise InvalidInput(f"must be true or false, got {value!r}.")
    return known[str(value).lower()]


def one_of(*names: str) -> Callable[[object], str]:
    """Return a reader of one of these words."""

    def parse(value: object) -> str:
        if value not in names:
            raise InvalidInput(f"must be one of {', '.join(names)}, got {value!r}.")
        return str(value)

    return parse


def meter_sources_of(value: object) -> tuple[str, ...]:
    """Return names of energy sources; ``auto`` stands alone."""
    names = names_of(value)
    for name in names:
        one_of(*METER_SOURCES)(name)
    if "auto" in names and len(names) > 1:
        raise InvalidInput("must be 'auto' alone or names of sources.")
    return names


def choice_of(kind: type[_E]) -> Callable[[object], _E]:
    """Return a reader of an enum."""

    def parse(value: object) -> _E:
        try:
            return kind(str(value))
        except ValueError:
            raise InvalidInput(f"must be one of {', '.join(kind)}, got {value!r}.") from None

    return parse


def whole_from(minimum: int) -> Callable[[object], int]:
    """Return a reader of whole numbers from a minimum on."""

    def parse(value: object) -> int:
        try:
            number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
        except ValueError:
            number = None
        if number is None or number < minimum:
            raise InvalidInput(f"must be a whole number from {minimum} on, got {value!r}.")
        return number

    return parse


def factor_from(minimum: float) -> Callable[[object], int]:
    """Return a reader of factors from a minimum on, in parts per million."""

    def parse(value: object) -> int:
        try:
            number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
        except ValueError:
            number = None
        if number is None or not minimum <= number < 1e6:
            raise InvalidInput(f"must be a number from {minimum} on, got {value!r}.")
        return round(number * PPM)

    return parse


def scale_of(value: object) -> float:
    """Return a factor above zero."""
    return factor_from(1e-6)(value) / PPM


def duration_of(value: object) -> timedelta:
    """Return a duration such as ``30m``."""
    if not isinstance(value, str | timedelta):
        raise InvalidInput(f"must be a duration such as '30m', got {value!r}.")
    return parse_duration(value)


def zone_name_of(value: object) -> str:
    """Return the name of a time zone that is known."""
    name = text_of(value)
    time_zone(name)
    return name


def instant_of(value: object) -> datetime:
    """Return an instant; it must carry an offset."""
    if not isinstance(value, str | datetime):
        raise InvalidInput(f"must be an instant with an offset, got {value!r}.")
    return parse_instant(value)


def secret_of(value: object) -> Secret:
    """Return a value that is never shown."""
    return value if isinstance(value, Secret) else Secret(value=value.strip() if isinstance(value, str) else "")


def places_of(value: object) -> tuple[str, ...]:
    """Return places for checkpoints, each ``log`` or ``file:``, ``dir:`` or ``git:`` with a path; none of them twice.

    An empty list is one: it takes back what a weaker place of the settings says.
    """
    if value in ([], ()):
        return ()
    places = names_of(value)
    for place in places:
        kind, _, path = place.partition(":")
        if place != "log" and (kind not in ("file", "dir", "git") or not path):
            raise InvalidInput(f"must be 'log', or 'file:', 'dir:' or 'git:' with a path, got {place!r}.")
    return tuple(dict.fromkeys(places))


def place_in(folder: Path, place: str) -> str:
    """Return a place for checkpoints whose path, when it is relative, is taken from a folder."""
    kind, colon, path = place.partition(":")
    return f"{kind}:{folder / Path(path).expanduser()}" if colon else place
