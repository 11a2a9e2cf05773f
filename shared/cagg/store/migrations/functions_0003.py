"""Rules of version 0003: one log grows, a frozen one takes nothing, personal values are only added and deleted.

A frozen copy; later files add.

The database itself keeps them, so that they hold for older programs too.

On PostgreSQL every insert of an entry shares a lock on its log's row until its transaction ends (the foreign key takes
the same one), and whoever freezes the log takes that row for itself. So no entry is ever committed to a log after it
was frozen. Programs of this version take turns before that already, by the lock of :data:`WRITERS`: one that has begun
its transaction is waited for, one that begins later finds the next log.
"""
# ruff: noqa: S608 - every statement is put together from names of our own

from __future__ import annotations

from sqlalchemy import Connection

from cagg.store.migrations.functions_0002 import KEY_SPACE

__all__ = ["BEGIN_LOG", "SAME_PRIVATE", "WRITERS", "log_rules"]

BEGIN_LOG = "cagg_begin_log(integer, text, bigint)"
"""What a maintainer calls."""

SAME_PRIVATE = "cagg_same_private(text, jsonb)"
"""What gates call, which may not read personal values."""

WRITERS = f"{KEY_SPACE}, 'cagg_log'::regclass::oid::bigint::bit(32)::integer"
"""Key of the lock that writers share, and that one has alone who begins a log."""

_GROWING = ("cagg_entry", "cagg_queue", "cagg_leaf", "cagg_tile")
"""What a frozen log takes no more of; a checkpoint it may still get."""

_REFUSED = "BEGIN SELECT RAISE(ABORT, 'cagg_log is append-only'); END"
_CHANGED = "BEGIN SELECT RAISE(ABORT, 'cagg_private is append-only, but for deletions'); END"
_OTHER_CHANGE = (
    "(NEW.log_id, NEW.origin, NEW.created_us, OLD.state, NEW.state) "
    "IS NOT (OLD.log_id, OLD.origin, OLD.created_us, 'active', 'frozen')"
)
_SECOND = "NEW.state IS NOT 'active' OR EXISTS (SELECT 1 FROM cagg_log WHERE state = 'active')"
_SQLITE = (
    f"CREATE TRIGGER cagg_log_no_delete BEFORE DELETE ON cagg_log {_REFUSED}",
    f"CREATE TRIGGER cagg_log_only_freezes BEFORE UPDATE ON cagg_log WHEN {_OTHER_CHANGE} {_REFUSED}",
    f"CREATE TRIGGER cagg_log_one_active BEFORE INSERT ON cagg_log WHEN {_SECOND} {_REFUSED}",
    f"CREATE TRIGGER cagg_private_no_update BEFORE UPDATE ON cagg_private {_CHANGED}",
    *(
        f"CREATE TRIGGER {table}_frozen BEFORE INSERT ON {table} "
        "WHEN (SELECT state FROM cagg_log WHERE log_id = NEW.log_id) IS NOT 'active' "
        f"BEGIN SELECT RAISE(ABORT, '{table}: the log is frozen'); END"
        for table in _GROWING
    ),
)

_EACH_ROW = "FOR EACH ROW EXECUTE FUNCTION"
_ONCE = "FOR EACH STATEMENT EXECUTE FUNCTION"
_LOG_CHANGES = """
CREATE FUNCTION cagg_log_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state = 'active' AND NOT EXISTS (SELECT 1 FROM cagg_log l WHERE l.state = 'active') THEN
            RETURN NEW;
        END IF;
    ELSIF (NEW.log_id, NEW.origin, NEW.created_us, OLD.state, NEW.state)
            = (OLD.log_id, OLD.origin, OLD.created_us, 'active', 'frozen') THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'CG001';
END $$"""

_ONLY_ACTIVE = """
CREATE FUNCTION cagg_only_active() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @PATH AS $$
DECLARE
    found record;
BEGIN
    -- locked, so that nobody freezes the log before what was added is committed
    FOR found IN SELECT l.origin, l.state FROM cagg_log l WHERE l.log_id IN (SELECT a.log_id FROM added a)
        FOR KEY SHARE OF l
    LOOP
        IF found.state <> 'active' THEN
            RAISE EXCEPTION 'the log % is frozen', found.origin USING ERRCODE = 'CG004';
        END IF;
    END LOOP;
    RETURN NULL;
END $$"""

