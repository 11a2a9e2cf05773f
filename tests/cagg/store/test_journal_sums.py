"""The journal's sums are exact, however large its rows are."""

from __future__ import annotations

from cagg.budget.tree import set_budget
from cagg.store.engine import open_store
from cagg.testing import ManualClock
from cagg.testing.budgets import ask, budget

MOST = 2**63 - 1
INSERT = (
    "INSERT INTO cagg_journal (allotment_id, request_key, kind, d_held, d_spent, d_overrun, at_us) "
    "VALUES ({}, 'x', 'hold', {}, {}, {}, 0)"
)


def test_sums_beyond_64_bits_neither_fail_nor_wrap(store_url: str) -> None:
    store = open_store(store_url, clock=ManualClock())
    with store.transaction() as tx:
        set_budget(tx, budget("a", 10))
        (headroom,) = ask(tx, "r", "a", 7)[1]
        which = headroom.allotment.allotment_id
        for row in ((MOST, -MOST, 1), (MOST, -MOST, -3), (-1, -(2**63), -(2**40))):
            tx.connection.exec_driver_sql(INSERT.format(which, *row))  # type: ignore[attr-defined]
        assert tx.journal_sums() == {which: (7 + 2 * MOST - 1, -2 * MOST - 2**63, -2 - 2**40)}
    store.close()
