"""How the engine itself names the run that asks: structured, so that auditors can look it up there."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EngineRun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRun:
    """What the engine calls the run that asks; for the record. No secrets, no personal names, no host names.

    Attributes:
        engine: its name, ``prefect`` or ``airflow``.
        engine_version: its version; None = unknown.
        deployment: which deployment of the code started it: Prefect's deployment id, Airflow's DAG bundle with its
            version; None = none.
        workflow: the flow's name or the DAG's id; None = none.
        run_id: the flow run's id or the DAG run's id.
        task_id: the task's name; None = the gate is around the whole run, or in it and outside of its tasks.
        map_index: which instance of a mapped task, from 0; None = not mapped.
        try_number: the engine's own count of the tries of that task, or of the run, from 1; None = it does not say.
    """

    engine: str
    engine_version: str | None = None
    deployment: str | None = None
    workflow: str | None = None
    run_id: str
    task_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None
