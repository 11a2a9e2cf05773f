"""Rotation and revocation: which signature counts, for whom, and what survives a crash."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cagg.composition import Components, Grid
from cagg.entries import EntryKind
from cagg.errors import CaggError, ConfigurationError, InvalidInput, LedgerDamaged, SigningRefused
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append
from cagg.ledger.key_entries import fact_of, key_facts, revocation, rotation
from cagg.ledger.keyring import Judged, KeyRing, KeyState
from cagg.ledger.notes import TreeHead, VerifierKey, checkpoint_text, note_of, signed_note, verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.signer import FileSigner
from cagg.ledger.succession import RollReason
from cagg.ledger.verify import verify
from cagg.ports import Checkpoint, Signer, Store
from cagg.settings import Settings
from cagg.spool import Spool
from cagg.steps import keychange
from cagg.steps.keychange import revoke_key, rotate_key
from cagg.steps.rolling import roll_log
from cagg.steps.signing import sign_and_publish
from cagg.testing import ManualClock
from cagg.testing.attacks import unlock
from cagg.testing.stores import MemorySigner, draft

NAME = "example.org/test"


@pytest.fixture
def parts(store: Store, tmp_path: Path, clock: ManualClock) -> Components:
    """What `cagg maintain` works with, on each backend."""
    settings = Settings(home=tmp_path)
    return Components(
        settings=settings,
        clock=clock,
        store=store,
        grid=Grid(settings, clock),
        spool=Spool(tmp_path / "spool"),
        meter_factory=lambda: pytest.fail("nothing is metered here"),
    )


def grow(parts: Components, *names: str) -> None:
    with parts.store.transaction() as tx:
        for name in names:
            append(tx, draft(name))
    with parts.store.transaction() as tx:
        while sequence(tx):
            pass


def maintained(parts: Components) -> Checkpoint:
    """Sign as `cagg maintain` does."""
    problems: list[str] = []
    with parts.store.transaction() as tx:
        while sequence(tx):
            pass
    checkpoint = sign_and_publish(parts, problems)
    assert (problems, checkpoint is None) == ([], False)
    assert checkpoint is not None
    return checkpoint


def current(parts: Components) -> FileSigner:
    return FileSigner.load(parts.settings.home / "keys" / "log.key")


def vkey(signer: Signer) -> str:
    return str(verifier_key(signer))


def ring(parts: Components, *trusted: str) -> KeyRing:
    with parts.store.snapshot() as tx:
        return KeyRing.of(tx, trusted)


def stored(parts: Components) -> list[Checkpoint]:
    with parts.store.snapshot() as tx:
        return list(tx.checkpoints())


def judged(parts: Components, *trusted: str) -> dict[int, Judged]:
    keys = ring(parts, *trusted)
    return {item.size: keys.read(item.note, f"the checkpoint of size {item.size}") for item in stored(parts)}


def forged(signers: tuple[Signer, ...], size: int, root: bytes = b"\x05" * 32, origin: str = NAME) -> str:
    text = checkpoint_text(TreeHead(origin=origin, size=size, root=root))
    return note_of(text, [(verifier_key(signer), signer.sign(text.encode())) for signer in signers])


# ---- rotation -------------------------------------------------------------------------------------------------------


def test_everybody_who_trusts_one_key_of_a_chain_can_check_the_whole_log(parts: Components) -> None:
    grow(parts, "a", "b")
    maintained(parts)
    keys = [current(parts)]
    switches = []
    for number in range(3):
        switches.append(rotate_key(parts, f"change {number}").size)
        keys.append(current(parts))
        grow(parts, f"after {number}")
        maintained(parts)
    assert switches == sorted(set(switches))
    for signer in keys:
        found = judged(parts, vkey(signer))
        assert all(item.signers and not item.problem for item in found.values()), found
        with parts.store.snapshot() as tx:
            report = verify(tx, [vkey(signer)])
        assert report.verified, report.failures
        assert report.signed_size == report.size
    for size, old, new in zip(switches, keys, keys[1:], strict=False):
        found = judged(parts, vkey(keys[0]))
        assert set(found[size].signers) == {verifier_key(old), verifier_key(new)}
        assert found[size + 1].signers == (verifier_key(new),)


def test_the_folder_after_a_rotation(parts: Components) -> None:
    grow(parts, "a")
    maintained(parts)
    old, folder = current(parts), parts.settings.home / "keys"
    done = rotate_key(parts, "  the yearly\n change ")
    assert (done.before, done.key) == (verifier_key(old), verifier_key(current(parts)))
    assert sorted(path.name for path in folder.iterdir()) == ["log.checkpoint", "log.key", "log.lock", "log.vkey"]
    assert (folder / "log.key").stat().st_mode & 0o777 == 0o600
    assert (folder / "log.vkey").read_text().splitlines() == [str(done.key), f"# replaced: {done.before}"]
    with parts.store.snapshot() as tx:
        (fact,) = key_facts(tx)
    assert (fact.key, fact.replaces, fact.reason) == (done.key, done.before, "the yearly change")


def test_a_retired_key_counts_for_nothing_after_the_switch(parts: Components) -> None:
    grow(parts, "a")
    maintained(parts)
    old = current(parts)
    switch = rotate_key(parts, "r").size
    for trusted in ([vkey(old)], [vkey(old), vkey(current(parts))]):
        keys = ring(parts, *trusted)
        assert keys.read(forged((old,), switch), "x").signers == (verifier_key(old),)
        late = keys.read(forged((old,), switch + 1), "the checkpoint")
        assert (late.signers, "another key replaced" in late.problem) == ((), True)
        both = keys.read(forged((old, current(parts)), switch + 5), "x")
        assert (both.signers, both.problem) == ((verifier_key(current(parts)),), "")


def test_a_new_key_counts_from_the_switch_on_for_those_who_hold_the_old_one(parts: Components) -> None:
    grow(parts, "a")
    maintained(parts)
    old = current(parts)
    switch = rotate_key(parts, "r").size
    keys, new = ring(parts, vkey(old)), current(parts)
    early = keys.read(forged((new,), switch - 1), "the checkpoint")
    assert (early.signers, f"counts from size {switch} on only" in early.problem) == ((), True)
    assert keys.read(forged((new,), switch), "x").signers == (verifier_key(new),)


def test_a_log_that_was_never_signed_has_no_key_to_replace(parts: Components) -> None:
    grow(parts, "a")
    with pytest.raises(SigningRefused, match="cagg maintain"):
        rotate_key(parts, "r")
    maintained(parts)
    with pytest.raises(InvalidInput, match="reason"):
        rotate_key(parts, " \n")
    assert len(stored(parts)) == 1
    assert not (parts.settings.home / "keys" / "log.key.next").exists()


def test_a_first_key_needs_no_entry(parts: Components) -> None:
    grow(parts, "a")
    assert maintained(parts).size == 1
    with parts.store.snapshot() as tx:
        assert key_facts(tx) == []


# ---- crashes --------------------------------------------------------------------------------------------------------

STEPS = ("prepare_next", "append", "sequence", "sign_checkpoint", "take_over")


def _dying(step: str, monkeypatch: pytest.MonkeyPatch, when: str) -> Callable[..., Any]:
    whole = getattr(keychange, step)

    def dies(*arguments: Any, **more: Any) -> Any:
        if when == "after":
            whole(*arguments, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(keychange, step, dies)
    return dies


@pytest.mark.parametrize("goes_on", ["rotate", "maintain", "maintain, then rotate"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_rotation_that_dies_anywhere_is_finished_later(
    parts: Components, monkeypatch: pytest.MonkeyPatch, step: str, when: str, goes_on: str
) -> None:
    grow(parts, "a", "b")
    maintained(parts)
    old = current(parts)
    with monkeypatch.context() as patch:
        _dying(step, patch, when)
        with pytest.raises(KeyboardInterrupt):
            rotate_key(parts, "r")
    if goes_on != "rotate":
        maintained(parts)
        grow(parts, "c")
        maintained(parts)
        maintained(parts)
    if goes_on != "maintain":
        rotate_key(parts, "r")
    maintained(parts)
    begun = (step, when) != ("prepare_next", "before")
    announced = begun and step != "prepare_next" and (step, when) not in {("append", "before"), ("append", "after")}
    if goes_on == "rotate" and (step, when) != ("take_over", "after"):  # then only the answer was lost
        with parts.store.snapshot() as tx:
            assert [fact.replaces for fact in key_facts(tx)] == [verifier_key(old)], "one rotation, not two"
        assert not (parts.settings.home / "keys" / "log.key.next").exists()
    if announced or goes_on != "maintain":
        assert verifier_key(current(parts)) != verifier_key(old)
    for signer in (old, current(parts)):
        with parts.store.snapshot() as tx:
            report = verify(tx, [vkey(signer)])
        assert report.verified, report.failures


def test_a_checkpoint_of_the_old_key_alone_does_not_end_a_rotation(
    parts: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another maintainer, with a copy of the folder, signs the entry before it knows the new key."""
    grow(parts, "a")
    maintained(parts)
    old = current(parts)
    whole = sign_checkpoint

    def signs_alone(tx: Any, signer: Signer, **more: Any) -> Checkpoint:
        monkeypatch.setattr(keychange, "sign_checkpoint", whole)
        return whole(tx, MemorySigner(NAME, old._key.private_bytes_raw()), **more)

    monkeypatch.setattr(keychange, "sign_checkpoint", signs_alone)
    done = rotate_key(parts, "r")
    assert verifier_key(current(parts)) == done.key
    assert done.size == stored(parts)[-1].size == 3, "announced once more, since the first place was signed already"
    for signer in (old, current(parts)):
        assert all(item.signers for item in judged(parts, vkey(signer)).values())


