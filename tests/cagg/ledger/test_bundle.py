"""Bundles for auditors: the one-file verifier finds every change, in a bare interpreter, without this package."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import pytest

from cagg.errors import LedgerDamaged, NotProven
from cagg.ledger.checkpoint import checkpoint_of_note, sign_checkpoint
from cagg.ledger.encoding import canonical, decode
from cagg.ledger.entry import append, idempotency_key
from cagg.ledger.export.bundle import FolderTarget, ZipTarget, verifier_source, write_bundle
from cagg.ledger.merkle import leaf_hash, root_of
from cagg.ledger.notes import TreeHead, checkpoint_text, note_of, signed_note, verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ports import Signer, Store
from cagg.records import EntryDraft, EntryKind
from cagg.testing import ManualClock
from cagg.testing.attacks import unlock
from cagg.testing.stores import MemorySigner, draft

NAME = "example.org/test"
SIGNER = MemorySigner(NAME)
KEY = verifier_key(SIGNER)
SERIES = hashlib.sha256(b"series").hexdigest()
INNER = hashlib.sha256(b"inner").hexdigest()
NOT_SIGNED = ("README.txt", "MANIFEST.json", "keys/1.vkey", "verify_bundle.py")

Files = dict[str, bytes]


# ---- the log --------------------------------------------------------------------------------------------------------


def _slice(hour: int, intensity: str | None = "100000") -> dict[str, Any]:
    return {
        "start": f"2026-01-05T2{hour}:00:00.000000Z",
        "end": f"2026-01-05T2{hour + 1}:00:00.000000Z",
        "energy_millijoules": "3600000000",
        "intensity_milligrams_per_kwh": intensity,
        "source": "trace",
    }


def _measured(name: str, **changed: Any) -> EntryDraft:
    body = {
        "request": {"task_key": "nightly", "host": "local", "root_run_id": "r", "attempt": 1},
        "start": "2026-01-05T21:00:00.000000Z",
        "end": "2026-01-05T23:00:00.000000Z",
        "outcome": "completed",
        "grade": "C",
        "energy_millijoules": "7200000000",
        "pue_ppm": 1_150_000,
        "carbon_micrograms": "230000000",
        "slices": [_slice(1), _slice(2)],
        **changed,
    }
    return EntryDraft(kind=EntryKind.MEASUREMENT, request_key=name, ordinal=0, body=body)


def _decided(name: str, **more: Any) -> EntryDraft:
    return draft(name, request={}, verdict="admit", **more)


DRAFTS = [
    _decided("a"),
    _measured("known"),
    _measured("unknown", carbon_micrograms=None, slices=[_slice(1), _slice(2, None)]),
    _measured("blind", energy_millijoules=None, carbon_micrograms=None, slices=[]),
    replace(_decided("ö 漢 🌍", forecast={"blob": SERIES}), blobs={SERIES: b"series"}),
    replace(_decided("large", evidence=[{"blob": INNER}, "x" * 70_000]), blobs={INNER: b"inner"}),
    _measured("spilled", notes=["y" * 1_000] * 70),
    _decided("last"),
]
SIGNED = (0, 2, 5, 8)


def _fill(store: Store) -> None:
    with store.transaction() as tx:
        for number in range(len(DRAFTS) + 1):
            if number in SIGNED:
                while sequence(tx):
                    pass
                sign_checkpoint(tx, SIGNER)
            if number < len(DRAFTS):
                append(tx, DRAFTS[number])


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, named_store: Callable[..., AbstractContextManager[Store]]) -> Iterator[Store]:
    """Eight entries of every form that an auditor meets, under four checkpoints."""
    with named_store(request.param, origin=NAME, clock=ManualClock()) as store:
        _fill(store)
        yield store


@pytest.fixture(scope="module")
def files(named_store: Callable[..., AbstractContextManager[Store]]) -> Files:
    """The bundle of that log, by name."""
    target = _Memory()
    with named_store("sqlite", origin=NAME, clock=ManualClock()) as store:
        _fill(store)
        with store.snapshot() as tx:
            write_bundle(tx, target, keys=[KEY], anchors=[tx.checkpoints()[1]])
    return target.files


class _Memory:
    """A target that keeps the files."""

    def __init__(self) -> None:
        self.files: Files = {}

    def file(self, name: str) -> AbstractContextManager[IO[bytes]]:
        files = self.files

        class Kept(io.BytesIO):
            def close(self) -> None:
                files[name] = self.getvalue()
                super().close()

        return Kept()


def sealed(files: Mapping[str, bytes]) -> Files:
    """The files with the list of digests that belongs to them: what somebody with a text editor would do."""
    kept = {name: data for name, data in files.items() if name != "SHA256SUMS"}
    sums = "".join(f"{hashlib.sha256(kept[name]).hexdigest()}  {name}\n" for name in sorted(kept))
    return {**kept, "SHA256SUMS": sums.encode()}


def resigned(files: Mapping[str, bytes], entries: Sequence[bytes], signer: Signer = SIGNER, *sizes: int) -> Files:
    """A bundle of other entries that the holder of a key signed anew."""
    notes = [_note([leaf_hash(item) for item in entries[:size]], signer) for size in (*sizes, len(entries))]
    kept = {name: data for name, data in files.items() if name != "anchors.txt"}
    lines = b"".join(item + b"\n" for item in entries)
    return sealed({**kept, "entries.jsonl": lines, "checkpoints.txt": "\n".join(notes).encode()})


def _note(leaves: Sequence[bytes], signer: Signer = SIGNER, origin: str | None = None) -> str:
    head = TreeHead(origin=origin or signer.name, size=len(leaves), root=root_of(leaves))
    text = checkpoint_text(head)
    return signed_note(text, signer.sign(text.encode()), verifier_key(signer))


def entries_of(files: Mapping[str, bytes]) -> list[bytes]:
    return files["entries.jsonl"].split(b"\n")[:-1]


# ---- running the verifier -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verifier() -> ModuleType:
    """The verifier as a module of its own, loaded from the bytes that are shipped."""
    spec = importlib.util.spec_from_loader("verify_bundle", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(verifier_source(), "verify_bundle.py", "exec"), module.__dict__)
    return module


class _Read:
    """Stands for the verifier's Bundle, in memory."""

    def __init__(self, module: ModuleType, files: Mapping[str, bytes]) -> None:
        self.files, self.names = files, list(files)
        self.read = module.Bundle.read.__get__(self)

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self.files[name])


