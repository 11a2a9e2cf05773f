"""Applies migrations to an open connection. Alembic is loaded here and nowhere else."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from cagg.errors import StoreUnavailable

__all__ = ["VERSION_TABLE", "upgrade"]

VERSION_TABLE = "cagg_schema_version"
"""Our own: a store may lie in a database beside another program's ``alembic_version``."""

_HOME = Path(__file__).parent
_VERSIONS = (_HOME / "versions",)


def upgrade(connection: Connection, *, to: str = "head") -> None:
    """Bring the schema to a version, within the connection's transaction.

    Args:
        connection: to the database.
        to: the version, for example ``0002``; ``head`` is the newest.

    Raises:
        StoreUnavailable: the stored version is none that this program has a migration from.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", _escaped(_HOME))
    config.set_main_option("version_locations", "\n".join(_escaped(place) for place in _VERSIONS))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, to)
    except CommandError as error:
        raise StoreUnavailable(f"the store cannot be migrated ({error}); upgrade cagg, or restore a backup.") from None


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")