def test_two_rotations_at_the_same_time_leave_one_history(parts: Components) -> None:
    grow(parts, "a")
    maintained(parts)
    first = current(parts)

    def rotate(number: int) -> str:
        try:
            return str(rotate_key(parts, f"by {number}").key)
        except CaggError as error:
            return type(error).__name__

    with ThreadPoolExecutor(3) as pool:
        told = list(pool.map(rotate, range(3)))
    grow(parts, "b")
    maintained(parts)
    assert vkey(current(parts)) in told
    found = judged(parts, vkey(first))
    assert all(item.signers for item in found.values()), (told, found)
    assert max(found) == stored(parts)[-1].size


# ---- what must not count --------------------------------------------------------------------------------------------


def _record(parts: Components, body: dict[str, Any], ordinal: int = 0) -> None:
    with parts.store.transaction() as tx:
        append(tx, draft(f"key:{NAME}", kind=EntryKind.KEY, ordinal=ordinal, **body))
    with parts.store.transaction() as tx:
        while sequence(tx):
            pass


@pytest.mark.parametrize("signed_by", ["the thief", "the thief, for another log", "nobody", "the log, as a checkpoint"])
def test_who_may_write_entries_cannot_announce_a_key(parts: Components, signed_by: str) -> None:
    grow(parts, "a")
    maintained(parts)
    owner, thief = current(parts), MemorySigner(NAME, b"\x66" * 32)
    with parts.store.snapshot() as tx:
        body = dict(rotation(tx, thief, thief, "r").body)
    body["replaces"] = body["by"] = vkey(owner)
    place = f"from size {body['from_size']}\nreplaces {vkey(owner)}\nby {vkey(owner)}\n"
    text = f"{NAME}\nkey announced\n{vkey(thief)}\n{place}"
    if signed_by == "nobody":
        body["statement"] = "none"
    elif signed_by == "the log, as a checkpoint":
        body["statement"] = stored(parts)[-1].note
    else:
        origin = text if signed_by == "the thief" else text.replace(NAME, "example.org/other", 1)
        body["statement"] = signed_note(origin, thief.sign(origin.encode()), verifier_key(thief))
    _record(parts, body)
    maintained(parts)  # the owner signs the tree with the entry in it
    note = stored(parts)[-1].note
    with parts.store.transaction() as tx:  # and whoever may write to the store adds a signature of the new key
        text = note.split("\n\n")[0] + "\n"
        line = signed_note(text, thief.sign(text.encode()), verifier_key(thief)).split("\n\n")[1]
        unlock(tx).exec_driver_sql(
            "UPDATE cagg_checkpoint SET note = note || " + ("%s" if _is_postgresql(tx) else "?"), (line,)
        )
    keys = ring(parts, vkey(owner))
    assert [item.key for item in keys.standings] == [verifier_key(owner)]
    assert keys.read(forged((thief,), 99), "x").signers == ()
    assert keys.read(forged((owner,), 99), "x").signers == (verifier_key(owner),), "and nobody is retired by it"


