"""PostgreSQL functions of version 0002: every change of a budget row is one call. A frozen copy; later files add.

They run with the rights of the role that migrated the store, so that a gate needs no right to change a counter, and
they take the locks of one operation in one round trip, in the order that ``cagg.budget.reservations`` documents. What
may be held is decided by the caller; a hold that would pass an enforced limit unsaid is refused here once more.
Values travel as JSON objects whose names are the columns' names.
"""
# ruff: noqa: S608 - every statement is put together from names of our own

from __future__ import annotations

from sqlalchemy import Connection

__all__ = ["KEY_SPACE", "MAINTAINER_FUNCTIONS", "WRITER_FUNCTIONS", "budget_functions"]

KEY_SPACE = 0x63616767
"""First half of every advisory lock's key: ``cagg`` in ASCII."""

WRITER_FUNCTIONS = (
    "cagg_lock_reservation(text)",
    "cagg_lock_allotments(jsonb, bigint[])",
    "cagg_post(jsonb, bigint[])",
    "cagg_put_reservation(jsonb)",
    "cagg_due(bigint, bigint, bigint, integer, text[])",
    "cagg_drop_forecasts(text, text, bigint)",
)
"""What gates call."""

MAINTAINER_FUNCTIONS = ("cagg_put_budget(jsonb)", "cagg_set_limit(bigint, bigint)")
"""What the owner of budgets calls as well."""

_RESERVATION_COLUMNS = (
    "series_key",
    "host",
    "root_run_id",
    "task_key",
    "attempt",
    "budget_path",
    "state",
    "first_asked_us",
    "deadline_us",
    "asks",
    "deferrals",
    "planning_intensity_milligrams_per_kwh",
    "planning_basis",
    "planned_start_us",
    "upper_energy_millijoules",
    "lease_until_us",
    "lease_epoch",
    "last_beat_us",
    "started_us",
    "used_energy_millijoules",
    "last_power_milliwatts",
    "encloses_run",
    "created_us",
    "updated_us",
)

_WITH_HOLDS = """to_jsonb(found) || jsonb_build_object('holds', (
    SELECT coalesce(jsonb_agg(jsonb_build_array(h.allotment_id, h.unit, h.amount) ORDER BY h.allotment_id), '[]')
    FROM cagg_hold h WHERE h.request_key = found.request_key))"""

_NEWEST_RULE = """SELECT * INTO rule FROM cagg_budget b
    WHERE b.path = found.path AND b.unit = found.unit AND b.period = found.period ORDER BY b.version DESC LIMIT 1"""

_LOCK_RESERVATION = f"""
CREATE FUNCTION cagg_lock_reservation(wanted text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @PATH AS $$
DECLARE
    found cagg_reservation;
BEGIN
    SELECT * INTO found FROM cagg_reservation r WHERE r.request_key = wanted FOR UPDATE;
    IF found.request_key IS NULL THEN
        -- what is not there cannot be locked: two first asks of one request take turns by its name
        PERFORM pg_advisory_xact_lock({KEY_SPACE}, hashtext(wanted));
        SELECT * INTO found FROM cagg_reservation r WHERE r.request_key = wanted FOR UPDATE;
        IF found.request_key IS NULL THEN
            RETURN NULL;
        END IF;
    END IF;
    RETURN {_WITH_HOLDS};
END $$"""

