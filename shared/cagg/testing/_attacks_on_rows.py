"""Attacks that remove, swap, duplicate and add rows, cut tails and fork histories."""

from __future__ import annotations

from cagg.errors import SigningRefused
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append
from cagg.ledger.merkle import node_hash
from cagg.ledger.report import FailureKind as Kind
from cagg.ledger.sequencer import sequence
from cagg.records import EntryDraft, EntryKind
from cagg.testing._attack import Attack, Group, Needs, Target
from cagg.testing._attacked_log import SECOND_SIGNER, SIGNED_SIZES, genuine, put_head

__all__ = ["ROWS", "TAIL"]

_LAST = SIGNED_SIZES[-1]
_OF = "SELECT entry_id FROM cagg_leaf WHERE leaf_index"


def _delete(target: Target, index: int) -> None:
    target.sql(f"DELETE FROM cagg_entry WHERE entry_id = ({_OF} = ?)", index)  # noqa: S608 - our own words


def _delete_with_leaf(target: Target, index: int) -> None:
    entry_id = target.entry_id(index)
    target.sql("DELETE FROM cagg_leaf WHERE leaf_index = ?", index)
    target.sql("DELETE FROM cagg_entry WHERE entry_id = ?", entry_id)


def _close_gap(target: Target, index: int) -> None:
    _delete_with_leaf(target, index)
    target.sql("UPDATE cagg_leaf SET leaf_index = -leaf_index WHERE leaf_index > ?", index)
    target.sql("UPDATE cagg_leaf SET leaf_index = -leaf_index - 1 WHERE leaf_index < 0")


def _swap_leaves(target: Target) -> None:
    target.sql("UPDATE cagg_leaf SET leaf_index = -1 WHERE leaf_index = 10")
    target.sql("UPDATE cagg_leaf SET leaf_index = 10 WHERE leaf_index = 11")
    target.sql("UPDATE cagg_leaf SET leaf_index = 11 WHERE leaf_index = -1")


def _swap_bodies(target: Target) -> None:
    ((first,), (second,)) = (
        target.rows("SELECT body FROM cagg_entry WHERE entry_id = ?", target.entry_id(index)) for index in (10, 20)
    )
    target.put_body(10, bytes(second[0]))
    target.put_body(20, bytes(first[0]))


def _without_constraints(target: Target, table: str) -> None:
    """Put a plain copy in a table's place: whoever owns the schema drops its keys, too."""
    target.run(f"CREATE TABLE plain_copy AS SELECT * FROM {table}")  # noqa: S608 - our own words
    if not target.on_postgresql:
        target.run("PRAGMA legacy_alter_table=ON")
    target.run(f"ALTER TABLE {table} RENAME TO old_{table}")
    target.run(f"ALTER TABLE plain_copy RENAME TO {table}")


def _duplicate_leaf(target: Target) -> None:
    _without_constraints(target, "cagg_leaf")
    target.sql(
        "INSERT INTO cagg_leaf SELECT log_id, (SELECT max(leaf_index) + 1 FROM cagg_leaf), entry_id, leaf_hash "
        "FROM cagg_leaf WHERE leaf_index = 20"
    )


def _same_leaf_index(target: Target) -> None:
    _without_constraints(target, "cagg_leaf")
    target.sql("INSERT INTO cagg_leaf SELECT * FROM cagg_leaf WHERE leaf_index = 20")


def _duplicate_entry(target: Target) -> None:
    _without_constraints(target, "cagg_entry")
    target.sql("INSERT INTO cagg_entry SELECT * FROM cagg_entry WHERE entry_id = ?", target.entry_id(20))


def _second_entry_of_a_key(target: Target) -> None:
    _without_constraints(target, "cagg_entry")
    names = [row[0] for row in target.columns("cagg_entry")]
    listed = ", ".join("'0190b3a0-0000-7000-8000-000000000000'" if name == "entry_id" else name for name in names)
    target.sql(
        f"INSERT INTO cagg_entry ({', '.join(names)}) SELECT {listed} FROM cagg_entry WHERE entry_id = ?",  # noqa: S608
        target.entry_id(20),
    )


