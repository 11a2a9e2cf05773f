"""Which keys an auditor may go by: those that they hold, and those that the log announces in a way that these vouch
for.

The rule. A key counts when it was given from outside and bears the log's name. Beside it count

- the key that took its place: a ``key`` entry whose statement both keys signed, under a checkpoint that both signed,
  the first of these being the *switch*. The new key counts from the switch on, the old one up to it;
- the key whose place it took, up to the switch: so that whoever holds only today's key can check the whole log;
- the key that the log before this one announced for it, when a key that counts there signed that.

A revoked key counts for nothing from the size on that its revocation names, wherever it came from; what it announced
there counts for nothing either, and auditors who hold nothing else must be given a new key from outside. A revocation
must be signed by another key that counted at its place. Retired and revoked keys count for earlier sizes, since an
announcement would otherwise lose its word with the key that made it.

An entry alone is never enough: whoever may write entries could announce a key of their own, and ``maintain`` would
sign the tree with it. See :mod:`cagg.ledger.key_entries` for the statements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cagg.errors import LedgerDamaged
from cagg.ledger.events import KeyEvent
from cagg.ledger.key_entries import KeyFact, key_facts
from cagg.ledger.notes import TreeHead, VerifierKey, parse_note
from cagg.ports import LedgerRows

__all__ = ["Judged", "KeyRing", "KeyStanding", "KeyState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A signed checkpoint and who vouches for it.

    Attributes:
        head: what it says.
        signers: the keys whose signature counts at its size; empty when nobody vouches for it.
        problem: when nobody does, why a signature that is there does not count; empty when none of a known key is.
        is_void: True when keys that counted at its size signed it, and all of them are revoked there.
    """

    head: TreeHead
    signers: tuple[VerifierKey, ...]
    problem: str
    is_void: bool = False


class KeyState(StrEnum):
    """Where a key is in its life."""

    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStanding:
    """For which checkpoints a key's signature counts.

    Attributes:
        key: the key.
        first_size: size of the first checkpoint.
        retired_at: size of the last checkpoint, signed by its successor as well; None while it is in use.
        revoked_from: size from which on it counts for nothing; None when it was not revoked.
    """

    key: VerifierKey
    first_size: int
    retired_at: int | None = None
    revoked_from: int | None = None

    def counts_at(self, size: int) -> bool:
        """True when a signature under a checkpoint of this size counts."""
        return not self.objection(size)

    def objection(self, size: int) -> str:
        """Return why a signature under a checkpoint of this size does not count; empty when it does."""
        if self.revoked_from is not None and size >= self.revoked_from:
            return f"which is revoked from size {self.revoked_from} on"
        if self.retired_at is not None and size > self.retired_at:
            return f"which another key replaced at size {self.retired_at}"
        if size < self.first_size:
            return f"which counts from size {self.first_size} on only"
        return ""

    def is_void_at(self, size: int) -> bool:
        """True when a signature under a checkpoint of this size counted but for the key's revocation."""
        is_its_time = size >= self.first_size and (self.retired_at is None or size <= self.retired_at)
        return is_its_time and not self.counts_at(size)

    @property
    def state(self) -> KeyState:
        """Revoked is stronger than retired."""
        if self.revoked_from is not None:
            return KeyState.REVOKED
        return KeyState.ACTIVE if self.retired_at is None else KeyState.RETIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class _Switch:
    """A rotation that both keys signed, as an entry and as the checkpoint of this size."""

    old: VerifierKey
    new: VerifierKey
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """The keys that count for one log; see the module for the rule.

    Attributes:
        trusted: the keys that were given from outside.
        standings: all keys that count for some size, in the order in which they came.
    """

    trusted: tuple[VerifierKey, ...]
    standings: tuple[KeyStanding, ...]
    mentioned: tuple[VerifierKey, ...] = ()
    """keys that entries name and nothing vouches for: a signature of theirs is explained, not counted"""
    origin: str = ""

    @classmethod
    def of(cls, tx: LedgerRows, trusted: Sequence[str]) -> KeyRing:
        """Return the keys that count for this log.

        Args:
            tx: a transaction or snapshot in the log.
            trusted: verifier keys as text, from outside the store.

        Raises:
            InvalidInput: a trusted key is no key.
            LedgerDamaged: the store's entries or checkpoints cannot be read at all.
        """
        origin = tx.origin()
        given = tuple(dict.fromkeys(VerifierKey.parse(text) for text in trusted))
        if not given:
            return cls(trusted=(), standings=(), origin=origin)
        facts = [fact for fact in key_facts(tx) if fact.index is not None]
        roots = [key for key in given if key.name == origin]
        if len(roots) < len(given):
            roots += [key for key in _announced_before(tx, trusted) if key not in roots]
        switches = _switches(tx, facts)
        first = _standings(roots, switches, {})
        revoked = _revocations(facts, first)
        standings = _standings(roots, switches, revoked)
        named = [key for fact in facts for key in (fact.key, fact.replaces) if key is not None]
        mentioned = tuple(key for key in dict.fromkeys(named) if key not in standings and key not in given)
        return cls(trusted=given, standings=tuple(standings.values()), mentioned=mentioned, origin=origin)

    @property
    def empty(self) -> bool:
        """True when no key was given from outside: nothing can be trusted then."""
        return not self.trusted

    def read(self, note: str, name: str) -> Judged:
        """Return what a signed checkpoint says and who vouches for it.

        Args:
            note: the note's text.
            name: what messages call it, for example ``the checkpoint of size 5``.

        Raises:
            LedgerDamaged: the note is malformed, or a signature that claims a known key is wrong.
        """
        known = {item.key: item for item in self.standings}
        strangers = [key for key in self.trusted if key not in known]
        try:
            head, found = parse_note(note, [*known, *strangers])
        except LedgerDamaged as error:
            raise LedgerDamaged(f"{name}: {error}") from None
        counting = tuple(key for key in found if key in known and known[key].counts_at(head.size))
        if counting:
            return Judged(head=head, signers=counting, problem="")
        problem = self._problem(note, name, head, found)
        is_void = bool(found) and all(key in known and known[key].is_void_at(head.size) for key in found)
        return Judged(head=head, signers=(), problem=problem, is_void=is_void)

    def _problem(self, note: str, name: str, head: TreeHead, found: Sequence[VerifierKey]) -> str:
        known = {item.key: item for item in self.standings}
        for key in found:
            why = known[key].objection(head.size) if key in known else f"which is none of the log {self.origin!r}"
            return f"{name} is signed by the key {_short(key)}, {why}."
        for key in self.mentioned:
            try:
                _, claimed = parse_note(note, [key])
            except LedgerDamaged:
                continue
            if claimed:
                return (
                    f"{name} is signed by the key {_short(key)}, which the log names but no trusted key vouches for; "
                    "ask the log's owner for it, outside of the store."
                )
        return ""


