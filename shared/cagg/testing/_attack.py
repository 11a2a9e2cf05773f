"""What an attack is, and the hand that carries it out on an open log: whoever owns the database can do all of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cagg.errors import CaggError, LedgerDamaged
from cagg.ledger.encoding import canonical, decode
from cagg.ledger.entry import columns_of, idempotency_key, resolve
from cagg.ledger.merkle import TILE_WIDTH, TreeReader, leaf_hash
from cagg.ledger.report import FailureKind, VerifyReport
from cagg.ledger.sequencer import complete_tiles
from cagg.ledger.verify import verify
from cagg.ports import Signer, Transaction
from cagg.records import EntryKind
from cagg.testing._attacked_log import AttackedLog, genuine, put_head
from cagg.testing.attacks import unlock

__all__ = ["REMOVED", "Attack", "Group", "Needs", "Target", "attacked"]


REMOVED = object()
"""Stands for a field that a forged body does not have any more."""


class Needs(StrEnum):
    """What an auditor must bring from outside the store for an attack to be seen, least first."""

    NOTHING = "nothing"
    """the store alone gives it away"""
    KEY = "key"
    """a trusted public key"""
    CHECKPOINT = "checkpoint"
    """a trusted public key, and a checkpoint that was kept outside"""
    NOBODY = "nobody"
    """it cannot be seen: what was changed was not signed yet, or proves nothing"""
    HARMLESS = "harmless"
    """nothing that was recorded is changed, and it must pass"""


class Group(StrEnum):
    """Heading of the table that an attack stands under."""

    ROWS = "Rows removed, swapped, duplicated, added"
    CELLS = "Columns edited"
    BODIES = "Bodies exchanged"
    INSIDER = "Rewritten and signed again with the genuine key"
    TAIL = "Tails cut, histories forked"
    KEYS = "Keys and signatures"
    BESIDE = "Attachments, personal values, the queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One thing that somebody with full write access to the database does.

    Attributes:
        name: a few words; unique.
        group: where it stands in the table.
        does: what the attacker does, a clause without a subject.
        apply: does it. It changes at least one row, or writes something.
        by: kinds of failures that verification reports: at least one of them whatever an auditor brings beyond what is
            needed, and each of them for some auditor; empty for what is refused or harmless.
        needs: what an auditor must bring. With less, verification reports no failure at all.
        refused: the error that the product itself raises while the attack is tried; None when nothing refuses it.
        remark: for the table.
        backend: ``sqlite`` or ``postgresql`` for what only one of them lets happen; empty for both.
    """

    name: str
    group: Group
    does: str
    apply: Callable[[Target], object]
    by: frozenset[FailureKind] = frozenset()
    needs: Needs = Needs.NOTHING
    refused: type[CaggError] | None = None
    remark: str = ""
    backend: str = ""


