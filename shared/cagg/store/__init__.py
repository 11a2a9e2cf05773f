"""Where everything is kept: the only room that speaks SQL. Start at :func:`cagg.store.engine.open_store`."""