def _is_postgresql(tx: Any) -> bool:
    return str(tx.connection.dialect.name) == "postgresql"


def test_an_announcement_waits_for_the_checkpoint_that_both_keys_sign(parts: Components) -> None:
    grow(parts, "a")
    maintained(parts)
    owner, new = current(parts), MemorySigner(NAME, b"\x09" * 32)
    with parts.store.transaction() as tx:
        append(tx, rotation(tx, owner, new, "r"))
    maintained(parts)  # log.key.next is not there: the owner signs alone
    keys = ring(parts, vkey(owner))
    assert keys.read(forged((new,), 50), "the checkpoint").signers == ()
    assert "no trusted key vouches for" in keys.read(forged((new,), 50), "the checkpoint").problem
    assert keys.read(forged((owner,), 50), "x").signers == (verifier_key(owner),)


def test_a_key_of_another_name_counts_for_nothing(parts: Components) -> None:
    grow(parts, "a")
    maintained(parts)
    other = MemorySigner("example.org/other", b"\x08" * 32)
    keys = ring(parts, vkey(other))
    assert (keys.trusted, keys.empty) == ((verifier_key(other),), False)
    found = keys.read(forged((other,), 1), "the checkpoint")
    assert found.signers == ()
    named = f"{other.name}+{verifier_key(other).key_id.hex()}"
    assert found.problem == f"the checkpoint is signed by the key {named}, which is none of the log {NAME!r}."


