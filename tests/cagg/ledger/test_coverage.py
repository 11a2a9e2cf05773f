"""Every stored column is hashed, derived again, compared, or listed as outside; and verification notices a change."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Column, Connection, LargeBinary, Table, select, update
from sqlalchemy.types import Integer

from cagg.entries import EntryDraft, EntryKind
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.coverage import COVERAGE, Cover, outside
from cagg.ledger.entry import append
from cagg.ledger.merkle import TILE_WIDTH
from cagg.ledger.notes import verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import VerifyReport, verify
from cagg.ports import Store
from cagg.store.tables import metadata
from cagg.testing.attacks import unlock
from cagg.testing.kinds import LEAST, reading_body
from cagg.testing.stores import MemorySigner, draft

NAME = "example.org/test"
SIGNER = MemorySigner(NAME)
KEY = str(verifier_key(SIGNER))
SERIES = hashlib.sha256(b"series").hexdigest()
START, END = "2026-01-05T22:00:00.000000Z", "2026-01-05T23:00:00.000000Z"
LEDGER_TABLES = [
    name for name, columns in COVERAGE.items() if any(c.how is not Cover.OUTSIDE for c in columns.values())
]


def test_every_table_and_column_is_listed() -> None:
    stored = {name: set(table.c.keys()) for name, table in metadata.tables.items()}
    assert {name: set(columns) for name, columns in COVERAGE.items()} == stored


def test_everything_outside_has_a_reason() -> None:
    assert all(len(reason) > 30 for reason in outside().values())
    assert "cagg_reservation" in outside()
    assert "cagg_log.created_us" in outside()
    assert not any(name.startswith(("cagg_entry", "cagg_leaf", "cagg_tile")) for name in outside())


# ---- a change is noticed --------------------------------------------------------------------------------------------


def _measured() -> EntryDraft:
    """A reading whose every column holds something."""
    body = reading_body(
        start=START,
        end=END,
        energy="7",
        request={"host": "local", "root_run_id": "r", "task_key": "t", "attempt": 1, "budget_path": "acme/ml"},
        grade="C",
        part_of="outer",
        pue_ppm=None,
    )
    piece = {**body["slices"][0], "intensity_milligrams_per_kwh": "3600000000000"}
    return EntryDraft(
        kind=EntryKind.MEASUREMENT,
        request_key="m",
        ordinal=0,
        body={**body, "slices": [piece], "carbon_micrograms": "7000000"},
    )


def _filled(store: Store) -> Store:
    waiver = {name: value for name, value in LEAST[EntryKind.WAIVER].items() if name != "owner"}
    with store.transaction() as tx:
        append(tx, _measured())
        append(tx, replace(draft("attached", forecast={"blob": SERIES}), blobs={SERIES: b"series"}))
        owner = {"owner": "Ada"}
        append(tx, EntryDraft(kind=EntryKind.WAIVER, request_key="w", ordinal=0, body=waiver, private=owner))
        for number in range(TILE_WIDTH):
            append(tx, draft(f"k{number}"))
        while sequence(tx):
            pass
        sign_checkpoint(tx, SIGNER)
        append(tx, draft("waits"))
    return store


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, named_store: Callable[..., AbstractContextManager[Store]]
) -> Iterator[Store]:
    """A log with a row in every table of the ledger that the backend fills."""
    with named_store(request.param, origin=NAME) as store:
        yield _filled(store)


def _other(column: Column[Any], value: Any) -> Any:
    if isinstance(column.type, LargeBinary):
        return bytes(value)[:-1] + bytes([bytes(value)[-1] ^ 1])
    if isinstance(column.type, Integer):  # BigInteger too
        return value + 1_000_000
    return value[:-1] + ("y" if value[-1] != "y" else "z")


def _first_row(connection: Connection, table: Table) -> Sequence[Any] | None:
    """The row that holds the most: for entries the measurement."""
    rows = connection.execute(select(table)).fetchall()
    return max(rows, key=lambda row: sum(value is not None for value in row), default=None)


def _after(store: Store, table: Table, column: Column[Any]) -> VerifyReport | None:
    """Verify with one cell changed, then take the change back; None when the backend keeps no row there."""

    class TakeBack(Exception):
        pass

    report: VerifyReport | None = None
    with contextlib.suppress(TakeBack), store.transaction() as tx:
        connection = unlock(tx)
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        elif column.identity is not None:
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ALTER {column.name} DROP IDENTITY")
        row = _first_row(connection, table)
        if row is not None:
            values = dict(zip(table.c.keys(), row, strict=True))
            same = [item == values[item.name] for item in table.primary_key]
            assert values[column.name] is not None, f"{table.name}.{column.name} is empty in the test's log"
            changed = update(table).where(*same).values({column.name: _other(column, values[column.name])})
            assert connection.execute(changed).rowcount == 1
            report = verify(tx, [KEY])
        raise TakeBack
    return report


def test_the_untouched_log_is_sound(filled: Store) -> None:
    with filled.snapshot() as tx:
        assert verify(tx, [KEY]).failures == ()


@pytest.mark.parametrize(
    ("table", "column"),
    [(table, column) for table in LEDGER_TABLES for column in COVERAGE[table]],
)
def test_a_changed_cell_is_noticed_unless_it_stands_outside(filled: Store, table: str, column: str) -> None:
    found = _after(filled, metadata.tables[table], metadata.tables[table].c[column])
    if found is None:
        assert table == "cagg_queue", "only a store that sequences at once keeps a table of the ledger empty"
        return
    assert bool(found.failures) is (COVERAGE[table][column].how is not Cover.OUTSIDE), found.failures
