"""The canonical profile: one value, one sequence of bytes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger._quick_json import MOST_LEVELS, UNSURE, decode_quickly
from cagg.ledger.encoding import LARGEST_INTEGER, _decode_exactly, canonical, decode, parse_quantity, quantity
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


# ---- the quick reader says nothing else than the exact one ----------------------------------------------------------


def _exact(data: bytes) -> Any:
    try:
        return _decode_exactly(data)
    except LedgerDamaged:
        return UNSURE


@given(_values)
def test_the_quick_reader_is_sure_of_what_is_canonical(value: Any) -> None:
    assert decode_quickly(canonical(value)) == value


_WORDS = rb"""" \\ : , { } [ ] 0 - . e -0 01 "a": "b":1, {"a":1} null true NaN 9007199254740991 9007199254740992 \\u0061
\\n \\" "A":0, "":0"""
_pieces = st.sampled_from([*_WORDS.split(), *(bytes([byte]) for byte in b" \n\t\r\x7f\xff"), b", ", b": "])
_texts_outside = st.sampled_from(["\xe9", "\xa0", "\u0663"]).map(str.encode)
_cuts = st.tuples(st.integers(0, 400), st.integers(0, 3), _pieces | _texts_outside | st.binary(max_size=2))


@settings(max_examples=500)
@given(_values, st.lists(_cuts, min_size=1, max_size=3))
def test_the_quick_reader_never_takes_what_the_exact_one_refuses(
    value: Any, cuts: list[tuple[int, int, bytes]]
) -> None:
    data = canonical(value)
    for at, gone, piece in cuts:
        place = at % (len(data) + 1)
        data = data[:place] + piece + data[place + gone :]
    quick = decode_quickly(data)
    if quick is not UNSURE:
        assert quick == _exact(data)
        assert repr(quick) == repr(_exact(data))


@given(st.binary(max_size=40))
def test_any_bytes_have_one_verdict(data: bytes) -> None:
    quick = decode_quickly(data)
    assert quick is UNSURE or repr(quick) == repr(_exact(data))


REALISTIC = canonical(
    {
        "closure": {"host_total_millijoules": "300000000", "other_millijoules": None},
        "message": "Runs now: the run is too small, to be worth a wait. {a} [b]",
        "notes": ["a: b", "c, d"],
        "quoted": 'é "x" \\ \n',
        "slices": [{"end": "2026-01-05T22:00:00.000000Z", "share_ppm": 765432}, {"end": None, "share_ppm": -1}],
        "v": 1,
    }
)


@pytest.mark.parametrize("data", [REALISTIC, REALISTIC.replace(b'\\"x\\" \\\\ \\n', b"x")], ids=["escapes", "plain"])
def test_every_single_byte_changed_has_the_verdict_of_the_exact_reader(data: bytes) -> None:
    assert decode_quickly(data) == _exact(data)
    assert (b"\\" in data) is (data == REALISTIC)
    for place in range(len(data)):
        for byte in b' "\\,:{}[]0-.\n\xff\x00A':
            for changed in (
                data[:place] + bytes([byte]) + data[place + 1 :],
                data[:place] + bytes([byte]) + data[place:],
            ):
                quick = decode_quickly(changed)
                assert quick is UNSURE or quick == _exact(changed), changed


@pytest.mark.parametrize("text", ['""', '"\\\\"'])
def test_nesting_ends_at_the_same_depth_for_both(text: str) -> None:
    for levels in (MOST_LEVELS - 1, MOST_LEVELS):
        data = b"[" * levels + text.encode() + b"]" * levels
        assert decode_quickly(data) == _exact(data) != UNSURE
        flat = b"[" + b",".join([b"[[]]"] * levels) + b"]"
        assert decode_quickly(flat) == _exact(flat) != UNSURE
    for inner in (b"[]", b"{}", text.encode()):
        data = b"[" * MOST_LEVELS + inner + b"]" * MOST_LEVELS
        assert (decode_quickly(data) is UNSURE) == (_exact(data) is UNSURE)
    data = b"[" * (MOST_LEVELS + 1) + text.encode() + b"]" * (MOST_LEVELS + 1)
    assert decode_quickly(data) is _exact(data) is UNSURE
    with pytest.raises(InvalidInput, match="nested more than 64 levels"):
        canonical(json.loads(data))


def test_largest_whole_numbers_are_read_and_the_next_ones_are_not() -> None:
    for number in (LARGEST_INTEGER, -LARGEST_INTEGER, 999_999_999_999_999, 0, -1):
        assert decode_quickly(b'{"a":%d}' % number) == {"a": number} == _exact(b'{"a":%d}' % number)
    for number in (LARGEST_INTEGER + 1, -LARGEST_INTEGER - 1, 10**30):
        assert decode_quickly(b'{"a":%d}' % number) is UNSURE is _exact(b'{"a":%d}' % number)


def test_threads_do_not_count_each_other_s_keys() -> None:
    data = canonical({f"k{number}": {"a": number} for number in range(200)})
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(decode_quickly, [data] * 400))
    assert all(value == json.loads(data) for value in found)


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
