"""One bit of any cell of any table of the ledger: verification names the row, or the cell is listed as proving nothing.

Flips of the cells of one column are made together where verification names each row, which says more than that
something is wrong somewhere; a row that it does not name is then flipped alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from cagg.ledger.entry import append
from cagg.ledger.sequencer import sequence
from cagg.ports import Store
from cagg.records import EntryDraft, EntryKind
from cagg.store.tables import metadata
from cagg.testing.bitflips import LEDGER_TABLES, OUTSIDE, WITHOUT_EVIDENCE, Cell, bits_of, cells, chosen_bit, flip
from cagg.testing.kinds import LEAST
from cagg.testing.tampering import AttackedLog, Needs, Target, attacked

ROW_BY_ROW = ("cagg_entry", "cagg_leaf")
"""Tables with a row per entry."""


def indexes(target: Target) -> dict[str, int]:
    """Places by entry id; those that wait are named by the places that they would get."""
    placed = target.rows("SELECT entry_id, leaf_index FROM cagg_leaf")
    waiting = target.rows("SELECT entry_id FROM cagg_queue ORDER BY queue_id")
    return dict(placed) | {entry_id: len(placed) + number for number, (entry_id,) in enumerate(waiting)}


def index_of(cell: Cell, places: dict[str, int]) -> int | None:
    key = dict(cell.key)
    return key["leaf_index"] if "leaf_index" in key else places.get(key["entry_id"])


def alone(target: Target, cell: Cell, bit: int) -> bool:
    """True when the flip of this one cell is caught, or refused by the table's own keys."""
    with target.taken_back():
        if not flip(target, cell, bit):
            return True
        target.reread()
        return bool(target.verdict(Needs.CHECKPOINT).failures)


def missed(target: Target, column: Sequence[Cell], bit_of: dict[Cell, int]) -> Iterator[Cell]:
    """Yield the cells of one column whose flip goes unnoticed: first all together, then each that was not named.

    Cells that say where a leaf is are flipped by halves: every second leaf stays, so that the gaps show.
    """
    places = indexes(target)
    halves = (column[::2], column[1::2]) if column[0].table == "cagg_leaf" else (column,)
    for half in halves:
        with target.taken_back():
            done = [cell for cell in half if flip(target, cell, bit_of[cell])]
            named = {failure.index for failure in target.verdict(Needs.NOTHING).failures}
        for cell in done:
            place = index_of(cell, places)
            if (place is None or place not in named) and not alone(target, cell, bit_of[cell]):
                yield cell


def columns_of(target: Target, table: str) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = {}
    for cell in cells(target, table):
        if (table, cell.column) not in WITHOUT_EVIDENCE:
            found.setdefault(cell.column, []).append(cell)
    return found


def test_every_table_is_of_the_ledger_or_listed_as_outside_with_a_reason() -> None:
    assert set(OUTSIDE) <= set(metadata.tables)
    assert set(LEDGER_TABLES) | set(OUTSIDE) == set(metadata.tables)
    for table, column in WITHOUT_EVIDENCE:
        assert column in metadata.tables[table].c


@pytest.mark.parametrize("table", LEDGER_TABLES)
def test_one_bit_of_every_cell(log: AttackedLog, table: str) -> None:
    unseen: list[Cell] = []
    with attacked(log) as target:
        for column in columns_of(target, table).values():
            bits = {cell: chosen_bit(cell) for cell in column}
            if table in ROW_BY_ROW:
                unseen += missed(target, column, bits)
            else:
                unseen += [cell for cell in column if not alone(target, cell, bits[cell])]
    assert not unseen, f"{len(unseen)} cells, for example {unseen[0]}"


# ---- every bit ------------------------------------------------------------------------------------------------------


def every_bit(target: Target, column: Sequence[Cell], places: dict[str, int]) -> Iterator[tuple[Cell, int]]:
    """Yield (cell, bit) of what goes unnoticed: the same bit of all rows at once, then alone where none is named."""
    for bit in range(max(map(bits_of, column))):
        with target.taken_back():
            done = [cell for cell in column if bit < bits_of(cell) and flip(target, cell, bit)]
            named = {failure.index for failure in target.verdict(Needs.NOTHING).failures}
        for cell in done:
            if index_of(cell, places) not in named and not alone(target, cell, bit):
                yield cell, bit


@pytest.fixture
def one_of_each(store: Store) -> AttackedLog:
    """The least log that has an entry of every kind."""
    with store.transaction() as tx:
        for kind, body in LEAST.items():
            append(tx, EntryDraft(kind=kind, request_key=f"{kind}", ordinal=0, body=body))
        while sequence(tx):
            pass
    return AttackedLog(store=store, keys=(), kept=())


def check_every_bit_of_one_row_per_kind(log: AttackedLog) -> None:
    with attacked(log) as target:
        places = indexes(target)
        assert len(places) == len(EntryKind)
        for name, column in columns_of(target, "cagg_entry").items():
            unseen = next(every_bit(target, column, places), None)
            assert unseen is None, f"bit {unseen[1]} of {unseen[0]}, column {name}"


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_every_bit_of_a_row_of_each_kind(one_of_each: AttackedLog) -> None:
    check_every_bit_of_one_row_per_kind(one_of_each)


@pytest.mark.prove
@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_every_bit_of_a_row_of_each_kind_on_a_server(one_of_each: AttackedLog) -> None:
    check_every_bit_of_one_row_per_kind(one_of_each)


LONG = 4_096
"""Cells with more bytes (a tile, the attachment of a spilled body) have a bit of each 16th byte flipped."""


@pytest.mark.prove
@pytest.mark.parametrize("table", LEDGER_TABLES)
def test_every_bit_of_every_cell(log: AttackedLog, table: str) -> None:
    with attacked(log) as target:
        places = indexes(target)
        for column in columns_of(target, table).values():
            if table == "cagg_entry":
                assert next(every_bit(target, column, places), None) is None
                continue
            for cell in column:
                count = bits_of(cell)
                for bit in range(0, count, 1 if count <= 8 * LONG else 129):
                    assert alone(target, cell, bit), f"bit {bit} of {cell}"
