"""Names that Airflow shows, and how one task instance is named in the ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from cagg.errors import InvalidInput
from cagg.request import RequestIdentity

__all__ = [
    "CONNECTION",
    "DECISION_KEY",
    "HOST",
    "READING_KEY",
    "RESUME_METHOD",
    "SECTION",
    "TAG",
    "WAKE_MARGIN",
    "identity_from",
    "identity_payload",
    "root_run_id",
    "run_reference",
    "task_key",
]

HOST: Final = "airflow"
"""Runs that Airflow knows, in request identities and in the entry point group ``cagg.hosts``."""

CONNECTION: Final = "cagg"
"""The connection type, and the connection's id unless ``[cagg] connection_id`` says another."""

SECTION: Final = "cagg"
"""The section of Airflow's configuration."""

TAG: Final = "cagg"
"""The tag of a DAG whose tasks the cluster policy gates."""

DECISION_KEY: Final = "carbon_decision"
"""XCom of the latest decision about a task."""

READING_KEY: Final = "carbon_reading"
"""XCom of what a task used."""

WAKE_MARGIN: Final = timedelta(seconds=60)
"""How long a run may take from its planned instant to running code, kept back before a deadline: the trigger's event,
the scheduler's loop, a free slot and the parse of the DAG file took 2 to 5 s on an idle machine (Airflow 3.3.2); pods
take up to a minute."""

RESUME_METHOD: Final = "resume_after_gate"
"""The method with which a deferred task continues."""


def root_run_id(dag_id: str, run_id: str) -> str:
    """Return the run that a person sees; a DAG id holds no ``/``, so the first one parts it from the run id."""
    return f"{dag_id}/{run_id}"


def task_key(dag_id: str, task_id: str) -> str:
    """Return the name that a task's history is kept by."""
    return f"{dag_id}/{task_id}"


def run_reference(*, dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int) -> str:
    """Return the name of one try of one task instance, as ``cagg_airflow.host`` reads it back.

    Args:
        dag_id, run_id, task_id: the task instance.
        map_index: -1 for a task that is not mapped.
        try_number: Airflow's own count, which goes on after a clear.
    """
    return json.dumps(
        {"dag_id": dag_id, "map_index": map_index, "run_id": run_id, "task_id": task_id, "try_number": try_number},
        separators=(",", ":"),
        sort_keys=True,
    )


def identity_payload(identity: RequestIdentity) -> dict[str, Any]:
    """Return an identity in plain JSON types, for a trigger to keep."""
    return {
        "host": identity.host,
        "root_run_id": identity.root_run_id,
        "task_key": identity.task_key,
        "ordinal": identity.ordinal,
        "inputs_digest": identity.inputs_digest,
        "attempt": identity.attempt,
        "incarnation": identity.incarnation,
    }


def identity_from(payload: Mapping[str, Any]) -> RequestIdentity:
    """Return the identity that a payload names.

    Raises:
        InvalidInput: a name is missing or a number cannot be one.
    """
    try:
        return RequestIdentity(
            host=str(payload.get("host", "")),
            root_run_id=str(payload.get("root_run_id", "")),
            task_key=str(payload.get("task_key", "")),
            ordinal=int(payload.get("ordinal", 0)),
            inputs_digest=str(payload.get("inputs_digest", "")),
            attempt=int(payload.get("attempt", 1)),
            incarnation=int(payload.get("incarnation", 0)),
        )
    except InvalidInput:
        raise
    except (TypeError, ValueError, OverflowError) as problem:
        raise InvalidInput(f"{payload!r} names no request ({problem}); clear the task, so that it asks anew.") from None
