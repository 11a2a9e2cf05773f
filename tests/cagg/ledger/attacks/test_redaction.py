"""After a redaction every proof stands, and nobody can show, or guess, what was there."""

from __future__ import annotations

import os

from cagg.entries import EntryKind
from cagg.ledger.notes import VerifierKey, verifier_key
from cagg.ledger.private import commitment, sealed_fields
from cagg.ledger.proofs import check_proof
from cagg.ledger.proving import prove_entry
from cagg.ledger.retention import redact
from cagg.testing._attacked_log import PRIVATE, SECOND_SIGNER
from cagg.testing.tampering import AttackedLog, Needs, attacked


def test_a_proof_from_before_stands_and_the_same_one_is_made_afterwards(log: AttackedLog) -> None:
    key = VerifierKey.parse(str(verifier_key(SECOND_SIGNER)))
    with attacked(log) as target:
        entry = target.tx.entry(target.entry_id(PRIVATE[0]))
        assert entry is not None
        before = prove_entry(target.tx, entry)
        redact(target.tx, entry.entry_id, "approver", reason="asked for it", retention_years=10)
        again = target.tx.entry(entry.entry_id)
        assert again is not None
        assert again.body == entry.body
        assert prove_entry(target.tx, again) == before
        report = check_proof(before, [key])
        assert (report.problems, report.index) == ((), PRIVATE[0])
        assert target.verdict(Needs.CHECKPOINT).failures == ()


def test_the_value_is_shown_by_its_salt_alone(log: AttackedLog) -> None:
    with attacked(log) as target:
        entry_id = target.entry_id(PRIVATE[0])
        expected = sealed_fields(target.body(PRIVATE[0]))["approver"]
        (kept,) = (value for value in target.tx.private_values(entry_id) if value.field == "approver")
    assert commitment(kept.salt, "approver", kept.value) == expected
    wrong = [bytes(32), kept.salt[::-1], bytes([kept.salt[0] ^ 1]) + kept.salt[1:], os.urandom(32)]
    assert expected not in [commitment(salt, "approver", kept.value) for salt in wrong]
    assert commitment(kept.salt, "comment", kept.value) != expected
    assert commitment(kept.salt, "approver", f"{kept.value} ") != expected


def test_a_guess_is_nothing_without_the_salt(log: AttackedLog) -> None:
    """The right value is among the guesses, and so are all salts that are left in the store."""
    with attacked(log) as target:
        expected = sealed_fields(target.body(PRIVATE[-1]))["approver"]
        left = list(target.tx.private_values())
        (redaction,) = target.tx.entries(kind=EntryKind.REDACTION)
    right = f"person-{PRIVATE[-1]}@example.org"
    assert right.encode() not in redaction.body
    salts = [bytes(32), *(value.salt for value in left)]
    assert len(left) == 2 * len(PRIVATE) - 1
    guesses = [right, *(f"person-{number}@example.org" for number in range(100))]
    assert expected not in {commitment(salt, "approver", guess) for salt in salts for guess in guesses}
