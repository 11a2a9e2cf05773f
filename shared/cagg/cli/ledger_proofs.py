"""``cagg ledger prove | consistency | verify-proof``: proofs that somebody else checks, without this store."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._ledger_keys import outside_checkpoint, trusted_keys
from cagg.cli._options import EntryName, InLog
from cagg.cli._output import Json, answer, line, write_exactly
from cagg.errors import ConfigurationError, InvalidInput, LedgerDamaged, NotProven, StoreUnavailable

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.composition import Components
    from cagg.ledger.proofs import ConsistencyProof, InclusionProof, ProofReport
    from cagg.ports import Checkpoint, Transaction
    from cagg.records import Entry

__all__ = ["consistency", "prove", "verify_proof"]

_LARGEST_FILE = 4_000_000
"""Bytes that are read of a proof or an entry: several times what the largest one has."""

Output = Annotated[Path | None, typer.Option("-o", "--output", help="Write the proof to this file.")]


def prove(
    entry: EntryName,
    *,
    output: Output = None,
    log: InLog = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Checkpoint to prove it under: a file or a size; default: the newest.")
    ] = None,
    entry_file: Annotated[
        Path | None,
        typer.Option("--entry", help="Write the entry's exact bytes here, and leave them out of the proof."),
    ] = None,
    json: Json = False,
) -> int:
    """Prove that an entry is in the signed log: a text that anybody can check with the log's public key.

    Exit status 0 proven, 1 there is no such proof (yet), 2 it could not be tried.
    """
    from cagg.cli._files import whole_file
    from cagg.ledger.proving import prove_entry

    if entry_file is not None and output is not None and _same(entry_file, output):
        raise InvalidInput(f"--entry and -o name the same file {output}; the proof and the entry are two.")
    parts = _existing_store()
    with parts.store.snapshot() as tx:
        found = _entry(tx, entry, log)
        try:
            rows = _log_of(tx, found)
            under = None if checkpoint is None else _checkpoint(rows, checkpoint)
            proof = prove_entry(rows, found, under)
        except LedgerDamaged as error:
            raise NotProven(str(error)) from None
    if entry_file is not None:
        with whole_file(entry_file) as file:
            file.write(found.body)
        proof = proof.without_entry()
    about = {"entry_id": found.entry_id, "index": found.index, "checkpoint": proof.checkpoint}
    return _handed_out(proof, output, about, json=json)


def consistency(
    older: Annotated[str, typer.Argument(help="The older checkpoint: a file, or the size of one in the store.")],
    newer: Annotated[str | None, typer.Argument(help="The newer one; default: the newest in the store.")] = None,
    *,
    output: Output = None,
    log: Annotated[
        str | None, typer.Option(help="Log of the store that sizes are of; default: the one that grows.")
    ] = None,
    json: Json = False,
) -> int:
    """Prove that one checkpoint continues another: nothing before it was changed, removed or inserted.

    Exit status 0 proven, 1 it does not continue it, 2 it could not be tried.
    """
    from cagg.ledger.proving import prove_consistency

    for given in (older, newer):
        if given is not None and output is not None and _same(Path(given), output):
            raise InvalidInput(f"-o names the checkpoint {given!r} itself, which would be gone; name another file.")
    parts = _existing_store()
    with parts.store.snapshot() as tx:
        try:
            first = _checkpoint(tx if log is None else tx.in_log(log), older)
            rows = _log_named(tx, first)
            second = rows.last_checkpoint() if newer is None else _checkpoint(rows, newer)
            if second is None:
                raise NotProven("there is no signed checkpoint yet; `cagg maintain` signs one.")
            proof = prove_consistency(rows, first, second)
        except LedgerDamaged as error:
            raise NotProven(str(error)) from None
    return _handed_out(proof, output, {"older": first.size, "newer": second.size}, json=json)


def verify_proof(
    file: Annotated[str, typer.Argument(help="Proof that `cagg ledger prove` or `consistency` made; - = stdin.")],
    *,
    key: Annotated[
        list[str] | None, typer.Option(help="Trusted key as text or in a file; default: keys/log.vkey in the home.")
    ] = None,
    entry: Annotated[Path | None, typer.Option(help="The entry's bytes, for a proof that does not carry them.")] = None,
    json: Json = False,
) -> int:
    """Check a proof with the log's public key alone: no store, no network.

    Exit status 0 proven, 1 not proven, 2 it could not be checked.
    """
    from cagg.cli._context import components
    from cagg.ledger.notes import VerifierKey
    from cagg.ledger.proofs import check_proof, parse_proof

    keys = [VerifierKey.parse(text) for text in trusted_keys(components(), key)]
    data = _read(file, "proof")
    try:
        proof = parse_proof(data.decode())
    except UnicodeDecodeError:
        raise InvalidInput(f"the file {file!r} is no proof: it is no text; copy it whole.") from None
    report = check_proof(proof, keys, None if entry is None else _read(str(entry), "entry"))
    return answer(_document(report), lambda to: _show(to, report), json=json, status=0 if report.proven else 1)


# ---- what is proven -------------------------------------------------------------------------------------------------


def _existing_store() -> Components:
    from cagg.cli._context import components, store_is_new

    parts = components()
    if store_is_new(parts):
        raise StoreUnavailable(f"there is no ledger at {parts.settings.store_url} yet; `cagg run -- CMD` begins one.")
    return parts


def _entry(tx: Transaction, name: str, log: str | None) -> Entry:
    from cagg.cli._context import find_entry
    from cagg.records import EntryKind

    return find_entry(tx, name, kinds=frozenset(EntryKind), log=log)


def _log_of(tx: Transaction, entry: Entry) -> Transaction:
    """Return the rows of the log that an entry belongs to: this one or one before it."""
    from cagg.ledger.encoding import decode

    body = decode(entry.body)
    origin = body.get("log") if isinstance(body, Mapping) else None
    return tx if origin == tx.origin() else tx.in_log(str(origin))


def _log_named(tx: Transaction, checkpoint: Checkpoint) -> Transaction:
    """Return the rows of the log that a checkpoint is of; this one when the store has none of that name."""
    from cagg.ledger.notes import parse_note

    origin = parse_note(checkpoint.note, ())[0].origin
    others = {log.origin for log in tx.logs()} - {tx.origin()}
    return tx.in_log(origin) if origin in others else tx


def _checkpoint(tx: Transaction, text: str) -> Checkpoint:
    """Return the checkpoint in a file, or the stored one of a size."""
    if Path(text).exists() or not (text.isascii() and text.isdecimal()):
        return outside_checkpoint(Path(text))
    stored = tx.checkpoints()
    found = next((item for item in stored if str(item.size) == text), None)
    if found is None:
        from cagg.cli._context import other_logs

        sizes = ", ".join(str(item.size) for item in stored[-5:]) or "none"
        raise InvalidInput(
            f"no signed checkpoint of the log {tx.origin()} covers exactly {text} entries; the newest sizes are: "
            f"{sizes}{other_logs(tx, tx.origin())}."
        )
    return found


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


# ---- what is said ---------------------------------------------------------------------------------------------------


def _handed_out(
    proof: InclusionProof | ConsistencyProof, output: Path | None, about: Mapping[str, Any], *, json: bool
) -> int:
    from cagg.cli._files import whole_file

    text = proof.text()
    if output is not None:
        with whole_file(output) as file:
            file.write(text.encode())

    def people(to: Console) -> None:
        if output is None:
            write_exactly(text)
        else:
            line(to, f"The proof is in {output}; `cagg ledger verify-proof {output} --key KEY` checks it anywhere.")

    document = {"proven": True, **about, "proof": text, "file": None if output is None else str(output)}
    return answer(document, people, json=json)


def _read(name: str, what: str) -> bytes:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_LARGEST_FILE + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigurationError(f"the {what} {name!r} cannot be read ({error.strerror}); name another file.") from None
    if len(data) > _LARGEST_FILE:
        raise InvalidInput(f"the {what} {name!r} has more than {_LARGEST_FILE} bytes: it is none.")
    return data


def _document(report: ProofReport) -> dict[str, Any]:
    def head(item: Any) -> dict[str, Any] | None:
        return None if item is None else {"origin": item.origin, "size": item.size, "root": item.root.hex()}

    return {
        "proven": report.proven,
        "sentence": report.sentence,
        "checkpoint": head(report.head),
        "older_checkpoint": head(report.older),
        "index": report.index,
        "entry": report.body,
        "signed_by": [str(key) for key in report.signers],
        "problems": list(report.problems),
    }


def _show(to: Console, report: ProofReport) -> None:
    sentence = f"{report.sentence[:1].upper()}{report.sentence[1:]}"
    line(to, sentence, style="green" if report.proven else "red")
    for problem in report.problems[1:]:
        line(to, f"  {problem}")
    if report.head is not None:
        signers = ", ".join(f"{key.name}+{key.key_id.hex()}" for key in report.signers) or "nobody who is trusted"
        line(to, f"Log {report.head.origin}, root {report.head.root.hex()}, signed by {signers}.", style="dim")
    if report.older is not None:
        line(to, f"Older checkpoint: {report.older.size} entries, root {report.older.root.hex()}.", style="dim")
    if report.body is not None and report.proven:
        _show_entry(to, report.body)


def _show_entry(to: Console, body: Mapping[str, Any]) -> None:
    from cagg.ledger.entry import blobs_of

    request = body.get("request")
    task = request.get("task_key") if isinstance(request, Mapping) else None
    said = {
        "entry": body.get("entry_id"),
        "kind": body.get("kind"),
        "recorded": body.get("recorded_at"),
        "task": task,
        "energy (mJ)": body.get("energy_millijoules"),
        "carbon (µg)": body.get("carbon_micrograms"),
    }
    for name, value in said.items():
        if value is not None:
            line(to, f"  {name:<12} {value}")
    attached = len(set(blobs_of(body)))
    if attached:
        line(to, f"  It names {attached} attachments by their SHA-256; they are not in the proof.")
    line(to, "The whole entry: --json. A proof is about one entry; `cagg ledger verify` checks the log.", style="dim")
