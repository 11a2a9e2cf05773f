"""What an entry of each kind must say.

Energy and carbon stand in measurements and corrections only. The other kinds point to them: ``measurements`` and
``parents`` are lists of entry ids. Fields that are not named here are allowed, so that later versions may say more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from cagg.entries import EntryKind
from cagg.errors import LedgerDamaged
from cagg.ledger.events import ApprovalDecision, KeyEvent, LogEvent, ValidationOutcome

__all__ = ["READINGS", "check_kind"]

READINGS = frozenset({EntryKind.MEASUREMENT, EntryKind.CORRECTION})
"""The kinds that hold energy and carbon."""


# ---- what must be said ----------------------------------------------------------------------------------------------

_Test = Callable[[object], bool]
_Rule = tuple[str, _Test, str]

_ABSENT = object()
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DIGEST = re.compile(r"[a-z0-9-]+:[0-9a-f]{32,128}")
_HASH = re.compile(r"[0-9a-f]{64}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_QUANTITY = re.compile(r"0|-?[1-9][0-9]{0,18}")
_VERDICTS = frozenset({"admit", "defer", "deny", "review"})


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_text_or_null(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_instant(value: object) -> bool:
    return isinstance(value, str) and _INSTANT.fullmatch(value) is not None


def _is_amount(value: object) -> bool:
    return value is None or (isinstance(value, str) and _QUANTITY.fullmatch(value) is not None)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _is_ids(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_id, value))


def _is_digest(value: object) -> bool:
    return value is None or (isinstance(value, str) and _DIGEST.fullmatch(value) is not None)


def _is_artefact(value: object) -> bool:
    return isinstance(value, Mapping) and _is_text(value.get("name")) and _is_digest(value.get("digest", _ABSENT))


def _is_artefacts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_artefact, value))


def _is_artefact_or_null(value: object) -> bool:
    return value is None or _is_artefact(value)


def _is_held(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(item, Mapping)
        and _is_text(item.get("unit"))
        and item.get("amount") is not None
        and _is_amount(item["amount"])
        for item in value
    )


def _is_verdict(value: object) -> bool:
    word = value.get("verdict") if isinstance(value, Mapping) else value
    return isinstance(word, str) and word in _VERDICTS


def _is_redacted(value: object) -> bool:
    return isinstance(value, Mapping) and _is_id(value.get("entry_id")) and _is_text(value.get("field"))


def _is_head(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, Mapping):
        return False
    root = value.get("root")
    hashed = isinstance(root, str) and _HASH.fullmatch(root) is not None
    return _is_text(value.get("origin")) and _is_count(value.get("size")) and hashed


def _one_of(words: type[StrEnum]) -> tuple[_Test, str]:
    known = frozenset(str(word) for word in words)
    return (lambda value: isinstance(value, str) and value in known), f"one of {', '.join(sorted(known))}"


_TEXT = (_is_text, "text")
_TEXT_OR_NULL = (_is_text_or_null, "text or null")
_AT = (_is_instant, "an instant such as 2026-11-23T06:00:00.000000Z")
_AMOUNT = (_is_amount, "a decimal text or null")
_COUNT = (_is_count, "a whole number from 0 on")
_OBJECT = (_is_object, "an object")
_LIST = (_is_list, "a list")
_IDS = (_is_ids, "a list of entry ids")
_ARTEFACTS = (_is_artefacts, "a list of {name, digest}, a digest being text such as sha256:… or null")
_RUN: tuple[_Rule, ...] = (
    ("request", *_OBJECT),
    ("measurements", *_IDS),
    ("inputs", *_ARTEFACTS),
    ("outputs", *_ARTEFACTS),
    ("work_item", *_TEXT_OR_NULL),
)

_MUST: Mapping[str, tuple[_Rule, ...]] = {
    EntryKind.DECISION: (("request", *_OBJECT), ("verdict", _is_verdict, f"one of {', '.join(sorted(_VERDICTS))}")),
    EntryKind.MEASUREMENT: (
        ("request", *_OBJECT),
        ("start", *_AT),
        ("end", *_AT),
        ("outcome", *_TEXT),
        ("energy_millijoules", *_AMOUNT),
        ("carbon_micrograms", *_AMOUNT),
        ("slices", *_LIST),
    ),
    EntryKind.CORRECTION: (),
    EntryKind.INFERENCE: (*_RUN, ("outcome", *_TEXT)),
    EntryKind.REGENERATION: (*_RUN, ("outcome", *_TEXT)),
    EntryKind.VALIDATION: (
        *_RUN,
        ("subject", _is_artefact_or_null, "{name, digest} or null"),
        ("validator", *_TEXT_OR_NULL),
        ("tier", *_TEXT_OR_NULL),
        ("outcome", *_one_of(ValidationOutcome)),
    ),
    EntryKind.RESERVATION: (
        ("budget_path", *_TEXT),
        ("held", _is_held, "a list of {unit, amount}"),
        ("reason", *_TEXT),
    ),
    EntryKind.SETTLEMENT: (("outcome", *_TEXT), ("measurement_id", *_TEXT_OR_NULL), ("charged", *_OBJECT)),
    EntryKind.BUDGET: (
        ("budget_path", *_TEXT),
        ("unit", *_TEXT),
        ("period", *_TEXT),
        ("version", *_COUNT),
        ("limit", *_AMOUNT),
        ("mode", *_TEXT),
    ),
    EntryKind.OVERRIDE: (("what", *_TEXT),),
    EntryKind.WAIVER: (("reason", *_TEXT), ("scope", *_TEXT), ("expires_at", *_AT)),
    EntryKind.APPROVAL: (
        ("subject", _is_artefact, "{name, digest}"),
        ("decision", *_one_of(ApprovalDecision)),
        ("risk", *_TEXT_OR_NULL),
    ),
    EntryKind.REDACTION: (
        ("redacted", _is_redacted, "{entry_id, field}"),
        ("reason", *_TEXT),
        ("parents", *_IDS),
    ),
    EntryKind.KEY: (
        ("event", *_one_of(KeyEvent)),
        ("key", *_TEXT),
        ("from_size", *_COUNT),
        ("replaces", *_TEXT_OR_NULL),
        ("reason", *_TEXT_OR_NULL),
    ),
    EntryKind.LOG: (
        ("event", *_one_of(LogEvent)),
        ("predecessor", _is_head, "{origin, size, root} or null"),
        ("successor", *_TEXT_OR_NULL),
    ),
}

_READING_FIELDS: tuple[_Rule, ...] = _MUST[EntryKind.MEASUREMENT][1:]
"""What a correction must say too when it holds a reading; others correct something else, by ``evidence``."""

_WHEN_SAID: tuple[_Rule, ...] = (
    ("parents", *_IDS),
    ("measurements", *_IDS),
    ("inputs", *_ARTEFACTS),
    ("outputs", *_ARTEFACTS),
    ("work_item", *_TEXT_OR_NULL),
    ("software", lambda value: value is None or isinstance(value, Mapping), "an object or null"),
)
_ONLY_IN_READINGS = (
    "energy_millijoules",
    "energy_low_millijoules",
    "energy_high_millijoules",
    "carbon_micrograms",
    "slices",
)
_PERSON = {EntryKind.WAIVER: "owner", EntryKind.APPROVAL: "approver"}
"""Who it was: text (a role or a team), or a commitment to a name that is kept beside the log."""


def check_kind(body: Mapping[str, Any]) -> None:
    """Check that a whole body (spilled values put back) says what its kind must say.

    Raises:
        LedgerDamaged: the kind is unknown, a field that it needs is missing or of another form, or a kind that only
            points to readings holds one itself.
    """
    kind = body.get("kind")
    rules = _MUST.get(kind) if isinstance(kind, str) else None
    if rules is None or not isinstance(kind, str):
        raise LedgerDamaged(f"{kind!r} is no kind of entry that this version knows.")
    for name, test, form in rules:
        if not test(body.get(name, _ABSENT)):
            _refuse(body, kind, name, form)
    for name, test, form in _WHEN_SAID:
        if name in body and not test(body[name]):
            _refuse(body, kind, name, form)
    if kind in READINGS:
        if kind == EntryKind.CORRECTION:
            _check_correction(body)
        return
    for name in _ONLY_IN_READINGS:
        if name in body:
            raise LedgerDamaged(
                f"a {kind} must not hold {name!r}: readings are measurements or corrections, "
                "name their entries in 'measurements'."
            )
    person = _PERSON.get(EntryKind(kind))
    if person is not None and not _is_text(body.get(person)) and not _is_private(body, person):
        raise LedgerDamaged(f"a {kind} must say its {person!r}: text, or a private value of that name.")


def _refuse(body: Mapping[str, Any], kind: str, name: str, form: str) -> None:
    said = f"got {str(body[name])[:80]!r}" if name in body else "it is missing"
    raise LedgerDamaged(f"a {kind} must say {name!r}: {form}; {said}.")


def _check_correction(body: Mapping[str, Any]) -> None:
    if "energy_millijoules" not in body and "slices" not in body:
        if "evidence" not in body and "corrects" not in body:
            raise LedgerDamaged(
                "a correction must hold a reading, or say in 'corrects' or 'evidence' what it is about."
            )
        loose = next((name for name in _ONLY_IN_READINGS if name in body), None)
        if loose is not None:
            raise LedgerDamaged(
                f"a correction without a reading must not hold {loose!r}: nothing says what it rests on."
            )
        return
    for name, test, form in _READING_FIELDS:
        if not test(body.get(name, _ABSENT)):
            _refuse(body, EntryKind.CORRECTION, name, form)


def _is_private(body: Mapping[str, Any], field: str) -> bool:
    listed = body.get("private")
    return isinstance(listed, list | tuple) and any(
        isinstance(item, Mapping) and item.get("field") == field for item in listed
    )