_LOCK_ALLOTMENTS = f"""
CREATE FUNCTION cagg_lock_allotments(wanted jsonb, further bigint[]) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @PATH AS $$
DECLARE
    item record;
    found cagg_allotment;
    rule cagg_budget;
    result jsonb := '[]';
BEGIN
    FOR item IN
        SELECT DISTINCT ON (starts_us, path COLLATE "C", unit COLLATE "C", period COLLATE "C") * FROM (
            SELECT w.path, w.unit, w.period, w.starts_us, w.ends_us FROM jsonb_to_recordset(wanted)
                AS w(path text, unit text, period text, starts_us bigint, ends_us bigint)
            UNION ALL
            SELECT a.path, a.unit, a.period, a.starts_us, a.ends_us
                FROM cagg_allotment a WHERE a.allotment_id = ANY (further)
        ) AS whole
        ORDER BY starts_us, path COLLATE "C", unit COLLATE "C", period COLLATE "C"
    LOOP
        SELECT * INTO found FROM cagg_allotment a WHERE a.path = item.path AND a.unit = item.unit
            AND a.period = item.period AND a.starts_us = item.starts_us FOR UPDATE;
        IF found.allotment_id IS NULL THEN
            IF item.ends_us <= item.starts_us OR EXISTS (SELECT 1 FROM cagg_allotment a WHERE a.path = item.path
                    AND a.unit = item.unit AND a.period = item.period
                    AND a.starts_us < item.ends_us AND a.ends_us > item.starts_us) THEN
                RAISE EXCEPTION 'the period of % from % overlaps another', item.path, item.starts_us
                    USING ERRCODE = 'CG002';
            END IF;
            INSERT INTO cagg_allotment
                (path, unit, period, starts_us, ends_us, limit_amount, extra, held, spent, overrun)
                SELECT b.path, b.unit, b.period, item.starts_us, item.ends_us, b.limit_amount, 0, 0, 0, 0
                FROM cagg_budget b WHERE b.path = item.path AND b.unit = item.unit AND b.period = item.period
                ORDER BY b.version DESC LIMIT 1
                ON CONFLICT DO NOTHING;
            SELECT * INTO found FROM cagg_allotment a WHERE a.path = item.path AND a.unit = item.unit
                AND a.period = item.period AND a.starts_us = item.starts_us FOR UPDATE;
        END IF;
        {_NEWEST_RULE};
        IF found.allotment_id IS NULL OR rule.path IS NULL THEN
            RAISE EXCEPTION 'the budget of % in % per % is missing', item.path, item.unit, item.period
                USING ERRCODE = 'CG003';
        END IF;
        result := result || jsonb_build_array(to_jsonb(found) || jsonb_build_object('budget', to_jsonb(rule)));
    END LOOP;
    RETURN result;
END $$"""

