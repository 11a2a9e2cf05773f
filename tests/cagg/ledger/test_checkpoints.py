"""Signed notes, key files, and the refusal to sign what contradicts an earlier checkpoint."""

from __future__ import annotations

import base64
import os
import stat
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from cagg.errors import ConfigurationError, InvalidInput, LedgerDamaged, SigningRefused
from cagg.ledger.checkpoint import FileSigner, checkpoint_of_note, sign_checkpoint, signer_for
from cagg.ledger.entry import append
from cagg.ledger.merkle import EMPTY_ROOT, root_of
from cagg.ledger.notes import (
    TreeHead,
    VerifierKey,
    checkpoint_text,
    open_note,
    parse_note,
    signed_note,
    verifier_key,
)
from cagg.ledger.sequencer import sequence
from cagg.ports import Checkpoint, Store
from cagg.store.sqlite import SqliteStore
from cagg.testing.attacks import unlock
from cagg.testing.stores import MemorySigner, draft

NAME = "example.org/test"

# The example in the documentation of golang.org/x/mod/sumdb/note, made by another implementation.
FOREIGN_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
FOREIGN_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def grow(store: Store, count: int, *, first: int = 0) -> None:
    with store.transaction() as tx:
        for number in range(first, first + count):
            append(tx, draft(f"k{number}"))
        while sequence(tx):
            pass


def sign(store: Store, signer: MemorySigner | None = None) -> Checkpoint:
    with store.transaction() as tx:
        return sign_checkpoint(tx, signer or MemorySigner(NAME))


def tamper(store: Store, *statements: str) -> None:
    """Change stored rows as their owner can."""
    with store.transaction() as tx:
        connection = unlock(tx)
        for statement in statements:
            connection.exec_driver_sql(statement)


# ---- notes and keys -------------------------------------------------------------------------------------------------


def test_a_note_of_another_implementation_opens() -> None:
    key = VerifierKey.parse(FOREIGN_KEY)
    assert str(key) == FOREIGN_KEY
    text, signers = open_note(FOREIGN_NOTE, [key])
    assert text.endswith("what your problem is.\n")
    assert signers == [key]


def test_signatures_of_unknown_keys_are_passed_over_and_of_known_keys_must_fit() -> None:
    known, unknown = MemorySigner("a"), MemorySigner("a", b"\x01" * 32)
    text = "hello\n"
    note = signed_note(text, unknown.sign(text.encode()), verifier_key(unknown))
    assert open_note(note, [verifier_key(known)]) == (text, [])
    both = note + signed_note(text, known.sign(text.encode()), verifier_key(known)).removeprefix("hello\n\n")
    assert open_note(both, [verifier_key(known)]) == (text, [verifier_key(known)])
    assert open_note(both, [verifier_key(unknown), verifier_key(known)])[1] == [
        verifier_key(unknown),
        verifier_key(known),
    ]
    with pytest.raises(LedgerDamaged, match="does not fit"):
        open_note(both.replace("hello", "hullo"), [verifier_key(known)])


@pytest.mark.parametrize(
    "note",
    [
        "",
        "text\n",
        "text\n\n",
        "text\n\nno signature\n",
        FOREIGN_NOTE[:-1],
        FOREIGN_NOTE.replace("— ", "- "),
        FOREIGN_NOTE.replace("x08go", "x08g!"),
        FOREIGN_NOTE.replace("PeterNeumann ", "Peter Neumann "),
        FOREIGN_NOTE.replace("If", "If\t"),
        FOREIGN_NOTE.replace("\n", "\r\n"),
        FOREIGN_NOTE.replace("nAM=", "nAN="),
        "text\n\n" + FOREIGN_NOTE.split("\n\n")[1] * 101,
        "t\n\n— name AAAA\n",
    ],
)
def test_malformed_notes_are_refused(note: str) -> None:
    with pytest.raises(LedgerDamaged):
        open_note(note, [VerifierKey.parse(FOREIGN_KEY)])


@pytest.mark.parametrize("position", range(0, len(FOREIGN_NOTE), 7))
def test_no_character_of_a_signed_note_can_be_changed(position: int) -> None:
    changed = FOREIGN_NOTE[:position] + chr(ord(FOREIGN_NOTE[position]) ^ 1) + FOREIGN_NOTE[position + 1 :]
    key = VerifierKey.parse(FOREIGN_KEY)
    try:
        _, signers = open_note(changed, [key])
    except LedgerDamaged:
        return
    assert signers == [], "a changed name or key id belongs to an unknown key"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a+b",
        FOREIGN_KEY.replace("c74f20a3", "c74f20a4"),
        FOREIGN_KEY.replace("Peter", "Paul"),
        FOREIGN_KEY[:-4],
        FOREIGN_KEY + "!",
        "a+00000000+" + base64.b64encode(b"\x02" + b"\x00" * 32).decode(),
        " +00000000+" + base64.b64encode(b"\x01" + b"\x00" * 32).decode(),
    ],
)
def test_other_texts_are_no_keys(text: str) -> None:
    with pytest.raises(InvalidInput):
        VerifierKey.parse(text)