def test_another_key_with_the_same_id_does_not_verify(parts: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerifierKey, "key_id", property(lambda self: b"same"))
    grow(parts, "a")
    maintained(parts)
    owner, twin = current(parts), MemorySigner(NAME, b"\x0a" * 32)
    keys = ring(parts, vkey(owner))
    with pytest.raises(LedgerDamaged, match="does not fit"):
        keys.read(forged((twin,), 1), "the checkpoint")
    assert keys.read(forged((owner,), 1), "x").signers == (verifier_key(owner),)
    both = ring(parts, vkey(owner), vkey(twin))
    assert both.read(forged((twin,), 1), "x").signers == (verifier_key(twin),)
    assert both.read(forged((owner,), 1), "x").signers == (verifier_key(owner),)


def test_wrong_signatures_and_malformed_notes_are_named(parts: Components) -> None:
    grow(parts, "a")
    maintained(parts)
    keys = ring(parts, vkey(current(parts)))
    with pytest.raises(LedgerDamaged, match=r"^the checkpoint of size 7: .* does not fit"):
        keys.read(forged((current(parts),), 7).replace("\n7\n", "\n8\n"), "the checkpoint of size 7")
    with pytest.raises(LedgerDamaged, match=r"^it: "):
        keys.read("junk", "it")
    unknown = keys.read(forged((MemorySigner(NAME),), 7), "it")
    assert (unknown.signers, unknown.problem, unknown.head.size) == ((), "", 7)


def test_without_a_key_nothing_counts(parts: Components) -> None:
    grow(parts, "a")
    note = maintained(parts).note
    keys = ring(parts)
    assert (keys.empty, keys.trusted, keys.read(note, "x").signers) == (True, (), ())
    with pytest.raises(InvalidInput):
        ring(parts, "no key")


# ---- revocation -----------------------------------------------------------------------------------------------------


def test_a_replaced_key_is_revoked(parts: Components) -> None:
    grow(parts, "a", "b")
    maintained(parts)
    old = current(parts)
    switch = rotate_key(parts, "r").size
    grow(parts, "c")
    done = revoke_key(parts, verifier_key(old).key_id.hex(), "its file was stolen")
    assert (done.size, done.before) == (switch + 1, verifier_key(old))
    states = {item.key: item.state for item in ring(parts, vkey(old)).standings}
    assert states == {verifier_key(old): KeyState.REVOKED, verifier_key(current(parts)): KeyState.ACTIVE}
    for signer in (old, current(parts)):
        assert all(item.signers for item in judged(parts, vkey(signer)).values()), "what it signed before still counts"
    again = revoke_key(parts, vkey(old), "said once more")
    assert again.checkpoint.size == done.checkpoint.size, "nothing is recorded twice"
    assert revoke_key(parts, vkey(old), "earlier", 2).size == 2, "what is worse than was known is recorded"


def test_a_key_that_was_stolen_before_the_switch_vouches_for_nothing_after(parts: Components) -> None:
    grow(parts, "a", "b", "c")
    maintained(parts)
    old = current(parts)
    switch = rotate_key(parts, "r").size
    revoke_key(parts, vkey(old), "stolen before", from_size=2)
    held_old = judged(parts, vkey(old))
    assert [size for size, item in held_old.items() if item.signers] == []
    assert "revoked from size 2 on" in held_old[3].problem
    assert "no trusted key vouches for" in held_old[switch + 1].problem
    held_new = judged(parts, vkey(current(parts)))
    assert [size for size, item in held_new.items() if not item.signers] == [3], "only what the thief may have signed"
    assert ring(parts, vkey(current(parts))).read(forged((old,), 1), "x").signers == (verifier_key(old),)
    with parts.store.snapshot() as tx:
        report = verify(tx, [vkey(current(parts))])
        assert (report.failures, report.verified) == ((), True)
        assert "signed by revoked keys alone" in report.notes[0], "the newer checkpoint covers it"
        assert any("revoked" in item.message for item in verify(tx, [vkey(old)]).failures)