_POST = f"""
CREATE FUNCTION cagg_post(posted jsonb, may_pass bigint[]) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @PATH AS $$
DECLARE
    item record;
    found cagg_allotment;
    rule cagg_budget;
    seen bigint[] := '{{}}';
BEGIN
    -- looked at as a whole before anything is changed: a refusal leaves the transaction as it was
    FOR item IN SELECT * FROM jsonb_to_recordset(posted)
            AS p(allotment_id bigint, request_key text, kind text, d_held bigint, d_spent bigint) LOOP
        SELECT * INTO found FROM cagg_allotment a WHERE a.allotment_id = item.allotment_id FOR UPDATE;
        IF found.allotment_id IS NULL THEN
            RETURN jsonb_build_object('missing', item.allotment_id);
        END IF;
        IF item.allotment_id = ANY (seen) OR item.kind NOT IN
                ('hold', 'amend', 'settle', 'release', 'expire', 'late_settle', 'limit') THEN
            RAISE EXCEPTION 'allotment % is posted to twice, or as %', item.allotment_id, item.kind
                USING ERRCODE = 'CG002';
        END IF;
        seen := seen || item.allotment_id;
        IF item.d_held > 0 THEN
            IF item.kind NOT IN ('hold', 'amend') THEN
                RETURN jsonb_build_object('unheld', item.allotment_id);
            END IF;
            {_NEWEST_RULE};
            IF rule.mode = 'enforce' AND NOT item.allotment_id = ANY (may_pass)
                    AND found.held::numeric + found.spent + item.d_held > found.limit_amount::numeric + found.extra THEN
                RETURN jsonb_build_object('over', item.allotment_id);
            END IF;
        ELSIF item.d_held < 0 AND -item.d_held > (SELECT coalesce(sum(j.d_held), 0) FROM cagg_journal j
                WHERE j.request_key = item.request_key AND j.allotment_id = item.allotment_id) THEN
            RETURN jsonb_build_object('unheld', item.allotment_id);
        END IF;
        -- only what turns up after an expiry may cost less than was charged then, and no less than nothing
        IF item.d_spent < 0 AND (item.kind <> 'late_settle' OR
                -item.d_spent > (SELECT coalesce(sum(j.d_spent), 0) FROM cagg_journal j
                    WHERE j.request_key = item.request_key AND j.allotment_id = item.allotment_id)) THEN
            RETURN jsonb_build_object('unspent', item.allotment_id);
        END IF;
    END LOOP;
    INSERT INTO cagg_journal (allotment_id, request_key, kind, d_held, d_spent, d_overrun, at_us)
        SELECT p.allotment_id, p.request_key, p.kind, p.d_held, p.d_spent, p.d_overrun, p.at_us
        FROM ROWS FROM (jsonb_to_recordset(posted) AS (allotment_id bigint, request_key text, kind text,
            d_held bigint, d_spent bigint, d_overrun bigint, at_us bigint)) WITH ORDINALITY AS p
        ORDER BY p.ordinality;
    UPDATE cagg_allotment a
        SET held = a.held + p.d_held, spent = a.spent + p.d_spent, overrun = a.overrun + p.d_overrun
        FROM jsonb_to_recordset(posted) AS p(allotment_id bigint, d_held bigint, d_spent bigint, d_overrun bigint)
        WHERE a.allotment_id = p.allotment_id AND (p.d_held, p.d_spent, p.d_overrun) <> (0, 0, 0);
    RETURN NULL;
END $$"""

_PUT_RESERVATION = f"""
CREATE FUNCTION cagg_put_reservation(value jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @PATH AS $$
DECLARE
    wanted cagg_reservation := jsonb_populate_record(NULL::cagg_reservation, value);
BEGIN
    INSERT INTO cagg_reservation (request_key, {", ".join(_RESERVATION_COLUMNS)}, run_reference)
        SELECT wanted.request_key, {", ".join(f"wanted.{name}" for name in _RESERVATION_COLUMNS)}, wanted.run_reference
        ON CONFLICT (request_key) DO UPDATE SET
        {", ".join(f"{name} = EXCLUDED.{name}" for name in _RESERVATION_COLUMNS)},
        run_reference = coalesce(EXCLUDED.run_reference, cagg_reservation.run_reference);
    IF value -> 'holds' IS NULL THEN
        RETURN;
    END IF;
    DELETE FROM cagg_hold h WHERE h.request_key = wanted.request_key AND NOT EXISTS (
        SELECT 1 FROM jsonb_to_recordset(value -> 'holds') AS w(allotment_id bigint)
        WHERE w.allotment_id = h.allotment_id);
    INSERT INTO cagg_hold (request_key, allotment_id, unit, amount)
        SELECT wanted.request_key, w.allotment_id, w.unit, w.amount
        FROM jsonb_to_recordset(value -> 'holds') AS w(allotment_id bigint, unit text, amount bigint)
        ON CONFLICT (request_key, allotment_id) DO UPDATE SET unit = EXCLUDED.unit, amount = EXCLUDED.amount;
    -- one that has ended keeps what it held, to be read
    IF wanted.state IN ('waiting', 'running') AND EXISTS (
            SELECT 1 FROM (SELECT k.allotment_id, k.amount FROM cagg_hold k
                WHERE k.request_key = wanted.request_key) AS h
            FULL JOIN (SELECT j.allotment_id, sum(j.d_held) AS amount FROM cagg_journal j
                WHERE j.request_key = wanted.request_key GROUP BY j.allotment_id) AS j USING (allotment_id)
            WHERE coalesce(h.amount, 0) <> coalesce(j.amount, 0)) THEN
        RAISE EXCEPTION 'request % would hold something else than its journal says', left(wanted.request_key, 12)
            USING ERRCODE = 'CG002';
    END IF;
END $$"""

