"""Entries as in-toto statements, one per line: what was produced (subject), and what the ledger says of it (predicate).

Form: in-toto Attestation Framework, Statement layer v1 (``https://in-toto.io/Statement/v1``). The subjects are the
outputs that the entry names with a digest; an entry without any is its own subject, by the SHA-256 of its stored bytes.

The statements are NOT signed by themselves: there is no DSSE envelope. What vouches for one is the log: its leaf hash
lies under a signed checkpoint, which a proof (``cagg ledger prove``) shows. Each statement says so in its predicate.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from cagg.ledger.export.reader import Exported, LogReader, StoreReader

__all__ = ["PREDICATE_TYPE", "STATEMENT_TYPE", "chunks"]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
"""in-toto Attestation Framework, Statement layer, version 1."""

PREDICATE_TYPE = "pkg:pypi/cagg#carbon/v1"
"""Names the predicate by the package that defines it, as a package URL (purl specification, 2025): a name of our own
that needs no web address. The number is the entries' format."""

_HEX = re.compile(r"[0-9a-f]{32,128}")
_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
"""Length of the hex text of digests that are often named; others are taken as they are."""


def chunks(reader: LogReader | StoreReader) -> Iterator[bytes]:
    """Yield one statement per entry; raises LedgerDamaged as the reader does."""
    for item in reader:
        text = json.dumps(_statement(reader, item), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        yield f"{text}\n".encode()


def _statement(reader: LogReader | StoreReader, item: Exported) -> dict[str, Any]:
    whole = reader.resolved(item) if item.body.get("spilled") else item.body
    return {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(whole) or [_own(item)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "entry": item.body,  # as it was hashed: sorted and compact like the line, hence the same bytes
            "ledger": {
                "origin": item.origin,
                "index": item.index,
                "leaf_hash": item.entry.leaf_hash.hex(),
                "checkpoint": None
                if item.signed is None
                else {"size": item.signed.size, "root": base64.b64encode(item.signed.root).decode()},
            },
            "statement_signature": "none",
            "vouched_for_by": "nobody yet" if item.signed is None else "the ledger's signed checkpoint",
        },
    }


def _own(item: Exported) -> dict[str, Any]:
    name = f"ledger entry {item.entry.entry_id}"
    return {"name": name, "digest": {"sha256": sha256(item.entry.body).hexdigest()}}


def _subjects(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the outputs that have a digest, each name and digest once, in the order of the entry."""
    outputs = body.get("outputs")
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for item in outputs if isinstance(outputs, list) else ():
        if not isinstance(item, Mapping) or not isinstance(item.get("digest"), str):
            continue
        digest = digest_of(item["digest"])
        if digest is None:
            continue
        name = str(item.get("name", ""))
        found.setdefault((name, *digest), {"name": name or "_", "digest": dict([digest])})
    return list(found.values())


def digest_of(text: str) -> tuple[str, str] | None:
    """Return (algorithm, hex) of ``sha256:<hex>``, or of bare hex, which is SHA-256; None for what is no digest."""
    algorithm, separator, value = text.partition(":")
    if not separator:
        algorithm, value = "sha256", text
    algorithm, value = algorithm.strip().lower(), value.strip().lower()
    if algorithm.startswith("sha-"):
        algorithm = f"sha{algorithm[4:]}"
    if not algorithm or _HEX.fullmatch(value) is None or len(value) != _HEX_LENGTHS.get(algorithm, len(value)):
        return None
    return algorithm, value