def _insert_leaf(target: Target, log_id: int, index: int) -> None:
    target.sql("INSERT INTO cagg_leaf VALUES (?, ?, 'x', ?)", log_id, index, b"\x00" * 32)


def _second_preimage(target: Target) -> None:
    """Two leaves become one whose bytes are the two hashes: without a prefix for leaves the root would stay."""
    left, right = target.tx.leaf_hashes(260, 262)
    target.sql("UPDATE cagg_leaf SET leaf_hash = ? WHERE leaf_index = 260", node_hash(left, right))
    target.put_body(260, left + right)


def _cut(target: Target, size: int) -> None:
    target.sql(f"DELETE FROM cagg_entry WHERE entry_id IN ({_OF} >= ?)", size)  # noqa: S608 - our own words
    target.sql("DELETE FROM cagg_leaf WHERE leaf_index >= ?", size)


def _cut_with_checkpoints(target: Target, size: int) -> None:
    _cut(target, size)
    target.sql("DELETE FROM cagg_checkpoint WHERE size > ?", size)


def _cut_and_signed(target: Target) -> None:
    _cut_with_checkpoints(target, 270)
    target.sign_end()


def _everything_gone(target: Target) -> None:
    for table in ("private", "queue", "leaf", "entry", "tile", "checkpoint", "blob"):
        target.run(f"DELETE FROM cagg_{table}")  # noqa: S608 - our own words


def _other_history(target: Target) -> None:
    """A backup of the first 260 entries is brought back, work goes on, and the genuine key signs it."""
    _everything_after(target, 260)
    for number in range(60):
        draft = EntryDraft(
            kind=EntryKind.OVERRIDE, request_key=f"other {number}", ordinal=0, body={"what": "mode off", "reason": "-"}
        )
        append(target.tx, draft)
    while sequence(target.tx):
        pass
    target.sign_end()


