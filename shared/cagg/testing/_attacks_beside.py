"""Attacks on what stands beside the entries: attachments, personal values, the queue, the list of logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.encoding import canonical, decode
from cagg.ledger.entry import ENVELOPE, append
from cagg.ledger.merkle import leaf_hash
from cagg.ledger.report import FailureKind as Kind
from cagg.ledger.retention import redact
from cagg.ledger.sequencer import sequence
from cagg.ledger.succession import RollReason, roll
from cagg.records import EntryDraft, EntryKind
from cagg.testing._attack import Attack, Group, Needs, Target
from cagg.testing._attacked_log import ORIGIN, PRIVATE, SECOND_SIGNER, SPILLED
from cagg.testing.stores import MemorySigner

__all__ = ["BESIDE"]

_NEXT = "example.org/attacked/2027"
"""Name of the log that goes on."""

_FULL, _OTHER, _HALF = PRIVATE
"""Entries with two personal values; the last one's first was redacted."""
_PLAIN = 20
"""A decision with an attachment."""


def _attack(name: str, does: str, apply: Callable[[Target], object], *by: Kind, **more: Any) -> Attack:
    return Attack(name=name, group=Group.BESIDE, does=does, apply=apply, by=frozenset(by), **more)


# ---- attachments ----------------------------------------------------------------------------------------------------


def _spilled_digest(target: Target) -> str:
    body = target.body(SPILLED)
    return str(body[body["spilled"][0]]["blob"])


def _exchange_blobs(target: Target) -> None:
    (first, one), (second, two) = target.rows("SELECT digest, data FROM cagg_blob ORDER BY digest LIMIT 2")
    target.sql("UPDATE cagg_blob SET data = ? WHERE digest = ?", bytes(two), first)
    target.sql("UPDATE cagg_blob SET data = ? WHERE digest = ?", bytes(one), second)


# ---- personal values ------------------------------------------------------------------------------------------------


def _drop(target: Target, index: int, field: str) -> None:
    if not target.tx.drop_private(target.entry_id(index), field):
        raise AssertionError("the attack did nothing")


def _redact(target: Target) -> None:
    redact(target.tx, target.entry_id(_FULL), "approver", reason="the person asked for it", retention_years=10)


def _private_row(target: Target, index: int, field: str, value: str) -> None:
    target.sql(
        "INSERT INTO cagg_private (log_id, entry_id, field, salt, value) VALUES (1, ?, ?, ?, ?)",
        target.entry_id(index),
        field,
        b"\x01" * 32,
        value,
    )


def _edit_private(target: Target, what: str, value: object) -> None:
    target.sql(
        f"UPDATE cagg_private SET {what} = ? WHERE entry_id = ? AND field = 'approver'",  # noqa: S608 - our own words
        value,
        target.entry_id(_FULL),
    )


def _exchange_values(target: Target) -> None:
    for index, other in ((_FULL, _OTHER), (_OTHER, _FULL)):
        target.sql(
            "UPDATE cagg_private SET value = ? WHERE entry_id = ? AND field = 'approver'",
            f"person-{other}@example.org",
            target.entry_id(index),
        )


# ---- the queue ------------------------------------------------------------------------------------------------------


def _waiting(target: Target) -> str:
    ((found,),) = target.rows("SELECT entry_id FROM cagg_queue ORDER BY queue_id LIMIT 1")
    return str(found)


def _waiting_body(target: Target) -> bytes:
    ((body,),) = target.rows("SELECT body FROM cagg_entry WHERE entry_id = ?", _waiting(target))
    return canonical({**decode(bytes(body)), "note": "another"})


def _forge_waiting(target: Target) -> None:
    entry_id, body = _waiting(target), _waiting_body(target)
    target.sql("UPDATE cagg_entry SET body = ?, leaf_hash = ? WHERE entry_id = ?", body, leaf_hash(body), entry_id)
    target.sql("UPDATE cagg_queue SET leaf_hash = ? WHERE entry_id = ?", leaf_hash(body), entry_id)


def _waiting_column(target: Target) -> None:
    target.sql("UPDATE cagg_entry SET recorded_us = recorded_us + 1 WHERE entry_id = ?", _waiting(target))


def _queued_twice(target: Target) -> None:
    target.run("DROP INDEX cagg_queue_entry")
    target.sql(
        "INSERT INTO cagg_queue (log_id, entry_id, leaf_hash, queued_us) "
        "SELECT log_id, entry_id, leaf_hash, queued_us FROM cagg_queue WHERE entry_id = ?",
        _waiting(target),
    )


def _drop_waiting(target: Target) -> None:
    entry_id = _waiting(target)
    target.sql("DELETE FROM cagg_queue WHERE entry_id = ?", entry_id)
    target.sql("DELETE FROM cagg_entry WHERE entry_id = ?", entry_id)


