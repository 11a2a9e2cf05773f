"""Which stored column is protected by what: every table of the store, every column, and why some stand outside.

A field is hashed into a leaf, or derived again from hashed ones and compared, or compared with what is signed; else it
stands outside of the log, with the reason. Tests hold this list against the tables, and change every protected cell to
see that ``verify`` notices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

__all__ = ["COVERAGE", "Cover", "Covered", "outside"]


class Cover(StrEnum):
    """How a column is protected."""

    HASHED = "hashed"
    """its bytes are in a leaf, or a digest of them is"""
    REDERIVED = "rederived"
    """it repeats what hashed bytes say; ``verify`` derives it again and compares"""
    COMPARED = "compared"
    """part of the tree: ``verify`` compares it with the leaves, with its neighbours or with a signature"""
    OUTSIDE = "outside"
    """no part of the log: it may change, and no signature covers it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """How one column is protected.

    Attributes:
        how: by what.
        reason: for what stands outside: why, and who looks after it instead; else what it is held against.
    """

    how: Cover
    reason: str


def _hashed(reason: str) -> Covered:
    return Covered(how=Cover.HASHED, reason=reason)


def _rederived(reason: str) -> Covered:
    return Covered(how=Cover.REDERIVED, reason=reason)


def _compared(reason: str) -> Covered:
    return Covered(how=Cover.COMPARED, reason=reason)


def _outside(reason: str) -> Covered:
    return Covered(how=Cover.OUTSIDE, reason=reason)


_OF_THE_LOG = _compared(
    "every row belongs to a log of the store, and every log has exactly the rows that its tree needs"
)
_FROM_BODY = _rederived("the body says the same")

_BALANCES = (
    "balances change with every run; each decision and settlement stands in the log with its amounts, and "
    "`cagg ledger verify` compares counters, journal and holds with each other beside the signature"
)
_LIMITS = (
    "the limit in force; each change is an entry of the kind budget, with which `cagg ledger verify` compares this row "
    "beside the signature"
)
_STATE = (
    "the state of a request that still waits or runs, beaten every minute; what came of it is a measurement and a "
    "settlement in the log"
)
_CACHE = "a cache that gates share, emptied by age; the forecast that a decision rests on is an attachment of its entry"


def _all(names: str, covered: Covered) -> dict[str, Covered]:
    return dict.fromkeys(names.split(), covered)


COVERAGE: Mapping[str, Mapping[str, Covered]] = MappingProxyType(
    {
        "cagg_schema_version": {
            "version_num": _outside(
                "it says how the tables are laid out, nothing that was recorded; migrations change it"
            )
        },
        "cagg_log": {
            "log_id": _OF_THE_LOG,
            "origin": _compared("every body names its log, and every signed checkpoint begins with its name"),
            "state": _compared("the last log grows and those before it are frozen, as their own last entries say"),
            "created_us": _outside("for people only; the first entry of the log carries its own time"),
        },
        "cagg_entry": {
            "log_id": _OF_THE_LOG,
            "entry_id": _FROM_BODY,
            "idempotency_key": _rederived("SHA-256 of kind, request key and ordinal, which the body says"),
            "body": _hashed("the leaf is its hash"),
            "leaf_hash": _rederived("SHA-256 of 0x00 and the body, and the leaf of the tree"),
            **_all(
                "kind recorded_us request_key host root_run_id task_key attempt budget_path start_us end_us outcome "
                "energy_millijoules carbon_micrograms grade part_of",
                _FROM_BODY,
            ),
        },
        "cagg_queue": {
            "log_id": _OF_THE_LOG,
            "entry_id": _compared("an entry that waits for its place is there, and has no leaf yet"),
            "leaf_hash": _compared("the entry that waits has the same"),
            "queue_id": _outside("the order of waiting; the place in the tree is what counts, and it is given later"),
            "queued_us": _outside(
                "how long an entry waits; `verify` warns after an hour, and forgets it once it has a place"
            ),
        },
        "cagg_leaf": {
            "log_id": _OF_THE_LOG,
            "leaf_index": _compared("dense from 0, and under the signed root"),
            "entry_id": _compared("the entry with this id has the leaf's hash, and no other leaf"),
            "leaf_hash": _compared("the body's hash, and under the signed root"),
        },
        "cagg_tile": {
            "log_id": _OF_THE_LOG,
            **_all("level number", _compared("exactly the full tiles of the tree, each once")),
            "hashes": _rederived("the hashes of the level below"),
            "root": _rederived("the root over the tile's hashes"),
        },
        "cagg_checkpoint": {
            "log_id": _OF_THE_LOG,
            "size": _compared("the signed note says it"),
            "root": _compared("the signed note says it, and the tree has it at that size"),
            "note": _compared("its signature, and the root of the tree"),
            "created_us": _outside("for people only; a signed note carries no time"),
        },
        "cagg_private": {
            "log_id": _OF_THE_LOG,
            "entry_id": _compared("the entry's body holds a commitment to it"),
            "field": _hashed("part of the commitment in the body"),
            "salt": _hashed("part of the commitment in the body, until a redaction deletes it"),
            "value": _hashed("part of the commitment in the body, until a redaction deletes it"),
        },
        "cagg_blob": {
            "digest": _compared("bodies name it"),
            "data": _hashed("bodies name its SHA-256"),
        },
        "cagg_budget": _all(
            "path unit period version time_zone limit_amount mode unknown_intensity_milligrams_per_kwh created_us",
            _outside(_LIMITS),
        ),
        "cagg_allotment": _all(
            "allotment_id path unit period starts_us ends_us limit_amount extra held spent overrun", _outside(_BALANCES)
        ),
        "cagg_reservation": _all(
            "request_key series_key host root_run_id task_key attempt budget_path state first_asked_us deadline_us "
            "asks deferrals planning_intensity_milligrams_per_kwh planning_basis planned_start_us "
            "upper_energy_millijoules lease_until_us lease_epoch last_beat_us started_us used_energy_millijoules "
            "last_power_milliwatts encloses_run created_us updated_us run_reference",
            _outside(_STATE),
        ),
        "cagg_hold": _all("request_key allotment_id unit amount", _outside(_BALANCES)),
        "cagg_journal": _all(
            "journal_id allotment_id request_key kind d_held d_spent d_overrun at_us", _outside(_BALANCES)
        ),
        "cagg_forecast": _all(
            "forecast_id provider zone convention fetched_us start_us end_us digest data", _outside(_CACHE)
        ),
    }
)
"""Protection of every column, by table and column."""


def outside() -> Mapping[str, str]:
    """Return what stands outside of the log, as ``table`` or ``table.column``, with the reason."""
    found: dict[str, str] = {}
    for table, columns in COVERAGE.items():
        reasons = {item.reason for item in columns.values() if item.how is Cover.OUTSIDE}
        if len(reasons) == 1 and all(item.how is Cover.OUTSIDE for item in columns.values()):
            found[table] = reasons.pop()
            continue
        for name, item in columns.items():
            if item.how is Cover.OUTSIDE:
                found[f"{table}.{name}"] = item.reason
    return found
