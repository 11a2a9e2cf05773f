"""Refuses changes of what is only ever added to. A store's owner can drop these: ``verify`` still sees the change."""

from __future__ import annotations

__all__ = ["APPEND_ONLY", "append_only_triggers"]

APPEND_ONLY = ("cagg_entry", "cagg_leaf", "cagg_tile", "cagg_checkpoint", "cagg_journal")

_REFUSE = (
    "CREATE FUNCTION cagg_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "RAISE EXCEPTION '{}', TG_TABLE_NAME USING ERRCODE = '{}'; END $$"
)
_MESSAGE = "% is append-only"
_SQLSTATE = "CG001"


def append_only_triggers(dialect: str, tables: tuple[str, ...] = APPEND_ONLY) -> list[str]:
    """Return the statements that make tables append-only, in SQLite's or PostgreSQL's words."""
    if dialect == "postgresql":
        return [
            _REFUSE.format(_MESSAGE, _SQLSTATE),
            "REVOKE ALL ON FUNCTION cagg_append_only() FROM PUBLIC",
            *(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION cagg_append_only()"
                for table in tables
            ),
        ]
    return [
        f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        for table in tables
        for action in ("UPDATE", "DELETE")
    ]
