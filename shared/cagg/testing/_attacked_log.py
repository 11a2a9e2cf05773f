"""A log of 300 entries for attacks: every kind, a full tile, checkpoints, attachments, a spilled body, personal values.

The same calls give the same log except for the random parts of ids and salts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

from cagg.ledger import events
from cagg.ledger.bodies import measurement_body, request_body
from cagg.ledger.entry import append
from cagg.ledger.events import ApprovalDecision, LogEvent, ValidationOutcome
from cagg.ledger.key_entries import rotation
from cagg.ledger.merkle import TreeReader
from cagg.ledger.notes import TreeHead, checkpoint_text, note_of, verifier_key
from cagg.ledger.retention import redact
from cagg.ledger.sequencer import sequence
from cagg.ports import Checkpoint, Signer, Store, Transaction
from cagg.provenance import Basis, Convention, Gas, Grade, Signal
from cagg.quantities import CarbonIntensity, Energy
from cagg.records import Component, EntryDraft, EntryKind, Reading, ReadingSlice
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.testing.stores import MemorySigner
from cagg.windows import Window

__all__ = [
    "COLLIDING_SIGNER",
    "FIRST_SIGNER",
    "FOREIGN_SIGNER",
    "ORIGIN",
    "PRIVATE",
    "SECOND_SIGNER",
    "SIGNED_SIZES",
    "SIZE",
    "SPILLED",
    "WAITING",
    "AttackedLog",
    "fill",
    "genuine",
    "put_head",
    "run_of",
]

ORIGIN = "example.org/attacked/2026"
"""The log's name."""
SIZE = 300
"""Entries that are recorded."""
SIGNED_SIZES = (64, 128, 257, 280)
"""Where checkpoints are signed; the entries after the last one are covered by none."""
WAITING = 6
"""Entries that wait for their place, on a store with a separate sequencer."""
SPILLED = 37
"""Number of the entry whose body spills into blobs, one of which names another."""
PRIVATE = (12, 112, 212)
"""Numbers of the approvals, which hold two personal values each; the approver of the last one is redacted."""
ROTATED = 250
"""Number of the entry that puts a second key in the first one's place."""

FIRST_SIGNER = MemorySigner(ORIGIN, (59_104).to_bytes(32, "big"))
"""The log's genuine key until it is rotated."""
SECOND_SIGNER = MemorySigner(ORIGIN, (8).to_bytes(32, "big"))
"""The log's genuine key from then on."""
COLLIDING_SIGNER = MemorySigner(ORIGIN, (93_485).to_bytes(32, "big"))
"""Another key with the first one's id, found by trying."""
FOREIGN_SIGNER = MemorySigner(ORIGIN, (0x66).to_bytes(32, "big"))
"""Somebody else's key."""