_DUE = f"""
CREATE FUNCTION cagg_due(now_us bigint, waiting_us bigint, open_ended_us bigint, most integer, paths text[])
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = @PATH AS $$
DECLARE
    found cagg_reservation;
    result jsonb := '[]';
BEGIN
    FOR found IN SELECT * FROM cagg_reservation r
        WHERE ((r.state = 'running' AND r.lease_until_us <= now_us)
            OR (r.state = 'waiting' AND (r.deadline_us <= waiting_us
                OR (r.deadline_us IS NULL AND r.planned_start_us <= open_ended_us))))
        AND (paths IS NULL OR EXISTS (SELECT 1 FROM cagg_hold h JOIN cagg_allotment a USING (allotment_id)
            WHERE h.request_key = r.request_key AND a.path = ANY (paths)))
        ORDER BY r.created_us, r.request_key COLLATE "C" LIMIT most FOR UPDATE SKIP LOCKED
    LOOP
        result := result || jsonb_build_array({_WITH_HOLDS});
    END LOOP;
    RETURN result;
END $$"""

_PUT_BUDGET = """
CREATE FUNCTION cagg_put_budget(value jsonb) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @PATH AS $$
DECLARE
    wanted cagg_budget := jsonb_populate_record(NULL::cagg_budget, value);
BEGIN
    INSERT INTO cagg_budget (path, unit, period, version, time_zone, limit_amount, mode,
            unknown_intensity_milligrams_per_kwh, created_us)
        SELECT wanted.path, wanted.unit, wanted.period, wanted.version, wanted.time_zone, wanted.limit_amount,
            wanted.mode, wanted.unknown_intensity_milligrams_per_kwh, wanted.created_us
        ON CONFLICT DO NOTHING;
    RETURN FOUND;
END $$"""

_SET_LIMIT = """
CREATE FUNCTION cagg_set_limit(which bigint, amount bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = @PATH AS $$
    UPDATE cagg_allotment SET limit_amount = amount WHERE allotment_id = which
$$"""

_DROP_FORECASTS = """
CREATE FUNCTION cagg_drop_forecasts(of_provider text, of_zone text, before_us bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @PATH AS $$
DECLARE
    needed_us bigint;
    dropped bigint;
BEGIN
    SELECT least(min(r.first_asked_us), min(r.started_us)) INTO needed_us
        FROM cagg_reservation r WHERE r.state IN ('waiting', 'running');
    -- a run is priced from its first ask on, by what was fetched since a day before that
    DELETE FROM cagg_forecast f WHERE (of_provider IS NULL OR (f.provider = of_provider AND f.zone = of_zone))
        AND f.fetched_us < before_us
        AND (needed_us IS NULL OR f.end_us <= needed_us OR f.fetched_us < needed_us - 86400000000);
    GET DIAGNOSTICS dropped = ROW_COUNT;
    RETURN dropped;
END $$"""


def budget_functions(connection: Connection) -> list[str]:
    """Return the statements that create the functions in the connection's schema; none for SQLite."""
    if connection.dialect.name != "postgresql":
        return []
    schema = str(connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one())
    # pinned, so that nobody can put a table of the same name before ours
    path = f"pg_catalog, {schema}, pg_temp"
    bodies = (
        _LOCK_RESERVATION,
        _LOCK_ALLOTMENTS,
        _POST,
        _PUT_RESERVATION,
        _DUE,
        _PUT_BUDGET,
        _SET_LIMIT,
        _DROP_FORECASTS,
    )
    created = [body.replace("@PATH", path).strip() for body in bodies]
    closed = [f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC" for name in (*WRITER_FUNCTIONS, *MAINTAINER_FUNCTIONS)]
    return created + closed