def _everything_after(target: Target, size: int) -> None:
    target.run("DELETE FROM cagg_queue")
    gone = f"entry_id NOT IN ({_OF} < ?)"
    target.run(f"DELETE FROM cagg_private WHERE {gone}", size)  # noqa: S608 - our own words
    target.sql(f"DELETE FROM cagg_entry WHERE {gone}", size)  # noqa: S608 - our own words
    target.sql("DELETE FROM cagg_leaf WHERE leaf_index >= ?", size)
    target.run("DELETE FROM cagg_checkpoint WHERE size > ?", size)
    target.run("DELETE FROM cagg_tile WHERE number >= ?", size // 256)


def _fork(target: Target) -> None:
    """The last signed entry becomes another one, and the same size is signed again with another root."""
    target.forge(_LAST - 1, {"note": "another"})
    target.rebuild()


def _two_roots(target: Target) -> None:
    _without_constraints(target, "cagg_checkpoint")
    ((kept,),) = target.rows("SELECT root FROM cagg_checkpoint WHERE size = ?", _LAST)
    target.sql("UPDATE cagg_checkpoint SET size = -1 WHERE size = ?", _LAST)
    put_head(target.tx, genuine(_LAST), _LAST, bytes(kept)[::-1])
    target.sql("UPDATE cagg_checkpoint SET size = ? WHERE size = -1", _LAST)


def _restored_and_signed(target: Target) -> None:
    """Rows come back from a backup, the checkpoints stay: the next signature is asked for as if nothing had been."""
    _cut(target, 200)
    target.run("DELETE FROM cagg_tile")
    sign_checkpoint(target.tx, SECOND_SIGNER)


def _edited_and_signed(target: Target) -> None:
    target.forge(100, {"note": "another"})
    target.rehash()
    sign_checkpoint(target.tx, SECOND_SIGNER)


def _two_sequencers(target: Target) -> None:
    """A second sequencer gives out a place that is taken: the table's key refuses, so it is dropped first."""
    taken, other = target.entry_id(20), target.entry_id(30)
    _same_leaf_index(target)
    target.sql("UPDATE cagg_leaf SET leaf_index = 20 WHERE entry_id = ?", other)
    target.sql("DELETE FROM cagg_leaf WHERE entry_id = ?", taken)
    target.sql("INSERT INTO cagg_leaf SELECT log_id, 20, entry_id, leaf_hash FROM cagg_entry WHERE entry_id = ?", taken)


ROWS = (
    *(
        Attack(
            name=f"an entry removed: the {word}",
            group=Group.ROWS,
            does=f"deletes the row of entry {index}, and leaves its leaf",
            apply=lambda target, index=index: _delete(target, index),  # type: ignore[misc]
            by=frozenset({Kind.BODY}),
        )
        for word, index in (("first", 0), ("middle one", 150), ("last signed one", _LAST - 1))
    ),
    Attack(
        name="an entry and its leaf removed",
        group=Group.ROWS,
        does="deletes entry 150 and its leaf",
        apply=lambda target: _delete_with_leaf(target, 150),
        by=frozenset({Kind.LEAF}),
    ),
    Attack(
        name="an entry removed and the gap closed",
        group=Group.ROWS,
        does="deletes entry 100 and its leaf, and moves all later leaves one place down",
        apply=lambda target: _close_gap(target, 100),
        by=frozenset({Kind.CHECKPOINT, Kind.TILE}),
    ),
    *(
        Attack(
            name=f"a leaf removed: the {word}",
            group=Group.ROWS,
            does=f"deletes leaf {index}, and leaves its entry",
            apply=lambda target, index=index: target.sql("DELETE FROM cagg_leaf WHERE leaf_index = ?", index),  # type: ignore[misc]
            by=frozenset({Kind.LEAF}),
        )
        for word, index in (("first", 0), ("middle one", 150), ("last signed one", _LAST - 1))
    ),
    Attack(
        name="a tile removed",
        group=Group.ROWS,
        does="deletes the tile over the first 256 leaves",
        apply=lambda target: target.sql("DELETE FROM cagg_tile WHERE level = 0"),
        by=frozenset({Kind.TILE}),
    ),
    Attack(
        name="a tile too many",
        group=Group.ROWS,
        does="stores a copy of a tile under a number that the log has not reached",
        apply=lambda target: target.sql(
            "INSERT INTO cagg_tile SELECT log_id, level, 7, hashes, root FROM cagg_tile WHERE level = 0"
        ),
        by=frozenset({Kind.ROWS}),
    ),
    Attack(
        name="the log's name removed",
        group=Group.ROWS,
        does="gives the log another name",
        apply=lambda target: target.rename("example.org/another"),
        by=frozenset({Kind.COLUMN}),
    ),
    Attack(
        name="two leaves swapped",
        group=Group.ROWS,
        does="exchanges the places of entries 10 and 11",
        apply=_swap_leaves,
        by=frozenset({Kind.CHECKPOINT, Kind.TILE}),
    ),
    Attack(
        name="two bodies swapped",
        group=Group.ROWS,
        does="exchanges the bodies of entries 10 and 20",
        apply=_swap_bodies,
        by=frozenset({Kind.BODY, Kind.COLUMN}),
    ),
    Attack(
        name="a leaf duplicated at the end",
        group=Group.ROWS,
        does="drops the table's keys and gives entry 20 a second place at the end",
        apply=_duplicate_leaf,
        by=frozenset({Kind.IDEMPOTENCY}),
    ),
    Attack(
        name="a leaf duplicated in its place",
        group=Group.ROWS,
        does="drops the table's keys and stores leaf 20 twice",
        apply=_same_leaf_index,
        by=frozenset({Kind.IDEMPOTENCY}),
    ),
    Attack(
        name="an entry duplicated",
        group=Group.ROWS,
        does="drops the table's keys and stores entry 20 twice",
        apply=_duplicate_entry,
        by=frozenset({Kind.IDEMPOTENCY}),
    ),
    Attack(
        name="one fact recorded twice",
        group=Group.ROWS,
        does="drops the table's keys and stores entry 20 under a second id",
        apply=_second_entry_of_a_key,
        by=frozenset({Kind.IDEMPOTENCY}),
    ),
    Attack(
        name="a leaf before the first",
        group=Group.ROWS,
        does="stores a leaf with a negative index",
        apply=lambda target: _insert_leaf(target, 1, -5),
        by=frozenset({Kind.ROWS}),
    ),
    Attack(
        name="a leaf far beyond the last",
        group=Group.ROWS,
        does="stores a leaf with the index 2^62",
        apply=lambda target: _insert_leaf(target, 1, 2**62),
        by=frozenset({Kind.LEAF}),
    ),
    Attack(
        name="rows of a log that does not exist",
        group=Group.ROWS,
        does="stores a leaf for a log that the store does not list",
        apply=lambda target: _insert_leaf(target, 7, 0),
        by=frozenset({Kind.ROWS}),
    ),
    Attack(
        name="second preimage",
        group=Group.ROWS,
        does="replaces a leaf by one whose bytes are the hashes of two leaves, and its hash by that of their node",
        apply=_second_preimage,
        by=frozenset({Kind.BODY}),
        remark="leaves and nodes are hashed with different first bytes (RFC 6962)",
    ),
)
"""Single rows."""

TAIL = (
    Attack(
        name="the tail cut",
        group=Group.TAIL,
        does="deletes all entries from 270 on with their leaves, and leaves the checkpoints",
        apply=lambda target: _cut(target, 270),
        by=frozenset({Kind.TRUNCATED}),
    ),
    Attack(
        name="the tail cut with its checkpoint",
        group=Group.TAIL,
        does="deletes all entries from 270 on with their leaves and the checkpoints over them",
        apply=lambda target: _cut_with_checkpoints(target, 270),
        by=frozenset({Kind.TRUNCATED}),
        needs=Needs.CHECKPOINT,
    ),
    Attack(
        name="the tail cut and signed again",
        group=Group.TAIL,
        does="cuts the tail with its checkpoint, and has the genuine key sign what is left",
        apply=_cut_and_signed,
        by=frozenset({Kind.TRUNCATED}),
        needs=Needs.CHECKPOINT,
    ),
    Attack(
        name="everything deleted",
        group=Group.TAIL,
        does="empties every table of the ledger",
        apply=_everything_gone,
        by=frozenset({Kind.TRUNCATED}),
        needs=Needs.CHECKPOINT,
        remark="an empty log is never called verified: there is nothing to check",
    ),
    Attack(
        name="entries cut that no checkpoint covers yet",
        group=Group.TAIL,
        does="deletes the entries after the newest checkpoint, with their leaves and places in the queue",
        apply=lambda target: _everything_after(target, _LAST),
        needs=Needs.NOBODY,
        remark="what is not signed is reported as unproven before it is cut; sign and publish often",
    ),
    Attack(
        name="a restored backup that goes on",
        group=Group.TAIL,
        does="brings back a backup of the first 260 entries with its checkpoints, records 60 others and signs them",
        apply=_other_history,
        by=frozenset({Kind.CHECKPOINT}),
        needs=Needs.CHECKPOINT,
    ),
    Attack(
        name="a fork",
        group=Group.TAIL,
        does="exchanges one entry and signs the same sizes again, so that each size has two roots",
        apply=_fork,
        by=frozenset({Kind.CHECKPOINT}),
        needs=Needs.CHECKPOINT,
    ),
    Attack(
        name="two roots of one size",
        group=Group.TAIL,
        does="drops the table's keys and stores a second checkpoint of a size, which the genuine key signed, too",
        apply=_two_roots,
        by=frozenset({Kind.CHECKPOINT}),
    ),
    Attack(
        name="signing after rows were brought back",
        group=Group.TAIL,
        does="brings back old rows under the newer checkpoints and asks for the next signature",
        apply=_restored_and_signed,
        refused=SigningRefused,
    ),
    Attack(
        name="signing after an edit",
        group=Group.TAIL,
        does="exchanges a signed entry, makes leaves and tiles fit, and asks for the next signature",
        apply=_edited_and_signed,
        refused=SigningRefused,
    ),
    Attack(
        name="two sequencers",
        group=Group.TAIL,
        does="drops the table's keys and gives out a place that is taken",
        apply=_two_sequencers,
        by=frozenset({Kind.CHECKPOINT, Kind.TILE}),
        remark="with the keys in place the store refuses the second row",
    ),
)
"""Ends and whole histories."""
