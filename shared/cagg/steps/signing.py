"""Signs the log and publishes the checkpoint: every step is committed, or on the disk, before the next one."""

from __future__ import annotations

from collections.abc import Sequence

from cagg.composition import Components
from cagg.errors import ConfigurationError, SigningRefused
from cagg.ledger.anchors import holds, newest, publish
from cagg.ledger.checkpoint import sign_checkpoint, signer_for
from cagg.ports import Checkpoint

__all__ = ["publish_late", "sign_and_publish"]

_published: dict[str, str] = {}
"""The note that this process saw last in a place: a pass that finds nothing new does not ask there again, and the log
hears of a checkpoint once."""
_published_late: dict[str, str] = {}
"""As :data:`_published`, of the final checkpoint of the log before the one that grows."""


def sign_and_publish(components: Components, problems: list[str]) -> Checkpoint | None:
    """Sign the log that grows with the key in ``home/keys``, made at the first time, and publish the checkpoint.

    A place outside that cannot be reached is a problem and no reason not to sign; it gets the newest checkpoint, which
    covers those before it, as soon as it can be reached again.

    Args:
        components: store and settings.
        problems: gets a sentence for whatever was refused.

    Returns:
        The newest checkpoint; None when nothing was signed.

    Raises:
        LedgerDamaged: stored hashes are missing.
        StoreUnavailable: the store cannot be read or written.
    """
    anchors = components.settings.anchors
    try:
        with components.store.snapshot() as tx:
            if tx.tree_size() == 0:
                return None
            signer, last = signer_for(tx, components.settings.home / "keys"), tx.last_checkpoint()
            idle = last is not None and last.size == tx.tree_size() and not _lacking(anchors, last)
        # read before the store is: whatever stands there was committed to the store before
        outside = () if idle else newest(anchors, signer.name)
        with components.store.transaction() as tx:
            checkpoint = sign_checkpoint(tx, signer, outside=outside)
    except (SigningRefused, ConfigurationError) as error:
        problems.append(str(error))
        return None
    for place in _lacking(anchors, checkpoint):
        found = publish([place], checkpoint)
        problems.extend(found)
        if not found:
            _published[place] = checkpoint.note
    return checkpoint


def publish_late(anchors: Sequence[str], checkpoint: Checkpoint) -> list[str]:
    """Publish a frozen log's final checkpoint to places that lack it and are back; returns problems, in sentences.

    A place that is still away is no problem of this checkpoint: the newest one does not get there either.
    """
    problems: list[str] = []
    for place in anchors:
        if place == "log" or _published_late.get(place) == checkpoint.note:
            continue
        try:
            found = () if holds(place, checkpoint) else publish([place], checkpoint)
        except (OSError, ConfigurationError):
            continue
        problems.extend(found)
        if not found:
            _published_late[place] = checkpoint.note
    return problems


def _lacking(anchors: Sequence[str], checkpoint: Checkpoint) -> list[str]:
    """Return the places where this process has not seen the checkpoint yet."""
    return [place for place in anchors if _published.get(place) != checkpoint.note]
