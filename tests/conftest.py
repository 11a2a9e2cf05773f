"""What holds for every test: nothing of the user's own is read or written, and examples are the same every time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# `make test` must give the same answer twice, also on a slow machine; `make prove` searches.
settings.register_profile("test", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("prove", max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("test")

_home = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Point cagg and the engines at an empty folder before any test module imports them."""
    for name in list(os.environ):
        if name.startswith(("CAGG_", "PREFECT_", "AIRFLOW_")):
            del os.environ[name]
    home = tempfile.TemporaryDirectory(prefix="cagg-tests-", ignore_cleanup_errors=True)
    config.stash[_home] = home
    os.environ["CAGG_HOME"] = str(Path(home.name) / "cagg")
    os.environ["PREFECT_HOME"] = str(Path(home.name) / "prefect")
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    os.environ["AIRFLOW_HOME"] = str(Path(home.name) / "airflow")
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    os.environ["DO_NOT_TRACK"] = "1"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder."""
    if (home := config.stash.get(_home, None)) is not None:
        home.cleanup()
