"""What ``cagg maintain`` and ``cagg doctor`` ask Prefect: is a run still alive, and which server is this?"""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import prefect
from prefect.exceptions import ObjectNotFound, PrefectException

from cagg.ports import RunState
from cagg_prefect.compat import State, api_address, as_uuid, sync_client
from cagg_prefect.naming import HOST

__all__ = ["PrefectRuns"]


class PrefectRuns:
    """Implements :class:`cagg.ports.HostRuns` for flow runs, and for task runs of task workers."""

    name = HOST

    def run_state(self, root_run_id: str, reference: str = "") -> RunState:
        """State of one run; never raises, UNKNOWN when Prefect cannot be asked. Its root run says enough.

        Without an API address nothing is asked: a temporary server would have to be started, and it knows only the
        runs of its own machine.
        """
        run_id = as_uuid(root_run_id)
        if run_id is None or api_address() is None:
            return RunState.UNKNOWN
        try:
            with sync_client() as client:
                try:
                    return _judge(client.read_flow_run(run_id).state)
                except ObjectNotFound:
                    pass
                try:
                    return _judge(client.read_task_run(run_id).state)
                except ObjectNotFound:
                    return RunState.GONE
        except (httpx.HTTPError, PrefectException, OSError, RuntimeError, ValueError):
            return RunState.UNKNOWN

    def describe(self) -> Mapping[str, str]:
        """Version and address for ``cagg doctor``; no secrets."""
        address = api_address()
        shown = "none (a temporary local server)"
        if address is not None:
            url = httpx.URL(address)
            shown = str(url.copy_with(username=None, password=None, query=None, fragment=None))
        return {"version": prefect.__version__, "address": shown}


def _judge(state: State[object] | None) -> RunState:
    """A cancelled run whose process is gone can stay in Cancelling for ever (Prefect 3.9.1): it counts as ended."""
    if state is not None and (state.is_final() or state.is_cancelling()):
        return RunState.ENDED
    return RunState.ALIVE
