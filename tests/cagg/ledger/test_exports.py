"""Exports: every line says what the log says, hashes can be recomputed from it, and damage never leaves the store."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import io
import json
import tracemalloc
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.encoding import decode
from cagg.ledger.entry import append, idempotency_key
from cagg.ledger.export import csv as csv_export
from cagg.ledger.export import in_toto, jsonl, openlineage
from cagg.ledger.export.reader import LogReader, Selection, StoreReader
from cagg.ledger.export.readings import readings_only
from cagg.ledger.merkle import leaf_hash, root_of
from cagg.ledger.sequencer import sequence
from cagg.ports import Store, Transaction
from cagg.records import Entry, EntryDraft, EntryKind
from cagg.store.sqlite import SqliteStore
from cagg.testing import ManualClock
from cagg.testing.attacks import unlock
from cagg.testing.stores import MemorySigner, draft

NAME = "example.org/test"
SIGNER = MemorySigner(NAME)
START = datetime(2026, 1, 5, 21, 0, tzinfo=UTC)
DIGEST = hashlib.sha256(b"model").hexdigest()
READINGS = readings_only(Selection(), "csv")


def reading(key: str, **fields: Any) -> EntryDraft:
    """A measurement of two slices: 1 kWh at 100 g/kWh and 3 kWh at 300 g/kWh, 1000 g in all."""
    slices = [
        {
            "start": f"2026-01-05T2{hour}:00:00.000000Z",
            "end": f"2026-01-05T2{hour + 1}:00:00.000000Z",
            "energy_millijoules": str(kwh * 3_600_000_000),
            "intensity_milligrams_per_kwh": str(100_000 * kwh),
            "source": "trace",
        }
        for hour, kwh in ((1, 1), (2, 3))
    ]
    request = {
        "key": key,
        "host": "prefect",
        "root_run_id": "run-1",
        "task_key": "nightly/validate",
        "ordinal": 0,
        "attempt": 2,
        "zone": "neso:GB",
        "budget_path": "acme/ml",
        "purpose": "release",
        "kind": "validation",
        "work_item": "PR-17",
        "code": [{"name": "commit", "value": "0123abc"}, {"name": "dirty", "value": "false"}],
    }
    body = {
        "request": request,
        "start": slices[0]["start"],
        "end": slices[1]["end"],
        "outcome": "completed",
        "part_of": None,
        "grade": "C",
        "energy_millijoules": "14400000000",
        "energy_low_millijoules": "10000000000",
        "energy_high_millijoules": "20000000000",
        "energy_reason": "",
        "pue_ppm": None,
        "carbon_micrograms": "1000000000",
        "carbon_reason": "",
        "convention": {"signal": "average", "basis": "direct", "gas": "co2"},
        "components": [{"domain": "cpu", "source": "rapl", "method": "share of processor time"}],
        "slices": slices,
    }
    kind, ordinal = fields.pop("kind", EntryKind.MEASUREMENT), fields.pop("ordinal", 0)
    return EntryDraft(kind=kind, request_key=key, ordinal=ordinal, body={**body, **fields})


UNKNOWN = {
    "energy_millijoules": None,
    "energy_low_millijoules": None,
    "energy_high_millijoules": None,
    "energy_reason": "no energy source can be read",
    "grade": None,
    "carbon_micrograms": None,
    "carbon_reason": "no energy source can be read",
    "convention": None,
    "slices": [],
}


def write(store: Store, *drafts: EntryDraft) -> list[Entry]:
    """Append the drafts, one second apart, sequence and sign them."""
    entries = []
    for item in drafts:
        with store.transaction() as tx:
            entries.append(append(tx, item))
        store_clock(store).advance(1)
    sign(store)
    return entries


def store_clock(store: Store) -> ManualClock:
    clock: ManualClock = store._clock  # type: ignore[attr-defined]
    return clock


def sign(store: Store) -> None:
    with store.transaction() as tx:
        while sequence(tx):
            pass
        sign_checkpoint(tx, SIGNER)


def rows_of(tx: Transaction, selection: Selection = READINGS) -> list[dict[str, str]]:
    """The table as any reader of CSV sees it."""
    text = b"".join(csv_export.chunks(LogReader(tx, selection))).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def documents(chunks: Iterable[bytes]) -> list[dict[str, Any]]:
    """JSON lines, each of them ended by LF."""
    data = b"".join(chunks)
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


# ---- lines as they are stored ---------------------------------------------------------------------------------------


def test_hashes_and_the_root_follow_from_the_lines(store: Store) -> None:
    entries = write(store, draft("a", text='é " \\ \n </script>'), reading("b"), draft("large", large="x" * 70_000))
    with store.snapshot() as tx:
        reader = LogReader(tx)
        lines = list(jsonl.chunks(reader))
    leaves = []
    for number, (line, entry) in enumerate(zip(lines, entries, strict=True)):
        value = json.loads(line)
        stored = line[line.index(b'"body":') + 7 : -2]
        assert stored == entry.body == rfc8785.dumps(value["body"])
        assert (value["index"], value["leaf_hash"]) == (number, leaf_hash(stored).hex())
        leaves.append(leaf_hash(stored))
    assert reader.root == root_of(leaves)
    assert (reader.entries, reader.size, reader.signed_size) == (3, 3, 3)


def test_an_empty_log_gives_nothing(store: Store) -> None:
    with store.transaction():
        pass
    with store.snapshot() as tx:
        assert list(jsonl.chunks(LogReader(tx))) == []
        assert rows_of(tx) == []


def test_entries_that_wait_for_their_place_are_left_out(store: Store) -> None:
    write(store, draft("a"))
    with store.transaction() as tx:
        append(tx, draft("b"))
        inline = tx.sequences_inline
    with store.snapshot() as tx:
        reader = LogReader(tx)
        lines = documents(jsonl.chunks(reader))
    assert len(lines) == (2 if inline else 1)
    assert reader.signed_size == 1


def test_the_checkpoint_of_an_entry_is_the_smallest_that_covers_it(store: Store) -> None:
    write(store, draft("a"), draft("b"))
    write(store, draft("c"))
    with store.transaction() as tx:
        append(tx, draft("d"))
        sequence(tx)
    with store.snapshot() as tx:
        signed = [None if item.signed is None else item.signed.size for item in LogReader(tx)]
        root = next(iter(LogReader(tx))).signed
        assert root is not None
        assert root.root == root_of(tx.leaf_hashes(0, 2))
    assert signed == [2, 2, 3, None]


def test_each_log_of_a_store_is_exported_by_itself(store: Store) -> None:
    write(store, reading("old"))
    with store.transaction() as tx:
        append(tx.begin_log("example.org/next"), reading("new"))
    with store.transaction() as tx:
        while sequence(tx):
            pass
    with store.snapshot() as tx:
        found = {
            name: [(item.index, item.body["request_key"]) for item in LogReader(tx.in_log(name))]
            for name in (NAME, "example.org/next")
        }
        assert {row["log"] for row in rows_of(tx)} == {"example.org/next"}
    assert found == {NAME: [(0, "old")], "example.org/next": [(0, "new")]}


def test_a_reading_that_the_next_log_corrects_does_not_count(store: Store) -> None:
    (old,) = write(store, reading("run"))
    with store.transaction() as tx:
        new = append(tx.begin_log("example.org/next"), reading("run", kind=EntryKind.CORRECTION))
    with store.transaction() as tx:
        while sequence(tx):
            pass
    with store.snapshot() as tx:
        logs = [tx.in_log(log.origin) for log in tx.logs()]
        for chosen in (logs, logs[:1], logs[1:]):
            text = b"".join(csv_export.chunks(StoreReader(chosen, READINGS))).decode()
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
            said = {row["entry_id"]: row["counts_reason"] for row in rows}
            expected = {old.entry_id: f"replaced by {new.entry_id}", new.entry_id: ""}
            assert said == {entry_id: expected[entry_id] for entry_id in said}
            assert len(said) == len(chosen)
            assert {row["index"] for row in rows} == {"0"}
        events = documents(openlineage.chunks(StoreReader(logs, READINGS)))
    assert [event["eventType"] for event in events] == ["START", "COMPLETE", "OTHER"]


# ---- what is chosen -------------------------------------------------------------------------------------------------


def test_kinds_and_times_choose(store: Store) -> None:
    begun = store_clock(store).now()
    write(store, draft("a"), reading("b"), reading("c"), draft("d"))
    second = timedelta(seconds=1)

    def keys(**which: Any) -> list[str]:
        with store.snapshot() as tx:
            return [item.body["request_key"] for item in LogReader(tx, Selection(**which))]

    assert keys() == ["a", "b", "c", "d"]
    assert keys(kinds=frozenset({EntryKind.MEASUREMENT})) == ["b", "c"]
    assert keys(since=begun + second, until=begun + 3 * second) == ["b", "c"]
    assert keys(since=begun + 2 * second, kinds=frozenset({EntryKind.MEASUREMENT})) == ["c"]
    assert keys(until=begun) == []


def test_an_interval_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(InvalidInput, match="must lie after"):
        Selection(since=START, until=START)


@pytest.mark.parametrize("kind", [EntryKind.DECISION, EntryKind.KEY])
def test_a_table_of_readings_takes_no_other_kind(kind: EntryKind) -> None:
    with pytest.raises(InvalidInput, match="is none"):
        readings_only(Selection(kinds=frozenset({kind})), "csv")


def test_a_correction_of_something_else_is_no_reading(store: Store) -> None:
    about = EntryDraft(kind=EntryKind.CORRECTION, request_key="k", ordinal=0, body={"evidence": ["x"]})
    write(store, about, reading("b"))
    with store.snapshot() as tx:
        reader = LogReader(tx, READINGS)
        lines = b"".join(csv_export.chunks(reader)).splitlines()
    assert (len(lines), reader.entries) == (2, 1)


# ---- damage ---------------------------------------------------------------------------------------------------------

_EDITS = {
    "body": "UPDATE cagg_entry SET body = replace(body, 'nightly', 'daytime') WHERE kind = 'measurement'",
    "leaf": "UPDATE cagg_leaf SET leaf_hash = zeroblob(32) WHERE leaf_index = 1",
    "missing": "DELETE FROM cagg_entry WHERE kind = 'measurement'",
    "tail": "DELETE FROM cagg_leaf WHERE leaf_index = 2",
    "checkpoint": "UPDATE cagg_checkpoint SET root = zeroblob(32)",
}


@pytest.mark.parametrize("edit", _EDITS)
@pytest.mark.parametrize("export", [jsonl, csv_export, openlineage, in_toto])
def test_what_was_edited_is_not_exported(file_store: SqliteStore, edit: str, export: Any) -> None:
    write(file_store, draft("a"), reading("b"), draft("c"))
    with file_store.transaction() as tx:
        assert unlock(tx).exec_driver_sql(_EDITS[edit]).rowcount == 1
        reader = LogReader(tx, READINGS if export in (csv_export, openlineage) else None)
        with pytest.raises(LedgerDamaged, match="cagg ledger verify"):
            list(export.chunks(reader))


_UNREADABLE: tuple[dict[str, Any], ...] = (
    {"slices": [1]},
    {"slices": [{"energy_millijoules": "x", "intensity_milligrams_per_kwh": "1"}]},
    {"components": ["cpu"]},
    {"convention": "average"},
    {"pue_ppm": "1.5"},
)


@pytest.mark.parametrize("fields", _UNREADABLE, ids=lambda fields: next(iter(fields)))
def test_a_reading_in_an_unknown_form_is_a_sentence(
    file_store: SqliteStore, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a later version may write it, or a program that is none of ours."""
    monkeypatch.setattr("cagg.ledger.entry.check_kind", lambda body: None)
    write(file_store, reading("b", **fields))
    with file_store.snapshot() as tx:
        with pytest.raises(LedgerDamaged, match="entry 0 is no reading that this version can show"):
            rows_of(tx)
        assert len(documents(jsonl.chunks(LogReader(tx)))) == 1
        for export, which in ((openlineage, READINGS), (in_toto, None)):
            with contextlib.suppress(LedgerDamaged):
                list(export.chunks(LogReader(tx, which)))


