"""The connection type ``cagg``: store, zone and tokens in one Airflow Connection, with a test button."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from airflow.sdk import BaseHook

from cagg.errors import CaggError
from cagg_airflow.naming import CONNECTION

if TYPE_CHECKING:
    from cagg.gating import Gate
    from cagg.settings import Settings

__all__ = ["CaggHook"]


class CaggHook(BaseHook):
    """Opens what a Connection of the type ``cagg`` describes.

    Args:
        cagg_conn_id: id of the Connection.
    """

    conn_name_attr = "cagg_conn_id"
    default_conn_name = CONNECTION
    conn_type = CONNECTION
    hook_name = "cagg (carbon gate)"

    def __init__(self, cagg_conn_id: str = CONNECTION, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cagg_conn_id = cagg_conn_id
        self._gate: Gate | None = None

    def settings(self) -> Settings:
        """Return the settings with this Connection among them: above ``cagg.toml``, below ``CAGG_*``.

        Raises:
            ConfigurationError: the Connection or another place cannot be read.
        """
        from cagg.settings import load_settings

        return load_settings(host=self._stated(), host_name=f"Airflow Connection {self.cagg_conn_id!r}")

    def get_conn(self) -> Gate:
        """Return a gate on the Connection's store, opened once; :meth:`close` ends its connections.

        Raises:
            ConfigurationError: the Connection cannot be read.
        """
        from cagg.gating import Gate

        if self._gate is None:
            self._gate = Gate.open(settings=self.settings())
        return self._gate

    def close(self) -> None:
        """Close what :meth:`get_conn` opened."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.components.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def test_connection(self) -> tuple[bool, str]:
        """Say whether the store can be read, the zone is known and the tokens have the form of tokens."""
        from cagg.composition import compose

        try:
            parts = compose(self.settings())
        except (CaggError, ImportError) as problem:
            return False, str(problem)
        zone = parts.settings.zone
        try:
            known = "no zone is set" if zone is None else f"zone {parts.grid.zone(zone)}"
            with parts.store.transaction() as tx:
                version = tx.schema_version()
        except (CaggError, ImportError) as problem:
            return False, str(problem)
        finally:
            parts.store.close()
        return True, f"The store answers (schema {version}), {known}, mode {parts.settings.mode}."

    def _stated(self) -> Mapping[str, Any]:
        from cagg_airflow.opening import read_connection, section_settings

        connection = self.get_connection(self.cagg_conn_id)
        return {**section_settings(), **read_connection(connection, self.cagg_conn_id)}
