"""Attacks on what entries say: columns edited, bodies exchanged, and both done by somebody who has the signing key."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cagg.ledger.bodies import carbon_of_slices
from cagg.ledger.encoding import canonical
from cagg.ledger.report import FailureKind as Kind
from cagg.testing._attack import REMOVED, Attack, Group, Needs, Target

__all__ = ["BODIES", "CELLS", "INSIDER"]

_AT = 102
"""A measurement under the oldest checkpoint but one."""


# ---- columns --------------------------------------------------------------------------------------------------------

_EDITS: tuple[tuple[str, Any, Kind], ...] = (
    ("idempotency_key", b"\x00" * 32, Kind.IDEMPOTENCY),
    ("body", b"{}", Kind.BODY),
    ("leaf_hash", b"\x00" * 32, Kind.COLUMN),
    ("kind", "decision", Kind.COLUMN),
    ("recorded_us", 0, Kind.COLUMN),
    ("request_key", "x", Kind.COLUMN),
    ("host", "elsewhere", Kind.COLUMN),
    ("root_run_id", "another run", Kind.COLUMN),
    ("task_key", "another task", Kind.COLUMN),
    ("attempt", 9, Kind.COLUMN),
    ("budget_path", "acme/other", Kind.COLUMN),
    ("start_us", 0, Kind.COLUMN),
    ("end_us", 0, Kind.COLUMN),
    ("outcome", "completely different", Kind.COLUMN),
    ("energy_millijoules", 1, Kind.COLUMN),
    ("carbon_micrograms", 1, Kind.COLUMN),
    ("grade", "A", Kind.COLUMN),
    ("part_of", "another run", Kind.COLUMN),
)


def _edit(column: str, value: Any, kind: Kind) -> Attack:
    return Attack(
        name=f"column edited: {column}",
        group=Group.CELLS,
        does=f"writes another value into cagg_entry.{column} of a measurement",
        apply=lambda target: target.sql(
            f"UPDATE cagg_entry SET {column} = ? WHERE entry_id = ?",  # noqa: S608 - our own words
            value,
            target.entry_id(_AT),
        ),
        by=frozenset({kind}),
    )


def _id_edited(target: Target) -> None:
    other = "0190b3a0-0000-7000-8000-000000000000"
    entry_id = target.entry_id(_AT)
    target.sql("UPDATE cagg_leaf SET entry_id = ? WHERE entry_id = ?", other, entry_id)
    target.sql("UPDATE cagg_entry SET entry_id = ? WHERE entry_id = ?", other, entry_id)


CELLS = (
    *(_edit(*edit) for edit in _EDITS),
    Attack(
        name="column edited: entry_id",
        group=Group.CELLS,
        does="gives a measurement another id, in its row and in its leaf",
        apply=_id_edited,
        by=frozenset({Kind.COLUMN}),
    ),
    Attack(
        name="columns of all measurements edited",
        group=Group.CELLS,
        does="halves the energy and the carbon of every run, in the columns that reports add up",
        apply=lambda target: target.sql(
            "UPDATE cagg_entry SET energy_millijoules = energy_millijoules / 2, "
            "carbon_micrograms = carbon_micrograms / 2 WHERE energy_millijoules > 1"
        ),
        by=frozenset({Kind.COLUMN}),
    ),
    Attack(
        name="a body of another type",
        group=Group.CELLS,
        does="stores the same bytes of a body as text",
        apply=lambda target: target.sql(
            "UPDATE cagg_entry SET body = CAST(body AS TEXT) WHERE entry_id = ?", target.entry_id(_AT)
        ),
        by=frozenset({Kind.BODY}),
        backend="sqlite",
        remark="PostgreSQL keeps the type",
    ),
    Attack(
        name="a column of another type",
        group=Group.CELLS,
        does="stores the text of a number where the number was",
        apply=lambda target: target.sql(
            "UPDATE cagg_entry SET carbon_micrograms = 'none' WHERE entry_id = ?", target.entry_id(_AT)
        ),
        by=frozenset({Kind.COLUMN}),
        backend="sqlite",
        remark="PostgreSQL keeps the type",
    ),
)
"""Single cells of one entry."""


# ---- bodies ---------------------------------------------------------------------------------------------------------


def _respelled(write: Callable[[dict[str, Any]], str | bytes]) -> Callable[[Target], object]:
    def apply(target: Target) -> None:
        data = write(target.body(_AT))
        target.put_body(_AT, data if isinstance(data, bytes) else data.encode())

    return apply


def _with_raw(name: str, raw: str) -> Callable[[dict[str, Any]], str]:
    """Return a writer that puts a raw JSON value into an otherwise canonical body."""

    def write(body: dict[str, Any]) -> str:
        text = canonical({**body, name: "@@"}).decode()
        return text.replace('"@@"', raw, 1)

    return write


_SPELLINGS: tuple[tuple[str, str, Callable[[dict[str, Any]], str | bytes]], ...] = (
    ("with spaces", "writes the same values with spaces between them", lambda body: json.dumps(body, sort_keys=True)),
    (
        "in another order",
        "writes the same values in another order",
        lambda body: json.dumps(dict(sorted(body.items(), reverse=True)), ensure_ascii=False, separators=(",", ":")),
    ),
    (
        "with a key twice",
        "writes 'outcome' twice, so that readers disagree which one counts",
        lambda body: canonical(body).decode().replace('"outcome":', '"outcome":"failed","outcome":', 1),
    ),
    ("with escapes", "writes a letter as \\u0061", lambda body: canonical(body).decode().replace("a", "\\u0061", 1)),
    ("with NaN", "writes NaN for the PUE", _with_raw("pue_ppm", "NaN")),
    ("with a float", "writes the attempt's number with a point", _with_raw("pue_ppm", "1150000.0")),
    ("with 2^53", "writes a number that JavaScript would round", _with_raw("pue_ppm", str(2**53))),
    ("with a lone surrogate", "writes half a character", _with_raw("carbon_reason", '"\\ud800"')),
    ("with a byte order mark", "puts a byte order mark in front", lambda body: b"\xef\xbb\xbf" + canonical(body)),
    ("with a line feed", "appends a line feed", lambda body: canonical(body) + b"\n"),
    ("as Latin-1", "writes it in another encoding", lambda body: canonical(body).decode().encode("latin-1", "replace")),
)


def _spelled(how: str, does: str, write: Callable[[dict[str, Any]], str | bytes], *, insider: bool) -> Attack:
    plain = _respelled(write)

    def signed(target: Target) -> None:
        plain(target)
        target.rebuild()

    return Attack(
        name=f"a body {how}{', signed again' if insider else ''}",
        group=Group.INSIDER if insider else Group.BODIES,
        does=does + (", makes leaves and tiles fit and signs them with the genuine key" if insider else ""),
        apply=signed if insider else plain,
        by=frozenset({Kind.PROFILE if insider else Kind.BODY}),
    )


def _other_normal_form(target: Target) -> None:
    """The same letters in another Unicode form are other bytes: the ledger keeps bytes, and normalises nothing."""
    body = canonical(target.body(_AT)).replace("Größe".encode(), "Gro\u0308ße".encode(), 1)
    target.put_body(_AT, body)


def _too_long(target: Target) -> None:
    target.run("PRAGMA ignore_check_constraints = ON")
    target.put_body(_AT, canonical({**target.body(_AT), "text": "x" * 65_536}))


def _unsigned_beside_checkpoints(target: Target) -> None:
    target.forge(_AT, {"notes": ["fine"]})
    target.rehash()


def _unsigned(target: Target) -> None:
    _unsigned_beside_checkpoints(target)
    target.sql("DELETE FROM cagg_checkpoint")


BODIES = (
    Attack(
        name="a figure in a body changed",
        group=Group.BODIES,
        does="changes the energy in a measurement's body",
        apply=lambda target: target.put_body(_AT, canonical({**target.body(_AT), "energy_millijoules": "1"})),
        by=frozenset({Kind.BODY, Kind.COLUMN, Kind.ARITHMETIC}),
    ),
    Attack(
        name="a figure changed in body and columns",
        group=Group.BODIES,
        does="changes the energy in a measurement's body and in everything beside it, the tree excepted",
        apply=lambda target: target.forge(_AT, {"energy_millijoules": "1"}),
        by=frozenset({Kind.BODY, Kind.ARITHMETIC}),
    ),
    Attack(
        name="a figure changed, all made to fit, the checkpoints thrown away",
        group=Group.BODIES,
        does="forges a note with all columns, leaves and tiles, and deletes every checkpoint",
        apply=_unsigned,
        by=frozenset({Kind.CHECKPOINT}),
        needs=Needs.CHECKPOINT,
        remark="without one the log is only called consistent, not verified",
    ),
    Attack(
        name="a figure changed, leaves and tiles made to fit",
        group=Group.BODIES,
        does="forges a harmless-looking note with all columns, leaves and tiles, but cannot sign",
        apply=_unsigned_beside_checkpoints,
        by=frozenset({Kind.CHECKPOINT}),
    ),
    *(_spelled(*spelling, insider=False) for spelling in _SPELLINGS),
    Attack(
        name="a body in another Unicode form",
        group=Group.BODIES,
        does="writes ö as two characters, which looks the same",
        apply=_other_normal_form,
        by=frozenset({Kind.BODY}),
    ),
    Attack(
        name="a body of more than 65,535 bytes",
        group=Group.BODIES,
        does="stores a body that no foreign tool could read (C2SP tlog-tiles gives an entry's length 16 bits)",
        apply=_too_long,
        by=frozenset({Kind.BODY}),
        backend="sqlite",
        remark="PostgreSQL refuses it by a constraint that its owner would first drop",
    ),
)
"""Bytes of one body, without the key."""


# ---- with the genuine key -------------------------------------------------------------------------------------------


def _signed(
    name: str,
    does: str,
    changes: dict[str, Any] | Callable[[Target], dict[str, Any]],
    by: Kind,
    *,
    index: int = _AT,
    needs: Needs = Needs.NOTHING,
    remark: str = "",
) -> Attack:
    def apply(target: Target) -> None:
        target.forge(index, changes if isinstance(changes, dict) else changes(target))
        target.rebuild()

    return Attack(
        name=name, group=Group.INSIDER, does=does, apply=apply, by=frozenset({by}), needs=needs, remark=remark
    )


def _slices(target: Target, **changes: Any) -> list[dict[str, Any]]:
    first, *rest = target.body(_AT)["slices"]
    return [{**first, **changes}, *rest]


def _overlapping(target: Target) -> dict[str, Any]:
    first, second = target.body(_AT)["slices"]
    return {"slices": [first, {**second, "start": first["start"]}]}


def _negative(target: Target) -> dict[str, Any]:
    first, second = target.body(_AT)["slices"]
    taken = int(first["energy_millijoules"]) - 5
    slices = [first, {**second, "energy_millijoules": str(-taken)}]
    return {
        "slices": slices,
        "energy_millijoules": "5",
        "carbon_micrograms": str(carbon_of_slices(slices, target.body(_AT)["pue_ppm"])),
    }


def _elsewhen(target: Target) -> dict[str, Any]:
    slices = [
        {**item, "start": f"2020-01-01T0{hour}:00:00.000000Z", "end": f"2020-01-01T0{hour + 1}:00:00.000000Z"}
        for hour, item in enumerate(target.body(_AT)["slices"])
    ]
    return {"slices": slices}


def _other_key(target: Target) -> None:
    target.forge(_AT, {"ordinal": 7})
    wrong = canonical({**target.body(_AT), "ordinal": 8})
    target.put_body(_AT, wrong)
    target.rebuild()


INSIDER = (
    _signed(
        "carbon that does not follow from its slices",
        "halves a measurement's carbon everywhere and signs it",
        lambda target: {"carbon_micrograms": str(int(target.body(_AT)["carbon_micrograms"]) // 2)},
        Kind.ARITHMETIC,
    ),
    _signed(
        "energy that is not the sum of its slices",
        "halves a measurement's energy everywhere, with carbon to match one slice, and signs it",
        lambda target: {"energy_millijoules": str(int(target.body(_AT)["energy_millijoules"]) // 2)},
        Kind.ARITHMETIC,
    ),
    _signed(
        "a cleaner intensity in one slice",
        "lowers the intensity of a slice and signs it, the carbon left as it was",
        lambda target: {"slices": _slices(target, intensity_milligrams_per_kwh="1")},
        Kind.ARITHMETIC,
    ),
    _signed(
        "slices that overlap",
        "lets the second slice start with the first and signs it",
        _overlapping,
        Kind.ARITHMETIC,
    ),
    _signed(
        "energy below zero",
        "lets a second slice give back the energy of the first, with sums and carbon to match, and signs it",
        _negative,
        Kind.ARITHMETIC,
    ),
    _signed(
        "slices outside of the run",
        "moves a run's slices into a cleaner night, its own times left where they were, and signs it",
        _elsewhen,
        Kind.ARITHMETIC,
    ),
    _signed(
        "carbon without a slice",
        "writes a figure of carbon into a correction that holds no reading, and signs it",
        {"evidence": [], "carbon_micrograms": "1", "energy_millijoules": REMOVED, "slices": REMOVED},
        Kind.PROFILE,
        index=109,
    ),
    _signed(
        "an entry of a kind that does not say what it must",
        "takes the outcome out of a measurement and signs it",
        {"outcome": None},
        Kind.PROFILE,
    ),
    _signed("an entry of an unknown format", "writes another version into a body and signs it", {"v": 2}, Kind.PROFILE),
    _signed(
        "an entry of another log",
        "writes another log's name into a body and signs it",
        {"log": "example.org/another"},
        Kind.COLUMN,
    ),
    _signed(
        "an entry with another's id",
        "writes another entry's id into a body and signs it",
        lambda target: {"entry_id": target.entry_id(_AT + 1)},
        Kind.COLUMN,
    ),
    Attack(
        name="a key that does not follow",
        group=Group.INSIDER,
        does="writes another ordinal into a body, the idempotency key left as it was, and signs it",
        apply=_other_key,
        by=frozenset({Kind.IDEMPOTENCY}),
    ),
    _signed(
        "a leap second",
        "writes the instant 23:59:60 into a body and signs it",
        {"end": "2026-12-31T23:59:60.000000Z"},
        Kind.PROFILE,
    ),
    _signed(
        "an instant that is no date",
        "writes the 30th of February into a body and signs it",
        {"end": "2026-02-30T00:00:00.000000Z"},
        Kind.PROFILE,
    ),
    *(_spelled(*spelling, insider=True) for spelling in _SPELLINGS),
    _signed(
        "a consistent lie",
        "changes a note in a body with everything that follows from it, and signs the whole log again",
        {"notes": ["all was well"]},
        Kind.CHECKPOINT,
        needs=Needs.CHECKPOINT,
        remark="nothing in the store can show this: whoever has the key and the database wrote both",
    ),
)
"""By whoever has the database and the log's signing key."""