def test_a_missing_attachment_is_a_sentence(file_store: SqliteStore) -> None:
    write(file_store, reading("b", notes=["x" * 70_000]))
    with file_store.transaction() as tx:
        assert unlock(tx).exec_driver_sql("DELETE FROM cagg_blob").rowcount
        assert len(documents(jsonl.chunks(LogReader(tx)))) == 1, "what is stored of the entry itself is whole"
        for export in (csv_export, openlineage, in_toto):
            with pytest.raises(LedgerDamaged, match="entry 0: the blob"):
                list(export.chunks(LogReader(tx, READINGS)))


def test_an_entry_hidden_behind_an_edited_column_is_exported_all_the_same(file_store: SqliteStore) -> None:
    begun = store_clock(file_store).now()
    write(file_store, reading("b"))
    with file_store.transaction() as tx:
        unlock(tx).exec_driver_sql("UPDATE cagg_entry SET kind = 'decision', recorded_us = 0")
        assert len(rows_of(tx, readings_only(Selection(since=begun), "csv"))) == 1


# ---- the table ------------------------------------------------------------------------------------------------------


def test_the_figures_of_a_row(store: Store) -> None:
    (entry,) = write(store, reading("b"))
    with store.snapshot() as tx:
        (row,) = rows_of(tx)
    expected = {
        "start": "2026-01-05T21:00:00.000000Z",
        "end": "2026-01-05T23:00:00.000000Z",
        "host": "prefect",
        "task": "nightly/validate",
        "attempt": "2",
        "outcome": "completed",
        "budget": "acme/ml",
        "work_item": "PR-17",
        "purpose": "release",
        "work_kind": "validation",
        "zone": "neso:GB",
        "counts": "yes",
        "counts_reason": "",
        "energy_kwh": "4",
        "energy_millijoules": "14400000000",
        "energy_low_millijoules": "10000000000",
        "energy_high_millijoules": "20000000000",
        "energy_grade": "C",
        "energy_method": "cpu: rapl, share of processor time",
        "carbon_kg": "1",
        "carbon_micrograms": "1000000000",
        "intensity_g_per_kwh": "250",
        "intensity_reason": "",
        "intensity_source": "trace",
        "signal": "average",
        "pue": "",
        "code_commit": "0123abc",
        "code_dirty": "false",
        "kind": "measurement",
        "log": NAME,
        "index": "0",
        "entry_id": entry.entry_id,
        "leaf_hash": entry.leaf_hash.hex(),
        "checkpoint_size": "1",
    }
    assert {name: row[name] for name in expected} == expected


