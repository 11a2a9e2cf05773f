"""The second schema: a reservation names its very task run; on PostgreSQL budgets change through functions only."""

from __future__ import annotations

from sqlalchemy import Column, Text

from cagg.store.migrations.functions_0002 import budget_functions

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column that older programs may leave out, and PostgreSQL's functions."""
    from alembic import op

    op.add_column("cagg_reservation", Column("run_reference", Text))
    for statement in budget_functions(op.get_bind()):
        op.execute(statement)


def downgrade() -> None:
    """Refuse: a ledger is never taken apart."""
    raise NotImplementedError("the store's schema only grows; restore a backup instead.")
