"""The object that carries everything one transaction can do: the rows of ledger, budgets and forecasts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from cagg.store._statement import Statement
from cagg.store.budget_rows import BudgetRowsSql
from cagg.store.forecast_rows import ForecastRowsSql
from cagg.store.ledger_rows import LedgerRowsSql
from cagg.store.log_rows import LogRowsSql
from cagg.store.private_rows import PrivateRowsSql
from cagg.store.tables import schema_version

__all__ = ["SqlTransaction"]

_VERSION = Statement(select(schema_version.c.version_num))


class SqlTransaction(LogRowsSql, LedgerRowsSql, PrivateRowsSql, BudgetRowsSql, ForecastRowsSql):
    """One open transaction; implements :class:`cagg.ports.Transaction`.

    Attributes:
        connection: the database connection that the row classes speak through.
        sequences_inline: True where an append gives its entry a place in the tree at once, because the store has
            one writer at a time; False where a sequencer does it later.
    """

    def __init__(
        self, *, connection: Connection, now: datetime, log_id: int, origin: str, sequences_inline: bool
    ) -> None:
        self.connection = connection
        self.sequences_inline = sequences_inline
        self._now = now
        self._log_id = log_id
        self._origin = origin

    def now(self) -> datetime:
        """The store's own time, UTC, the same throughout the transaction."""
        return self._now

    def schema_version(self) -> str:
        """The version that the store says its schema has, for example ``0001``."""
        return str(_VERSION.row(self.connection)[0])