class Target:
    """An open log with its append-only rules switched off, and the attacker's tools.

    Attributes:
        tx: the transaction; it is taken back afterwards.
        log: what was recorded, and what is kept outside.
        kept: the checkpoint that an auditor brings from outside; None = there is none.
    """

    def __init__(self, tx: Transaction, log: AttackedLog) -> None:
        self.tx = tx
        self.log = log
        self.kept = log.kept[-1] if log.kept else None
        self._connection: Any = unlock(tx)
        if not self.on_postgresql:  # the server's keys between tables are off by now
            self.run("PRAGMA defer_foreign_keys = ON")

    @property
    def on_postgresql(self) -> bool:
        """True on a server: its types are kept, and entries wait for a sequencer."""
        return bool(self._connection.dialect.name == "postgresql")

    def sql(self, statement: str, *parameters: Any) -> int:
        """Run a statement, ``?`` standing for its parameters; it must change something."""
        changed = int(self._run(statement, parameters).rowcount)
        if changed == 0:
            raise AssertionError(f"the attack did nothing: {statement}")
        return changed

    def run(self, statement: str, *parameters: Any) -> None:
        """Run a statement that may change nothing."""
        self._run(statement, parameters)

    def rename(self, origin: str) -> None:
        """Give the log another name, as whoever opens the store next would read it."""
        self.sql("UPDATE cagg_log SET origin = ? WHERE log_id = 1", origin)
        self.tx._origin = origin  # type: ignore[attr-defined]

    def reread(self) -> None:
        """Read the newest log's number and name anew, as whoever opens the store next does."""
        found = self.rows("SELECT log_id, origin FROM cagg_log ORDER BY log_id DESC LIMIT 1")
        for log_id, origin in found:
            self.tx._log_id, self.tx._origin = log_id, origin  # type: ignore[attr-defined]

    def columns(self, table: str) -> list[tuple[str, str]]:
        """Return (name, type) of a table's columns, in order."""
        if self.on_postgresql:
            query = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = ?"
            return [(str(row[0]), str(row[1])) for row in self.rows(f"{query} ORDER BY ordinal_position", table)]
        return [(str(row[1]), str(row[2])) for row in self.rows(f"PRAGMA table_info({table})")]

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows that a query finds."""
        return [tuple(row) for row in self._run(statement, parameters).fetchall()]

    def _run(self, statement: str, parameters: tuple[Any, ...]) -> Any:
        if self.on_postgresql:
            statement = statement.replace("?", "%s")
        return self._connection.exec_driver_sql(statement, parameters or None)

    @contextlib.contextmanager
    def taken_back(self) -> Iterator[None]:
        """Take back what the block does, and go on with the same transaction."""
        self.run("SAVEPOINT before")
        try:
            yield
        finally:
            self.run("ROLLBACK TO SAVEPOINT before")
            self.run("RELEASE SAVEPOINT before")

    # ---- entries ------------------------------------------------------------------------------------------------

    def entry_id(self, index: int) -> str:
        """Return the id of the entry at an index."""
        ((found,),) = self.rows("SELECT entry_id FROM cagg_leaf WHERE leaf_index = ? AND log_id = 1", index)
        return str(found)

    def body(self, index: int) -> dict[str, Any]:
        """Return the decoded body at an index."""
        entry = self.tx.entry(self.entry_id(index))
        assert entry is not None
        return dict(decode(entry.body))

    def put_body(self, index: int, body: bytes) -> None:
        """Exchange the bytes of a body and nothing else."""
        self.sql("UPDATE cagg_entry SET body = ? WHERE entry_id = ?", body, self.entry_id(index))

    def forge(self, index: int, changes: Mapping[str, Any]) -> None:
        """Change a body and everything in its row that follows from it; :meth:`rebuild` makes the tree fit."""
        changed = {**self.body(index), **changes}
        body = {name: value for name, value in changed.items() if value is not REMOVED}
        entry_id = self.entry_id(index)
        self.put_body(index, canonical(body))
        try:
            columns = columns_of(resolve(self.tx, body))
        except LedgerDamaged:  # a body from which nothing follows; then the columns stay as they were
            return
        names = ", ".join(f"{name} = ?" for name in columns)
        key = idempotency_key(EntryKind(body["kind"]), body["request_key"], body["ordinal"])
        self.sql(
            f"UPDATE cagg_entry SET {names}, idempotency_key = ? WHERE entry_id = ?",  # noqa: S608 - our own names
            *columns.values(),
            key,
            entry_id,
        )

    # ---- the tree above them ------------------------------------------------------------------------------------

    def rehash(self) -> None:
        """Make leaves and tiles follow from the bodies again, as whoever knows the format can."""
        found = self.rows(
            "SELECT e.entry_id, e.body FROM cagg_leaf l JOIN cagg_entry e ON e.entry_id = l.entry_id "
            "WHERE l.log_id = 1 ORDER BY l.leaf_index"
        )
        for entry_id, body in found:
            leaf = leaf_hash(bytes(body))
            self.sql("UPDATE cagg_leaf SET leaf_hash = ? WHERE entry_id = ?", leaf, entry_id)
            self.sql("UPDATE cagg_entry SET leaf_hash = ? WHERE entry_id = ?", leaf, entry_id)
        self._run("DELETE FROM cagg_tile", ())
        if self.tx.tree_size() >= TILE_WIDTH:
            complete_tiles(self.tx, 0, self.tx.tree_size())

    def resign(self, signers: Callable[[int], Sequence[Signer]] = genuine) -> None:
        """Sign the tree as it is now, at the sizes of today's checkpoints; by default with the genuine keys."""
        sizes = [item.size for item in self.tx.checkpoints()]
        self.run("DELETE FROM cagg_checkpoint")
        tree = TreeReader(self.tx, self.tx.tree_size())
        for size in sizes:
            put_head(self.tx, signers(size), size, tree.root(size))

    def sign_end(self) -> None:
        """Have the genuine key sign all that has a place, without a look at the checkpoints."""
        size = self.tx.tree_size()
        put_head(self.tx, genuine(size), size, TreeReader(self.tx, size).root())

    def rebuild(self, signers: Callable[[int], Sequence[Signer]] = genuine) -> None:
        """:meth:`rehash` and :meth:`resign`: what only whoever has a key can do."""
        self.rehash()
        self.resign(signers)

    # ---- what an auditor says -----------------------------------------------------------------------------------

    def verdict(self, needs: Needs) -> VerifyReport:
        """Verify with what an auditor brought."""
        keys = () if needs is Needs.NOTHING else self.log.keys
        outside = None if needs in (Needs.NOTHING, Needs.KEY) else self.kept
        return verify(self.tx, keys, outside)


@contextlib.contextmanager
def attacked(log: AttackedLog) -> Iterator[Target]:
    """Open a log for an attack; whatever is done to it is taken back at the end of the block."""

    class TakeBack(CaggError):
        pass

    with contextlib.suppress(TakeBack), log.store.transaction() as tx:
        yield Target(tx, log)
        raise TakeBack