def test_what_is_unknown_is_empty_with_a_reason(store: Store) -> None:
    write(store, reading("a", **UNKNOWN), reading("b", carbon_micrograms=None, carbon_reason="no zone", slices=[]))
    with store.snapshot() as tx:
        first, second = rows_of(tx)
    for name in ("energy_kwh", "energy_millijoules", "energy_grade", "carbon_kg", "intensity_g_per_kwh", "signal"):
        assert first[name] == ""
    assert first["energy_reason"] == first["carbon_reason"] == "no energy source can be read"
    assert first["intensity_reason"] == "the energy is unknown"
    assert (second["carbon_kg"], second["carbon_reason"]) == ("", "no zone")
    assert second["energy_kwh"] == "4"
    assert (second["intensity_g_per_kwh"], second["intensity_reason"]) == ("", "no zone")


def test_rows_that_would_count_twice_say_so(store: Store) -> None:
    """Lost and found; measured anew; named by a correction; inside of another."""
    lost = {"outcome": "lost", "slices": [], "energy_millijoules": "7", "carbon_micrograms": None}
    correction = {"kind": EntryKind.CORRECTION}
    named, *_ = write(store, reading("named"))
    entries = write(
        store,
        reading("lost", **lost),
        reading("lost", ordinal=1),
        reading("anew"),
        reading("anew", **correction),
        reading("anew", **correction, ordinal=1),
        reading("inner", part_of="outer"),
        reading("outer"),
        reading("other", **correction, corrects=named.entry_id, start="2026-01-05T20:30:00.000000Z"),
    )
    ids = [entry.entry_id for entry in entries]
    with store.snapshot() as tx:
        rows = rows_of(tx)
    assert [(row["counts"], row["counts_reason"]) for row in rows] == [
        ("no", f"replaced by {ids[7]}"),
        ("no", f"replaced by {ids[1]}"),
        ("yes", ""),
        ("no", f"replaced by {ids[4]}"),
        ("no", f"replaced by {ids[4]}"),
        ("yes", ""),
        ("no", "part of the run outer"),
        ("yes", ""),
        ("yes", ""),
    ]


