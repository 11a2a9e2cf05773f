"""Checks everything the ledger stores against everything else it stores, and against keys from outside.

In this order, log by log: the checkpoints' signatures; the roots, the tiles and the leaf hashes; each leaf hash
against its body; the body against the canonical profile and its kind; the index columns, the arithmetic and the
idempotency key against the body; attachments and personal values against their digests and commitments; the queue;
the number of rows. Then whether the logs follow from one another. Every failure is listed, not only the first.

What no check can see without help from outside: entries cut off at the end (pass checkpoints that were kept elsewhere
as ``since``) and a log that was rewritten and signed again with another key (pass the keys you trust).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

from cagg.entries import Log, LogState
from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger._verify_beside import Beside, ClockCheck, check_queue, check_rows, check_told
from cagg.ledger._verify_body import Found, Row
from cagg.ledger._verify_failures import Failures
from cagg.ledger._verify_heads import Heads, read_heads
from cagg.ledger._verify_losses import Losses, origin_of
from cagg.ledger._verify_pool import WORTH_HELPERS, checked_pages
from cagg.ledger._verify_tree import TreeCheck
from cagg.ledger.lineage import Succession, succession
from cagg.ledger.merkle import EMPTY_ROOT
from cagg.ledger.notes import VerifierKey
from cagg.ledger.report import Assurance, Failure, FailureKind, VerifyReport
from cagg.ports import Checkpoint, Transaction

__all__ = ["Assurance", "Failure", "FailureKind", "VerifyReport", "verify"]

_LONGEST_QUEUED = timedelta(hours=1)


def verify(
    snapshot: Transaction,
    trusted_keys: Sequence[str],
    since: Checkpoint | Sequence[Checkpoint] | None = None,
    *,
    longest_queued: timedelta = _LONGEST_QUEUED,
    tree_only: bool = False,
    log: str | None = None,
    workers: int = 1,
) -> VerifyReport:
    """Verify the logs of a store, streaming: memory does not grow with their length.

    Args:
        snapshot: a reading transaction.
        trusted_keys: verifier keys as text, from outside the store. Without any, at most ``consistent`` is reached;
            with some, every checkpoint must be signed by one of them, or by one that they vouch for.
        since: checkpoints that were kept outside the store; the log that they name must be there and continue them.
        longest_queued: entries that wait longer for the sequencer are a failure.
        tree_only: check signatures, roots, tiles and leaf hashes alone, and read no entry but those about keys and
            logs, which are found by their columns.
        log: name of the one log to verify; None = all of the store, and that each follows from the one before it.
        workers: processes that check entries of a log of more than some ten thousand; 1 = this one. More than one
            needs a main module that may be imported (``if __name__ == "__main__"``).

    Raises:
        InvalidInput: a trusted key is no key, or the store has no log of the name.
        HelperLost: one of several processes ended before its work was done.
        StoreUnavailable: the store cannot be read.
    """
    if workers < 1:
        raise InvalidInput(f"the number of processes that verify must be 1 or more, got {workers}.")
    for text in trusted_keys:
        VerifierKey.parse(text)
    outside = [since] if isinstance(since, Checkpoint) else list(since or ())
    store = Failures("")
    logs = _logs(snapshot, store)
    if not logs:
        return _unreadable(snapshot, store, tree_only=tree_only)
    names = [item.origin for item in logs] if log is None else [log]
    losses = Losses.stated(snapshot) if log is None and outside and len(logs) > 1 else Losses({})
    outside = losses.without_forgotten(outside, [item.origin for item in logs])
    reports = []
    for name in names:
        tx = snapshot if name == snapshot.origin() else snapshot.in_log(name)
        mine = [item for item in outside if origin_of(item) == name]
        if name == names[-1]:
            mine += [item for item in outside if origin_of(item) not in names]  # their names are named as a failure
        mine = losses.without_lost(tx, mine)
        check = _LogCheck(tx, trusted_keys, mine, longest_queued=longest_queued, tree_only=tree_only, workers=workers)
        reports.append(check.run())
    breaks: Sequence[str] = ()
    if log is None:
        sound = not store.found and not any(report.failures for report in reports)
        found = _check_logs(snapshot, logs, store, sound=sound)
        breaks = () if found is None else found.breaks
        reports = reports if found is None else _broken_off(reports, found)
    breaks = [*breaks, *losses.judged(reports, store)]
    if log is None and not (store.found or breaks):
        reports = _vouched(reports)
    return _whole(reports, store, breaks)


def _logs(snapshot: Transaction, store: Failures) -> Sequence[Log]:
    """Return the logs of the store, oldest first; none when the list of them cannot be read."""
    try:
        logs = snapshot.logs()
        for name in (snapshot.origin(), *(item.origin for item in logs)):
            name.encode()
    except (LedgerDamaged, UnicodeEncodeError, AttributeError) as error:
        store.add(FailureKind.LOG, None, f"the list of the store's logs cannot be read: {error}")
        return []
    return logs


def _unreadable(snapshot: Transaction, store: Failures, *, tree_only: bool) -> VerifyReport:
    return VerifyReport(
        origin=str(snapshot.origin()).encode("utf-8", "backslashreplace").decode(),
        size=0,
        root=EMPTY_ROOT,
        signed_size=0,
        checkpoints=0,
        queued=0,
        assurance=Assurance.NONE,
        failures=tuple(store.found),
        tree_only=tree_only,
    )


def _check_logs(snapshot: Transaction, logs: Sequence[Log], store: Failures, *, sound: bool) -> Succession | None:
    """Check that the last log grows, and that those before it are frozen and follow from one another.

    Args:
        snapshot: a reading transaction.
        logs: the list of logs.
        store: where failures go.
        sound: True when nothing failed within the logs.

    Returns what the logs say of each other; None when that cannot be read.
    """
    states = [item.state for item in logs]
    if states != [LogState.FROZEN] * (len(logs) - 1) + [LogState.ACTIVE]:
        message = f"the store holds {states.count(LogState.ACTIVE)} log rows that grow where one, the last, belongs."
        store.add(FailureKind.ROWS, None, message)
    foreign = snapshot.row_counts().get("foreign", 0)
    if foreign:
        store.add(FailureKind.ROWS, None, f"the store holds {foreign} rows that belong to none of its logs.")
    try:
        found = succession(snapshot)
    except (LedgerDamaged, ValueError, OverflowError) as error:  # tampered rows may hold anything
        if sound:  # otherwise what cannot be read was named already, entry by entry
            message = f"whether the logs of the store follow from one another cannot be read: {error}"
            store.add(FailureKind.LOG, None, message)
        return None
    for problem in found.problems:
        store.add(FailureKind.LOG, None, problem)
    return found


def _broken_off(reports: Sequence[VerifyReport], found: Succession) -> list[VerifyReport]:
    """Let the report of each log that breaks off say that nobody signs what stands behind its last signature."""
    broken = {before.log.origin for before, one in pairwise(found.logs) if one.broken_at is not None}
    return [replace(item, beyond_break=item.unsigned) if item.origin in broken else item for item in reports]


def _vouched(reports: Sequence[VerifyReport]) -> list[VerifyReport]:
    """Let each log vouch for the one before it: its first entry names that one's size and root, which were compared."""
    order = list(Assurance)
    found = list(reports)
    for number in range(len(found) - 1, 0, -1):
        later, earlier = found[number], found[number - 1]
        if earlier.failures or order.index(later.assurance) <= order.index(earlier.assurance) or not later.verified:
            continue
        anchored = earlier.size if later.assurance is Assurance.ANCHORED else earlier.anchored_size
        found[number - 1] = replace(
            earlier, assurance=later.assurance, signed_size=earlier.size, anchored_size=anchored
        )
    return found


