"""The budget contract and the state machine on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import text

from cagg.budget import reservations
from cagg.budget.tree import set_budget
from cagg.ports import Store
from cagg.quantities import Energy
from cagg.store.engine import open_store
from cagg.testing.budget_contract import BudgetContract
from cagg.testing.budgets import BudgetMachine, budget
from cagg.testing.clock import ManualClock
from cagg.testing.postgresql import LocalPostgres

PROVING = settings.get_current_profile_name() == "prove"


class TestBudgetsOnPostgresql(BudgetContract):
    @pytest.fixture
    def store(self, postgres_url: str, clock: ManualClock) -> Iterator[Store]:
        store = open_store(postgres_url, clock=clock)
        yield store
        store.close()

    @pytest.mark.parametrize("column", ["held", "spent", "overrun"])
    def test_the_audit_finds_an_edited_counter(self, budgets: Store, column: str) -> None:
        self.broken_on_purpose = True
        with budgets.transaction() as tx:
            set_budget(tx, budget("x", 10))
            reservations.assess(tx, path="x", amounts={}, energy=Energy(millijoules=1), at=tx.now(), ignoring=None)
            tx.connection.execute(text(f"update cagg_allotment set {column} = 3"))  # type: ignore[attr-defined]
            findings = reservations.audit(tx)
        assert any(f"{column} is 3, but its journal sums to 0" in finding for finding in findings)


class PostgresqlBudgetMachine(BudgetMachine):
    server: LocalPostgres

    def open_store(self, clock: ManualClock) -> Store:
        self.url = self.server.new_database()
        return open_store(self.url, clock=clock)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "url"):
            self.server.drop_database(self.url)


@pytest.fixture
def _server_of_the_machine(postgres: LocalPostgres) -> None:
    PostgresqlBudgetMachine.server = postgres


@pytest.mark.usefixtures("_server_of_the_machine")
class TestPostgresqlBudgetMachine(PostgresqlBudgetMachine.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(
        max_examples=200 if PROVING else 12,
        stateful_step_count=50 if PROVING else 25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
