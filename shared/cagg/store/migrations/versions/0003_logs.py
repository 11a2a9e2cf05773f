"""The third schema: several logs, of which one grows, and personal values beside their entries."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKeyConstraint, Integer, LargeBinary, String, Text

from cagg.store.migrations.functions_0003 import log_rules

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of personal values, and the rules that keep a frozen log as it is."""
    from alembic import op

    connection = op.get_bind()
    op.create_table(
        "cagg_private",
        Column("log_id", Integer, primary_key=True),
        Column("entry_id", String(36), primary_key=True),
        Column("field", String(63), primary_key=True),
        Column("salt", LargeBinary(32), nullable=False),
        Column("value", Text, nullable=False),
        ForeignKeyConstraint(
            ["log_id", "entry_id"], ["cagg_entry.log_id", "cagg_entry.entry_id"], name="cagg_private_of_entry"
        ).ddl_if(dialect="postgresql"),
    )
    if connection.dialect.name == "postgresql":
        # the key first: with the log first, a plan made while the table was empty reads the whole log by this index
        op.drop_constraint("cagg_entry_idempotency", "cagg_entry", type_="unique")
        op.create_unique_constraint("cagg_entry_idempotency", "cagg_entry", ["idempotency_key", "log_id"])
    for statement in log_rules(connection):
        op.execute(statement)


def downgrade() -> None:
    """Refuse: a ledger is never taken apart."""
    raise NotImplementedError("the store's schema only grows; restore a backup instead.")
