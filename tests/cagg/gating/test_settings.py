"""Settings: layers, origins, and what is said about mistakes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cagg.errors import ConfigurationError
from cagg.quantities import Energy
from cagg.settings import Mode, Settings, load_settings


def load(
    tmp_path: Path, text: str = "", environ: dict[str, str] | None = None, **layers: dict[str, object]
) -> Settings:
    if text:
        (tmp_path / "cagg.toml").write_text(text, encoding="utf-8")
    return load_settings(start=tmp_path, environ={"CAGG_HOME": str(tmp_path / "home"), **(environ or {})}, **layers)  # type: ignore[arg-type]


def test_nothing_configured_is_a_complete_answer(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.zone is None
    assert settings.mode is Mode.ENFORCE
    assert settings.materiality == Energy.parse("5 Wh")
    assert settings.store_url == f"sqlite:///{tmp_path}/home/cagg.db"


def test_the_stronger_layer_wins_and_the_origin_says_which(tmp_path: Path) -> None:
    text = 'zone = "neso:GB"\ntimezone = "Europe/London"\n[grid]\ntimeout = "3s"\n[policy]\nmax_deferrals = 2\n'
    settings = load(
        tmp_path,
        text,
        {"CAGG_GRID_TIMEOUT": "2s"},
        host={"zone": "climatology:DE", "policy.max_deferrals": 3},
        arguments={"policy.max_deferrals": 4},
    )
    assert settings.zone == "climatology:DE"
    assert settings.grid_timeout == timedelta(seconds=2)
    assert settings.max_deferrals == 4
    assert settings.origins["timezone"] == str(tmp_path / "cagg.toml")
    assert settings.origins["zone"] == "host"
    assert settings.origins["grid_timeout"] == "environment (CAGG_GRID_TIMEOUT)"
    assert settings.origins["max_deferrals"] == "argument"
    assert settings.origins["mode"] == "default"


def test_defaults_of_the_options_are_layered_too(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        '[defaults]\nduration = "20m"\nbudget = "acme/ml"\nmin_difference = "10%"\n',
        {"CAGG_DEFAULTS_BUDGET": "acme/x", "CAGG_DEFAULTS_INTERRUPTIBLE": "true"},
    )
    assert settings.defaults.duration == timedelta(minutes=20)
    assert settings.defaults.budget == "acme/x"
    assert settings.defaults.interruptible is True
    assert settings.defaults.min_difference == pytest.approx(0.1)


def test_relative_paths_belong_to_the_file_that_names_them(tmp_path: Path) -> None:
    settings = load(tmp_path, 'store = "sqlite:///data/cagg.db"\n[grid.trace]\nfile = "gb.csv"\n')
    assert settings.store == f"sqlite:///{tmp_path}/data/cagg.db"
    assert settings.trace_file == tmp_path / "gb.csv"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('zoen = "GB"\n', ["zoen", "did you mean 'zone'"]),
        ("zone = 3\n", ["zone", "text"]),
        ('timezone = "Europe/Lundon"\n', ["Europe/Lundon", "IANA"]),
        ('mode = "sometimes"\n', ["mode", "enforce, observe, off"]),
        ('[policy]\nmateriality = "5"\n', ["policy.materiality", "unit"]),
        ("[policy]\nmax_deferrals = -1\n", ["policy.max_deferrals", "from 0 on"]),
        ("[meter]\npue = 0.8\n", ["meter.pue", "from 1.0 on"]),
        ('[grid.trace]\nanchor = "2026-01-01T00:00:00"\n', ["offset"]),
        ('[defaults]\nduraton = "3m"\n', ["duraton"]),
        ('[defaults]\nenergy = "-3 kWh"\n', ["negative"]),
        ("zone = \n", ["not valid TOML", "line 1"]),
    ],
)
def test_a_mistake_is_one_sentence_that_names_file_and_key(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert str(tmp_path / "cagg.toml") in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cagg.toml").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path, environ={"CAGG_CONFIG": str(tmp_path / "cagg.toml")})