def test_the_only_key_cannot_be_revoked(parts: Components) -> None:
    grow(parts, "a")
    maintained(parts)
    with pytest.raises(InvalidInput, match="rotate-key"):
        revoke_key(parts, vkey(current(parts)), "r")
    with pytest.raises(InvalidInput, match="none that this log was signed with"):
        revoke_key(parts, vkey(MemorySigner(NAME)), "r")
    assert len(stored(parts)) == 1


def test_a_thief_with_the_old_key_cannot_revoke_the_new_one(parts: Components) -> None:
    grow(parts, "a")
    maintained(parts)
    old = current(parts)
    rotate_key(parts, "r")
    with parts.store.transaction() as tx:
        append(tx, revocation(tx, old, verifier_key(current(parts)), 0, "by the thief"))
        append(tx, revocation(tx, current(parts), verifier_key(current(parts)), 0, "of itself"))
    maintained(parts)
    for signer in (old, current(parts)):
        assert all(item.signers for item in judged(parts, vkey(signer)).values())


def test_a_revocation_in_the_log_holds_for_keys_that_were_given_from_outside(parts: Components) -> None:
    grow(parts, "a")
    maintained(parts)
    old = current(parts)
    rotate_key(parts, "r")
    revoke_key(parts, vkey(old), "r", from_size=1)
    keys = ring(parts, vkey(old), vkey(current(parts)))
    assert keys.read(forged((old,), 1), "x").signers == ()
    assert keys.read(forged((current(parts),), 1), "x").signers == (verifier_key(current(parts)),)


@pytest.mark.parametrize(
    "change",
    [
        {"event": "retired"},
        {"from_size": -1},
        {"from_size": True},
        {"from_size": 7},
        {"key": "x"},
        {"by": None},
        {"replaces": None},
        {"reason": 5},
        {"statement": None},
        {"statement": "x"},
    ],
)
def test_a_key_entry_that_says_something_else_than_its_statement_says_nothing(
    parts: Components, change: dict[str, Any]
) -> None:
    grow(parts, "a")
    with parts.store.snapshot() as tx:
        body = rotation(tx, MemorySigner(NAME), MemorySigner(NAME, b"\x01" * 32), "r").body
    assert fact_of(NAME, 3, body).index == 3
    with pytest.raises((LedgerDamaged, InvalidInput)):
        fact_of(NAME, 3, {**body, **change})
    with pytest.raises(LedgerDamaged):
        fact_of("example.org/other", 3, body)
    with pytest.raises(LedgerDamaged):
        fact_of(NAME, 3, [])


def test_keys_that_cannot_be_written_are_named(parts: Components) -> None:
    grow(parts, "a")
    maintained(parts)
    folder = parts.settings.home / "keys"
    (folder / "log.key.next").write_text("junk")
    (folder / "log.key.next").chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"log\.key\.next holds no"):
        rotate_key(parts, "r")


# ---- the next log's key ---------------------------------------------------------------------------------------------


def test_whoever_trusts_a_logs_key_may_go_by_the_key_that_it_announced_for_the_next_log(parts: Components) -> None:
    grow(parts, "a", "b")
    maintained(parts)
    first = current(parts)
    rotate_key(parts, "r")
    second = current(parts)
    done = roll_log(parts, name="example.org/test/2027", reason=RollReason.REQUESTED)
    grow(parts, "c")
    checkpoint = maintained(parts)
    for trusted in (first, second):
        keys = ring(parts, vkey(trusted))
        assert [str(key) for key in keys.read(checkpoint.note, "x").signers] == [done.key]
    stranger = MemorySigner(NAME, b"\x21" * 32)
    assert ring(parts, vkey(stranger)).read(checkpoint.note, "x").signers == ()
    later = rotate_key(parts, "in the next log")
    assert later.before.name == "example.org/test/2027"
    assert ring(parts, vkey(first)).read(stored(parts)[-1].note, "x").signers == (later.before, later.key)


def test_a_log_cannot_say_by_itself_that_another_log_announced_its_key(parts: Components) -> None:
    grow(parts, "a")
    maintained(parts)
    owner = current(parts)
    done = roll_log(parts, name="example.org/test/2027", reason=RollReason.REQUESTED)
    assert [str(item.key) for item in ring(parts, vkey(owner)).standings] == [done.key]
    with parts.store.transaction() as tx:
        unlock(tx).exec_driver_sql("DELETE FROM cagg_checkpoint WHERE log_id = 1 AND size > 1")
    assert ring(parts, vkey(owner)).standings == (), "the entry stands under no checkpoint that counts"
