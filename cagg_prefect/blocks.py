"""The Block that holds what cagg needs and a Variable should not show: tokens, and a store URL with a password.

Make its type known once with ``prefect block register -m cagg_prefect.blocks``, then fill in a block named ``cagg``
on the server's page, or save one from Python::

    CaggCredentials(electricity_maps_token="...", zone="electricity_maps:DE").save("cagg", overwrite=True)
"""

from __future__ import annotations

from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from cagg_prefect.opening import BLOCK_TYPE

__all__ = ["CaggCredentials"]


class CaggCredentials(Block):
    """Settings of cagg for every worker of this Prefect server; the block named ``cagg`` is read.

    Weaker than the Variable ``cagg`` where both say something, and than ``CAGG_*`` on the worker; stronger than
    ``cagg.toml``. Secrets are encrypted by Prefect and shown by neither engine nor ``cagg doctor``.

    Attributes:
        store: URL of the shared store, for example ``postgresql://user:password@host/cagg``; None = not said here.
        electricity_maps_token: token of the Electricity Maps API; None = not said here.
        zone: grid zone where the workers stand; None = not said here.
    """

    _block_type_name: ClassVar[str | None] = "cagg Credentials"
    _block_type_slug: ClassVar[str | None] = BLOCK_TYPE
    _description: ClassVar[str | None] = "Store URL, grid tokens and zone for the carbon-aware gates of cagg."

    store: SecretStr | None = Field(
        default=None, title="Store URL", description="URL of the shared store; empty = each worker's own file."
    )
    electricity_maps_token: SecretStr | None = Field(
        default=None, title="Electricity Maps token", description="Token of the Electricity Maps API."
    )
    zone: str | None = Field(
        default=None, title="Zone", description="Grid zone of the workers, for example electricity_maps:DE."
    )
