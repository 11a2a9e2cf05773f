"""Who may do what on PostgreSQL: gates append and read, budgets change through functions, maintainers sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, text

from cagg.errors import InvalidInput
from cagg.store import tables as t
from cagg.store.migrations import functions_0002, functions_0003

__all__ = ["facts_of", "grant_statements"]

_APPENDED = ("cagg_entry", "cagg_queue", "cagg_private", "cagg_blob", "cagg_forecast")
"""What gates insert into."""
_SEQUENCED = ("cagg_leaf", "cagg_tile", "cagg_checkpoint")
"""What the sequencer inserts into."""

_PRIVATE = "cagg_private"
_PRIVATE_NAMES = "log_id, entry_id, field"
"""What everybody sees of personal values: that there is one. Salts and values are for maintainers, who may delete them:
a gate runs the code of many people, and a reader may be a stranger."""
WRITER_FUNCTIONS = (*functions_0002.WRITER_FUNCTIONS, functions_0003.SAME_PRIVATE)
"""What gates call."""
MAINTAINER_FUNCTIONS = (*functions_0002.MAINTAINER_FUNCTIONS, functions_0003.BEGIN_LOG)
"""What maintainers call as well."""

_RIGHTS = """
SELECT
    pg_catalog.pg_has_role(c.relowner, 'USAGE'),
    has_table_privilege('cagg_leaf', 'INSERT') AND has_table_privilege('cagg_queue', 'DELETE'),
    has_table_privilege('cagg_entry', 'INSERT') AND has_function_privilege('cagg_post(jsonb, bigint[])', 'EXECUTE'),
    has_table_privilege('cagg_entry', 'SELECT')
FROM pg_catalog.pg_class c WHERE c.oid = to_regclass('cagg_entry')
"""


_FACTS = """
SELECT current_setting('server_version'), current_database(), current_schema(), current_user,
    coalesce((SELECT s.ssl FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid()), false),
    (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname LIKE 'cagg\\_%')
"""


def grant_statements(schema: str, *, writer: str | None, maintainer: str | None, reader: str | None) -> list[str]:
    """Return statements that give each role exactly what it needs, whatever it had before.

    Args:
        schema: where the tables are, quoted.
        writer: for gates: append entries, cache forecasts, change budgets through the functions; None = none.
        maintainer: for ``cagg maintain`` and the owners of budgets: also sequence, sign and set limits; None = none.
        reader: for those who look and verify; None = none.

    Raises:
        InvalidInput: no role is named, or one twice, or a name cannot be one.
    """
    named = [name for name in (reader, writer, maintainer) if name is not None]
    if not named:
        raise InvalidInput("name at least one role: --writer, --maintainer or --reader.")
    for name in named:
        if not name or "\x00" in name or len(name.encode()) > 63:
            raise InvalidInput(f"a role's name must have 1 to 63 bytes, got {name!r}.")
    if len(set(named)) < len(named):
        raise InvalidInput("give each kind of work a role of its own; a maintainer may do what a writer may anyway.")
    statements: list[str] = []
    if reader is not None:
        statements += _read(schema, reader)
    if writer is not None:
        statements += _read(schema, writer) + _write(schema, writer)
    if maintainer is not None:
        role = _quoted(maintainer)
        statements += _read(schema, maintainer) + _write(schema, maintainer)
        statements.append(f"GRANT INSERT ON {_tables(schema, _SEQUENCED)} TO {role}")
        statements.append(f"GRANT DELETE ON {_tables(schema, ('cagg_queue', _PRIVATE))} TO {role}")
        statements.append(f"GRANT SELECT ON {schema}.{_PRIVATE} TO {role}")
        statements += [f"GRANT EXECUTE ON FUNCTION {schema}.{name} TO {role}" for name in MAINTAINER_FUNCTIONS]
    return statements


def _read(schema: str, name: str) -> list[str]:
    role, names = _quoted(name), sorted(t.metadata.tables)
    everything, open_to_all = _tables(schema, names), _tables(schema, [one for one in names if one != _PRIVATE])
    return [
        f"REVOKE ALL ON {everything} FROM {role}",
        *(f"REVOKE ALL ON FUNCTION {schema}.{one} FROM {role}" for one in (*WRITER_FUNCTIONS, *MAINTAINER_FUNCTIONS)),
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        f"GRANT SELECT ON {open_to_all} TO {role}",
        f"GRANT SELECT ({_PRIVATE_NAMES}) ON {schema}.{_PRIVATE} TO {role}",
    ]


def _write(schema: str, name: str) -> list[str]:
    role = _quoted(name)
    return [
        f"GRANT INSERT ON {_tables(schema, _APPENDED)} TO {role}",
        *(f"GRANT EXECUTE ON FUNCTION {schema}.{one} TO {role}" for one in WRITER_FUNCTIONS),
    ]


def _tables(schema: str, names: Sequence[str]) -> str:
    return ", ".join(f"{schema}.{name}" for name in names)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def facts_of(connection: Connection) -> Mapping[str, str | int | bool]:
    """Return what the server says of itself and of the connected role.

    ``rights`` is what the role may do: owner, maintainer, writer, reader or nothing.
    """
    found = connection.execute(text(_FACTS)).one()
    has = connection.execute(text(_RIGHTS)).first() or ()
    kinds = ("owner", "maintainer", "writer", "reader")
    rights = next((kind for kind, given in zip(kinds, has, strict=False) if given), "nothing")
    names = ("server", "database", "schema", "role", "encrypted", "bytes")
    return {**dict(zip(names, found, strict=True)), "rights": rights}
