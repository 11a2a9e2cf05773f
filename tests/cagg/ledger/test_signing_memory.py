"""What a key signed last stands beside it: no restored, copied or cut store is signed against it."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cagg.errors import ConfigurationError, SigningRefused
from cagg.ledger.checkpoint import FileSigner, checkpoint_of_note, sign_checkpoint, signer_for
from cagg.ledger.entry import append
from cagg.ledger.keyfolder import last_signed
from cagg.ledger.notes import TreeHead, checkpoint_text, parse_note, signed_note, verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ports import Checkpoint, Store
from cagg.store.engine import open_store
from cagg.store.sqlite import SqliteStore
from cagg.testing import ManualClock
from cagg.testing.attacks import unlock
from cagg.testing.stores import MemorySigner, draft

NAME = "example.org/test"


def grow(store: Store, *names: str) -> None:
    with store.transaction() as tx:
        for name in names:
            append(tx, draft(name))
    with store.transaction() as tx:
        while sequence(tx):
            pass


def sign(store: Store, keys: Path, outside: tuple[Checkpoint, ...] = ()) -> Checkpoint:
    with store.snapshot() as tx:
        signer = signer_for(tx, keys)
    with store.transaction() as tx:
        return sign_checkpoint(tx, signer, outside=outside)


def sizes(store: Store) -> list[int]:
    with store.snapshot() as tx:
        return [item.size for item in tx.checkpoints()]


def test_what_was_signed_last_stands_beside_the_key(store: Store, tmp_path: Path) -> None:
    grow(store, "a", "b")
    first = sign(store, tmp_path)
    assert last_signed(tmp_path) == first.note
    assert stat.S_IMODE((tmp_path / "log.checkpoint").stat().st_mode) == 0o600
    grow(store, "c")
    second = sign(store, tmp_path)
    assert (last_signed(tmp_path), second.size) == (second.note, 3)
    assert checkpoint_of_note(second.note, second.created_at).root == second.root
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("log")) == [
        "log.checkpoint",
        "log.key",
        "log.lock",
        "log.vkey",
    ]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".log")], "nothing half-written is left"


def test_a_crash_between_file_and_store_mends_itself(store: Store, tmp_path: Path) -> None:
    grow(store, "a", "b")
    with store.snapshot() as tx:
        signer = signer_for(tx, tmp_path)
    with pytest.raises(KeyboardInterrupt), store.transaction() as tx:  # noqa: PT012 - the crash is in the block
        sign_checkpoint(tx, signer)
        raise KeyboardInterrupt
    assert sizes(store) == []
    promised = last_signed(tmp_path)
    assert sign(store, tmp_path).note == promised, "the very checkpoint that was signed before"
    assert sizes(store) == [2]
    with pytest.raises(KeyboardInterrupt), store.transaction() as tx:  # noqa: PT012
        append(tx, draft("lost"))  # in the crash's own transaction, hence never signed
        raise KeyboardInterrupt
    grow(store, "c")
    assert sign(store, tmp_path).size == 3


def test_a_crash_before_the_file_is_written_signs_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(store, "a")
    sign(store, tmp_path)
    grow(store, "b")
    before = last_signed(tmp_path)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(ConfigurationError, match="nothing was signed"):
            sign(store, tmp_path)
    assert (last_signed(tmp_path), sizes(store)) == (before, [1])
    assert sign(store, tmp_path).size == 2


def test_a_restored_backup_is_not_signed(file_store: SqliteStore, tmp_path: Path) -> None:
    store, keys = file_store, tmp_path / "keys"
    grow(store, "a", "b", "c")
    sign(store, keys)
    store.close()
    backup = store.path.read_bytes()
    grow(store, "d", "e")
    lost = sign(store, keys)
    store.close()
    store.path.write_bytes(backup)
    with pytest.raises(SigningRefused, match=r"entries are gone.*roll --reason restored"):
        sign(store, keys)
    grow(store, "f", "g", "h")
    with pytest.raises(SigningRefused, match=r"not a continuation.*roll --reason restored"):
        sign(store, keys)
    assert sizes(store) == [3]
    assert last_signed(keys) == lost.note


def test_a_backup_that_has_all_that_was_signed_goes_on(file_store: SqliteStore, tmp_path: Path) -> None:
    store, keys = file_store, tmp_path / "keys"
    grow(store, "a", "b", "c")
    sign(store, keys)
    store.close()
    backup = store.path.read_bytes()
    grow(store, "not signed yet")
    store.close()
    store.path.write_bytes(backup)
    grow(store, "another")
    assert sign(store, keys).size == 4


def test_two_stores_with_one_key_are_not_both_signed(file_store: SqliteStore, tmp_path: Path) -> None:
    grow(file_store, "a", "b")
    sign(file_store, tmp_path / "keys")
    file_store.close()
    copy = tmp_path / "copy.db"
    copy.write_bytes(file_store.path.read_bytes())
    second = open_store(f"sqlite:///{copy}", clock=ManualClock())
    grow(file_store, "here")
    sign(file_store, tmp_path / "keys")
    grow(second, "there")
    with pytest.raises(SigningRefused, match="not a continuation"):
        sign(second, tmp_path / "keys")
    grow(second, "and more")
    with pytest.raises(SigningRefused, match="not a continuation"):
        sign(second, tmp_path / "keys")
    second.close()
    assert sign(file_store, tmp_path / "keys").size == 3


@pytest.mark.parametrize("statement", ["DELETE FROM cagg_leaf WHERE leaf_index >= 3", "DELETE FROM cagg_checkpoint"])
def test_a_cut_store_is_not_signed_even_when_its_checkpoints_are_gone(
    store: Store, tmp_path: Path, statement: str
) -> None:
    grow(store, *"abcde")
    sign(store, tmp_path)
    with store.transaction() as tx:
        connection = unlock(tx)
        connection.exec_driver_sql("DELETE FROM cagg_checkpoint")
        connection.exec_driver_sql(statement)
        connection.exec_driver_sql("UPDATE cagg_leaf SET leaf_hash = zeroblob(32) WHERE leaf_index = 1")
    with pytest.raises(SigningRefused, match="its key signed last"):
        sign(store, tmp_path)


def test_many_maintainers_with_one_key_sign_one_history(store: Store, tmp_path: Path) -> None:
    grow(store, "first")
    sign(store, tmp_path)

    def work(worker: int) -> list[int]:
        signed = []
        for number in range(5):
            grow(store, f"{worker}-{number}")
            signed.append(sign(store, tmp_path).size)
        return signed

    with ThreadPoolExecutor(4) as pool:
        signed = list(pool.map(work, range(4)))
    assert all(each == sorted(each) for each in signed)
    with store.snapshot() as tx:
        stored, size = tx.checkpoints(), tx.tree_size()
    assert size == 21
    assert stored[-1].size == 21
    assert parse_note(str(last_signed(tmp_path)), ())[0].size == 21, "an older one never takes a newer one's place"


def test_a_log_without_the_file_is_taken_as_it_is(store: Store, tmp_path: Path) -> None:
    grow(store, "a")
    sign(store, tmp_path)
    (tmp_path / "log.checkpoint").unlink()
    again = sign(store, tmp_path)
    assert last_signed(tmp_path) == again.note


@pytest.mark.parametrize(
    ("content", "expected"), [("junk", "holds no checkpoint"), ("\xff", "cannot be read"), ("", "holds no checkpoint")]
)
def test_a_damaged_memory_is_not_passed_over(store: Store, tmp_path: Path, content: str, expected: str) -> None:
    grow(store, "a")
    sign(store, tmp_path)
    (tmp_path / "log.checkpoint").write_text(content, encoding="latin-1")
    grow(store, "b")
    with pytest.raises((SigningRefused, ConfigurationError), match=expected):
        sign(store, tmp_path)
    assert sizes(store) == [1]


def test_the_memory_of_another_log_is_refused(store: Store, tmp_path: Path) -> None:
    grow(store, "a")
    sign(store, tmp_path)
    other = MemorySigner("other")
    text = checkpoint_text(TreeHead(origin="other", size=0, root=b"\x00" * 32))
    (tmp_path / "log.checkpoint").write_text(signed_note(text, other.sign(text.encode()), verifier_key(other)))
    with pytest.raises(SigningRefused, match="of the log 'other'"):
        sign(store, tmp_path)


# ---- what anchors know ----------------------------------------------------------------------------------------------


def test_an_anchor_knows_what_a_restored_home_has_forgotten(file_store: SqliteStore, tmp_path: Path) -> None:
    store, keys = file_store, tmp_path / "keys"
    grow(store, "a", "b")
    sign(store, keys)
    store.close()
    backup, memory = store.path.read_bytes(), (keys / "log.checkpoint").read_bytes()
    grow(store, "c")
    anchored = sign(store, keys)
    store.close()
    store.path.write_bytes(backup)
    (keys / "log.checkpoint").write_bytes(memory)  # the backup held the keys, too
    grow(store, "d", "e")
    with pytest.raises(SigningRefused, match="in an anchor"):
        sign(store, keys, (anchored,))
    assert sign(store, keys).size == 4, "without the anchor nobody here can know"


def test_what_others_wrote_into_an_anchor_keeps_nobody_from_signing(store: Store, tmp_path: Path) -> None:
    grow(store, "a")
    stranger = MemorySigner(NAME, b"\x01" * 32)
    text = checkpoint_text(TreeHead(origin=NAME, size=900, root=b"\x01" * 32))
    note = signed_note(text, stranger.sign(text.encode()), verifier_key(stranger))
    with store.snapshot() as tx:
        claimed = checkpoint_of_note(note, tx.now())
    assert sign(store, tmp_path, (claimed,)).size == 1


def test_a_key_without_a_file_has_no_memory(store: Store) -> None:
    grow(store, "a")
    with store.transaction() as tx:
        assert sign_checkpoint(tx, MemorySigner(NAME)).size == 1
        assert FileSigner(name=NAME, seed=os.urandom(32)).folder is None