def test_the_table_is_plain_rfc_4180(store: Store) -> None:
    request = {**reading("b").body["request"], "task_key": 'a, "b"\r\nc'}
    write(store, reading("b", request=request, work_item="=HYPERLINK(1)"))
    with store.snapshot() as tx:
        data = b"".join(csv_export.chunks(LogReader(tx, READINGS)))
        (row,) = rows_of(tx)
    assert data.count(b"\r\n") == 3, "header, row, and the one inside of the quotes"
    assert b'"a, ""b""\r\nc"' in data
    assert row["task"] == 'a, "b"\r\nc'
    assert row["work_item"] == "'=HYPERLINK(1)"
    assert tuple(row) == csv_export.COLUMNS


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_cell_is_a_formula_and_the_text_can_be_had_back(text: str) -> None:
    cell = csv_export.safe_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
    again = cell.removeprefix("'")
    assert again == "".join(c if c in "\t\n\r" or (ord(c) >= 32 and c != "\x7f") else "\ufffd" for c in text)


@given(st.lists(st.tuples(st.integers(0, 10**15), st.integers(0, 2_000_000)), max_size=8))
def test_the_mean_intensity_is_that_of_exact_fractions(slices: list[tuple[int, int]]) -> None:
    from fractions import Fraction

    from cagg.ledger.export.readings import weighted_intensity

    body = {
        "slices": [
            {"energy_millijoules": str(energy), "intensity_milligrams_per_kwh": str(intensity)}
            for energy, intensity in slices
        ]
    }
    total = sum(energy for energy, _ in slices)
    found = weighted_intensity(body)
    if total == 0:
        assert found is None
    else:
        exact = Fraction(sum(energy * intensity for energy, intensity in slices), total)
        assert found is not None
        assert abs(found - exact) <= Fraction(1, 2)


