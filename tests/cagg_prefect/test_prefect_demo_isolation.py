"""The demo must not touch the user's Prefect."""

from __future__ import annotations

from pathlib import Path

from cagg_prefect.demo import isolate


def test_nothing_of_the_users_prefect_gets_in(tmp_path: Path) -> None:
    environ = {"PATH": "/bin", "PREFECT_API_URL": "https://work", "PREFECT_API_KEY": "secret", "PREFECT_HOME": "/mine"}
    isolate(tmp_path, environ)
    assert environ["PATH"] == "/bin"
    assert "PREFECT_API_URL" not in environ
    assert "PREFECT_API_KEY" not in environ
    assert Path(environ["PREFECT_HOME"]).is_relative_to(tmp_path)
