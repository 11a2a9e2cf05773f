"""Refuses changes of what is only ever added to. A file's owner can drop these: ``verify`` still sees the change."""

from __future__ import annotations

__all__ = ["APPEND_ONLY", "append_only_triggers"]

APPEND_ONLY = ("cagg_entry", "cagg_leaf", "cagg_tile", "cagg_checkpoint", "cagg_journal")


def append_only_triggers(dialect: str, tables: tuple[str, ...] = APPEND_ONLY) -> list[str]:
    """Return the statements that make tables append-only in a dialect; none for other dialects than SQLite."""
    if dialect != "sqlite":
        return []
    return [
        f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        for table in tables
        for action in ("UPDATE", "DELETE")
    ]
