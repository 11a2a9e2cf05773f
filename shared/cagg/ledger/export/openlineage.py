"""Readings as OpenLineage run events, so that a lineage store keeps a copy of what the ledger signed: a free witness.

Form: OpenLineage 2-0-2 (``https://openlineage.io/spec/2-0-2/OpenLineage.json``), one event per line. Each run gives a
START at its start and one of COMPLETE, FAIL and ABORT at its end; a later reading of the same run (a correction, or
one that was lost and found) gives an OTHER with the newer figures. The run facet ``cagg_carbonLedger`` names the entry,
its leaf hash and the smallest checkpoint that covers it: once a run is signed, every export gives the same events.

A run's id is the UUID of version 5 (RFC 9562, May 2024, section 5.5) over its request key: the same in every export.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from uuid import UUID, uuid5

from cagg.entries import EntryKind
from cagg.ledger.export.reader import Exported, LogReader, StoreReader
from cagg.ledger.export.readings import Revisions, shown

__all__ = ["EVENT_SCHEMA", "FACET", "FACET_SCHEMA_FILE", "RUN_NAMESPACE", "chunks", "run_id"]

EVENT_SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
"""OpenLineage specification 2-0-2."""

VERSION_FACET_SCHEMA = (
    "https://openlineage.io/spec/facets/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"
)
"""OpenLineage facet DatasetVersion 1-0-1: the digest of an input or output is its version."""

FACET = "cagg_carbonLedger"
"""Name of our run facet: prefix and name, as the specification asks of facets of one's own."""

FACET_SCHEMA_FILE = "cagg/ledger/export/carbon_ledger_facet.json"
"""Where the package keeps the JSON schema of the facet."""

RUN_NAMESPACE = UUID("6f1d9d0e-3f0b-5c57-9a39-7c3a5b6a1e42")
"""Namespace of run ids: a constant of our own; it never changes."""

_ENDS = {"completed": "COMPLETE", "failed": "FAIL"}
"""How a run ended; whatever else ended it (interrupted, lost) is an ABORT."""


def run_id(request_key: str) -> str:
    """Return the UUID of the run of a request."""
    return str(uuid5(RUN_NAMESPACE, request_key))


def chunks(reader: LogReader | StoreReader) -> Iterator[bytes]:
    """Yield the events, one per line; raises LedgerDamaged as the reader does."""
    producer = _producer()
    corrected = Revisions(reader).corrected
    begun: set[str] = set()  # of the corrected runs only
    for item in reader:
        body = reader.resolved(item)
        key = str(body.get("request_key"))
        known = key in begun or (body.get("kind") == EntryKind.MEASUREMENT and body.get("ordinal") != 0)
        if key in corrected:
            begun.add(key)
        with shown(item):
            events = list(_events(item, body, producer, "OTHER" if known else _end_of(body)))
        for event in events:
            text = json.dumps(event, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
            yield f"{text}\n".encode()


def _end_of(body: Mapping[str, Any]) -> str:
    return _ENDS.get(str(body.get("outcome")), "ABORT")


def _events(item: Exported, body: Mapping[str, Any], producer: str, end: str) -> Iterator[dict[str, Any]]:
    request = body.get("request") or {}
    run = {"runId": run_id(str(body.get("request_key")))}
    common = {
        "job": {"namespace": f"cagg.{request.get('host') or 'unknown'}", "name": request.get("task_key") or "unknown"},
        "inputs": list(_datasets(body.get("inputs"), producer)),
        "outputs": list(_datasets(body.get("outputs"), producer)),
        "producer": producer,
        "schemaURL": EVENT_SCHEMA,
    }
    if end != "OTHER":
        yield {**common, "eventType": "START", "eventTime": body["start"], "run": run, "outputs": []}
    told = body["recorded_at"] if end == "OTHER" else body["end"]
    facets = {FACET: _facet(item, body, producer)}
    yield {**common, "eventType": end, "eventTime": told, "run": {**run, "facets": facets}}


def _facet(item: Exported, body: Mapping[str, Any], producer: str) -> dict[str, Any]:
    request = body.get("request") or {}
    part_of = body.get("part_of")
    return {
        "_producer": producer,
        "_schemaURL": f"{producer}#{FACET_SCHEMA_FILE}",
        "entry_id": item.entry.entry_id,
        "leaf_hash": item.entry.leaf_hash.hex(),
        "log": item.origin,
        "index": item.index,
        "checkpoint": None
        if item.signed is None
        else {"size": item.signed.size, "root": base64.b64encode(item.signed.root).decode()},
        "kind": body.get("kind"),
        "outcome": body.get("outcome"),
        "energy_millijoules": body.get("energy_millijoules"),
        "energy_low_millijoules": body.get("energy_low_millijoules"),
        "energy_high_millijoules": body.get("energy_high_millijoules"),
        "energy_reason": body.get("energy_reason") or "",
        "grade": body.get("grade"),
        "carbon_micrograms": body.get("carbon_micrograms"),
        "carbon_reason": body.get("carbon_reason") or "",
        "convention": body.get("convention"),
        "zone": body.get("zone") or request.get("zone"),
        "engine": {name: request.get(name) for name in ("host", "root_run_id", "task_key", "ordinal", "attempt")},
        "part_of_run": None if part_of is None else run_id(str(part_of)),
    }


def _datasets(artefacts: object, producer: str) -> Iterator[dict[str, Any]]:
    """Yield inputs or outputs as datasets; a digest is the version."""
    for artefact in artefacts if isinstance(artefacts, list) else ():
        if not isinstance(artefact, Mapping):
            continue
        dataset: dict[str, Any] = {"namespace": "cagg", "name": str(artefact.get("name") or "unknown")}
        if artefact.get("digest"):
            about = {"_producer": producer, "_schemaURL": VERSION_FACET_SCHEMA}
            dataset["facets"] = {"version": {**about, "datasetVersion": str(artefact["digest"])}}
        yield dataset


def _producer() -> str:
    """Return who wrote the events, as a package URL (purl specification, 2025) with the version."""
    try:
        return f"pkg:pypi/cagg@{version('cagg')}"
    except PackageNotFoundError:
        return "pkg:pypi/cagg"
