"""What ``cagg maintain``, ``doctor`` and ``assess`` ask Prefect: is a run alive, which server is this, what ran?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import httpx
import prefect
from prefect.exceptions import ObjectNotFound, PrefectException

from cagg.errors import ConfigurationError, HostUnavailable
from cagg.pastruns import HistoryOptions
from cagg.ports import HostHistory, RunState
from cagg_prefect.compat import State, api_address, as_uuid, at_address, sync_client
from cagg_prefect.naming import HOST

__all__ = ["PrefectRuns"]


class PrefectRuns:
    """Implements :class:`cagg.ports.HostRuns` for flow runs, and for task runs of task workers."""

    name = HOST

    def run_state(self, root_run_id: str, reference: str = "") -> RunState:  # noqa: ARG002 - its root run says enough
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
        return {
            "version": prefect.__version__,
            "address": "none (a temporary local server)" if address is None else _shown(address),
        }

    @classmethod
    @contextmanager
    def history(cls, options: HistoryOptions) -> Iterator[HostHistory]:
        """Open the run history; see :class:`cagg.ports.RemembersRuns`. Prefect's own settings say who asks.

        Raises:
            ConfigurationError: no API address is set, or it cannot be used.
            HostUnavailable: nobody answers.
        """
        from cagg_prefect.history import PrefectHistory  # a run in a worker never reads the history

        with ExitStack() as stack:
            if options.url is not None:
                stack.enter_context(at_address(_checked(options.url), options.timeout_seconds))
            address = api_address()
            if address is None:
                raise ConfigurationError(
                    "no address of Prefect is known; give --url, for example --url http://127.0.0.1:4200/api, or run: "
                    "prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api"
                )
            try:
                client = stack.enter_context(sync_client())
            except (httpx.HTTPError, PrefectException, OSError, RuntimeError, ValueError) as error:
                raise HostUnavailable(
                    f"Prefect at {_shown(address)} cannot be asked ({type(error).__name__}); check the address."
                ) from error
            yield PrefectHistory(client, _shown(address))


def _judge(state: State[object] | None) -> RunState:
    """A cancelled run whose process is gone can stay in Cancelling for ever (Prefect 3.9.1): it counts as ended."""
    if state is not None and (state.is_final() or state.is_cancelling()):
        return RunState.ENDED
    return RunState.ALIVE


def _shown(address: str) -> str:
    """An address without what may be secret in it."""
    return str(httpx.URL(address).copy_with(username=None, password=None, query=None, fragment=None))


def _checked(address: str) -> str:
    """Return the API's address; ``/api`` is added where a person gave the page's. The message repeats no password."""
    try:
        url = httpx.URL(address.strip())
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL("")
    if url.userinfo:
        raise ConfigurationError(
            "the address of Prefect holds a user or password; take them out and set PREFECT_API_KEY or "
            "PREFECT_API_AUTH_STRING in the environment."
        )
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(
            f"the address of Prefect must be like http://127.0.0.1:4200/api, got {address[:100]!r}."
        )
    path = url.path.rstrip("/")
    return str(url.copy_with(path=path if "/api" in path else f"{path}/api"))