_UNSEEN: dict[str, Any] = {
    "needs": Needs.NOBODY,
    "backend": "postgresql",
    "remark": "what waits is in no tree yet, and is reported as unproven: keep the sequencer running",
}
_QUEUE = (
    _attack(
        "a waiting entry forgotten",
        "deletes the row of the queue, and leaves the entry",
        lambda target: target.sql("DELETE FROM cagg_queue WHERE entry_id = ?", _waiting(target)),
        Kind.LEAF,
        backend="postgresql",
    ),
    _attack(
        "a waiting entry removed",
        "deletes the entry, and leaves its row of the queue",
        lambda target: target.sql("DELETE FROM cagg_entry WHERE entry_id = ?", _waiting(target)),
        Kind.QUEUE,
        backend="postgresql",
    ),
    _attack(
        "a waiting leaf hash edited",
        "writes another leaf hash into the queue",
        lambda target: target.sql(
            "UPDATE cagg_queue SET leaf_hash = ? WHERE entry_id = ?", b"\x00" * 32, _waiting(target)
        ),
        Kind.QUEUE,
        backend="postgresql",
    ),
    _attack(
        "a waiting body edited",
        "changes the body of an entry that waits, and not its leaf hash",
        lambda target: target.sql(
            "UPDATE cagg_entry SET body = ? WHERE entry_id = ?", _waiting_body(target), _waiting(target)
        ),
        Kind.BODY,
        backend="postgresql",
    ),
    _attack(
        "a waiting column edited",
        "changes a column of an entry that waits",
        _waiting_column,
        Kind.COLUMN,
        backend="postgresql",
    ),
    _attack(
        "a waiting entry queued twice",
        "drops the table's key and queues an entry a second time",
        _queued_twice,
        Kind.ROWS,
        backend="postgresql",
    ),
    _attack(
        "a waiting entry exchanged as a whole",
        "forges an entry that waits, with its hashes and its row of the queue",
        _forge_waiting,
        **_UNSEEN,
    ),
    _attack(
        "a waiting entry and its place deleted",
        "deletes an entry that waits together with its row of the queue",
        _drop_waiting,
        **_UNSEEN,
    ),
)

# ---- several logs ---------------------------------------------------------------------------------------------------


def _with_successor(apply: Callable[[Target], object]) -> Callable[[Target], object]:
    """Let the year turn first: the log is frozen and signed to its end, the next one begun and signed."""

    def after_the_turn(target: Target) -> None:
        successor = MemorySigner(_NEXT)
        roll(target.tx, SECOND_SIGNER, successor, reason=RollReason.YEARLY)
        sign_checkpoint(target.tx, SECOND_SIGNER)
        target.reread()
        sign_checkpoint(target.tx, successor)
        apply(target)

    return after_the_turn


def _whole_log_removed(target: Target) -> None:
    for table in ("private", "leaf", "tile", "checkpoint", "entry", "log"):
        target.sql(f"DELETE FROM cagg_{table} WHERE log_id = 1")  # noqa: S608 - our own words


def _old_tail_cut(target: Target) -> None:
    cut = "SELECT entry_id FROM cagg_leaf WHERE leaf_index >= 290 AND log_id = 1"
    target.sql(f"DELETE FROM cagg_entry WHERE entry_id IN ({cut})")  # noqa: S608 - our own words
    target.sql("DELETE FROM cagg_leaf WHERE leaf_index >= 290 AND log_id = 1")
    target.sql("DELETE FROM cagg_checkpoint WHERE size > 290 AND log_id = 1")


def _backup_from_before(target: Target) -> None:
    with target.taken_back():
        _with_successor(lambda _: None)(target)
        target.kept = target.tx.checkpoints()[-1]  # of the log that is forgotten
    target.reread()


def _names_exchanged(target: Target) -> None:
    target.sql("UPDATE cagg_log SET origin = 'x' WHERE log_id = 1")
    target.sql("UPDATE cagg_log SET origin = ? WHERE log_id = 2", ORIGIN)
    target.sql("UPDATE cagg_log SET origin = ? WHERE log_id = 1", _NEXT)
    target.reread()


def _recorded_again(target: Target) -> None:
    """Keep the old entry's key out of sight until the store has taken the same fact into the log that grows."""
    old = target.body(_PLAIN)
    key = bytes.fromhex(old["idempotency_key"])
    target.sql("UPDATE cagg_entry SET idempotency_key = ? WHERE idempotency_key = ?", b"\x00" * 32, key)
    body = {name: value for name, value in old.items() if name not in ENVELOPE}
    kind = EntryKind(old["kind"])
    append(target.tx, EntryDraft(kind=kind, request_key=old["request_key"], ordinal=old["ordinal"], body=body))
    target.sql("UPDATE cagg_entry SET idempotency_key = ? WHERE idempotency_key = ?", key, b"\x00" * 32)
    sequence(target.tx)
    sign_checkpoint(target.tx, MemorySigner(_NEXT))


