"""``cagg demo``: what it may touch, and what its story says; the play itself is run with an engine, end to end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from cagg.cli import demo_story
from cagg.cli.demo import environment_of, prepare_folder
from cagg.errors import ConfigurationError

NOW = datetime(2026, 5, 4, 12, 0, 0, 123_456, tzinfo=UTC)


def test_it_empties_its_own_folder_only(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / ".demo")
    (folder / "old").mkdir()
    (folder / "old" / "file").write_text("x", encoding="utf-8")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x", encoding="utf-8")
    (folder / "link").symlink_to(outside)
    again = prepare_folder(tmp_path / ".demo")
    assert [item.name for item in again.iterdir()] == [".cagg-demo"]
    assert (outside / "kept").exists()


def test_somebody_elses_folder_is_left_alone(cli: Any, said: Any, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("x", encoding="utf-8")
    (tmp_path / "link").symlink_to(theirs)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for place in (theirs, tmp_path / "link", tmp_path / "file"):
        with pytest.raises(ConfigurationError):
            prepare_folder(place)
    assert (theirs / "thesis.txt").exists()


def test_nothing_of_the_users_settings_gets_in(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, {"PATH": "/bin", "CAGG_STORE": "x"})
    assert environment["PATH"] == "/bin"
    assert "CAGG_STORE" not in environment
    for name in ("CAGG_HOME", "CAGG_CONFIG", "TMPDIR"):
        assert Path(environment[name]).is_relative_to(tmp_path)


def test_the_story_begins_at_ten_and_ends_at_six(tmp_path: Path) -> None:
    story = demo_story.begin(tmp_path, NOW)
    assert story.told(NOW) == "22:00"
    assert story.told(story.deadline) == "06:00"
    assert story.deadline - NOW == timedelta(hours=8) / demo_story.SCALE
    assert demo_story.read_story(tmp_path) == story


def test_the_gate_would_wait_as_the_story_says(cli: Any, clock: Any, tmp_path: Path, monkeypatch: Any) -> None:
    story = demo_story.begin(tmp_path, clock.now())
    monkeypatch.setenv("CAGG_CONFIG", str(tmp_path / "cagg.toml"))
    result = cli(
        "plan",
        *("--energy", demo_story.ENERGY, "--duration", f"{story.duration.total_seconds()}s"),
        *("--finish-by", story.deadline.isoformat(), "--json"),
    )
    assert result.status == 0, result.err
    plan = result.json
    assert plan["verdict"]["verdict"] == "defer"
    start = datetime.fromisoformat(plan["chosen"]["start"])
    assert story.told(start) == "00:00"
    assert timedelta(seconds=8) < start - clock.now() < timedelta(seconds=20)
    assert plan["now"]["intensity_milligrams_per_kwh"] == 180_500
    assert plan["chosen"]["intensity_milligrams_per_kwh"] == 156_500
    immaterial = cli(
        "plan", "--energy", "1 Wh", "--finish-by", story.deadline.isoformat(), "--duration", "6s", "--json"
    )
    assert immaterial.json["verdict"]["reason"] == "immaterial"


def test_without_an_engine_it_names_the_remedy(cli: Any, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cagg.cli.demo.entry_points", lambda group: ())
    for arguments in ([], ["--engine", "airflow"]):
        result = cli("demo", *arguments)
        assert result.status == 2
        assert "pip install" in result.err
        said(result)
    assert not Path(".demo").exists()


def test_an_engine_that_fails_is_told(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(name="json", value="json:nothing", group="cagg.hosts")  # a package without a demo module
    monkeypatch.setattr("cagg.cli.demo.entry_points", lambda group: (point,))
    result = cli("demo")
    assert result.status == 2
    assert "failed with status" in result.out
    assert (Path(".demo") / ".cagg-demo").exists()