def judge(
    module: ModuleType, files: Mapping[str, bytes], keys: Sequence[object] = (KEY,), outside: Sequence[str] = ()
) -> list[str]:
    """What the verifier finds wrong, in the way in which its main function finds it."""
    return _told(module, files, keys, outside)[0]


def _told(
    module: ModuleType, files: Mapping[str, bytes], keys: Sequence[object] = (KEY,), outside: Sequence[str] = ()
) -> tuple[list[str], str]:
    """What the verifier finds wrong, and what it says of a bundle without fault, its notes included."""
    module.failures.clear()
    heads = [("outside", head) for note in outside for head in module.checkpoints_of(note.encode())]
    said = ""
    try:
        said = module.verify(_Read(module, files), module.keys_of([str(key) for key in keys]), heads)
    except module.DAMAGED as error:
        module.fail("bundle", error)
    return list(module.failures), said


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the verifier out of a bundle's folder: isolated, without site, with cryptography as the only package."""
    packages = tmp_path_factory.mktemp("packages")
    home = Path(importlib.util.find_spec("cryptography").origin or "").parents[1]  # type: ignore[union-attr]
    for item in home.iterdir():
        if item.name.split(".")[0] in {"cryptography", "cffi", "_cffi_backend", "pycparser", "typing_extensions"}:
            (packages / item.name).symlink_to(item)
    start = f"import sys; sys.path.append({str(packages)!r}); sys.argv = sys.argv[1:]; import runpy; "
    start += "runpy.run_path(sys.argv[0], run_name='__main__')"

    def run(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", "-c", start, str(script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={}, timeout=60)

    return run


def _unpacked(files: Mapping[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


# ---- what it is -----------------------------------------------------------------------------------------------------


def test_the_verifier_can_be_read_and_run_anywhere() -> None:
    source = verifier_source().decode()
    assert source.count("\n") <= 300
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    assert "cagg" not in imported
    assert imported - set(sys.stdlib_module_names) == {"cryptography"}


def test_the_log_that_was_exported_is_verified_in_a_bare_interpreter(
    log: Store, tmp_path: Path, bare: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder, archive, kept, key = (tmp_path / name for name in ("folder", "bundle.zip", "kept", "log.vkey"))
    folder.mkdir()
    key.write_text(f"# from the contract\n{KEY}\n", encoding="utf-8")
    with log.snapshot() as tx:
        done = write_bundle(tx, FolderTarget(folder), keys=[KEY])
        with archive.open("wb") as file, ZipTarget(file) as target:
            assert write_bundle(tx, target, keys=[KEY]) == done
        kept.write_bytes(tx.checkpoints()[2].note.encode())
        assert done.root == root_of(entry.leaf_hash for entry in tx.entries())
    assert (done.entries, done.checkpoints, done.left_out) == (8, 4, 0)
    for place in (folder, archive):
        for arguments in (["--key", KEY], ["--key", key, "--checkpoint", kept]):
            result = bare(folder / "verify_bundle.py", place, *arguments)
            assert (result.returncode, result.stderr) == (0, "")
            assert result.stdout.startswith(f"Verified: 8 entries of the log {NAME}, root {done.root.hex()}.")
            assert "Not shown" in result.stdout
    assert "entry 5, the end of the newest checkpoint" in " ".join(result.stdout.split())
    with zipfile.ZipFile(archive) as packed:
        assert packed.testzip() is None
        assert {name: packed.read(name) for name in packed.namelist()} == {
            item.relative_to(folder).as_posix(): item.read_bytes() for item in folder.rglob("*") if item.is_file()
        }


def test_the_sums_are_those_of_sha256sum(files: Files, tmp_path: Path) -> None:
    _unpacked(files, tmp_path)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert {line[66:] for line in files["SHA256SUMS"].decode().splitlines()} == files.keys() - {"SHA256SUMS"}


def test_a_bundle_says_what_it_is(files: Files) -> None:
    manifest = json.loads(files["MANIFEST.json"])
    assert (manifest["format"], manifest["version"], manifest["entry_format"]) == ("cagg-bundle", 1, 1)
    assert manifest["log"]["size"] == 8
    assert manifest["licences"]["verify_bundle.py"] == "Apache-2.0"
    readme = files["README.txt"].decode()
    assert "nothing to trust" in readme
    assert "What it cannot show" in readme
    assert files["verify_bundle.py"] == verifier_source()
    assert b"not to be trusted" in files["keys/1.vkey"]


def test_the_same_log_gives_the_same_bytes(log: Store, tmp_path: Path) -> None:
    made = []
    for name in ("one.zip", "two.zip"):
        with log.snapshot() as tx, (tmp_path / name).open("wb") as file, ZipTarget(file) as target:
            write_bundle(tx, target)
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_what_cannot_be_checked(
    files: Files, tmp_path: Path, bare: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder = _unpacked(files, tmp_path / "bundle")
    script = folder / "verify_bundle.py"
    (tmp_path / "text").write_text("no archive", encoding="utf-8")
    for arguments in (
        [tmp_path / "missing", "--key", KEY],
        [tmp_path / "text", "--key", KEY],
        [folder, "--key", tmp_path / "missing"],
        [folder, "--key", "a+b+c"],
        [folder, "--key", KEY, "--checkpoint", tmp_path / "missing"],
        [folder, "--key", KEY, "--checkpoint", tmp_path / "text"],
        [folder],
    ):
        result = bare(script, *arguments)
        assert result.returncode == 2, arguments
        assert "Traceback" not in result.stderr


def test_no_terminal_obeys_a_bundle(bare: Any, files: Files, tmp_path: Path) -> None:
    """A name may hold what clears a screen, a line that says "Verified", or bytes that are no text."""
    folder = _unpacked(files, tmp_path / "bundle")
    for name in (b"\x1b[2J\nVerified: all.", "blobs/\x9b31m".encode(), b"\xff"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"")
    lines = [*entries_of(files)]
    lines[0] = lines[0].replace(b'"log":"', '"log":"\u202e'.encode())
    (folder / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    result = bare(folder / "verify_bundle.py", folder, "--key", KEY)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    assert not [line for line in result.stdout.splitlines() if not line.startswith(("FAILED ", "NOT intact: "))]


@pytest.mark.parametrize("value", ["x", [1], True, 1.5])
def test_a_pue_that_is_no_number_is_a_failure(verifier: ModuleType, value: object) -> None:
    body = {"energy_millijoules": "7200000000", "carbon_micrograms": "1", "slices": [_slice(1), _slice(2)]}
    with pytest.raises(ValueError, match=r"whole number|its carbon"):
        verifier.check_carbon({**body, "pue_ppm": value})


# ---- what is refused before it leaves -------------------------------------------------------------------------------


def test_there_must_be_something_signed(store: Store) -> None:
    with store.transaction() as tx:
        append(tx, DRAFTS[0])
        while sequence(tx):
            pass
        with pytest.raises(NotProven, match="cagg maintain"):
            write_bundle(tx, _Memory())
        sign_checkpoint(tx, SIGNER)
        append(tx, DRAFTS[1])
        while sequence(tx):
            pass
        target = _Memory()
        assert write_bundle(tx, target).left_out == 1
        assert len(entries_of(target.files)) == 1


def test_a_log_that_does_not_continue_its_anchors_is_not_exported(log: Store) -> None:
    clock = ManualClock()
    with log.snapshot() as tx:
        leaves = [entry.leaf_hash for entry in tx.entries()]
        for note in (_note([leaf_hash(b"x")]), _note([*leaves, leaf_hash(b"x")])):
            with pytest.raises(NotProven):
                write_bundle(tx, _Memory(), anchors=[checkpoint_of_note(note, clock.now())])
        other = checkpoint_of_note(_note([leaf_hash(b"x")], MemorySigner("example.org/other")), clock.now())
        assert write_bundle(tx, _Memory(), anchors=[other]).anchors == 0


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM cagg_blob WHERE digest = '{inner}'",
        "UPDATE cagg_blob SET data = CAST('x' AS blob) WHERE digest = '{series}'",
        "UPDATE cagg_entry SET body = CAST('{{}}' AS blob) WHERE request_key = 'known'",
        "DELETE FROM cagg_leaf WHERE leaf_index = 3",
    ],
)
def test_a_damaged_ledger_is_not_handed_out(store: Store, statement: str) -> None:
    _fill(store)
    spoken = statement.format(inner=INNER, series=SERIES)
    with store.transaction() as tx:
        unlock(tx).exec_driver_sql(spoken.replace("blob)", "bytea)") if "postgresql" in store.url else spoken)
        with pytest.raises(LedgerDamaged):
            write_bundle(tx, _Memory())
        with pytest.raises(LedgerDamaged), io.BytesIO() as file, ZipTarget(file) as target:
            write_bundle(tx, target)


# ---- attacks on a bundle --------------------------------------------------------------------------------------------


def test_the_untouched_bundle_has_no_failures(verifier: ModuleType, files: Files) -> None:
    assert judge(verifier, files) == []
    assert judge(verifier, sealed(files)) == []
    notes = [f"{text}\n" if not text.endswith("\n") else text for text in [_note([]), _note_at(files, 5)]]
    assert judge(verifier, files, outside=notes) == []
    assert judge(verifier, resigned(files, entries_of(files))) == []


def _note_at(files: Files, size: int) -> str:
    return _note([leaf_hash(item) for item in entries_of(files)[:size]])


def _edited(files: Files, index: int, edit: Callable[[bytes], bytes]) -> list[bytes]:
    entries = entries_of(files)
    entries[index] = edit(entries[index])
    return entries


def _lines(files: Files, entries: Sequence[bytes]) -> Files:
    return sealed({**files, "entries.jsonl": b"".join(item + b"\n" for item in entries)})


def test_changes_by_somebody_without_the_key(verifier: ModuleType, files: Files) -> None:
    entries = entries_of(files)
    attacks = {
        "edit": _lines(files, _edited(files, 1, lambda data: data.replace(b"230000000", b"130000000"))),
        "delete the first": _lines(files, entries[1:]),
        "delete one": _lines(files, entries[:3] + entries[4:]),
        "delete the last": _lines(files, entries[:-1]),
        "swap": _lines(files, [entries[1], entries[0], *entries[2:]]),
        "repeat": _lines(files, [*entries, entries[-1]]),
        "append": _lines(files, [*entries, entries[0].replace(b'"a"', b'"b"')]),
        "empty": _lines(files, []),
        "no line feed at the end": sealed({**files, "entries.jsonl": files["entries.jsonl"][:-1]}),
        "no checkpoint": sealed({**files, "checkpoints.txt": b""}),
        "only the empty tree": sealed({**files, "checkpoints.txt": _note([]).encode(), "entries.jsonl": b""}),
        "signature stripped": sealed(
            {**files, "checkpoints.txt": files["checkpoints.txt"].rpartition(b"\xe2\x80\x94")[0]}
        ),
        "newest checkpoint dropped": sealed(
            {**files, "checkpoints.txt": b"\n\n".join(files["checkpoints.txt"].split(b"\n\n")[:-2]) + b"\n"}
        ),
        "another blob": sealed({**files, f"blobs/{SERIES}": b"other"}),
        "no blob": sealed({name: data for name, data in files.items() if name != f"blobs/{INNER}"}),
        "a blob too many": sealed({**files, f"blobs/{hashlib.sha256(b'z').hexdigest()}": b"z"}),
        "a file too many": {**files, "notes.txt": b"mine"},
        "a file too few": {name: data for name, data in files.items() if name != "README.txt"},
        "all rewritten with another key": resigned(files, entries, MemorySigner(NAME, b"\x09" * 32)),
        "a forged anchor": sealed({**files, "anchors.txt": _note([leaf_hash(b"x")]).encode()}),
    }
    assert {name for name, changed in attacks.items() if not judge(verifier, changed)} == set()


def _signed_with(files: Files, **changed: Any) -> Files:
    """A bundle whose second entry says something else, signed by the log's own key."""
    return resigned(files, _edited(files, 1, lambda data: canonical({**decode(data), **changed})))


def test_changes_by_the_holder_of_the_key(verifier: ModuleType, files: Files) -> None:
    entries = entries_of(files)
    slices = decode(entries[1])["slices"]
    again = canonical({**decode(entries[0]), "entry_id": "019b8b74-1800-7291-8f35-48a28a2492d4"})
    attacks = {
        "carbon that does not follow": _signed_with(files, carbon_micrograms="1"),
        "carbon without an intensity": _signed_with(
            files, slices=[slices[0], {**slices[1], "intensity_milligrams_per_kwh": None}]
        ),
        "an intensity that is no amount": _signed_with(
            files, carbon_micrograms="115000000", slices=[slices[0], {**slices[1], "intensity_milligrams_per_kwh": ""}]
        ),
        "an effectiveness that is no number": _signed_with(files, carbon_micrograms="200", pue_ppm=True),
        "an energy that is no amount": _signed_with(files, energy_millijoules="", carbon_micrograms="0", slices=[]),
        "energy that does not add up": _signed_with(files, energy_millijoules="7200000001"),
        "slices that overlap": _signed_with(files, slices=[slices[0], slices[0]]),
        "another key for the same fact": _signed_with(files, idempotency_key="00" * 32),
        "another log's entry": _signed_with(files, log="example.org/other"),
        "a later format": _signed_with(files, v=2),
        "a format that is no number": _signed_with(files, v=True),
        "a time of another form": _signed_with(files, recorded_at="2026-01-05 12:00"),
        "the same fact twice": resigned(files, [*entries, again]),
        "the same entry twice": resigned(files, [*entries, entries[0]]),
        "spaces": resigned(files, _edited(files, 0, lambda data: data.replace(b":", b": ", 1))),
        "keys out of order": resigned(files, _edited(files, 0, lambda data: b'{"zz":1,' + data[1:])),
        "a repeated key": resigned(files, _edited(files, 0, lambda data: data[:-1] + b',"v":1}')),
        "a float": resigned(files, _edited(files, 0, lambda data: data.replace(b'"v":1', b'"v":1.0'))),
        "not a number": resigned(files, _edited(files, 0, lambda data: data.replace(b'"v":1', b'"v":NaN'))),
        "a number that readers round": _signed_with(files, pue_ppm=None, attempt=1, big=None)
        | resigned(files, _edited(files, 0, lambda data: data.replace(b'"ordinal":0', b'"ordinal":9007199254740993'))),
        "an escaped letter": resigned(
            files, _edited(files, 0, lambda data: data.replace(b'"admit"', b'"\\u0061dmit"'))
        ),
        "a lone surrogate": resigned(files, _edited(files, 0, lambda data: data.replace(b'"admit"', b'"\\ud800"'))),
        "no text": resigned(files, _edited(files, 0, lambda data: data.replace(b"admit", b"\xff"))),
        "no object": resigned(files, [*entries, b"[]"]),
        "nothing": resigned(files, [*entries, b""]),
        "a deep nest": resigned(files, [*entries, b"[" * 100_000]),
        "a value that is not its blob": _signed_with(files, spilled=["slices"], slices={"blob": SERIES}),
        "a value from elsewhere": _signed_with(files, spilled=["slices"], slices={"blob": "../../../../dev/zero"}),
    }
    assert {name for name, changed in attacks.items() if not judge(verifier, changed)} == set()


def test_a_rewritten_log_is_found_with_a_checkpoint_from_outside(verifier: ModuleType, files: Files) -> None:
    kept, entries = _note_at(files, 8), entries_of(files)
    rewritten = resigned(files, _edited(files, 0, lambda data: data.replace(b'"note":"x"', b'"note":"y"')), SIGNER, 5)
    cut = resigned(files, entries[:6])
    named = b"".join(data for name, data in cut.items() if name == "entries.jsonl" or name.startswith("blobs/"))
    cut = sealed({name: data for name, data in cut.items() if "blobs/" not in name or name[6:].encode() in named})
    for changed in (rewritten, cut):
        assert judge(verifier, changed) == []
        assert judge(verifier, changed, outside=[kept])
    stranger = MemorySigner(NAME, b"\x09" * 32)
    leaves = [leaf_hash(item) for item in entries]
    assert judge(verifier, files, outside=[_note(leaves, stranger)]) == [], "the log's own key signed the same root"
    assert judge(verifier, files, outside=[_note([*leaves[:7], b"x" * 32], stranger)])
    assert judge(verifier, files, outside=[_note([leaf_hash(item) for item in entries], SIGNER, "example.org/other")])


def test_keys_must_be_the_logs_own(verifier: ModuleType, files: Files) -> None:
    stranger = verifier_key(MemorySigner(NAME, b"\x09" * 32))
    elsewhere = verifier_key(MemorySigner("example.org/other"))
    assert judge(verifier, files, keys=[stranger])
    assert judge(verifier, files, keys=[elsewhere])
    assert judge(verifier, files, keys=[stranger, KEY]) == []
    other = resigned(files, entries_of(files), MemorySigner("example.org/other"))
    assert judge(verifier, other, keys=[elsewhere])


def test_todays_key_suffices_and_a_revoked_key_counts_no_more(verifier: ModuleType, files: Files) -> None:
    new = MemorySigner(NAME, b"\x0a" * 32)
    entries = entries_of(files)
    parts = [_note([leaf_hash(item) for item in entries[:5]]), _note([leaf_hash(item) for item in entries], new)]
    rotated = sealed({**files, "checkpoints.txt": "\n".join(parts).encode()})
    rotated = sealed({name: data for name, data in rotated.items() if name != "anchors.txt"})
    assert judge(verifier, rotated, keys=[KEY, verifier_key(new)]) == []
    (failed,) = judge(verifier, rotated, keys=[KEY])
    assert f"signed by {NAME}+{verifier_key(new).key_id.hex()}, no given key; ask" in failed
    assert judge(verifier, rotated, keys=[verifier_key(new)]) == []
    wrong = [_note([leaf_hash(item) for item in [*entries[:4], b"{}"]]), parts[1]]
    assert judge(verifier, sealed({**rotated, "checkpoints.txt": "\n".join(wrong).encode()}), keys=[verifier_key(new)])
    for signer, from_size, newest, count in ((new, 3, new, 0), (new, 3, SIGNER, 2), (SIGNER, 3, SIGNER, 0)):
        more = [*entries, _revocation(signer, KEY, from_size)]
        leaves = [leaf_hash(item) for item in more]
        notes = [_note(leaves[:5]), _note(leaves, newest)]
        lines = b"".join(item + b"\n" for item in more)
        changed = {name: data for name, data in files.items() if name != "anchors.txt"}
        changed |= {"checkpoints.txt": "\n".join(notes).encode(), "entries.jsonl": lines}
        found = judge(verifier, sealed(changed), keys=[KEY, verifier_key(new)])
        assert len(found) == count, found


def _revocation(signer: Signer, key: object, from_size: int) -> bytes:
    text = f"{NAME}\nkey revoked\n{key}\nfrom size {from_size}\nby {verifier_key(signer)}\n"
    note = note_of(text, [(verifier_key(signer), signer.sign(text.encode()))])
    body = {
        "event": "revoked", "key": str(key), "from_size": from_size, "replaces": None, "reason": "lost",
        "by": str(verifier_key(signer)), "statement": note, "v": 1, "kind": "key", "log": NAME, "request": None,
        "entry_id": "019b8b74-1800-7291-8f35-48a28a2492d4", "request_key": f"key:{NAME}", "ordinal": 0,
        "recorded_at": "2026-01-05T00:00:00.000000Z",
        "idempotency_key": idempotency_key(EntryKind.KEY, f"key:{NAME}", 0).hex(),
    }  # fmt: skip
    return canonical(body)


def test_what_is_wrong_is_said_in_plain_sentences(verifier: ModuleType, files: Files) -> None:
    extra = {**files, "extra.txt": b"x"}
    assert judge(verifier, extra) == ["extra.txt: is extra: SHA256SUMS does not list it."]
    missing = {name: data for name, data in files.items() if name != "README.txt"}
    assert judge(verifier, missing) == ["README.txt: is missing from the bundle."]
    emptied = {
        name: b"" if name == "checkpoints.txt" else data for name, data in files.items() if name != "anchors.txt"
    }
    assert judge(verifier, sealed(emptied)) == [
        "bundle: checkpoints.txt holds no checkpoint: nothing in the bundle is signed."
    ]
    entries = [leaf_hash(item) for item in entries_of(files)]
    (failed,) = judge(verifier, files, outside=[_note(entries, SIGNER, "example.org/other")])
    assert failed == f"outside: is a checkpoint of the log example.org/other, and the bundle is of the log {NAME}."
    for wrong in ("no key", "a+b+c", f"{KEY}x"):
        with pytest.raises(ValueError, match="is no public key of a log"):
            verifier.Key(wrong)


def test_unknown_signatures_are_passed_over(verifier: ModuleType, files: Files) -> None:
    witness = verifier_key(MemorySigner("witness.example", b"\x08" * 32))
    line = signed_note("x\n", b"\x00" * 64, witness).split("\n")[2]
    assert judge(verifier, sealed({**files, "checkpoints.txt": files["checkpoints.txt"] + f"{line}\n".encode()})) == []


# ---- every byte -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(named_store: Callable[..., AbstractContextManager[Store]]) -> Files:
    """A bundle of three entries with a blob and two checkpoints."""
    target = _Memory()
    with named_store("sqlite", origin=NAME, clock=ManualClock()) as store:
        with store.transaction() as tx:
            for item in (DRAFTS[0], DRAFTS[1], DRAFTS[4]):
                append(tx, item)
                sign_checkpoint(tx, SIGNER)
        with store.snapshot() as tx:
            write_bundle(tx, target, keys=[KEY], anchors=[tx.checkpoints()[0]])
    return target.files


def _flips(verifier: ModuleType, files: Files, bits: Sequence[int], step: int) -> list[str]:
    unseen = []
    for name, data in files.items():
        for place in range(0, len(data), step if name in NOT_SIGNED else 1):
            for bit in bits:
                changed = bytearray(data)
                changed[place] ^= 1 << (bit + place) % 8
                if not judge(verifier, {**files, name: bytes(changed)}):
                    unseen.append(f"{name}[{place}]")
    return unseen


def test_a_flipped_bit_in_every_byte_is_found(verifier: ModuleType, small: Files) -> None:
    assert judge(verifier, small) == []
    assert _flips(verifier, small, [0], step=61) == []


@pytest.mark.prove
def test_every_flipped_bit_is_found(verifier: ModuleType, small: Files) -> None:
    assert _flips(verifier, small, range(8), step=1) == []


def _without_sums(verifier: ModuleType, files: Files, name: str) -> list[int]:
    """Flip one bit in every byte of a file whose digest is then listed anew; return the places that nobody finds: no
    failure, and no note that a checkpoint is signed by another key than those given."""
    unseen = []
    whole = _told(verifier, files)
    for place in range(len(files[name])):
        changed = bytearray(files[name])
        changed[place] ^= 1 << place % 8
        if _told(verifier, sealed({**files, name: bytes(changed)})) == whole:
            unseen.append(place)
    return unseen


def test_what_the_signature_covers_needs_no_list_of_digests(verifier: ModuleType, small: Files) -> None:
    for name in ("entries.jsonl", "checkpoints.txt", "anchors.txt", f"blobs/{SERIES}"):
        assert _without_sums(verifier, small, name) == []


def _packed(files: Files) -> bytes:
    packed = io.BytesIO()
    with ZipTarget(packed) as target:
        for name, data in files.items():
            with target.file(name) as file:
                file.write(data)
    return packed.getvalue()


def _unseen_in_archive(verifier: ModuleType, files: Files, place: Path, step: int) -> list[int]:
    """Flip bits of an archive; return the places where neither a failure nor the very same content came out."""
    whole = _packed(files)
    unseen = []
    for at in range(0, len(whole), step):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        place.write_bytes(changed)
        verifier.failures.clear()
        try:
            bundle = verifier.Bundle(place)
            verifier.verify(bundle, verifier.keys_of([str(KEY)]), [])
        except verifier.DAMAGED:
            continue
        if not verifier.failures and {name: bundle.read(name) for name in bundle.names} != files:
            unseen.append(at)
    return unseen


def test_a_changed_archive_is_refused_or_says_the_same(verifier: ModuleType, small: Files, tmp_path: Path) -> None:
    assert _unseen_in_archive(verifier, small, tmp_path / "b.zip", step=7) == []


@pytest.mark.prove
def test_every_byte_of_an_archive(verifier: ModuleType, small: Files, tmp_path: Path) -> None:
    assert _unseen_in_archive(verifier, small, tmp_path / "b.zip", step=1) == []


def test_a_name_that_occurs_twice_in_an_archive(verifier: ModuleType, small: Files, tmp_path: Path) -> None:
    place = tmp_path / "b.zip"
    place.write_bytes(_packed(small))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(place, "a") as archive:
        archive.writestr("README.txt", small["README.txt"])
    verifier.failures.clear()
    verifier.check_files(verifier.Bundle(place))
    assert verifier.failures