@given(st.integers(-(2**63), 2**63 - 1))
def test_kilograms_are_exact_and_kilowatt_hours_round_to_nine_decimals(amount: int) -> None:
    assert Decimal(csv_export._decimal(amount, 1_000_000_000) or "") * 1_000_000_000 == amount
    shown = Decimal(csv_export._decimal(amount, 3_600_000_000) or "")
    assert abs(shown * 3_600_000_000 - amount) <= Decimal("1.8")


# ---- OpenLineage ----------------------------------------------------------------------------------------------------

_FACETS = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["_producer", "_schemaURL"],
        "properties": {name: {"type": "string", "format": "uri"} for name in ("_producer", "_schemaURL")},
    },
}
_NAMED = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}, "facets": _FACETS},
}
RUN_EVENT = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"type": "string", "format": "uri"},
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": _FACETS},
        },
        "job": _NAMED,
        "inputs": {"type": "array", "items": _NAMED},
        "outputs": {"type": "array", "items": _NAMED},
    },
}
"""What https://openlineage.io/spec/2-0-2/OpenLineage.json asks of a RunEvent, written down here."""


def events_of(tx: Transaction) -> list[dict[str, Any]]:
    """The events, each checked against the specification and our facet against the schema that ships with it."""
    found = documents(openlineage.chunks(LogReader(tx, READINGS)))
    schema = json.loads((files("cagg.ledger.export") / "carbon_ledger_facet.json").read_text(encoding="utf-8"))
    formats = jsonschema.FormatChecker()
    jsonschema.Draft202012Validator.check_schema(schema)
    for event in found:
        jsonschema.Draft202012Validator(RUN_EVENT, format_checker=formats).validate(event)
        assert datetime.fromisoformat(event["eventTime"]).utcoffset() == timedelta(0)
        assert str(uuid.UUID(event["run"]["runId"])) == event["run"]["runId"]
        for facet in event["run"].get("facets", {}).values():
            jsonschema.Draft202012Validator(schema, format_checker=formats).validate(facet)
    return found


