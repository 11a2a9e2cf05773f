"""One row of the audit: the body against its leaf hash, the profile, the columns, the key, the arithmetic, its kind.

Reads no store, so that it can run in another process: what only the store can tell is handed back as a wish. Each row
is first looked at quickly. Whatever is not plainly in order is looked at once more, word by word, and only that second
look makes failures: the quick one can say "in order" or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from json.encoder import encode_basestring
from typing import Any

from cagg.entries import EntryKind
from cagg.errors import CaggError, InvalidInput, LedgerDamaged
from cagg.ledger._quick_json import decode_quickly
from cagg.ledger.bodies import check_measurement
from cagg.ledger.encoding import decode, parse_quantity
from cagg.ledger.entry import FORMAT, blobs_of, columns_of, idempotency_key, instant_us
from cagg.ledger.kinds import check_kind
from cagg.ledger.merkle import leaf_hash
from cagg.ledger.report import FailureKind
from cagg.quantities import PPM, ceil_div

__all__ = ["LONGEST_LEAF_BYTES", "Found", "Row", "check_page", "check_whole", "decoded"]

Row = tuple[Any, ...]
"""(index, entry id of the leaf, leaf hash, entry id, idempotency key, body, leaf hash beside it, *columns), as stored;
the entry's part is None where it is missing."""

Found = tuple[str, int, str]
"""(kind of failure, index, message)."""

PageFound = tuple[list[Found], list[tuple[int, list[str]]], list[int]]
"""Failures; (index, digests) of entries with attachments; positions of rows that only the store can judge."""

LONGEST_LEAF_BYTES = 65_535
"""An entry of tlog-tiles has a length of 16 bits (C2SP tlog-tiles, 2025)."""

_KINDS = frozenset(str(kind) for kind in EntryKind)
_HEAD = b"cagg/entry/1\n"
_BLOB = b'"blob":"'
_NAMED_BLOB = re.compile(rb'"blob":"([0-9a-f]{64})"')
_SURE_DIGITS = 19
_DIVISOR = 3_600_000_000_000
"""mJ x mg/kWh x ppm per µg, as in :func:`cagg.ledger.bodies.carbon_of_slices`."""


def check_page(rows: Sequence[Row], names: Sequence[str], origin: str) -> PageFound:
    """Check rows of a log.

    Args:
        rows: as stored, ascending by index.
        names: the columns' names, from the eighth value on.
        origin: the log's name.
    """
    failures: list[Found] = []
    attached: list[tuple[int, list[str]]] = []
    wanted: list[int] = []
    known = tuple(names) == _COLUMNS
    for position, row in enumerate(rows):
        body = _in_order(row, origin) if known else None
        if body is None:
            _check_slowly(row, names, origin, failures, attached, wanted, position)
            continue
        if "private" in body:
            wanted.append(position)
        data = row[5]
        if _BLOB in data:
            digests = sorted({digest.decode() for digest in _NAMED_BLOB.findall(data)})
            if digests:
                attached.append((row[0], digests))
    return failures, attached, wanted


# ---- the quick look -------------------------------------------------------------------------------------------------

_COLUMNS = (
    "kind",
    "recorded_us",
    "request_key",
    "host",
    "root_run_id",
    "task_key",
    "attempt",
    "budget_path",
    "start_us",
    "end_us",
    "outcome",
    "energy_millijoules",
    "carbon_micrograms",
    "grade",
    "part_of",
)
"""The columns that the quick look knows; with others every row is looked at word by word."""

_NUMBERS = frozenset({"recorded_us", "attempt", "start_us", "end_us", "energy_millijoules", "carbon_micrograms"})
_NOTHING: Mapping[str, Any] = {}
_good_types: set[tuple[type, ...]] = set()


def _may_be(types: tuple[type, ...]) -> bool:
    """True when columns of these types hold what they may; remembered, there are a few dozen such rows of types."""
    for name, found in zip(_COLUMNS, types, strict=True):
        if found is not (int if name in _NUMBERS else str) and found is not type(None):
            return False
    _good_types.add(types)
    return True


