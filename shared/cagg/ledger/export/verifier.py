# SPDX-License-Identifier: Apache-2.0
"""Checks a bundle of the carbon ledger. Needs Python 3.9 or later and the package `cryptography`, nothing else.

    python3 -I verify_bundle.py BUNDLE --key KEY [--key KEY ...] [--checkpoint FILE ...]

BUNDLE is the .zip file or the folder. KEY is the log's public key (name+id+base64) or a file that holds it: get it from
the log's owner on another way than the bundle, a key from inside the bundle proves nothing. FILE holds signed
checkpoints that were kept where the owner cannot change them; they show that nothing was cut off or rewritten since.
Exit status: 0 nothing failed, 1 something did, 2 it could not be checked. Read this script before you trust it.
Sources: RFC 6962 (tree), C2SP signed-note and tlog-checkpoint (2026), RFC 8032, RFC 8785, ledger entry format 1.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["main"]
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
DAMAGED = (OSError, BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
failures: list[str] = []


def fail(place: str, error: object) -> None:
    """Note one thing that does not agree, and go on."""
    failures.append(f"{place}: {error if type(error) in (str, ValueError) else f'cannot be read: {error}.'}")


class Bundle:
    """A folder, or a .zip file, which is read in place and never unpacked."""

    def __init__(self, path: Path) -> None:
        self.folder, self.zip = path, None if path.is_dir() else ZipFile(path)
        found = [] if self.zip else [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
        self.names = self.zip.namelist() if self.zip else found

    def open(self, name: str) -> IO[bytes]:
        return self.zip.open(name) if self.zip else (self.folder / name).open("rb")

    def read(self, name: str) -> bytes:
        if name not in self.names:
            raise ValueError(f"{name} is missing from the bundle.")
        with self.open(name) as file:
            return file.read()


def check_files(bundle: Bundle) -> None:
    """Every file, and nothing else, is listed once in SHA256SUMS with its digest, which also is the name of a blob."""
    lines = bundle.read("SHA256SUMS").decode("ascii", "replace").split("\n")
    listed = {line[66:]: line[:64] for line in lines[:-1] if line[64:66] == "  "}
    if lines[-1] or [*listed] != sorted(line[66:] for line in lines[:-1]) or len({*bundle.names}) < len(bundle.names):
        fail("SHA256SUMS", "is no sorted list of digests and names, or a file is there twice.")
    for name in sorted({*listed, "SHA256SUMS"} ^ {*bundle.names}):
        fail(name, "is extra: SHA256SUMS does not list it." if name in bundle.names else "is missing from the bundle.")
    for name in sorted({*listed} & {*bundle.names}):
        digest = hashlib.sha256()
        with bundle.open(name) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if {digest.hexdigest()} != {listed[name], name[6:] if name.startswith("blobs/") else listed[name]}:
            fail(name, "differs from its digest in SHA256SUMS, or from the one that is its name.")


class Key:
    """A public key, written as name+hex id+base64(0x01 || 32 bytes)."""

    def __init__(self, text: str) -> None:
        self.text, (self.name, key_id, data) = text, [*text.split("+", 2), "", ""][:3]
        raw = base64.b64decode(data) if re.fullmatch("[A-Za-z0-9+/]{44}", data) else b""
        self.id = hashlib.sha256(self.name.encode() + b"\n" + raw).digest()[:4]
        if raw[:1] != b"\x01" or self.id.hex() != key_id:
            raise ValueError(f"'{text[:80]}' is no public key of a log (name+id+base64); give its log.vkey with --key.")
        self.public = Ed25519PublicKey.from_public_bytes(raw[1:])


def keys_of(texts: Iterable[str]) -> list[Key]:
    """The keys given on the command line, as text or as files with one per line."""
    read = [t if t.count("+") > 1 and not Path(t).is_file() else Path(t).read_text("utf-8") for t in texts]
    return [Key(line.strip()) for line in "\n".join(read).split("\n") if line.strip() and line.strip()[0] != "#"]


def signers(note: str, keys: Iterable[Key]) -> tuple[list[str], str]:
    """Those of the keys that signed a note, and the ids that its signatures claim; a wrong one of a key is an error."""
    text, _, block = note.rpartition("\n\n")
    found, claimed = list[str](), list[str]()
    for line in block.split("\n")[:-1]:
        match = re.fullmatch("\u2014 ([^\\s+]+) ([A-Za-z0-9+/]+={0,2})", line)
        data = base64.b64decode(match[2], validate=True) if match else b""
        if match is None or not block.endswith("\n") or base64.b64encode(data).decode() != match[2]:
            raise ValueError("a signature line is malformed.")
        claimed.append(f"{match[1]}+{data[:4].hex()}")
        for key in keys:
            if (key.name, key.id) == (match[1], data[:4]):
                try:
                    key.public.verify(data[4:], f"{text}\n".encode())
                except InvalidSignature:
                    raise ValueError(f"the signature of {key.name} ({key.id.hex()}) is wrong.") from None
                found.append(key.text)
    return found, ", ".join(claimed)


def checkpoints_of(data: bytes) -> Iterator[tuple[str, int, bytes, str]]:
    """Every (origin, size, root, note) of a file of signed checkpoints; an empty line stands between each two."""
    blocks = data.decode("utf-8").split("\n\n") if data else []
    for at in range(0, len(blocks), 2):
        lines, signed = blocks[at].split("\n"), "".join(blocks[at + 1 : at + 2])
        root = base64.b64decode("".join(lines[2:3]), validate=True)
        sized = len(root) == 32 and re.fullmatch("0|[1-9][0-9]{0,18}", lines[1])
        if not sized or base64.b64encode(root).decode() != lines[2] or not all(lines) or not signed:
            raise ValueError("a checkpoint does not hold a name, a size, a root and a signature.")
        yield lines[0], int(lines[1]), root, f"{blocks[at]}\n\n{signed}" + ("" if at + 2 == len(blocks) else "\n")


class Tree:
    """The roots of the complete subtrees so far, from which the root over all leaves follows (RFC 6962 section 2.1)."""

    def __init__(self) -> None:
        self.size, self.nodes = 0, list[bytes]()

    def append(self, data: bytes) -> None:
        node, carry = hashlib.sha256(b"\x00" + data).digest(), self.size
        while carry & 1:
            node, carry = hashlib.sha256(b"\x01" + self.nodes.pop() + node).digest(), carry >> 1
        self.nodes.append(node)
        self.size += 1

    def root(self) -> bytes:
        root = self.nodes[-1] if self.nodes else hashlib.sha256().digest()
        for node in self.nodes[-2::-1]:
            root = hashlib.sha256(b"\x01" + node + root).digest()
        return root


def amount(text: str) -> int:
    if re.fullmatch("0|-?[1-9][0-9]{0,18}", text) is None:
        raise ValueError(f"it holds {text}, which is no whole number.")
    return int(text)


def canonical(data: bytes) -> Any:
    """Decode bytes that must be exactly the canonical form of what they say; that also rules out repeated keys."""
    value = json.loads(data.decode("utf-8"), parse_float=amount, parse_constant=amount)
    if json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() != data:
        raise ValueError("it is not in canonical form.")
    for item in (todo := [value]):  # grows while it is read
        large = isinstance(item, int) and abs(item) > 2**53 - 1
        if large or (isinstance(item, dict) and not all(re.fullmatch("[a-z0-9_]+", key) for key in item)):
            raise ValueError("it holds a number beyond 2^53 - 1, or a key that is not made of a-z, 0-9 and _.")
        todo += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return value


def check_carbon(body: dict[str, Any]) -> None:
    """Repeat the arithmetic: slices in order, energy = their sum, carbon = ceil(sum of mJ x mg/kWh x PUE / 3.6e12)."""
    energy, total, product, last = body["energy_millijoules"], 0, 0, ""
    known = None not in (energy, *(part["intensity_milligrams_per_kwh"] for part in body["slices"]))
    for part in body["slices"]:
        if not last <= part["start"] < part["end"] or not all(INSTANT.fullmatch(part[at]) for at in ("start", "end")):
            raise ValueError("its slices overlap or leave the order.")
        last, intensity = part["end"], part["intensity_milligrams_per_kwh"]
        total += amount(part["energy_millijoules"])
        product += amount(part["energy_millijoules"]) * amount("0" if intensity is None else intensity)
    pue_ppm = 1_000_000 if body.get("pue_ppm") is None else body["pue_ppm"]
    carbon = str(-(-product * amount(str(pue_ppm)) // 3_600_000_000_000)) if known else None
    said = ("0" if energy is None else energy, body["carbon_micrograms"])
    if said != (str(total), carbon) or type(pue_ppm) is not int:
        raise ValueError(f"it says {said[0]} mJ and {said[1]} ug, and its slices give {total} and {carbon}.")


def blobs_named(value: Any) -> Iterator[str]:
    """Every digest that a value names as {"blob": digest}, at any depth."""
    if isinstance(value, dict) and re.fullmatch("[0-9a-f]{64}", str(value.get("blob"))):
        yield value["blob"]
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from blobs_named(item)


def check_entry(body: dict[str, Any], origin: str, seen: set[str], bundle: Bundle) -> dict[str, Any]:
    """Check one entry by itself; return it with the values that were too large for it, read from their blobs."""
    if body["v"] != 1 or body["v"] is True:
        raise ValueError("it is not of format 1, the only one that this script knows.")
    named = json.dumps([body["kind"], body["request_key"], body["ordinal"]], ensure_ascii=False, separators=(",", ":"))
    key = hashlib.sha256(b"cagg/entry/1\n" + named.encode()).hexdigest()
    if body["log"] != origin or body["idempotency_key"] != key or not INSTANT.fullmatch(body["recorded_at"]):
        raise ValueError("its log, time or idempotency key (of kind, request key, ordinal) is not what it must be.")
    if key in seen or body["entry_id"] in seen:
        raise ValueError("its idempotency key or its id occurs a second time.")
    seen.update((key, body["entry_id"]))
    whole = {name: value for name, value in body.items() if name != "spilled"}
    whole.update({name: canonical(bundle.read(f"blobs/{body[name]['blob']}")) for name in body.get("spilled", [])})
    if "slices" in whole:
        check_carbon(whole)
    return whole


def check_entries(bundle: Bundle, origin: str, roots: dict[int, list[tuple[str, bytes]]]) -> tuple[Tree, list[Any]]:
    """Check all entries, and the root at the size of every checkpoint; return the tree, and what is said of keys."""
    tree, seen, blobs, changes = Tree(), set[str](), set[str](), []
    for line in chain([b""], bundle.open("entries.jsonl")):
        if line:
            tree.append(line[:-1])
            try:
                body = canonical(line[:-1] if line.endswith(b"\n") else b"")
                whole = check_entry(body, origin, seen, bundle)
                blobs.update(blobs_named([body, whole]))
                changes += [(tree.size - 1, whole)] if whole["kind"] in ("key", "log") else []
            except DAMAGED as error:
                fail(f"entry {tree.size - 1}", error)
        for name, root in roots.pop(tree.size, ()):
            if root != tree.root():
                fail(name, f"has another root than the first {tree.size} entries.")
    for size, wanted in sorted(roots.items()):
        fail(wanted[0][0], f"covers {size} entries and the bundle holds {tree.size}: entries are gone.")
    for digest in sorted(blobs ^ {name[6:] for name in bundle.names if name.startswith("blobs/")}):
        fail(f"blobs/{digest}", "is named by an entry and missing, or there and named by none.")
    return tree, changes


def verify(bundle: Bundle, keys: list[Key], outside: list[tuple[str, Any]]) -> str:
    """Check everything; return what it shows when nothing failed."""
    check_files(bundle)
    kept = [name for name in ("checkpoints.txt", "anchors.txt") if name in bundle.names]
    own = [(f"{name} {head[1]}", head) for name in kept for head in checkpoints_of(bundle.read(name))]
    if not own:
        raise ValueError("checkpoints.txt holds no checkpoint: nothing in the bundle is signed.")
    origin, newest = own[0][1][0], max(head[1] for _, head in own)
    roots: dict[int, list[tuple[str, bytes]]] = {}
    for name, (log, size, root, _) in own + outside:
        if log == origin:
            roots.setdefault(size, []).append((name, root))
        else:
            fail(name, f"is a checkpoint of the log {log}, and the bundle is of the log {origin}.")
    tree, changes = check_entries(bundle, origin, roots)
    if tree.size != newest or not newest:
        fail("entries.jsonl", f"holds {tree.size} entries, the newest checkpoint covers {newest}.")
    ended: dict[str, int] = {}  # keys that another of the given keys revoked, with the size from which on
    for _, body in changes:
        key, size, by = body.get("key"), body.get("from_size"), body.get("by")
        text, note = f"{origin}\nkey revoked\n{key}\nfrom size {size}\nby {by}", str(body.get("statement"))
        if note.startswith(f"{text}\n\n") and signers(note, [item for item in keys if item.text == by != key])[0]:
            ended[key] = min(size, ended.get(key, size))
    covered, others = 0, []
    for name, (_, size, _, note) in [item for item in own + outside if item[1][0] == origin]:
        try:
            found, by = signers(note, [key for key in keys if key.name == origin])
            counts = any(size < ended.get(key, size + 1) for key in found)
            covered = max(covered, size if counts else 0)
            said = f"is signed by {ascii(by)[1:-1]}, {'which is revoked' if found else 'no given key'}"
            others += [] if counts else [(name, size, said)]
        except DAMAGED as error:
            fail(name, error)
    for name, _, said in [item for item in others if item[1] > covered]:
        fail(name, f"{said}; ask the log's owner for the key that counts, on another way than the bundle.")
    notes = [f"\nNote: {name} {said}; a later checkpoint of a given key covers it." for name, _, said in others]
    held = max((head[1] for _, head in outside), default=0)
    before = [f" It goes on from {body['predecessor']}." for _, body in changes[:1] if body.get("predecessor")]
    return f"""Verified: {tree.size} entries of the log {origin}, root {tree.root().hex()}.{"".join(before + notes)}
Not shown: what came later; that what the ledger was told is true; README.txt, MANIFEST.json, keys/ and this script,
which nothing signs; that the key's holder kept all after entry {held}, the end of the newest checkpoint that you gave.
"""


def main() -> int:
    """Check what the command line names, say what was found, escaped: others wrote it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--key", action="append", required=True)
    parser.add_argument("--checkpoint", action="append", default=[], type=Path)
    given = parser.parse_args()
    try:
        keys, bundle = keys_of(given.key), Bundle(given.bundle)
        outside = [(str(path), head) for path in given.checkpoint for head in checkpoints_of(path.read_bytes())]
    except DAMAGED as error:
        sys.stderr.write(f"cannot be checked: {ascii(str(error))[1:-1]}\n")
        return 2
    try:
        shown = verify(bundle, keys, outside)
    except DAMAGED as error:
        fail("bundle", error)
    listed = "".join(f"FAILED {ascii(failure)[1:-1]}\n" for failure in failures)
    text = f"{listed}NOT intact: {len(failures)} failures.\n" if failures else shown
    sys.stdout.write(text.encode("ascii", "backslashreplace").decode())
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