def test_a_checkpoint_reads_back() -> None:
    signer = MemorySigner(NAME)
    head = TreeHead(origin=NAME, size=5, root=b"\x05" * 32)
    text = checkpoint_text(head)
    assert text == NAME + "\n5\n" + base64.b64encode(b"\x05" * 32).decode() + "\n"
    note = signed_note(text, signer.sign(text.encode()), verifier_key(signer))
    assert parse_note(note, [verifier_key(signer)]) == (head, [verifier_key(signer)])


@pytest.mark.parametrize(
    "text",
    ["a\n5\n", "\n5\nAAAA\n", "a\n05\nX\n", "a\n-5\nX\n", "a\n5\nAAAA\n", "a\n5\n!\n", "a\n5\nX\n\nmore\n"],
)
def test_other_notes_are_no_checkpoints(text: str) -> None:
    whole = text.replace("X", base64.b64encode(b"\x05" * 32).decode())
    signer = MemorySigner(NAME)
    with pytest.raises(LedgerDamaged):
        parse_note(signed_note(whole, signer.sign(whole.encode()), verifier_key(signer)), [])


# ---- key files ------------------------------------------------------------------------------------------------------


def test_a_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "keys"
    signer = FileSigner.load_or_create(folder, NAME)
    assert stat.S_IMODE((folder / "log.key").stat().st_mode) == 0o600
    again = FileSigner.load_or_create(folder, NAME)
    assert (again.name, again.public_key()) == (NAME, signer.public_key())
    public = VerifierKey.parse((folder / "log.vkey").read_text())
    assert public == verifier_key(signer)
    assert public.verifies(again.sign(b"m"), b"m")
    assert not public.verifies(again.sign(b"m"), b"n")
    assert "PRIVATE" not in repr(signer)
    with pytest.raises(ConfigurationError, match="never overwritten"):
        FileSigner.create(folder / "log.key", NAME)