def _whole(reports: Sequence[VerifyReport], store: Failures, breaks: Sequence[str]) -> VerifyReport:
    """Put the reports of all logs together: sums, every failure, the weakest assurance."""
    last = reports[-1]
    failures = (*(failure for report in reports for failure in report.failures), *store.found)
    order = list(Assurance)
    weakest = min((report.assurance for report in reports), key=order.index)
    several = len(reports) > 1
    return VerifyReport(
        origin=last.origin,
        size=sum(report.size for report in reports),
        root=last.root,
        signed_size=sum(report.signed_size for report in reports),
        anchored_size=sum(report.anchored_size for report in reports),
        checkpoints=sum(report.checkpoints for report in reports),
        queued=sum(report.queued for report in reports),
        assurance=Assurance.NONE if failures else weakest,
        failures=failures,
        notes=(*(note for report in reports for note in report.notes), *breaks),
        tree_only=last.tree_only,
        logs=tuple(reports) if several else (),
        beyond_break=sum(report.beyond_break for report in reports),
    )


class _LogCheck:
    """The check of one log."""

    def __init__(
        self,
        tx: Transaction,
        keys: Sequence[str],
        outside: Sequence[Checkpoint],
        *,
        longest_queued: timedelta,
        tree_only: bool,
        workers: int,
    ) -> None:
        self.tx = tx
        self.keys = keys
        self.outside = outside
        self.longest_queued = longest_queued
        self.tree_only = tree_only
        self.workers = workers
        self.origin = tx.origin()
        self.heads_found = Failures(self.origin)
        self.tree_found = Failures(self.origin)
        self.entries_found = Failures(self.origin)
        self.rest_found = Failures(self.origin)
        self.notes: tuple[str, ...] = ()
        self.private_rows = 0

    def run(self) -> VerifyReport:
        heads = read_heads(self.tx, self.keys, self.outside, self.heads_found)
        size = self._size()
        tree = TreeCheck(self.tx, heads.expected, self.tree_found)
        if self.tree_only:
            for page in self.tx.leaf_pages(0, size):
                tree.feed([row[0] for row in page], [row[1] for row in page])
                if tree.over:
                    break
            check_told(self.tx, self.entries_found)
        else:
            self._check_entries(tree, size)
        tree.finish()
        size = tree.size if tree.over else size  # one index that was edited makes no large log
        queued = self._check_rest(tree, heads)
        found = (self.heads_found, self.tree_found, self.entries_found, self.rest_found)
        failures = tuple(failure for part in found for failure in part.found)
        return VerifyReport(
            origin=self.origin,
            size=size,
            root=tree.root(),
            signed_size=min(heads.signed_size, size),
            anchored_size=min(heads.anchored_size, size),
            checkpoints=heads.stored,
            queued=queued,
            assurance=_assurance(failures, size, heads),
            failures=failures,
            notes=(*(f"in the log {self.origin} {note}" for note in (*heads.notes, *self.notes)),),
            tree_only=self.tree_only,
        )

    def _size(self) -> int:
        try:
            return self.tx.tree_size()
        except LedgerDamaged as error:
            self.tree_found.add(FailureKind.ROWS, None, str(error))
            return int(self.tx.row_counts()["leaf"])

    def _check_entries(self, tree: TreeCheck, size: int) -> None:
        names = tuple(self.tx.audit_columns())
        beside = Beside(self.tx, names)
        clock = ClockCheck(self.tx.now(), 7 + names.index("recorded_us"))

        def fed() -> Iterator[Sequence[Row]]:
            for page in self.tx.audit_pages(0, size):
                tree.feed([row[0] for row in page], [row[2] for row in page])
                clock.feed(page)
                yield page
                if tree.over:
                    return

        self._check_pages(fed(), beside, names, self.workers if size >= WORTH_HELPERS else 1)
        self.private_rows = beside.private_rows  # those of waiting entries are not counted
        self._check_pages(self.tx.waiting_pages(tree.size), beside, names, 1)
        notes = list(clock.notes())
        if beside.unread:
            notes.append(
                f"{beside.unread} personal values were not compared with their commitments, which this role may not "
                "read; verify as the role of 'cagg maintain' to compare them."
            )
        self.notes = tuple(notes)

    def _check_pages(self, pages: Iterable[Sequence[Row]], beside: Beside, names: Sequence[str], workers: int) -> None:
        task = 7 + names.index("task_key")
        for page, (failures, attached, wanted) in checked_pages(pages, names, self.origin, workers=workers):
            found: list[Found] = failures
            for index, digests in attached:
                found += beside.check_attachments(index, digests)
            for position in wanted:
                found += beside.check_entry(page[position], self.origin)
            rows = {row[0]: row for row in page} if found else {}
            for kind, index, message in sorted(found, key=lambda item: item[1]):
                row = rows.get(index)
                told = {} if row is None else {"entry_id": row[1], "task": row[task]}
                self.entries_found.add(FailureKind(kind), index, message, **told)

    def _check_rest(self, tree: TreeCheck, heads: Heads) -> int:
        queued = check_queue(self.tx, self.longest_queued, self.rest_found)
        expected = {
            "leaf": tree.leaves,
            "entry": tree.leaves + queued,
            "queue": queued,
            "tile": tree.tiles,
            "checkpoint": heads.stored,
        }
        if not self.tree_only:
            expected["private"] = self.private_rows
        doubtful = bool(queued or self.tree_found.found or self.entries_found.found or self.rest_found.found)
        check_rows(self.tx, expected, self.rest_found, doubtful=doubtful, tree_only=self.tree_only)
        return queued


def _assurance(failures: Sequence[Failure], size: int, heads: Heads) -> Assurance:
    if failures or size == 0:
        return Assurance.NONE
    if heads.signed_size == 0:
        return Assurance.CONSISTENT
    return Assurance.ANCHORED if heads.anchored_size > 0 else Assurance.SIGNED
