"""The one form in which ledger bodies are bytes: a profile of JSON that every canonical encoder writes alike.

Objects, arrays, text, true, false, null and whole numbers of at most 2^53 - 1; no floats; keys are lower-case ASCII
(``[a-z0-9_]+``) in ascending order; no white space; UTF-8. Within this profile the bytes are those of RFC 8785 (JSON
Canonicalization Scheme, June 2020). Quantities of energy, carbon and intensity are decimal strings, because a sum of
them may pass 2^53 - 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger._quick_json import KEY, LARGEST_INTEGER, MOST_LEVELS, UNSURE, decode_quickly
from cagg.ledger._quick_write import encode_quickly

__all__ = ["LARGEST_INTEGER", "canonical", "decode", "parse_quantity", "quantity"]

_QUANTITY = re.compile(r"0|-?[1-9][0-9]*")
_LARGEST_QUANTITY = 2**63 - 1


def canonical(value: Any) -> bytes:
    """Return the canonical bytes of a value.

    Raises:
        InvalidInput: something in it is outside the profile; the message names its path, such as ``$.slices[2].end``.
    """
    quick = encode_quickly(value)
    if quick is not None:
        return quick
    _check(value, "$", 0)
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"), default=dict
    )  # default: read-only mappings are written as dicts
    return text.encode()


def decode(data: bytes) -> Any:
    """Return the value of canonical bytes.

    Raises:
        LedgerDamaged: the bytes are not exactly what :func:`canonical` writes, for example because of a repeated
            key, a float or white space.
    """
    value = decode_quickly(data)
    return _decode_exactly(data) if value is UNSURE else value


def _decode_exactly(data: bytes) -> Any:
    """:func:`decode` word by word: the value is written again and the bytes are compared."""
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_float=_no_float, parse_constant=_no_float
        )
        again = canonical(value)
    except UnicodeDecodeError as error:
        raise LedgerDamaged(f"these bytes are no canonical JSON: byte {error.start} is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise LedgerDamaged(f"these bytes are no canonical JSON: {error.msg} at character {error.pos}.") from None
    except InvalidInput as error:
        raise LedgerDamaged(f"these bytes are no canonical JSON: {error}") from None
    except RecursionError:
        raise LedgerDamaged("these bytes are no canonical JSON: they are nested too deeply.") from None
    except ValueError as error:  # an integer of thousands of digits
        raise LedgerDamaged(f"these bytes are no canonical JSON: {error}.") from None
    if again != data:
        at = next((i for i, (a, b) in enumerate(zip(again, data, strict=False)) if a != b), min(len(again), len(data)))
        raise LedgerDamaged(f"these bytes are JSON but not canonical: the canonical form differs at byte {at}.")
    return value


def quantity(amount: int) -> str:
    """Return an integer amount as the decimal text that bodies hold."""
    if isinstance(amount, bool) or not isinstance(amount, int) or abs(amount) > _LARGEST_QUANTITY:
        raise InvalidInput(f"a recorded amount must be a whole number of at most 2^63 - 1, got {amount!r}.")
    return str(amount)


def parse_quantity(text: object) -> int:
    """Return the amount of such a text.

    Raises:
        LedgerDamaged: it is something else, or has a leading zero or plus.
    """
    if not isinstance(text, str) or _QUANTITY.fullmatch(text) is None or len(text) > 20:
        raise LedgerDamaged(f"a recorded amount must be a decimal text, got {text!r}.")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidInput(f"the key {key!r} occurs twice in one object.")
            seen.add(key)
    return found


def _no_float(text: str) -> Any:
    raise InvalidInput(f"{text} is no whole number; floats have no place in the ledger.")


def _check(value: Any, path: str, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if not value.isascii():
            _check_text(value, path)
    elif kind is int:
        if not -LARGEST_INTEGER <= value <= LARGEST_INTEGER:
            raise InvalidInput(f"{path} is {value}, beyond 2^53 - 1; record it as a decimal text.")
    elif value is None or kind is bool:
        return
    elif depth >= MOST_LEVELS:
        raise InvalidInput(f"{path} is nested more than {MOST_LEVELS - 1} levels deep.")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if type(key) is not str or KEY.fullmatch(key) is None:
                raise InvalidInput(f"{path} has the key {key!r}; keys are lower-case ASCII letters, digits and '_'.")
            _check(item, f"{path}.{key}", depth + 1)
    elif kind is list or kind is tuple:
        for number, item in enumerate(value):
            _check(item, f"{path}[{number}]", depth + 1)
    elif isinstance(value, str):  # StrEnum and other kinds of text: json writes their value
        _check_text(str.__str__(value), path)
    else:
        raise InvalidInput(
            f"{path} is {value!r} of type {kind.__name__}; the ledger keeps text, whole numbers, true, false, null, "
            "lists and dicts."
        )


def _check_text(text: str, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{path} holds a lone surrogate, which is no character; remove it.") from None