def _in_order(row: Row, origin: str) -> dict[str, Any] | None:
    """Return the body of a row that is plainly in order; None when it must be looked at word by word."""
    _, _, leaf, entry_id, key, data, beside, *columns = row
    try:
        if leaf != beside or len(data) > LONGEST_LEAF_BYTES or sha256(b"\x00" + data).digest() != leaf:
            return None
        body = decode_quickly(data)
        if type(body) is not dict or "spilled" in body:
            return None
        kind, ordinal = body["kind"], body["ordinal"]
        if body["v"] != FORMAT or type(body["v"]) is not int or body["log"] != origin or body["entry_id"] != entry_id:
            return None
        if kind not in _KINDS or type(ordinal) is not int or type(entry_id) is not str:
            return None
        named = f'["{kind}",{encode_basestring(body["request_key"])},{ordinal}]'
        derived = sha256(_HEAD + named.encode()).digest()
        if derived != key or body["idempotency_key"] != derived.hex():
            return None
        expected = _columns(body)
        if columns != expected:
            return None
        types = tuple(map(type, columns))
        if types not in _good_types and not _may_be(types):
            return None
        if "slices" in body and not _adds_up(body):
            return None
        check_kind(body)
    except (LedgerDamaged, KeyError, TypeError, ValueError, AttributeError):
        return None
    return body


@lru_cache(maxsize=8_192)
def _instant(text: str) -> int:
    return instant_us(text, "")


def _amount(text: Any) -> int | None:
    if text is None:
        return None
    number = int(text)
    if str(number) != text or len(text) > _SURE_DIGITS:
        raise ValueError
    return number


def _columns(body: dict[str, Any]) -> list[Any]:
    """Return what :func:`cagg.ledger.entry.columns_of` returns, in the order of the columns, where that is plain."""
    get = body.get
    request = get("request")
    if request is None:
        request = _NOTHING
    asked = request.get
    start, end, outcome, grade = get("start"), get("end"), get("outcome"), get("grade")
    if (outcome is not None and len(outcome) > 24) or (grade is not None and len(grade) > 1):
        raise ValueError
    attempt = asked("attempt")
    if type(attempt) is bool:
        raise ValueError
    return [
        body["kind"],
        _instant(body["recorded_at"]),
        body["request_key"],
        asked("host"),
        asked("root_run_id"),
        asked("task_key"),
        attempt,
        body["budget_path"] if "budget_path" in body else asked("budget_path"),
        None if start is None else _instant(start),
        None if end is None else _instant(end),
        outcome,
        _amount(get("energy_millijoules")),
        _amount(get("carbon_micrograms")),
        grade,
        get("part_of"),
    ]


def _adds_up(body: dict[str, Any]) -> bool:
    """True when the figures plainly follow from the slices; see :func:`check_figures`."""
    slices = body["slices"]
    if type(slices) is not list:
        return False
    total = weighted = last = 0
    known, first = True, True
    until = _instant(body["end"]) if slices else 0
    for item in slices:
        energy, intensity = _amount(item["energy_millijoules"]), _amount(item.get("intensity_milligrams_per_kwh"))
        start, end = _instant(item["start"]), _instant(item["end"])
        if energy is None or energy < 0 or end <= start or (start < last and not first):
            return False
        if (first and start < _instant(body["start"])) or end > until:
            return False
        last, first = end, False
        total += energy
        if intensity is None:
            known = False
        elif intensity < 0:
            return False
        else:
            weighted += energy * intensity
    said, pue = _amount(body.get("energy_millijoules")), body.get("pue_ppm")
    if total != (said or 0) or (pue is not None and (type(pue) is not int or pue < PPM)):
        return False
    carbon = ceil_div(weighted * (PPM if pue is None else pue), _DIVISOR) if known and said is not None else None
    if _amount(body.get("carbon_micrograms")) != carbon:
        return False
    if said is None:
        return True
    low, high = _amount(body.get("energy_low_millijoules")), _amount(body.get("energy_high_millijoules"))
    return (low is None or low <= said) and (high is None or said <= high)


# ---- the slow look --------------------------------------------------------------------------------------------------


def _check_slowly(
    row: Row,
    names: Sequence[str],
    origin: str,
    failures: list[Found],
    attached: list[tuple[int, list[str]]],
    wanted: list[int],
    position: int,
) -> None:
    body = decoded(row, origin, failures)
    if body is None:
        return
    digests = sorted(set(blobs_of(body)))
    if digests:
        attached.append((row[0], digests))
    if "spilled" in body:
        wanted.append(position)
        return
    failures.extend(check_whole(row, names, body))
    if "private" in body:
        wanted.append(position)


