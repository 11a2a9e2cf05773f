"""What ``cagg maintain``, ``doctor`` and ``assess`` ask Airflow: is a task instance alive, which one is this, what ran?

Works without Airflow installed, through its REST API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from cagg.errors import CaggError, ConfigurationError, HostUnavailable, MissingExtra
from cagg.pastruns import HistoryOptions
from cagg.ports import HostHistory, RunState
from cagg_airflow.api import AirflowApi, path_of
from cagg_airflow.api_settings import ApiSettings, locally
from cagg_airflow.history import AirflowHistory
from cagg_airflow.inside import inside_a_task, task_state_inside
from cagg_airflow.naming import SECTION

__all__ = ["AirflowRuns"]

_TIMEOUT_SECONDS = 10.0
_MOST_FAILURES = 3
"""After so many questions without an answer the others are not asked: each would wait for the same timeout."""

_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed", "up_for_retry"})
"""``up_for_retry`` ends the try that asked: the next one is another attempt and asks anew."""

_ALIVE = frozenset(
    {"none", "scheduled", "queued", "running", "restarting", "deferred", "up_for_reschedule", "awaiting_input"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """The run that is asked about; an empty task means the whole DAG run."""

    dag_id: str
    run_id: str
    task_id: str = ""
    map_index: int = -1
    try_number: int = 0


class AirflowRuns:
    """Implements :class:`cagg.ports.HostRuns` for DAG runs and task instances.

    Inside a running task (a maintenance DAG) the Task SDK answers, which needs no credentials and knows no try
    numbers; the REST API is preferred wherever ``CAGG_AIRFLOW_TOKEN``, or user and password, say who asks.

    Args:
        settings: how the REST API is reached; None = looked up.

    Raises:
        MissingExtra: Airflow is not installed here and nobody says where its API is.
    """

    name = "airflow"

    def __init__(self, settings: ApiSettings | None = None) -> None:
        self._problem = ""
        try:
            self._settings = settings or ApiSettings.find()
        except ConfigurationError as error:
            self._settings, self._problem = None, str(error)
        if self._settings is None and not self._problem and find_spec("airflow") is None:
            raise MissingExtra(
                "Airflow is not installed here and no address of its API is set; set CAGG_AIRFLOW_URL, or run: "
                "pip install 'cagg[airflow]'"
            )
        self._api: AirflowApi | None = None
        self._failures = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run_state(self, root_run_id: str, reference: str = "") -> RunState:
        """State of one task instance or DAG run; never raises, UNKNOWN when Airflow cannot be asked.

        Args:
            root_run_id: DAG id and run id with ``/`` between them.
            reference: JSON with ``dag_id``, ``run_id``, ``task_id``, ``map_index`` and ``try_number``; empty = the run.
        """
        place = _place(root_run_id, reference)
        if place is None:
            return RunState.UNKNOWN
        settings = self._settings
        if settings is not None and (settings.token or settings.username or not inside_a_task()):
            state = self._by_api(settings, place)
            if state is not RunState.UNKNOWN:
                return state
        found = task_state_inside(place.dag_id, place.run_id, place.task_id, place.map_index)
        if found is None:
            return RunState.UNKNOWN
        exists, state_name = found
        if not exists:
            return RunState.GONE
        return _judge(state_name, None, place)

    def describe(self) -> Mapping[str, str]:
        """Version, address and whether gates work here, for ``cagg doctor``; no secrets."""
        on = locally(SECTION, "enabled").lower() in {"true", "t", "1"}
        gates = "on" if on else "OFF until [cagg] enabled is set in Airflow's configuration"
        try:
            installed = version("apache-airflow")
        except PackageNotFoundError:
            installed = "not installed here"
        if self._settings is not None:
            return {
                "version": installed,
                "gates": gates,
                "address": f"{self._settings.url} ({self._settings.origin})",
            }
        address = self._problem or "not set (CAGG_AIRFLOW_URL, or [api] base_url)"
        return {"version": installed, "gates": gates, "address": address}

    @classmethod
    @contextmanager
    def history(cls, options: HistoryOptions) -> Iterator[HostHistory]:
        """Open the run history; see :class:`cagg.ports.RemembersRuns`.

        Raises:
            ConfigurationError: nobody says where Airflow is, or the address cannot be used.
            HostUnavailable: it does not answer, or is no Airflow 3.
        """
        settings = ApiSettings.find(options.url)
        if settings is None:
            raise ConfigurationError(
                "no address of Airflow is known; give --url, for example --url http://localhost:8080, or set "
                "CAGG_AIRFLOW_URL."
            )
        with AirflowApi(settings, timeout_seconds=options.timeout_seconds) as api:
            api.version()
            yield AirflowHistory(api)

    def close(self) -> None:
        """Close connections to the REST API; the next question opens them anew."""
        api, self._api = self._api, None
        if api is not None:
            api.close()

    # ---- the REST API ---------------------------------------------------------------------------------------------

    def _by_api(self, settings: ApiSettings, place: _Place) -> RunState:
        if self._failures >= _MOST_FAILURES:
            return RunState.UNKNOWN
        try:
            if self._api is None:
                self._api = AirflowApi(settings, timeout_seconds=_TIMEOUT_SECONDS, attempts=2)
            state = _look(self._api, place)
        except CaggError as error:
            self._failures += isinstance(error, HostUnavailable)
            return RunState.UNKNOWN
        self._failures = 0
        return state


def _look(api: AirflowApi, place: _Place) -> RunState:
    run = ("dags", place.dag_id, "dagRuns", place.run_id)
    if not place.task_id:
        found = api.find(path_of(*run))
        return RunState.GONE if found is None else _judge(_text(found, "state"), None, place)
    instance = (*run, "taskInstances", place.task_id)
    path = path_of(*instance) if place.map_index < 0 else path_of(*instance, str(place.map_index))
    found = api.find(path)
    if found is None:
        return RunState.GONE
    if not isinstance(found, dict) or "state" not in found:
        return RunState.UNKNOWN
    current = found.get("try_number")
    return _judge(_text(found, "state"), current if isinstance(current, int) else None, place)


def _judge(state: str | None, try_number: int | None, place: _Place) -> RunState:
    """Judge a state; a newer try than the one that asked means that somebody cleared it: the new one asks anew.

    Airflow counts a try when it schedules it (3.3.2, ``DagRun.schedule_tis``), so a task that was cleared while it
    waited has the old number until then, and is alive so long.
    """
    if try_number is not None and place.try_number and try_number > place.try_number:
        return RunState.ENDED
    name = "none" if state is None else state.lower()
    if name in _ENDED:
        return RunState.ENDED
    return RunState.ALIVE if name in _ALIVE else RunState.UNKNOWN


def _text(document: Any, key: str) -> str | None:
    value = document.get(key) if isinstance(document, dict) else "?"
    return value if value is None or isinstance(value, str) else "?"


def _place(root_run_id: str, reference: str) -> _Place | None:
    """Read what an adapter wrote; None for anything else, and for names that an address cannot carry."""
    try:
        if reference:
            stated = json.loads(reference)
            place = _Place(
                dag_id=stated["dag_id"],
                run_id=stated["run_id"],
                task_id=stated["task_id"],
                map_index=int(stated.get("map_index", -1)),
                try_number=int(stated.get("try_number", 0)),
            )
        else:
            dag_id, _, run_id = root_run_id.partition("/")
            place = _Place(dag_id=dag_id, run_id=run_id)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    names = [place.dag_id, place.run_id, *([place.task_id] if reference else [])]
    # "~" is every run; a slash splits the address, and its 404 would be taken for a run that is gone
    if not all(isinstance(name, str) and name not in {"", "~", ".", ".."} and "/" not in name for name in names):
        return None
    return place
