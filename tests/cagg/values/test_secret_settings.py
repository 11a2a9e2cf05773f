"""Secret settings: used, and shown nowhere."""

from __future__ import annotations

import copy
import pickle
import traceback
from dataclasses import fields, replace
from pathlib import Path

import pytest

from cagg.cli._checks import settings_rows
from cagg.errors import ConfigurationError, InvalidInput
from cagg.secret import Secret
from cagg.settings import Settings, load_settings

TOKEN = "t0p-s3cret-token"
KEY = "grid.electricity_maps.token"


def loaded(tmp_path: Path, **places: object) -> Settings:
    return load_settings(**{"environ": {}, "start": tmp_path, **places})


@pytest.mark.parametrize("where", ["file", "host", "environment", "argument"])
def test_a_token_is_read_from_every_place_and_shown_from_none(tmp_path, where) -> None:
    places: dict[str, object] = {}
    if where == "file":
        (tmp_path / "cagg.toml").write_text(f'[grid.electricity_maps]\ntoken = " {TOKEN} "\n', encoding="utf-8")
    elif where == "environment":
        places["environ"] = {"CAGG_GRID_ELECTRICITY_MAPS_TOKEN": TOKEN}
    else:
        places["host" if where == "host" else "arguments"] = {KEY: TOKEN}
    settings = loaded(tmp_path, **places)
    assert settings.electricity_maps_token == Secret(value=TOKEN)
    row = next(row for row in settings_rows(settings) if row["key"] == KEY)
    assert row["value"] == "***"
    assert where in row["origin"] or str(tmp_path) in row["origin"]
    shown = [repr(settings), str(settings), repr(settings.origins), str(settings_rows(settings))]
    assert not [text for text in shown if TOKEN in text]


@pytest.mark.parametrize("value", [f"{TOKEN} x", f"{TOKEN}\nx", f"{TOKEN}é", "", "   ", 7, None, [TOKEN], {TOKEN: 1}])
def test_a_token_that_cannot_be_one_is_refused_without_repeating_it(tmp_path, value) -> None:
    with pytest.raises(ConfigurationError, match=r"host: grid\.electricity_maps\.token: ") as caught:
        loaded(tmp_path, host={KEY: value})
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert str(caught.value).endswith(".")


def test_a_wrong_key_with_a_token_does_not_repeat_the_token(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'grid\.electricity_maps\.token'") as caught:
        loaded(tmp_path, host={"grid.electricity_map.token": TOKEN})
    assert TOKEN not in str(caught.value)


def test_no_token_is_no_token(tmp_path) -> None:
    assert loaded(tmp_path, environ={"CAGG_GRID_ELECTRICITY_MAPS_TOKEN": ""}).electricity_maps_token is None


def test_the_basis_is_one_of_two(tmp_path) -> None:
    assert loaded(tmp_path).electricity_maps_basis == "life_cycle"
    with pytest.raises(ConfigurationError, match="life_cycle, direct"):
        loaded(tmp_path, host={"grid.electricity_maps.basis": "lifecycle"})


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret(value=TOKEN)
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>30}", "%s" % secret, repr([secret])):  # noqa: UP031
        assert TOKEN not in text
    assert secret.hidden_in(f"bad token {TOKEN}!") == "bad token ***!"
    assert pickle.loads(pickle.dumps(secret)) == copy.copy(secret) == replace(secret)
    assert hash(secret) == hash(Secret(value=TOKEN))
    with pytest.raises(InvalidInput):
        Secret(value="")


def test_every_setting_of_kind_token_is_a_secret() -> None:
    for item in fields(Settings):
        key = item.metadata.get("key", "")
        if key.rpartition(".")[2] in {"token", "password", "secret"}:
            assert "Secret" in str(item.type), key
