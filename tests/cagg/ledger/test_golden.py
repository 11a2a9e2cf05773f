"""The bytes of format 1, kept for ever: the same facts give the same bytes, and old bytes stay readable.

``tests/golden/ledger`` holds what version 1 wrote. A test that fails here means that existing ledgers would no longer
verify: make a new format, never new golden files for this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cagg.ledger.bodies import measurement_body, request_body
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.encoding import decode
from cagg.ledger.entry import append, columns_of, idempotency_key, read_body
from cagg.ledger.merkle import leaf_hash, root_of
from cagg.ledger.notes import VerifierKey, parse_note, verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import Assurance, verify
from cagg.ports import Store, Transaction
from cagg.provenance import Basis, Convention, Gas, Grade, Signal
from cagg.quantities import CarbonIntensity, Energy
from cagg.records import Component, Entry, EntryDraft, EntryKind, Reading, ReadingSlice
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.testing import ManualClock
from cagg.testing.stores import MemorySigner
from cagg.windows import Window

GOLDEN = Path(__file__).parents[2] / "golden" / "ledger"
NAME = "example.org/golden/2026"
SIGNER = MemorySigner(NAME, bytes(range(32)))
START = datetime(2026, 1, 5, 22, 0, 0, 5, tzinfo=UTC)
REQUEST = Request(
    identity=RequestIdentity(host="prefect", root_run_id="run-1", task_key="nightly/validate", ordinal=2, attempt=1),
    options=GateOptions(zone="neso:GB", budget="acme/ml/nightly", kind="validation", risk="high", work_item="PR-17"),
    host=HostProfile(name="prefect"),
    scheduled_start=START,
    encloses_run=True,
    labels={"flow": "nightly", "Größe": 'é "quoted" \\ \n'},
    code={"commit": "0123abc", "dirty": "false"},
)

Written = tuple[Transaction, dict[str, Entry], str]


def _reading() -> Reading:
    half = timedelta(minutes=30)
    slices = tuple(
        ReadingSlice(window=Window(start=START + i * half, end=START + (i + 1) * half), energy=Energy(millijoules=mj))
        for i, mj in enumerate((1_234_567_890_123, 7))
    )
    total = Energy(millijoules=1_234_567_890_130)
    component = Component(
        domain="cpu", source="cpu_model", method="share of processor time", grade=Grade.C, energy=total,
        dynamic=Energy(millijoules=1_000_000_000_000), idle=Energy(millijoules=234_567_890_130),
        low=Energy(millijoules=1), high=Energy(millijoules=2**63 - 1), share_ppm=765_432, reason="",
    )  # fmt: skip
    return Reading(
        window=Window(start=START, end=START + 2 * half), energy=total, low=Energy(millijoules=1),
        high=Energy(millijoules=2**63 - 1), grade=Grade.C, components=(component,), slices=slices, host_total=total,
        other=Energy.ZERO, unowned_idle=Energy.ZERO, siblings=Energy.ZERO, cpu_milliseconds=1_234,
        gpu_milliseconds=None, notes=("coarse",), hardware={"model": "x86", "tables": "2026-01"},
    )  # fmt: skip


def _drafts() -> list[tuple[str, EntryDraft]]:
    reading = _reading()
    intensities = (CarbonIntensity(milligrams_per_kwh=123_456), CarbonIntensity(milligrams_per_kwh=1))
    measured = measurement_body(
        request=request_body(REQUEST),
        reading=reading,
        priced=[(s.window, s.energy, i, "neso") for s, i in zip(reading.slices, intensities, strict=True)],
        convention=Convention(signal=Signal.AVERAGE, basis=Basis.DIRECT, gas=Gas.CO2),
        pue_ppm=1_150_000,
        outcome="completed",
        part_of=None,
        carbon_reason="",
        extra={"decision_id": None},
    )
    key = REQUEST.identity.key
    decision = {"request": request_body(REQUEST), "verdict": "admit", "planned": [0, -1, 2**53 - 1], "flag": True}
    return [
        ("decision", EntryDraft(kind=EntryKind.DECISION, request_key=key, ordinal=0, body=decision)),
        ("measurement", EntryDraft(kind=EntryKind.MEASUREMENT, request_key=key, ordinal=0, body=measured)),
        (
            "spilled",
            EntryDraft(kind=EntryKind.CORRECTION, request_key=key, ordinal=3, body={"evidence": ["x" * 100] * 700}),
        ),
    ]


@pytest.fixture(params=["sqlite", "postgresql"])
def written(
    request: pytest.FixtureRequest,
    named_store: Callable[..., AbstractContextManager[Store]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Written]:
    """The three entries and the checkpoint over them, as this version writes them on each backend."""
    clock = ManualClock(START)
    entries: dict[str, Entry] = {}
    with named_store(request.param, origin=NAME, clock=clock) as store:
        monkeypatch.setattr("cagg.ledger.identifiers.os.urandom", lambda count: bytes(range(count)))
        for name, draft in _drafts():
            with store.transaction() as tx:
                entries[name] = append(tx, draft)
            clock.advance(1.5)
        with store.transaction() as tx:
            sequence(tx)
            note = sign_checkpoint(tx, SIGNER).note
        with store.snapshot() as tx:
            yield tx, entries, note


@pytest.mark.parametrize("name", ["decision", "measurement", "spilled"])
def test_bodies_are_written_as_ever(written: Written, name: str) -> None:
    assert written[1][name].body == (GOLDEN / f"entry_v1_{name}.json").read_bytes()


def test_checkpoints_and_keys_are_written_as_ever(written: Written) -> None:
    assert written[2].encode() == (GOLDEN / "checkpoint_v1.txt").read_bytes()
    assert f"{verifier_key(SIGNER)}\n".encode() == (GOLDEN / "log_v1.vkey").read_bytes()


def test_spilled_values_are_read_as_ever(written: Written) -> None:
    tx, entries, _ = written
    assert read_body(tx, entries["spilled"])["evidence"] == ["x" * 100] * 700
    assert verify(tx, [(GOLDEN / "log_v1.vkey").read_text()]).assurance is Assurance.SIGNED


def test_the_kept_bytes_are_under_the_kept_checkpoint() -> None:
    key = VerifierKey.parse((GOLDEN / "log_v1.vkey").read_text())
    head, signers = parse_note((GOLDEN / "checkpoint_v1.txt").read_text(encoding="utf-8"), [key])
    bodies = [(GOLDEN / f"entry_v1_{name}.json").read_bytes() for name, _ in _drafts()]
    assert (head.origin, head.size, signers) == (NAME, 3, [key])
    assert head.root == root_of(leaf_hash(body) for body in bodies)
    for body in bodies:
        value = decode(body)
        again = idempotency_key(EntryKind(value["kind"]), value["request_key"], value["ordinal"])
        assert value["idempotency_key"] == again.hex()
        assert columns_of(value)["kind"] == value["kind"]


def test_the_kept_measurement_has_the_carbon_of_a_hand_calculation() -> None:
    value = decode((GOLDEN / "entry_v1_measurement.json").read_bytes())
    product = (1_234_567_890_123 * 123_456 + 7 * 1) * 1_150_000
    assert value["carbon_micrograms"] == str(-(-product // 3_600_000_000_000))
