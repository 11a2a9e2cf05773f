"""Everything that an auditor needs to check the log without us, in one archive or folder.

``entries.jsonl`` holds every entry up to the newest checkpoint, one per line, in the log's order: the bytes of a line
without its line feed are what was hashed. ``checkpoints.txt`` holds all signed checkpoints, ``anchors.txt`` those that
were found outside of the store, an empty line between each two. ``blobs/<SHA-256>`` are the values that entries name by
their digest. ``SHA256SUMS`` covers every other file. The same log gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, Self
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import cagg
from cagg.errors import LedgerDamaged, NotProven
from cagg.ledger.entry import FORMAT, blobs_of
from cagg.ledger.export.reader import LogReader
from cagg.ledger.notes import VerifierKey, parse_note
from cagg.ledger.proving import prove_consistency
from cagg.ports import Checkpoint, LedgerRows

__all__ = ["VERIFIER", "BundleExport", "FolderTarget", "Target", "ZipTarget", "verifier_source", "write_bundle"]

VERIFIER = "verify_bundle.py"
"""Name of the one-file verifier in a bundle."""

_VERSION = 1
_LINES_AT_ONCE = 256
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a .zip file can say: nothing in it depends on when it was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleExport:
    """What an export holds.

    Attributes:
        origin: the log's name.
        entries: how many entries; the newest checkpoint covers exactly these.
        root: root over them.
        checkpoints: how many signed checkpoints.
        anchors: how many of them were found outside of the store.
        blobs: how many values beside the entries.
        left_out: newer entries that no checkpoint covers yet.
        sums: SHA-256 of ``SHA256SUMS``, in hex: one number for the whole bundle.
    """

    origin: str
    entries: int
    root: bytes
    checkpoints: int
    anchors: int
    blobs: int
    left_out: int
    sums: str


# ---- where it is written --------------------------------------------------------------------------------------------


class Target(Protocol):
    """Where a bundle's files go, one after the other."""

    def file(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open the next file for writing."""
        ...


class FolderTarget:
    """A folder that is there and empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def file(self, name: str) -> Iterator[IO[bytes]]:
        """Open the next file for writing; raises OSError when the folder refuses."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())


class ZipTarget:
    """A .zip file, written into an open file that can seek; the ``with`` block around it ends the archive."""

    def __init__(self, file: BinaryIO) -> None:
        self._zip = ZipFile(file, "w", compression=ZIP_DEFLATED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()  # after an error as well: otherwise it would write into a closed file when it is collected

    @contextmanager
    def file(self, name: str) -> Iterator[IO[bytes]]:
        """Open the next file for writing; raises OSError when the disk refuses."""
        info = ZipInfo(name, date_time=_EPOCH)
        info.compress_type = ZIP_DEFLATED
        info.external_attr = 0o100644 << 16
        with self._zip.open(info, "w", force_zip64=True) as file:
            yield file


# ---- what is written ------------------------------------------------------------------------------------------------


def verifier_source() -> bytes:
    """Return the one-file verifier, which imports nothing of this package."""
    return resources.files("cagg.ledger.export").joinpath("verifier.py").read_bytes()


def write_bundle(
    tx: LedgerRows, into: Target, *, keys: Iterable[VerifierKey] = (), anchors: Sequence[Checkpoint] = ()
) -> BundleExport:
    """Write the log up to its newest checkpoint.

    Args:
        tx: the log's rows.
        into: where to.
        keys: public keys to carry as a hint; an auditor must not trust them from there.
        anchors: checkpoints of this log that were kept outside of the store.

    Raises:
        NotProven: there is no checkpoint yet, or the log does not continue an anchor.
        LedgerDamaged: entries, tree, checkpoints and blobs do not fit each other.
        OSError: a file cannot be written.
    """
    checkpoints = tx.checkpoints()
    if not checkpoints or checkpoints[-1].size == 0:
        raise NotProven("there is nothing to export: no entry is under a signed checkpoint yet; run `cagg maintain`.")
    newest = checkpoints[-1]
    outside = _anchors(tx, anchors, newest)
    writer = _Writer(into)
    blobs = _entries(tx, writer, newest)
    for digest in sorted(blobs):
        data = tx.blob(digest)
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            raise LedgerDamaged(f"the attachment {digest[:16]}… is missing or was changed; run 'cagg ledger verify'.")
        writer.put(f"blobs/{digest}", data)
    writer.put("checkpoints.txt", "\n".join(item.note for item in checkpoints).encode())
    if outside:
        writer.put("anchors.txt", "\n".join(item.note for item in outside).encode())
    for number, key in enumerate(keys, 1):
        writer.put(f"keys/{number}.vkey", f"# A hint, not to be trusted from here: ask the owner.\n{key}\n".encode())
    export = BundleExport(
        origin=tx.origin(),
        entries=newest.size,
        root=newest.root,
        checkpoints=len(checkpoints),
        anchors=len(outside),
        blobs=len(blobs),
        left_out=tx.tree_size() - newest.size,
        sums="",
    )
    writer.put("MANIFEST.json", f"{json.dumps(_manifest(export), indent=2)}\n".encode())
    writer.put("README.txt", _README.format(export=export, root=export.root.hex()).encode())
    writer.put(VERIFIER, verifier_source())
    return replace(export, sums=writer.finish())


def _entries(tx: LedgerRows, writer: _Writer, newest: Checkpoint) -> set[str]:
    """Write the entries under the newest checkpoint; return the digests of the blobs that they name."""
    blobs: set[str] = set()
    lines: list[bytes] = []
    reader = LogReader(tx)
    with writer.open("entries.jsonl") as put:
        for item in reader:
            if item.index >= newest.size:
                break
            lines.append(item.entry.body + b"\n")
            if len(lines) == _LINES_AT_ONCE:
                put(b"".join(lines))
                lines.clear()
            blobs.update(blobs_of(item.body))
            if item.body.get("spilled"):
                blobs.update(blobs_of(reader.resolved(item)))
        put(b"".join(lines))
    return blobs


def _anchors(tx: LedgerRows, anchors: Sequence[Checkpoint], newest: Checkpoint) -> list[Checkpoint]:
    """Return the checkpoints from outside that are of this log, each once; the log must continue every one of them."""
    found: dict[str, Checkpoint] = {}
    for item in anchors:
        if parse_note(item.note, ())[0].origin != tx.origin():
            continue
        if item.size > newest.size:
            raise NotProven(
                f"a checkpoint that was kept outside covers {item.size} entries, and the newest one in the store "
                f"{newest.size}: entries are gone; run 'cagg ledger verify --anchors'."
            )
        prove_consistency(tx, item, newest)
        found[item.note] = item
    return sorted(found.values(), key=lambda item: (item.size, item.note))


class _Writer:
    """Writes files and remembers their digests."""

    def __init__(self, into: Target) -> None:
        self._into = into
        self._sums: dict[str, str] = {}

    @contextmanager
    def open(self, name: str) -> Iterator[Callable[[bytes], None]]:
        """Open the next file; what is yielded appends to it."""
        digest = hashlib.sha256()
        with self._into.file(name) as file:

            def put(data: bytes) -> None:
                digest.update(data)
                file.write(data)

            yield put
        self._sums[name] = digest.hexdigest()

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file."""
        with self.open(name) as put:
            put(data)

    def finish(self) -> str:
        """Write the list of digests; return its own."""
        data = "".join(f"{self._sums[name]}  {name}\n" for name in sorted(self._sums)).encode()
        with self._into.file("SHA256SUMS") as file:
            file.write(data)
        return hashlib.sha256(data).hexdigest()


# ---- what is said about it ------------------------------------------------------------------------------------------


def _manifest(export: BundleExport) -> dict[str, Any]:
    return {
        "format": "cagg-bundle",
        "version": _VERSION,
        "log": {"origin": export.origin, "size": export.entries, "root": export.root.hex()},
        "entry_format": FORMAT,
        "made_by": f"cagg {cagg.__version__}",
        "counts": {"checkpoints": export.checkpoints, "anchors": export.anchors, "blobs": export.blobs},
        "not_in_here": {
            "newer_entries": export.left_out,
            "personal values": "kept beside the log; entries hold salted commitments to them",
            "budgets, reservations, forecasts": "tables beside the log that no signature covers",
        },
        "licences": {
            VERIFIER: "Apache-2.0",
            "entries.jsonl, blobs": "the log's owner's; carbon intensities in them are under the terms of the source "
            "that each one names",
            "intensities of the source 'climatology'": "ODbL-1.0: information from the Electricity Maps Data Portal",
            "intensities of the source 'yearly'": "CC-BY-4.0: Our World in Data, with data of Ember and the Energy "
            "Institute",
            "intensities of the source 'neso'": "CC-BY-4.0: NESO Carbon Intensity API",
        },
        "signed": False,
    }


_README = """A bundle of the carbon ledger {export.origin}: {export.entries} entries, root
{root}.

How to check it
1. Get the log's public key from its owner on another way than this bundle (a contract, a web site, a phone call).
   keys/ holds the keys that the owner's store names: a hint to compare with, nothing to trust.
2. Get checkpoints that were kept where the owner cannot change them, if there are any: a task log, a git repository,
   write-once storage, the one that you asked for last time. Only they show that nothing was cut off or rewritten since.
3. Read verify_bundle.py, or take your own copy of it: it ships with every release of cagg as
   cagg/ledger/export/verifier.py. It needs Python 3.9 or later and `pip install cryptography`.
4. python3 -I verify_bundle.py BUNDLE --key KEY --checkpoint FILE
   Exit status 0: nothing failed. 1: something did, all of it is listed. 2: it could not be checked.
   After a change of keys give the old and the new one.

What is in it
entries.jsonl     every entry, one per line, in order. SHA-256 over a zero byte and the bytes of a line is its leaf
                  (RFC 6962 section 2.1); the leaves in order give the root.
checkpoints.txt   every signed (name, size, root), as C2SP signed notes.
anchors.txt       those that the owner found outside of the store, if any. From here they are worth as much as the key.
blobs/            values that entries name by their SHA-256.
SHA256SUMS        digests of all other files; `sha256sum -c SHA256SUMS`.
MANIFEST.json     versions, counts, licences. Like this file it is signed by nobody, and nothing depends on it.

What it cannot show
That a meter measured rightly or a person said the truth; what was recorded after the newest checkpoint; and, from the
newest checkpoint that you kept yourself on, that whoever holds the key did not write the rest anew.
"""