def decoded(row: Row, origin: str, failures: list[Found]) -> dict[str, Any] | None:
    """Return a row's body as it stands, its hash, form and envelope checked; None when it has none that is readable.

    Args:
        row: as stored.
        origin: the log's name.
        failures: where failures go.
    """
    index, _, leaf, entry_id, key, data, beside, *_ = row

    def fail(kind: FailureKind, message: str) -> None:
        failures.append((kind.value, index, message))

    if entry_id is None:
        fail(FailureKind.BODY, f"the entry of leaf {index} is missing.")
        return None
    if type(data) is not bytes:
        fail(FailureKind.BODY, f"the body of entry {index} is not bytes.")
        return None
    if leaf_hash(data) != leaf:
        fail(FailureKind.BODY, f"the body of entry {index} differs from its leaf hash.")
    if beside != leaf:
        fail(FailureKind.COLUMN, f"the leaf hash beside entry {index} differs from the tree's.")
    if len(data) > LONGEST_LEAF_BYTES:
        fail(FailureKind.PROFILE, f"the body of entry {index} has {len(data)} bytes, more than a leaf may have.")
    try:
        body = decode(data)
    except LedgerDamaged as error:
        fail(FailureKind.PROFILE, f"the body of entry {index}: {error}")
        return None
    if not isinstance(body, dict) or body.get("v") != FORMAT or body.get("v") is True:
        fail(
            FailureKind.PROFILE,
            f"the body of entry {index} is not of format {FORMAT}, the only one this version knows.",
        )
        return None
    if body.get("log") != origin:
        fail(FailureKind.COLUMN, f"entry {index} belongs to the log {body.get('log')!r}.")
    if body.get("entry_id") != entry_id or not isinstance(entry_id, str):
        fail(FailureKind.COLUMN, f"entry {index} has another id in its body than beside it.")
    try:
        derived = idempotency_key(EntryKind(body["kind"]), body["request_key"], body["ordinal"])
    except (InvalidInput, KeyError, ValueError, TypeError):
        fail(FailureKind.IDEMPOTENCY, f"entry {index} has no kind, request key or ordinal in its body.")
        return body
    if body.get("idempotency_key") != derived.hex() or key != derived:
        message = f"the idempotency key of entry {index} does not follow from its kind, request key and ordinal."
        fail(FailureKind.IDEMPOTENCY, message)
    return body


def check_whole(row: Row, names: Sequence[str], whole: Mapping[str, Any]) -> list[Found]:
    """Compare the columns with a body whose spilled values are back in their places, and repeat its arithmetic."""
    index = row[0]
    failures: list[Found] = []
    try:
        expected = columns_of(whole)
    except CaggError as error:
        return [(FailureKind.PROFILE.value, index, f"the body of entry {index}: {error}")]
    stored = dict(zip(names, row[7:], strict=True))
    for name in sorted(expected.keys() | stored.keys()):
        one, other = stored.get(name), expected.get(name)
        if one != other or type(one) is not type(other):
            message = f"the column {name} of entry {index} differs from its body."
            failures.append((FailureKind.COLUMN.value, index, message))
    try:
        check_kind(whole)
    except LedgerDamaged as error:
        failures.append((FailureKind.PROFILE.value, index, f"the body of entry {index}: {error}"))
    if "slices" in whole:
        try:
            check_figures(whole)
        except LedgerDamaged as error:
            failures.append((FailureKind.ARITHMETIC.value, index, f"entry {index}: {error}"))
    return failures


def check_figures(body: Mapping[str, Any]) -> None:
    """Repeat the arithmetic of a body with slices: their order, the sum of their energies, the carbon, the bounds.

    Raises:
        LedgerDamaged: a figure does not follow from the recorded ones; the message names it.
    """
    check_measurement(body)
    pue_ppm = body.get("pue_ppm")
    if pue_ppm is not None and (not isinstance(pue_ppm, int) or isinstance(pue_ppm, bool) or pue_ppm < PPM):
        raise LedgerDamaged(f"'pue_ppm' is {pue_ppm!r}, and a power usage effectiveness is {PPM} ppm or more.")
    if body.get("energy_millijoules") is None:
        return
    energy = parse_quantity(body["energy_millijoules"])
    low, high = body.get("energy_low_millijoules"), body.get("energy_high_millijoules")
    if (low is not None and parse_quantity(low) > energy) or (high is not None and energy > parse_quantity(high)):
        raise LedgerDamaged(f"'energy_millijoules' is {energy}, which is not between {low!r} and {high!r}.")
