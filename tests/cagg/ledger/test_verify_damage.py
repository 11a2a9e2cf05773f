"""Damaged stores: cells of any type, missing tables, rows against the schema. A verdict or a sentence, always."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from cagg.entries import EntryKind
from cagg.errors import CaggError, LedgerDamaged, StoreUnavailable
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append
from cagg.ledger.notes import verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import Assurance, verify
from cagg.ports import Store, Transaction
from cagg.records import EntryDraft
from cagg.store import tables
from cagg.testing.attacks import unlock
from cagg.testing.stores import MemorySigner, draft

NAME = "example.org/test"
SIGNER = MemorySigner(NAME)
KEY = str(verifier_key(SIGNER))
SIZE = 260
TABLES = ("log", "entry", "queue", "leaf", "tile", "checkpoint", "private", "blob")

VALUES = [
    "NULL",
    "'zz'",
    "''",
    "x''",
    "x'00ff'",
    "CAST(x'ff' AS TEXT)",
    "0",
    "-1",
    "4711",
    "9223372036854775807",
    "-9223372036854775808",
    "1e300",
    "0.5",
    "zeroblob(32)",
    "zeroblob(100000)",
]

CANNOT_BE_TOLD = {
    ("checkpoint", "created_us"),  # when a checkpoint was stored: its note does not say, nothing goes by it
    ("log", "created_us"),  # when a log was begun: its first entry says so too
    ("queue", "queue_id"),  # the order in which entries wait
    ("queue", "queued_us"),
}
"""Cells outside of what is signed, that may hold other values of their type without a failure."""


@pytest.fixture(scope="module")
def damaged(named_store: Callable[..., AbstractContextManager[Store]]) -> Iterator[Store]:
    """A log in a file, with a row in every table, whose tables keep no rule any more."""
    with named_store("sqlite", origin=NAME) as store:
        with store.transaction() as tx:
            for number in range(SIZE):
                append(tx, draft(f"k{number}"))
            append(tx, draft("spilled", large="x" * 70_000))
            said = draft("p", kind=EntryKind.OVERRIDE)
            append(tx, EntryDraft(kind=said.kind, request_key="p", ordinal=0, body=said.body, private={"who": "Ada"}))
            sequence(tx)
            sign_checkpoint(tx, SIGNER)
            tx.sequences_inline = False
            append(tx, draft("waits"))
        yield store


@contextlib.contextmanager
def without_rules(store: Store) -> Iterator[tuple[Transaction, Any]]:
    class TakeBack(Exception):
        pass

    with contextlib.suppress(TakeBack), store.transaction() as tx:
        connection = unlock(tx)
        connection.exec_driver_sql("PRAGMA legacy_alter_table=ON")
        for name in TABLES:
            connection.exec_driver_sql(f"CREATE TABLE copy_{name} AS SELECT * FROM cagg_{name}")
            connection.exec_driver_sql(f"ALTER TABLE cagg_{name} RENAME TO old_{name}")
            connection.exec_driver_sql(f"ALTER TABLE copy_{name} RENAME TO cagg_{name}")
        yield tx, connection
        raise TakeBack


def test_the_store_without_its_rules_is_still_verified(damaged: Store) -> None:
    with without_rules(damaged) as (tx, _):
        assert verify(tx, [KEY]).verified


CELLS = [(name, column.name) for name in TABLES for column in getattr(tables, name).columns]


@pytest.mark.parametrize(("table", "column"), CELLS)
def test_a_cell_of_another_type_gives_a_verdict(damaged: Store, table: str, column: str) -> None:
    _change(damaged, table, column, ["NULL", "CAST(x'ff' AS TEXT)", "9223372036854775807", "zeroblob(32)"])


@pytest.mark.prove
@pytest.mark.parametrize(("table", "column"), CELLS)
def test_a_cell_of_any_type_gives_a_verdict(damaged: Store, table: str, column: str) -> None:
    _change(damaged, table, column, VALUES)


def _change(store: Store, table: str, column: str, values: Sequence[str]) -> None:
    """Put each value into one row of the table, and verify."""
    place = f"rowid = (SELECT max(rowid) FROM cagg_{table})" if table != "entry" else "request_key = 'spilled'"
    with without_rules(store) as (tx, connection):
        row = connection.exec_driver_sql(f"SELECT rowid FROM cagg_{table} WHERE {place}").scalar_one()
        before = connection.exec_driver_sql(f"SELECT {column} FROM cagg_{table} WHERE rowid = {row}").scalar_one()
        for value in values:
            after = connection.exec_driver_sql(f"SELECT {value}").scalar_one()
            if type(after) is type(before) and after == before:
                continue
            connection.exec_driver_sql(f"UPDATE cagg_{table} SET {column} = {value} WHERE rowid = {row}")
            with contextlib.suppress(CaggError):
                report = verify(tx, [KEY])
                if (table, column) not in CANNOT_BE_TOLD:
                    assert report.assurance is Assurance.NONE, (value, report)
                    assert report.failures
                for failure in report.failures:
                    failure.message.encode()
            with contextlib.suppress(CaggError):
                verify(tx, [KEY], tree_only=True)
            connection.exec_driver_sql(f"UPDATE cagg_{table} SET {column} = ? WHERE rowid = {row}", (before,))


@pytest.mark.parametrize("table", TABLES)
def test_a_missing_table_is_one_sentence(damaged: Store, table: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"lacks a table.*\.$"):
        verified_without(damaged, table)


def verified_without(store: Store, table: str) -> None:
    with store.transaction() as tx:
        connection = unlock(tx)
        connection.exec_driver_sql("PRAGMA legacy_alter_table=ON")
        connection.exec_driver_sql(f"ALTER TABLE cagg_{table} RENAME TO gone")
        verify(tx, [KEY])


@pytest.mark.parametrize("table", ["entry", "queue", "leaf", "tile", "checkpoint", "private", "blob"])
def test_an_emptied_table_is_a_failure(damaged: Store, table: str) -> None:
    with without_rules(damaged) as (tx, connection):
        connection.exec_driver_sql(f"DELETE FROM cagg_{table}")
        report = verify(tx, [KEY])
    assert report.assurance in (Assurance.NONE, Assurance.CONSISTENT)
    assert not report.verified


@pytest.mark.parametrize("table", ["entry", "leaf", "tile", "queue", "log"])
def test_every_row_twice_is_a_failure(damaged: Store, table: str) -> None:
    with without_rules(damaged) as (tx, connection):
        connection.exec_driver_sql(f"INSERT INTO cagg_{table} SELECT * FROM cagg_{table}")
        assert verify(tx, [KEY]).failures


def test_a_place_beyond_all_numbers_is_one_sentence(damaged: Store) -> None:
    with without_rules(damaged) as (tx, connection):
        connection.exec_driver_sql("UPDATE cagg_leaf SET leaf_index = 9223372036854775807 WHERE leaf_index = 0")
        with pytest.raises(LedgerDamaged, match="cagg ledger verify"):
            append(tx, draft("new"))