_LOGS = (
    _attack(
        "the log declared frozen",
        "marks the growing log as frozen",
        lambda target: target.sql("UPDATE cagg_log SET state = 'frozen'"),
        Kind.LOG,
    ),
    _attack(
        "a second log",
        "lists a log that no entry speaks of",
        lambda target: target.sql(
            "INSERT INTO cagg_log (log_id, origin, state, created_us) VALUES (2, 'example.org/second', 'active', 0)"
        ),
        Kind.LOG,
    ),
    _attack(
        "a frozen log removed",
        "deletes everything of last year's log",
        _with_successor(_whole_log_removed),
        Kind.LOG,
        remark="the next log's first entry names its size and root",
    ),
    _attack(
        "a frozen log's tail cut",
        "deletes the last entries of last year's log with its final checkpoint",
        _with_successor(_old_tail_cut),
        Kind.LOG,
        remark="the next log's first entry names its size and root",
    ),
    _attack(
        "a backup from before the turn of a year",
        "brings back a backup of the time before the next log was begun, which is whole in itself",
        _backup_from_before,
        Kind.TRUNCATED,
        needs=Needs.CHECKPOINT,
    ),
    _attack(
        "a frozen log made to grow",
        "marks last year's log as active",
        _with_successor(lambda target: target.sql("UPDATE cagg_log SET state = 'active'")),
        Kind.LOG,
        Kind.ROWS,
    ),
    _attack(
        "a fact of last year's log recorded again",
        "records an entry of last year's log in the one that grows and has the genuine key sign it",
        _with_successor(_recorded_again),
        Kind.IDEMPOTENCY,
    ),
    _attack(
        "two logs' names exchanged",
        "gives each of two logs the name of the other",
        _with_successor(_names_exchanged),
        Kind.COLUMN,
    ),
    _attack(
        "the turn of a year",
        "– (nobody attacks: the log is frozen, the next one goes on)",
        _with_successor(lambda _: None),
        needs=Needs.HARMLESS,
        remark="the first log's key vouches for the second log's",
    ),
)

BESIDE = (
    _attack(
        "attachments removed", "deletes every attachment", lambda target: target.sql("DELETE FROM cagg_blob"), Kind.BLOB
    ),
    _attack(
        "an attachment edited",
        "appends a byte to every attachment",
        lambda target: [
            target.sql("UPDATE cagg_blob SET data = ? WHERE digest = ?", bytes(data) + b"x", digest)
            for digest, data in target.rows("SELECT digest, data FROM cagg_blob")
        ],
        Kind.BLOB,
    ),
    _attack("two attachments exchanged", "swaps the bytes of two attachments", _exchange_blobs, Kind.BLOB),
    _attack(
        "a spilled value removed",
        "deletes the attachment that a large body keeps a value in",
        lambda target: target.sql("DELETE FROM cagg_blob WHERE digest = ?", _spilled_digest(target)),
        Kind.BLOB,
    ),
    _attack(
        "an attachment that nobody names",
        "stores bytes under a digest that no entry holds",
        lambda target: target.sql("INSERT INTO cagg_blob VALUES (?, ?)", "0" * 64, b"x"),
        needs=Needs.HARMLESS,
        remark="nobody reads it: attachments are found by the digests that entries hold",
    ),
    _attack(
        "a personal value edited",
        "writes another approver's name beside an approval",
        lambda target: _edit_private(target, "value", "somebody@example.org"),
        Kind.PRIVATE,
    ),
    _attack(
        "a salt edited",
        "writes another salt beside a personal value",
        lambda target: _edit_private(target, "salt", b"\x00" * 32),
        Kind.PRIVATE,
        remark="a value without its salt proves nothing",
    ),
    _attack(
        "personal values exchanged",
        "swaps the approvers' names of two approvals, their salts left where they were",
        _exchange_values,
        Kind.PRIVATE,
    ),
    _attack(
        "a personal value made to vanish",
        "deletes a personal value without a word",
        lambda target: _drop(target, _FULL, "approver"),
        Kind.PRIVATE,
    ),
    _attack(
        "a redacted value put back",
        "stores a guess in the place of a redacted value",
        lambda target: _private_row(target, _HALF, "approver", f"person-{_HALF}@example.org"),
        Kind.PRIVATE,
        remark="the salt went with the value, so that even the right guess cannot be shown to be right",
    ),
    _attack(
        "a personal value that nobody committed to",
        "stores a personal value beside an entry that names none",
        lambda target: _private_row(target, 20, "approver", "somebody@example.org"),
        Kind.ROWS,
    ),
    _attack(
        "a redaction",
        "deletes a personal value and its salt, as the law may demand, and records that",
        _redact,
        needs=Needs.HARMLESS,
        remark="the commitment stays, and with it every hash and every proof",
    ),
    *_QUEUE,
    *_LOGS,
)
"""Side tables."""
