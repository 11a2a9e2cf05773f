"""The second schema: a reservation names its very task run, an entry waits at most once for its place in the tree.

On PostgreSQL budgets change through functions only.
"""

from __future__ import annotations

from sqlalchemy import Column, Text

from cagg.store.migrations.functions_0002 import budget_functions

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_DROP_REPEATED = (
    "DELETE FROM cagg_queue WHERE queue_id NOT IN (SELECT min(q.queue_id) FROM cagg_queue q "
    "GROUP BY q.log_id, q.entry_id)"
)


def upgrade() -> None:
    """Add a column that older programs may leave out, the queue's rules, and PostgreSQL's functions."""
    from alembic import op

    connection = op.get_bind()
    op.add_column("cagg_reservation", Column("run_reference", Text))
    op.execute(_DROP_REPEATED)
    op.create_index("cagg_queue_entry", "cagg_queue", ["log_id", "entry_id"], unique=True)
    if connection.dialect.name == "postgresql":
        key = ["log_id", "entry_id"]
        op.create_foreign_key("cagg_queue_of_entry", "cagg_queue", "cagg_entry", key, key)
    for statement in budget_functions(connection):
        op.execute(statement)


def downgrade() -> None:
    """Refuse: a ledger is never taken apart."""
    raise NotImplementedError("the store's schema only grows; restore a backup instead.")
