"""What ``cagg doctor`` asks about signatures: whether entries are signed, by whom, and whether they can be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from cagg.cli._context import store_file
from cagg.cli._findings import Finding, note, ok, problem
from cagg.errors import CaggError
from cagg.windows import format_duration

if TYPE_CHECKING:
    from cagg.composition import Components
    from cagg.ports import Checkpoint, Transaction

__all__ = ["anchoring", "signing"]

_LONGEST_UNSIGNED = timedelta(hours=24)
"""Entries that wait longer for a signature mean that nobody runs ``cagg maintain``. Own choice: a nightly pass."""


def signing(parts: Components, tx: Transaction, size: int) -> Iterator[Finding]:
    """Say whether the log is signed, and can be."""
    last = tx.last_checkpoint()
    signed = 0 if last is None else last.size
    bad = list(_key_trouble(parts, tx)) or ([] if last is None else list(_signature(parts, tx, last)))
    yield from bad
    if bad:
        return
    if size == 0:
        return
    if size <= signed and last is not None:
        ago = format_duration(parts.clock.now() - last.created_at)
        text = f"all {size} entries are under a checkpoint signed by the trusted key, {ago} old"
        yield ok("ledger", f"{text}; whether they were edited since, `cagg ledger verify` tells")
        return
    oldest = next(iter(tx.entries(start=signed, limit=1)), None)
    age = timedelta(0) if oldest is None else parts.clock.now() - oldest.recorded_at
    text = f"{size - signed} of {size} entries are not signed yet, the oldest for {format_duration(age)}"
    remedy = "run `cagg maintain`, best every few minutes: cagg maintain --every 60s"
    yield problem("ledger", text, remedy) if age > _LONGEST_UNSIGNED else note("ledger", text, remedy)


def _key_trouble(parts: Components, tx: Transaction) -> Iterator[Finding]:
    """Say why `cagg maintain` would refuse to sign: its key is missing, or has signed what the store does not hold.

    Where several machines share a store only one of them has the keys, and log.checkpoint beside them.
    """
    from cagg.ledger.keyfolder import last_signed
    from cagg.ledger.lineage import continues, key_folder
    from cagg.ledger.notes import parse_note
    from cagg.ledger.signer import exists

    try:
        folder = key_folder(tx, parts.settings.home / "keys")
        kept = last_signed(folder)
        was_signed = tx.last_checkpoint() is not None or kept is not None
        is_signer = store_file(parts) is not None or kept is not None
        if was_signed and is_signer and not exists(folder / "log.key"):
            yield problem(
                "ledger",
                f"nothing can be signed: the signing key {folder / 'log.key'} is missing",
                "restore log.key from a backup; where there is none, run `cagg ledger roll --reason key_lost`",
            )
        head = None if kept is None else parse_note(kept, ())[0]
        if head is not None and head.origin == tx.origin() and not continues(tx, head):
            yield problem(
                "ledger",
                f"nothing can be signed: the key has signed {head.size} entries (log.checkpoint beside it), which the "
                f"store, with {tx.tree_size()}, does not hold: it was restored from a backup, or is another copy",
                "after a true restore run `cagg ledger roll --reason restored`; see docs/ledger.md, Backup and restore",
            )
    except CaggError as error:
        yield problem("ledger", str(error))


def _signature(parts: Components, tx: Transaction, last: Checkpoint) -> Iterator[Finding]:
    """Say what is wrong with the newest checkpoint's signature; nothing when a key that counts made it."""
    from cagg.cli._ledger_keys import key_file, trusted_keys
    from cagg.ledger.keyring import KeyRing

    try:
        ring = KeyRing.of(tx, trusted_keys(parts))
        judged = ring.read(last.note, "the newest checkpoint")
    except CaggError as error:
        yield problem("ledger", f"the newest checkpoint cannot be checked: {error}", "run `cagg ledger verify`")
        return
    if ring.empty:
        find = note if store_file(parts) is None else problem  # of several machines only the signer needs a key
        yield find(
            "ledger",
            f"the newest checkpoint cannot be checked: there is no key at {key_file(parts)}",
            "restore log.key and log.vkey from a backup, or copy the public key that was kept outside",
        )
    elif not judged.signers:
        yield problem(
            "ledger",
            judged.problem.rstrip(".") or "the newest checkpoint was signed by another key than the trusted one",
            f"restore {key_file(parts)} and its log.key from a backup, then run `cagg ledger verify`",
        )


def anchoring(parts: Components, size: int) -> Iterator[Finding]:
    """Say where checkpoints are published: without one outside nobody can see that the end was cut off."""
    anchors = parts.settings.anchors
    if anchors:
        yield ok("anchors", f"checkpoints are published to {', '.join(anchors)}")
    elif size:
        yield note(
            "anchors",
            "no checkpoint is published outside of the store, so a cut tail could not be seen",
            'set anchors in cagg.toml, for example anchors = ["git:/srv/anchors"]; see docs/ledger.md',
        )
