"""The REST client: who asks, what is refused in which words, pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cagg.errors import ConfigurationError, HostUnavailable
from cagg.testing import ManualClock
from cagg_airflow.api import AirflowApi, path_of
from cagg_airflow.api_settings import ApiSettings

NIGHT = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
PASSWORD = "s3cret-pass"
RUN = "scheduled__2026-11-23T20:01:32.187166+00:00"
Airflow = Any  # the pretended server of conftest.py

# ---- who asks, and where ------------------------------------------------------------------------------------------


def test_a_token_is_sent_and_the_address_may_end_with_the_api(url: str, airflow: Airflow) -> None:
    with AirflowApi(ApiSettings(url=f"{url}/api/v2/", token="good-token")) as client:
        assert client.get("/dags", {"limit": 1, "offset": 0}) == {"dags": [], "total_entries": 0}
    assert airflow.asked[-1][1].startswith("/api/v2/dags?")


def test_user_and_password_get_a_token_once(url: str, airflow: Airflow) -> None:
    with AirflowApi(ApiSettings(url=url, username="admin", password=PASSWORD)) as client:
        for _ in range(3):
            client.get("/dags", {"limit": 1, "offset": 0})
    assert [address for method, address in airflow.asked if method == "POST"] == ["/auth/token"]


def test_an_expired_token_is_replaced(url: str, airflow: Airflow) -> None:
    with AirflowApi(ApiSettings(url=url, username="admin", password=PASSWORD)) as client:
        client.get("/dags", {"limit": 1, "offset": 0})
        airflow.token = "another"
        assert client.get("/dags", {"limit": 1, "offset": 0})["total_entries"] == 0


def test_an_airflow_without_users_needs_no_credentials(url: str, airflow: Airflow) -> None:
    airflow.anonymous = True
    with AirflowApi(ApiSettings(url=url)) as client:
        assert client.get("/dags", {"limit": 1, "offset": 0})["total_entries"] == 0


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ({}, "wants credentials; set CAGG_AIRFLOW_TOKEN"),
        ({"token": "bad"}, "refused the credentials; set CAGG_AIRFLOW_TOKEN"),
        ({"token": "old"}, "refused the credentials; set CAGG_AIRFLOW_TOKEN"),
        ({"username": "admin", "password": "wrong-pass"}, "gave no token for the user and password"),
    ],
)
def test_refused_credentials_are_one_sentence_without_them(url: str, who: dict[str, str], words: str) -> None:
    settings = ApiSettings(url=url, **who)
    with AirflowApi(settings) as client, pytest.raises(HostUnavailable, match=words) as refused:
        client.get("/dags", {"limit": 1, "offset": 0})
    said = f"{refused.value}{settings!r}"
    assert not any(secret in said for secret in ("wrong-pass", "'bad'", "'old'"))
    assert url in str(refused.value)


def test_rights_that_are_missing_are_named(url: str, airflow: Airflow, api: AirflowApi) -> None:
    airflow.detail["/api/v2/dags"] = (403, {"detail": "Forbidden"})
    with pytest.raises(HostUnavailable, match="does not let this user read /dags; give it the role Viewer"):
        api.get("/dags")


@pytest.mark.parametrize(
    ("status", "document", "words"),
    [
        (404, {"detail": "Not Found"}, "has no API version 2"),
        (200, "<!doctype html><p>Sign in</p>", "something else than data"),
        (302, {}, "redirects to another address"),
        (422, {"detail": []}, "refused the question with HTTP 422"),
    ],
)
def test_other_answers_are_one_sentence(
    api: AirflowApi, airflow: Airflow, status: int, document: Any, words: str
) -> None:
    airflow.detail["/api/v2/version"] = (status, document)
    with pytest.raises(HostUnavailable, match=words):
        api.version()


def test_what_may_pass_is_tried_again_and_then_told(url: str, airflow: Airflow) -> None:
    clock = ManualClock(NIGHT)
    with AirflowApi(ApiSettings(url=url, token="good-token"), clock=clock) as client:
        airflow.failures = [503, 429]
        assert client.version() == "3.3.2"
        airflow.failures = [503, 503, 503]
        with pytest.raises(HostUnavailable, match="answered with HTTP 503; check the address"):
            client.version()
    assert clock.now() > NIGHT  # it waited between them


def test_nobody_there_is_told() -> None:
    with (
        AirflowApi(ApiSettings(url="http://127.0.0.1:9"), clock=ManualClock(NIGHT)) as client,
        pytest.raises(HostUnavailable, match="cannot be reached"),
    ):
        client.version()


@pytest.mark.parametrize(
    "address", ["", "ftp://x", "localhost:8080", "http://", "http://h/?q=1", "http://h:port", "http://[::1"]
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="address of Airflow"):
        ApiSettings(url=address)


def test_an_address_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigurationError) as refused:
        ApiSettings(url=f"http://admin:{PASSWORD}@host:8080")
    assert PASSWORD not in str(refused.value)


def test_half_of_the_credentials_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="belong together"):
        ApiSettings(url="http://h", username="admin")


def test_the_address_comes_from_the_strongest_place(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cagg_airflow.api_settings.find_spec", lambda name: object())
    (tmp_path / "airflow.cfg").write_text("[api]\nbase_url = http://file:1\n[x]\ny = %(z)s\n", encoding="utf-8")
    environ = {"AIRFLOW_HOME": str(tmp_path)}
    found = []
    for more in ({}, {"AIRFLOW__API__BASE_URL": "http://env:2"}, {"CAGG_AIRFLOW_URL": "http://cagg:3"}):
        environ |= more
        settings = ApiSettings.find(environ=environ)
        assert settings is not None
        found.append((settings.url, settings.origin))
    settings = ApiSettings.find("http://said:4", environ)
    assert settings is not None
    assert [url for url, _ in found] == ["http://file:1", "http://env:2", "http://cagg:3"]
    assert found[0][1] == "Airflow's [api] base_url"
    assert settings.url == "http://said:4"


def test_without_airflow_its_configuration_is_not_looked_at(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cagg_airflow.api_settings.find_spec", lambda name: None)
    assert ApiSettings.find(environ={"AIRFLOW__API__BASE_URL": "http://env:2"}) is None


# ---- lists --------------------------------------------------------------------------------------------------------


def test_lists_are_read_page_by_page(api: AirflowApi, airflow: Airflow) -> None:
    airflow.dags = [{"dag_id": f"d{number:04}"} for number in range(250)]
    pages = list(api.pages("/dags", "dags"))
    assert [len(page.rows) for page in pages] == [100, 100, 50]
    assert {page.total for page in pages} == {250}


def test_an_answer_of_another_shape_is_refused(api: AirflowApi, airflow: Airflow) -> None:
    airflow.detail["/api/v2/dags"] = (200, {"dags": ["a name"]})
    with pytest.raises(HostUnavailable, match="without dags"):
        list(api.pages("/dags", "dags"))


def test_parts_of_an_address_are_escaped() -> None:
    assert path_of("dags", "a/b?", "~", RUN) == f"/dags/a%2Fb%3F/~/{RUN.replace(':', '%3A').replace('+', '%2B')}"