_BEGIN_LOG = f"""
CREATE FUNCTION cagg_begin_log(frozen integer, name text, at_us bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @PATH AS $$
DECLARE
    found cagg_log;
    next_id integer;
BEGIN
    PERFORM pg_advisory_xact_lock({WRITERS});
    SELECT * INTO found FROM cagg_log l WHERE l.log_id = frozen FOR UPDATE;
    IF found.state IS DISTINCT FROM 'active' THEN
        RETURN jsonb_build_object('refused', 'frozen');
    ELSIF EXISTS (SELECT 1 FROM cagg_log l WHERE l.origin = name) THEN
        RETURN jsonb_build_object('refused', 'taken');
    ELSIF EXISTS (SELECT 1 FROM cagg_queue q WHERE q.log_id = frozen) THEN
        RETURN jsonb_build_object('refused', 'waiting');
    END IF;
    UPDATE cagg_log SET state = 'frozen' WHERE log_id = frozen;
    SELECT max(l.log_id) + 1 INTO next_id FROM cagg_log l;
    INSERT INTO cagg_log (log_id, origin, state, created_us) VALUES (next_id, name, 'active', at_us);
    RETURN jsonb_build_object('log_id', next_id);
END $$"""

_SAME_PRIVATE = """
CREATE FUNCTION cagg_same_private(of_entry text, wanted jsonb) RETURNS boolean
LANGUAGE sql SECURITY DEFINER STABLE SET search_path = @PATH AS $$
    SELECT NOT EXISTS (SELECT 1 FROM cagg_private p JOIN jsonb_each_text(wanted) AS w ON w.key = p.field
        WHERE p.entry_id = of_entry AND w.value <> p.value)
$$"""

# whoever had rights on the ledger before has them on what is new; `cagg store grants` would give the same
_GRANTS = """
DO $$
DECLARE
    role text;
    relation oid := 'cagg_entry'::regclass;
BEGIN
    FOR role IN SELECT DISTINCT quote_ident(pg_get_userbyid(a.grantee)) FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = relation AND a.grantee NOT IN (0, c.relowner) AND a.privilege_type = 'SELECT'
    LOOP
        EXECUTE 'GRANT SELECT (log_id, entry_id, field) ON cagg_private TO ' || role;
    END LOOP;
    FOR role IN SELECT DISTINCT quote_ident(pg_get_userbyid(a.grantee)) FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = relation AND a.grantee NOT IN (0, c.relowner) AND a.privilege_type = 'INSERT'
    LOOP
        EXECUTE 'GRANT INSERT ON cagg_private TO ' || role;
        EXECUTE 'GRANT EXECUTE ON FUNCTION @SAME_PRIVATE TO ' || role;
    END LOOP;
    FOR role IN SELECT DISTINCT quote_ident(pg_get_userbyid(a.grantee)) FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'cagg_queue'::regclass AND a.grantee NOT IN (0, c.relowner) AND a.privilege_type = 'DELETE'
    LOOP
        EXECUTE 'GRANT SELECT, DELETE ON cagg_private TO ' || role;
        EXECUTE 'GRANT EXECUTE ON FUNCTION @BEGIN_LOG TO ' || role;
    END LOOP;
END $$"""


def log_rules(connection: Connection) -> list[str]:
    """Return the statements that create the rules, in the connection's schema."""
    if connection.dialect.name != "postgresql":
        return list(_SQLITE)
    schema = str(connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one())
    # pinned, so that nobody can put a table of the same name before ours
    path = f"pg_catalog, {schema}, pg_temp"
    names = ("cagg_log_changes()", "cagg_only_active()", BEGIN_LOG, SAME_PRIVATE)
    return [
        *(body.replace("@PATH", path).strip() for body in (_LOG_CHANGES, _ONLY_ACTIVE, _BEGIN_LOG, _SAME_PRIVATE)),
        *(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC" for name in names),
        f"CREATE TRIGGER cagg_log_changes BEFORE INSERT OR UPDATE ON cagg_log {_EACH_ROW} cagg_log_changes()",
        f"CREATE TRIGGER cagg_log_append_only BEFORE DELETE OR TRUNCATE ON cagg_log {_ONCE} cagg_append_only()",
        f"CREATE TRIGGER cagg_private_no_update BEFORE UPDATE OR TRUNCATE ON cagg_private {_ONCE} cagg_append_only()",
        *(
            f"CREATE TRIGGER {table}_frozen AFTER INSERT ON {table} REFERENCING NEW TABLE AS added "
            f"{_ONCE} cagg_only_active()"
            for table in _GROWING
        ),
        _GRANTS.replace("@SAME_PRIVATE", SAME_PRIVATE).replace("@BEGIN_LOG", BEGIN_LOG).strip(),
    ]