def _short(key: VerifierKey) -> str:
    return f"{key.name}+{key.key_id.hex()}"


# ---- the rule -------------------------------------------------------------------------------------------------------


def _switches(tx: LedgerRows, facts: Sequence[KeyFact]) -> list[_Switch]:
    """Return the rotations that were carried out, oldest first; of a key's rotations only the first."""
    rotations: dict[VerifierKey, KeyFact] = {}
    for fact in facts:
        if fact.event is KeyEvent.ANNOUNCED and fact.replaces is not None:
            rotations.setdefault(fact.replaces, fact)
    if not rotations:
        return []
    checkpoints = tx.checkpoints()
    switches = []
    for old, fact in rotations.items():
        for item in checkpoints:
            if fact.index is None or item.size <= fact.index:
                continue
            try:
                head, signers = parse_note(item.note, (old, fact.key))
            except LedgerDamaged:
                continue  # `verify` reads every checkpoint and tells
            if len(signers) == 2 and head.size == item.size:
                switches.append(_Switch(old=old, new=fact.key, size=item.size))
                break
    return sorted(switches, key=lambda item: item.size)


def _standings(
    roots: Sequence[VerifierKey], switches: Sequence[_Switch], revoked: Mapping[VerifierKey, int]
) -> dict[VerifierKey, KeyStanding]:
    """Return every key that the roots vouch for, by way of the switches."""
    retired = {item.old: item.size for item in switches}

    def standing(key: VerifierKey, first_size: int) -> KeyStanding:
        return KeyStanding(key=key, first_size=first_size, retired_at=retired.get(key), revoked_from=revoked.get(key))

    found = {key: standing(key, 0) for key in roots}
    grown = True
    while grown:
        before = len(found)
        for item in switches:
            old, new = found.get(item.old), found.get(item.new)
            if old is not None and new is None and old.counts_at(item.size):
                found[item.new] = standing(item.new, item.size)
            elif new is not None and old is None and new.counts_at(item.size):
                found[item.old] = standing(item.old, 0)
        grown = len(found) > before
    return found


def _revocations(facts: Sequence[KeyFact], standings: Mapping[VerifierKey, KeyStanding]) -> dict[VerifierKey, int]:
    """Return from which size on keys are revoked, by word of another key that counted where the entry stands."""
    revoked: dict[VerifierKey, int] = {}
    for fact in facts:
        if fact.event is not KeyEvent.REVOKED or fact.index is None:
            continue
        by = standings.get(fact.signed_by)
        if by is not None and by.key != fact.key and by.counts_at(fact.index + 1):
            revoked[fact.key] = min(fact.from_size, revoked.get(fact.key, fact.from_size))
    return revoked


def _announced_before(tx: LedgerRows, trusted: Sequence[str]) -> list[VerifierKey]:
    """Return the keys that the log before this one announced for it, under a checkpoint that counts there."""
    names = [log.origin for log in tx.logs()]
    place = names.index(tx.origin()) if tx.origin() in names else 0
    if place == 0:
        return []
    before = tx.in_log(names[place - 1])
    facts = [fact for fact in key_facts(before) if fact.event is KeyEvent.ANNOUNCED and fact.replaces is None]
    facts = [fact for fact in facts if fact.key.name == tx.origin() and fact.index is not None]
    if not facts:
        return []
    ring = KeyRing.of(before, trusted)
    known = {item.key: item for item in ring.standings}
    covered = 0
    for item in reversed(before.checkpoints()):
        try:
            judged = ring.read(item.note, "")
        except LedgerDamaged:
            continue
        if judged.signers:
            covered = judged.head.size
            break
    return [
        fact.key
        for fact in facts
        if fact.index is not None
        and fact.index < covered
        and fact.signed_by in known
        and known[fact.signed_by].counts_at(fact.index + 1)
    ]