def test_a_run_starts_once_and_ends_once(store: Store) -> None:
    lost = {"outcome": "lost", "slices": [], "energy_millijoules": "7", "carbon_micrograms": None}
    write(
        store,
        reading("done"),
        reading("failed", outcome="failed"),
        reading("stopped", outcome="interrupted"),
        reading("lost", **lost),
        reading("lost", kind=EntryKind.CORRECTION),
        reading("late", kind=EntryKind.CORRECTION),
        reading("twice"),
        reading("twice", ordinal=1),
    )
    with store.snapshot() as tx:
        events = events_of(tx)
    told: dict[str, list[str]] = {}
    for event in events:
        told.setdefault(event["run"]["runId"], []).append(event["eventType"])
    assert {key: told[openlineage.run_id(key)] for key in ("done", "failed", "stopped", "lost", "late", "twice")} == {
        "done": ["START", "COMPLETE"],
        "failed": ["START", "FAIL"],
        "stopped": ["START", "ABORT"],
        "lost": ["START", "ABORT", "OTHER"],
        "late": ["START", "COMPLETE"],
        "twice": ["START", "COMPLETE", "OTHER"],
    }
    assert len(told) == 6


def test_the_facet_names_the_entry_and_what_was_signed(store: Store) -> None:
    (entry,) = write(store, reading("b", part_of="outer"))
    with store.snapshot() as tx:
        start, end = events_of(tx)
        root = tx.checkpoints()[0].root
    assert "facets" not in start["run"]
    assert (start["eventTime"], end["eventTime"]) == ("2026-01-05T21:00:00.000000Z", "2026-01-05T23:00:00.000000Z")
    assert end["job"] == {"namespace": "cagg.prefect", "name": "nightly/validate"}
    facet = end["run"]["facets"]["cagg_carbonLedger"]
    assert (facet["entry_id"], facet["leaf_hash"]) == (entry.entry_id, entry.leaf_hash.hex())
    assert facet["checkpoint"] == {"size": 1, "root": base64.b64encode(root).decode()}
    assert (facet["energy_millijoules"], facet["carbon_micrograms"]) == ("14400000000", "1000000000")
    assert facet["part_of_run"] == openlineage.run_id("outer")


def test_run_ids_are_what_they_have_always_been() -> None:
    assert openlineage.run_id("0123abc") == str(uuid.uuid5(openlineage.RUN_NAMESPACE, "0123abc"))
    assert str(openlineage.RUN_NAMESPACE) == "6f1d9d0e-3f0b-5c57-9a39-7c3a5b6a1e42"


def test_inputs_and_outputs_are_datasets_with_their_digest_as_version(store: Store) -> None:
    artefacts = [{"name": "model", "digest": f"sha256:{DIGEST}"}, {"name": "notes", "digest": None}]
    write(store, reading("b", inputs=artefacts, outputs=artefacts[:1]))
    with store.snapshot() as tx:
        start, end = events_of(tx)
    assert [item["name"] for item in end["inputs"]] == ["model", "notes"]
    assert end["inputs"][0]["facets"]["version"]["datasetVersion"] == f"sha256:{DIGEST}"
    assert "facets" not in end["inputs"][1]
    assert (start["outputs"], [item["name"] for item in end["outputs"]]) == ([], ["model"])


def test_an_event_without_a_signature_says_so(store: Store) -> None:
    with store.transaction() as tx:
        append(tx, reading("b", **UNKNOWN))
        sequence(tx)
    with store.snapshot() as tx:
        facet = events_of(tx)[1]["run"]["facets"]["cagg_carbonLedger"]
    assert facet["checkpoint"] is None
    assert (facet["energy_millijoules"], facet["energy_reason"]) == (None, "no energy source can be read")


