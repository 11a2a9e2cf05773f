"""Alembic's entry: runs the migrations on the connection that :mod:`cagg.store.migrations.run` hands over."""

from __future__ import annotations


def _run() -> None:
    from alembic import context

    from cagg.store.migrations.run import VERSION_TABLE
    from cagg.store.tables import metadata

    context.configure(
        connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
    )
    with context.begin_transaction():
        context.run_migrations()


_run()