def test_a_key_of_another_log_is_refused(tmp_path: Path) -> None:
    FileSigner.load_or_create(tmp_path, "other")
    with pytest.raises(ConfigurationError, match="of the log 'other'"):
        FileSigner.load_or_create(tmp_path, NAME)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    FileSigner.create(tmp_path / "log.key", NAME)
    (tmp_path / "log.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        FileSigner.load(tmp_path / "log.key")


@pytest.mark.parametrize("content", ["", "hello", "PRIVATE+KEY+a+b", "PRIVATE+KEY+a+00000000+AAAA", "\xff"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "log.key"
    path.write_text(content, encoding="latin-1")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError):
        FileSigner.load(path)


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    FileSigner.create(path, NAME)
    path.write_text(path.read_text().replace(NAME, "example.org/other"))
    with pytest.raises(ConfigurationError, match="damaged"):
        FileSigner.load(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        FileSigner.load(tmp_path / "missing.key")


def test_a_key_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        FileSigner.load_or_create(tmp_path / "file", NAME)


def test_a_public_key_without_its_signing_key_is_not_contradicted(tmp_path: Path) -> None:
    FileSigner.load_or_create(tmp_path, NAME)
    (tmp_path / "log.key").unlink()
    with pytest.raises(ConfigurationError, match="without its signing key"):
        FileSigner.load_or_create(tmp_path, NAME)
    assert not (tmp_path / "log.key").exists()


def test_a_public_key_that_is_missing_is_written_again(tmp_path: Path) -> None:
    signer = FileSigner.load_or_create(tmp_path, NAME)
    (tmp_path / "log.vkey").unlink()
    FileSigner.load_or_create(tmp_path, NAME)
    assert VerifierKey.parse((tmp_path / "log.vkey").read_text()) == verifier_key(signer)


@pytest.mark.parametrize("content", ["", "garbage", "\xff"])
def test_a_public_key_that_is_not_the_keys_own_is_refused(tmp_path: Path, content: str) -> None:
    FileSigner.load_or_create(tmp_path, NAME)
    (tmp_path / "log.vkey").write_text(content, encoding="latin-1")
    with pytest.raises(ConfigurationError, match=r"log\.vkey"):
        FileSigner.load_or_create(tmp_path, NAME)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(ConfigurationError, match="make the folder readable"):
        FileSigner.load_or_create(tmp_path, NAME)


# ---- which key signs a log -----------------------------------------------------------------------------------------


def test_a_new_log_gets_a_key_and_keeps_it(store: Store, tmp_path: Path) -> None:
    grow(store, 3)
    with store.transaction() as tx:
        first = signer_for(tx, tmp_path / "keys")
        sign_checkpoint(tx, first)
    grow(store, 1, first=3)
    with store.transaction() as tx:
        again = signer_for(tx, tmp_path / "keys")
        assert again.public_key() == first.public_key()
        assert sign_checkpoint(tx, again).size == 4


def test_a_signed_log_never_gets_another_key(store: Store, tmp_path: Path) -> None:
    grow(store, 3)
    with store.transaction() as tx:
        sign_checkpoint(tx, signer_for(tx, tmp_path))
    kept = tmp_path / "backup"
    (tmp_path / "log.key").rename(kept)
    for vkey_is_there in (True, False):
        with store.transaction() as tx, pytest.raises(SigningRefused, match=r"restore log\.key"):
            signer_for(tx, tmp_path)
        assert not (tmp_path / "log.key").exists(), vkey_is_there
        (tmp_path / "log.vkey").unlink(missing_ok=True)
    FileSigner.create(tmp_path / "log.key", NAME)
    with store.transaction() as tx, pytest.raises(SigningRefused, match="not the one that signed"):
        signer_for(tx, tmp_path)
    kept.replace(tmp_path / "log.key")
    (tmp_path / "log.vkey").unlink()
    with store.transaction() as tx:
        assert signer_for(tx, tmp_path).name == NAME


# ---- signing --------------------------------------------------------------------------------------------------------


def test_checkpoints_follow_the_log(store: Store) -> None:
    assert sign(store).root == EMPTY_ROOT
    grow(store, 300)
    first = sign(store)
    assert sign(store) == first
    grow(store, 300, first=300)
    second = sign(store)
    with store.snapshot() as tx:
        assert [item.size for item in tx.checkpoints()] == [0, 300, 600]
        leaves = list(tx.leaf_hashes(0, 600))
    assert (first.root, second.root) == (root_of(leaves[:300]), root_of(leaves))
    head, signers = parse_note(second.note, [verifier_key(MemorySigner(NAME))])
    assert (head.origin, head.size, head.root) == (NAME, 600, second.root)
    assert len(signers) == 1
    assert checkpoint_of_note(second.note, second.created_at) == second


def test_another_process_that_signs_between_two_looks_is_no_contradiction(
    named_store: Callable[..., AbstractContextManager[Store]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second machine with the same key: what this one read first must not look cut off by what came since."""
    with named_store("postgresql", origin=NAME) as store:
        grow(store, 3)
        sign(store)

        def elsewhere() -> None:
            grow(store, 2, first=3)
            sign(store)

        others = [threading.Thread(target=elsewhere)]

        def and_then(look: Callable[[], object]) -> object:
            found = look()
            while others:
                other = others.pop()
                other.start()
                other.join()
            return found

        with store.transaction() as tx:
            for name in ("tree_size", "last_checkpoint"):
                monkeypatch.setattr(tx, name, partial(and_then, getattr(tx, name)))
            assert sign_checkpoint(tx, MemorySigner(NAME)).size == 5


def test_the_key_of_another_log_does_not_sign(store: Store) -> None:
    grow(store, 1)
    with pytest.raises(SigningRefused, match="'other'"):
        sign(store, MemorySigner("other"))


class Broken(MemorySigner):
    """A signer whose hardware gives nonsense."""

    def sign(self, message: bytes) -> bytes:
        return b"\x00" * 64


def test_a_wrong_signature_is_not_stored(store: Store) -> None:
    grow(store, 1)
    with pytest.raises(SigningRefused, match="refuses"):
        sign(store, Broken(NAME))
    with store.snapshot() as tx:
        assert tx.checkpoints() == []


CONTRADICTIONS = {
    "an old leaf was changed": "UPDATE cagg_leaf SET leaf_hash = zeroblob(32) WHERE leaf_index = 270",
    "leaves were cut off": "DELETE FROM cagg_leaf WHERE leaf_index >= 280",
    "a tile's root was changed": "UPDATE cagg_tile SET root = zeroblob(32)",
    "the checkpoint's root was changed": "UPDATE cagg_checkpoint SET root = zeroblob(32)",
    "the checkpoint's note was changed": "UPDATE cagg_checkpoint SET note = replace(note, '300', '299')",
    "the checkpoint's note is no note": "UPDATE cagg_checkpoint SET note = 'x'",
}


@pytest.mark.parametrize("statement", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
@pytest.mark.parametrize("more", [0, 10, 400])
def test_nothing_is_signed_that_contradicts_the_last_checkpoint(store: Store, statement: str, more: int) -> None:
    grow(store, 300)
    sign(store)
    grow(store, more, first=300)
    tamper(store, statement)
    with pytest.raises((SigningRefused, LedgerDamaged)):
        sign(store)
    with store.snapshot() as tx:
        assert len(tx.checkpoints()) == 1


def test_a_restored_backup_that_went_on_is_not_signed(file_store: SqliteStore) -> None:
    store = file_store
    grow(store, 5)
    store.close()
    backup = store.path.read_bytes()
    grow(store, 5, first=5)
    later = sign(store)
    store.close()
    store.path.write_bytes(backup)
    grow(store, 5, first=100)
    with store.transaction() as tx:
        tx.put_checkpoint(later)  # the operator still has the newer checkpoint
    with pytest.raises(SigningRefused, match="not a continuation"):
        sign(store)


def test_key_files_are_not_made_readable_by_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        FileSigner.create(tmp_path / "log.key", NAME)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log.key").stat().st_mode) == 0o600