# ---- in-toto --------------------------------------------------------------------------------------------------------


def statements(tx: Transaction) -> Iterator[tuple[Mapping[str, Any], bytes]]:
    for line in in_toto.chunks(LogReader(tx)):
        yield json.loads(line), line


def test_a_statement_holds_the_entry_byte_for_byte(store: Store) -> None:
    entries = write(store, draft("a", text='é " \\ \n'), draft("large", large="x" * 70_000))
    with store.snapshot() as tx:
        found = list(statements(tx))
    for (statement, line), entry in zip(found, entries, strict=True):
        assert set(statement) == {"_type", "subject", "predicateType", "predicate"}
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert statement["predicateType"].endswith("carbon/v1")
        assert statement["predicate"]["entry"] == decode(entry.body)
        assert b'"entry":' + entry.body + b"," in line
        assert statement["subject"] == [
            {
                "name": f"ledger entry {entry.entry_id}",
                "digest": {"sha256": hashlib.sha256(entry.body).hexdigest()},
            }
        ]
        assert statement["predicate"]["statement_signature"] == "none"
        assert statement["predicate"]["ledger"]["checkpoint"]["size"] == 2


def test_the_subjects_are_the_outputs_with_a_digest(store: Store) -> None:
    outputs = [
        {"name": "model", "digest": f"sha256:{DIGEST}", "role": "model"},
        {"name": "model", "digest": f"sha256:{DIGEST}"},
        {"name": "report", "digest": None},
        {"name": "weights", "digest": f"sha512:{'ab' * 64}"},
    ]
    write(store, reading("b", outputs=outputs))
    with store.snapshot() as tx:
        ((statement, _),) = statements(tx)
    assert statement["subject"] == [
        {"name": "model", "digest": {"sha256": DIGEST}},
        {"name": "weights", "digest": {"sha512": "ab" * 64}},
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"sha256:{DIGEST}", ("sha256", DIGEST)),
        (f"SHA-256:{DIGEST.upper()}", ("sha256", DIGEST)),
        (DIGEST, ("sha256", DIGEST)),
        ("sha256:abc", None),
        (f"sha256:{'g' * 64}", None),
        (f"blake3:{DIGEST}", ("blake3", DIGEST)),
        ("", None),
    ],
)
def test_digests_are_read_or_left_out(text: str, found: tuple[str, str] | None) -> None:
    assert in_toto.digest_of(text) == found


def test_a_statement_that_nothing_vouches_for_says_so(store: Store) -> None:
    with store.transaction() as tx:
        append(tx, draft("a"))
        sequence(tx)
    with store.snapshot() as tx:
        ((statement, _),) = statements(tx)
    assert statement["predicate"]["ledger"]["checkpoint"] is None
    assert statement["predicate"]["vouched_for_by"] == "nobody yet"


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_log(file_store: SqliteStore) -> None:
    def peaks(count: int) -> list[int]:
        with file_store.transaction() as tx:
            for number in range(count):
                append(tx, reading(f"{count}-{number}"))
        found = []
        with file_store.snapshot() as tx:
            for export in (jsonl, csv_export, openlineage, in_toto):
                selection = READINGS if export in (csv_export, openlineage) else None
                tracemalloc.start()
                for _ in export.chunks(LogReader(tx, selection)):
                    pass
                found.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
        return found

    before = peaks(1_100)  # pages of 512 rows, of which two are held at a time
    for small, large in zip(before, peaks(1_000), strict=True):
        assert large < 1.1 * small


def test_idempotency_keys_are_those_of_the_lines(store: Store) -> None:
    (entry,) = write(store, reading("b"))
    with store.snapshot() as tx:
        (line,) = documents(jsonl.chunks(LogReader(tx)))
    body = line["body"]
    again = idempotency_key(EntryKind(body["kind"]), body["request_key"], body["ordinal"])
    assert again == entry.idempotency_key
