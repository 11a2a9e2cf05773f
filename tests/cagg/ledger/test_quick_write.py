"""The quick way to write canonical bytes gives what the slow way gives, or leaves the value to it."""

from __future__ import annotations

import json
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cagg.errors import InvalidInput
from cagg.ledger import encoding
from cagg.ledger._quick_write import encode_quickly
from cagg.ledger.encoding import LARGEST_INTEGER, canonical, decode


class Word(StrEnum):
    YES = "yes"


class Number(IntEnum):
    ONE = 1


plain = st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([Word.YES, "\ud800", "a\u2028\x7f", ""])
odd = st.floats() | st.sampled_from([Number.ONE, b"bytes", {1}, object, -0.0])
keys: st.SearchStrategy[Any] = (
    st.text("abz019_", min_size=1, max_size=4)
    | st.text(max_size=3)
    | st.sampled_from([Word.YES, "A", "", 1, None, True, "a\n"])
)


def values(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        objects = st.dictionaries(keys, inner, max_size=4)
        return st.lists(inner, max_size=4) | st.lists(inner).map(tuple) | objects | objects.map(MappingProxyType)

    return st.recursive(leaves, deeper, max_leaves=12)


def slowly(value: Any) -> bytes | str:
    """What the slow way says: the bytes, or why there are none."""
    try:
        encoding._check(value, "$", 0)
        text = json.dumps(
            value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"), default=dict
        )
        return text.encode()
    except InvalidInput as error:
        return str(error)


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


@given(values(plain | odd))
@example({"b": 1, "a": [Word.YES, None, True], "c_9": {}})
@example({"a": LARGEST_INTEGER, "b": -LARGEST_INTEGER})
@example({"a": LARGEST_INTEGER + 1})
@example({1: "a"})
@example({"a": Number.ONE})
@example({"a": 1.5})
@example({"a": float("nan")})
@example(["\ud800"])
@example(nested(65))
@example(nested(66))
@example({"a": MappingProxyType({"b": 1})})
def test_both_ways_agree(value: Any) -> None:
    expected = slowly(value)
    quick = encode_quickly(value)
    assert quick is None or quick == expected
    if isinstance(expected, bytes):
        assert canonical(value) == expected
        decode(expected)
    else:
        with pytest.raises(InvalidInput) as caught:
            canonical(value)
        assert str(caught.value) == expected


@given(values(st.none() | st.booleans() | st.integers(-9, 9) | st.text("aé\u2028"[:2])))
def test_what_entries_hold_takes_the_quick_way(value: Any) -> None:
    whole = {"a": json.loads(json.dumps(value, default=dict, skipkeys=True))} if isinstance(value, list) else {"a": 1}
    fine = isinstance(slowly(whole), bytes)
    assert (encode_quickly(whole) is not None) == fine


@pytest.mark.parametrize("level", [1, 40])
def test_a_value_that_holds_itself_is_refused(level: int) -> None:
    value: list[Any] = []
    value += [value] * level
    with pytest.raises(InvalidInput, match="nested"):
        canonical(value)


def test_many_kinds_of_objects_are_forgotten_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cagg.ledger._quick_write._MOST_SHAPES", 3)
    for number in range(20):
        assert encode_quickly({f"k{number}": number}) == f'{{"k{number}":{number}}}'.encode()