_START = datetime(2026, 1, 5, 22, 0, 0, 5, tzinfo=UTC)
_BLOCK = (
    EntryKind.DECISION,
    EntryKind.RESERVATION,
    EntryKind.MEASUREMENT,
    EntryKind.SETTLEMENT,
    EntryKind.VALIDATION,
    EntryKind.INFERENCE,
    EntryKind.DECISION,
    EntryKind.MEASUREMENT,
    EntryKind.REGENERATION,
    EntryKind.CORRECTION,
)
"""What two runs leave behind; the log repeats it."""
_RARE = {
    0: EntryKind.LOG,
    1: EntryKind.BUDGET,
    11: EntryKind.WAIVER,
    **dict.fromkeys(PRIVATE, EntryKind.APPROVAL),
    13: EntryKind.OVERRIDE,
    214: EntryKind.REDACTION,
    ROTATED: EntryKind.KEY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackedLog:
    """A filled log and what an auditor has of it outside the store.

    Attributes:
        store: where it is.
        keys: the public keys that the auditor trusts: the first one alone, the second follows from the log.
        kept: every checkpoint, kept outside, oldest first.
    """

    store: Store
    keys: tuple[str, ...]
    kept: tuple[Checkpoint, ...]


def fill(store: Store) -> AttackedLog:
    """Record the entries in an empty store, sign the checkpoints and return what is kept outside."""
    with store.transaction() as tx:
        if tx.origin() != ORIGIN:
            raise AssertionError(f"the store's log must be named {ORIGIN!r}, it is {tx.origin()!r}")
        for number in range(SIZE):
            if _RARE.get(number) is EntryKind.REDACTION:
                redact(tx, _approval(tx, PRIVATE[-1]), "approver", reason="asked for it", retention_years=10)
            else:
                append(tx, _draft(tx, number))
            if number + 1 in (*SIGNED_SIZES, SIZE - WAITING):
                _place(tx)
            if number + 1 in SIGNED_SIZES:
                put_head(tx, genuine(number + 1), number + 1, TreeReader(tx, number + 1).root())
    with store.snapshot() as tx:
        return AttackedLog(store=store, keys=(str(verifier_key(FIRST_SIGNER)),), kept=tuple(tx.checkpoints()))


def genuine(size: int) -> tuple[MemorySigner, ...]:
    """Return the log's own keys for a checkpoint: the first, both at the switch, then the second."""
    if size <= ROTATED:
        return (FIRST_SIGNER,)
    return (FIRST_SIGNER, SECOND_SIGNER) if size == SIGNED_SIZES[2] else (SECOND_SIGNER,)


def put_head(tx: Transaction, signers: Sequence[Signer], size: int, root: bytes, *, origin: str = ORIGIN) -> Checkpoint:
    """Sign a tree head, true or not, and store it as a checkpoint."""
    text = checkpoint_text(TreeHead(origin=origin, size=size, root=root))
    note = note_of(text, [(verifier_key(signer), signer.sign(text.encode())) for signer in signers])
    head = Checkpoint(size=size, root=root, note=note, created_at=tx.now())
    tx.put_checkpoint(head)
    return head


def _place(tx: Transaction) -> None:
    """Give every entry its place, as the sequencer does where appends do not."""
    while sequence(tx):
        pass


def _draft(tx: Transaction, number: int) -> EntryDraft:
    kind = _RARE.get(number, _BLOCK[number % len(_BLOCK)])
    if kind is EntryKind.KEY:
        return rotation(tx, FIRST_SIGNER, SECOND_SIGNER, "the first key is a year old")
    body, blobs = _body(kind, number)
    private = {"approver": f"person-{number}@example.org", "comment": "I looked"} if number in PRIVATE else {}
    key = run_of(number).identity.key if body.get("request") else f"{kind}:{number}"
    return EntryDraft(kind=kind, request_key=key, ordinal=0, body=body, blobs=blobs, private=private)


def run_of(number: int) -> Request:
    """Return the request that entry ``number`` is about."""
    identity = RequestIdentity(
        host="prefect", root_run_id=f"run-{number // 5}", task_key="nightly/validate", ordinal=number, attempt=1
    )
    options = GateOptions(zone="neso:GB", budget="acme/ml/nightly", kind="validation", risk="high", work_item="PR-17")
    labels = {"flow": "nightly", "Größe": "é 'quoted' \\ \n"}
    return Request(
        identity=identity,
        options=options,
        host=HostProfile(name="prefect"),
        scheduled_start=_START + timedelta(hours=number),
        encloses_run=True,
        labels=labels,
        code={"commit": "0123abc", "dirty": "false"},
    )


# ---- bodies ---------------------------------------------------------------------------------------------------------


def _body(kind: EntryKind, number: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    request, artefact = request_body(run_of(number)), {"name": "model", "digest": f"sha256:{'5' * 64}"}
    match kind:
        case EntryKind.MEASUREMENT | EntryKind.CORRECTION:
            return _measured(request, number), {}
        case EntryKind.DECISION:
            return _decided(request, number)
        case EntryKind.RESERVATION:
            held = [("carbon", 120_000_000)]
            body = events.reservation_body(request=request, budget_path="acme/ml", held=held, reason="an outer run")
        case EntryKind.INFERENCE:
            body = events.occurrence_body(request=request, outcome="completed", measurements=[], inputs=[artefact])
        case EntryKind.REGENERATION:
            body = events.occurrence_body(
                request=request, outcome="completed", measurements=[], outputs=[artefact], work_item="PR-17"
            )
        case EntryKind.VALIDATION:
            body = events.validation_body(
                request=request, subject=artefact, validator="nightly", tier="quick", measurements=[],
                outcome=ValidationOutcome.PASSED,
            )  # fmt: skip
        case EntryKind.OVERRIDE:
            body = events.override_body(request=request, what="break-glass", reason="a release at night")
        case EntryKind.WAIVER:
            until = _START + timedelta(days=7)
            body = events.waiver_body(owner="team-ml", reason="a known flake", scope="nightly", expires_at=until)
        case EntryKind.APPROVAL:
            body = events.approval_body(
                subject=artefact, decision=ApprovalDecision.APPROVED, approver=None, risk="limited"
            )
        case EntryKind.LOG:
            body = events.log_body(event=LogEvent.BEGUN)
        case EntryKind.SETTLEMENT | EntryKind.BUDGET:
            body = {**_PLAIN[kind], "request": request if kind is EntryKind.SETTLEMENT else None}
        case EntryKind.KEY | EntryKind.REDACTION:
            raise AssertionError(f"a {kind} is written by what it is for")
        case _:
            assert_never(kind)
    return body, {}


def _approval(tx: Transaction, number: int) -> str:
    (found,) = tx.entries(kind=EntryKind.APPROVAL, request_key=f"approval:{number}")
    return found.entry_id


_PLAIN: Mapping[EntryKind, Mapping[str, Any]] = {
    EntryKind.BUDGET: {
        "budget_path": "acme/ml/nightly", "unit": "carbon", "period": "month", "version": 1, "limit": "5000000000",
        "mode": "enforce", "time_zone": "Europe/London", "unknown_intensity_milligrams_per_kwh": None,
        "previous": None,
    },
    EntryKind.SETTLEMENT: {
        "outcome": "settled", "budget_path": "acme/ml/nightly", "measurement_id": None, "held": [],
        "charged": {"carbon": "99000000"}, "differences": {"carbon": "-21000000"}, "overrun": [], "late": False,
        "unpriced": [], "note": "",
    },
}  # fmt: skip


def _decided(request: Mapping[str, Any], number: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    series = f"forecast {number // 50}".encode() * 40
    digest = hashlib.sha256(series).hexdigest()
    verdict = {"verdict": "admit", "reason": "now_is_best", "message": "Runs now.", "over_limit": []}
    body: dict[str, Any] = {"request": request, "ask": 0, "verdict": verdict, "planned": [0, -1, 2**53 - 1]}
    if number % 20 == 0:
        return {**body, "forecast": {"series": {"blob": digest}, "quality": "fresh"}}, {digest: series}
    return {**body, "forecast": {"series": None, "quality": "none"}}, {}


def _measured(request: Mapping[str, Any], number: int) -> dict[str, Any]:
    reading = _reading(number)
    intensities = (CarbonIntensity(milligrams_per_kwh=123_456 + number), CarbonIntensity(milligrams_per_kwh=1))
    extra: dict[str, Any] = {"decision_id": None}
    blob_inside = hashlib.sha256(b"forecast 0" * 40).hexdigest()
    return measurement_body(
        request=request,
        reading=reading,
        priced=[(s.window, s.energy, i, "neso") for s, i in zip(reading.slices, intensities, strict=True)],
        convention=Convention(signal=Signal.AVERAGE, basis=Basis.DIRECT, gas=Gas.CO2),
        pue_ppm=1_150_000 if number % 2 else None,
        outcome="completed" if number % 3 else "failed",
        part_of=None if number % 4 else run_of(number - 1).identity.key,
        carbon_reason="",
        extra=extra
        if number != SPILLED
        else {**extra, "evidence": {"of": {"blob": blob_inside}, "text": "x" * 70_000}},
    )


def _reading(number: int) -> Reading:
    half, start = timedelta(minutes=30), _START + timedelta(hours=number)
    energies = (1_234_567_890 + number, 7)
    slices = tuple(
        ReadingSlice(
            window=Window(start=start + i * half, end=start + (i + 1) * half), energy=Energy(millijoules=amount)
        )
        for i, amount in enumerate(energies)
    )
    total = Energy(millijoules=sum(energies))
    component = Component(
        domain="cpu", source="cpu_model", method="share of processor time", grade=Grade.C, energy=total,
        dynamic=Energy(millijoules=1_000_000_000), idle=Energy(millijoules=total.millijoules - 1_000_000_000),
        low=Energy(millijoules=1), high=Energy(millijoules=2**62), share_ppm=765_432, reason="",
    )  # fmt: skip
    return Reading(
        window=Window(start=start, end=start + 2 * half), energy=total, low=Energy(millijoules=1),
        high=Energy(millijoules=2**62), grade=Grade.C, components=(component,), slices=slices, host_total=total,
        other=Energy.ZERO, unowned_idle=Energy.ZERO, siblings=Energy.ZERO, cpu_milliseconds=1_234,
        gpu_milliseconds=None, notes=("coarse",), hardware={"model": "x86", "tables": "2026-01"},
    )  # fmt: skip
