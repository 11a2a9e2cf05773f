"""The canonical profile: one value, one sequence of bytes."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger.encoding import LARGEST_INTEGER, canonical, decode, parse_quantity, quantity
from cagg.records import EntryKind

_keys = st.from_regex(r"[a-z0-9_]{1,8}", fullmatch=True)
_texts = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20)
_scalars = st.none() | st.booleans() | st.integers(-LARGEST_INTEGER, LARGEST_INTEGER) | _texts
_values = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4))


@given(_values)
def test_what_is_encoded_decodes_to_itself(value: Any) -> None:
    assert decode(canonical(value)) == value


@given(_values)
def test_other_spellings_of_the_same_value_are_refused(value: Any) -> None:
    for other in (json.dumps(value, indent=1), json.dumps(value, separators=(", ", ": ")), json.dumps(value) + "\n"):
        data = other.encode()
        if data == canonical(value):
            continue
        with pytest.raises(LedgerDamaged):
            decode(data)


def test_the_bytes_are_those_of_the_standard() -> None:
    value = {"b": [1, -5, True, None], "a1": 'é€😀\u2028"\\\x00\x1f\x7f\n', "_": {}}
    expected = '{"_":{},"a1":"é€😀\u2028\\"\\\\\\u0000\\u001f\x7f\\n","b":[1,-5,true,null]}'
    assert canonical(value) == expected.encode()


@given(_values)
def test_the_bytes_agree_with_another_implementation_of_the_standard(value: Any) -> None:
    other = pytest.importorskip("rfc8785", reason="the reference implementation of RFC 8785 is not installed")
    assert canonical(value) == other.dumps(value)


def test_read_only_mappings_tuples_and_enums_are_written_as_what_they_hold() -> None:
    value = MappingProxyType({"b": MappingProxyType({"kind": EntryKind.DECISION}), "a": (1, 2)})
    assert canonical(value) == b'{"a":[1,2],"b":{"kind":"decision"}}'


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [0, {"b": 1.0}]}, r"\$\.a\[1\]\.b"),
        ({"a": float("nan")}, r"\$\.a"),
        ({"a": LARGEST_INTEGER + 1}, r"\$\.a is 9007199254740992"),
        ({"a": -LARGEST_INTEGER - 1}, r"\$\.a"),
        ({"a": "\ud800"}, r"\$\.a holds a lone surrogate"),
        ({"a": {"B": 1}}, r"\$\.a has the key 'B'"),
        ({"ä": 1}, r"\$ has the key"),
        ({"": 1}, r"\$ has the key"),
        ({1: 1}, r"\$ has the key"),
        ({"a": b"x"}, r"\$\.a"),
        ({"a": {1, 2}}, r"\$\.a"),
        ({"a": 1j}, r"\$\.a"),
    ],
)
def test_what_is_outside_the_profile_is_named_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(InvalidInput, match=path):
        canonical(value)


def test_endless_nesting_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidInput, match="nested"):
        canonical(value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1.0}',
        b'{"a":1e2}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-0}',
        b'{"a":01}',
        b'{"a":9007199254740992}',
        b'{"a":"\\u0061"}',
        b'{"a":"\\/"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":1',
        b"",
        b"[" * 100_000,
        b'{"a":' + b"9" * 10_000 + b"}",
    ],
)
def test_bytes_in_any_other_form_are_refused(data: bytes) -> None:
    with pytest.raises(LedgerDamaged):
        decode(data)


def test_composed_and_decomposed_letters_stay_apart() -> None:
    assert canonical("\u00e9") != canonical("e\u0301")


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_quantities_survive_as_text(amount: int) -> None:
    assert parse_quantity(quantity(amount)) == amount


@pytest.mark.parametrize("text", ["", "01", "+1", "-0", "1.0", "1e3", " 1", "1 ", "٣", "9" * 21, 1, None, True])
def test_other_texts_are_no_quantities(text: object) -> None:
    with pytest.raises(LedgerDamaged):
        parse_quantity(text)


@pytest.mark.parametrize("amount", [2**63, -(2**63), True, 1.0, "1"])
def test_other_numbers_are_no_quantities(amount: Any) -> None:
    with pytest.raises(InvalidInput):
        quantity(amount)
