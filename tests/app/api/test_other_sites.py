"""Without a key, a web page of another site gets nowhere through the browser of this machine."""

import pytest
from fastapi.testclient import TestClient

from tests.support.images import angle_png


def enroll(client: TestClient, **headers: str) -> int:
    answer = client.post("/enroll", data={"identity": "ada"}, files={"image": angle_png(0)}, headers=headers)
    if answer.status_code == 403:
        assert answer.json()["code"] == "forbidden"
    return answer.status_code


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:9", "null", "http://[", ""])
def test_form_posted_by_a_page_of_another_site_is_refused(client: TestClient, origin: str) -> None:
    assert enroll(client, origin=origin) == 403
    assert client.get("/identities").json()["identities"] == []


@pytest.mark.parametrize("host", ["evil.example:8000", "evil.example", "127.0.0.1.evil.example", "[", ""])
def test_name_that_another_site_lets_point_here_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/identities", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "localhost", "[::1]:8000"])
def test_names_of_this_machine_are_served(client: TestClient, host: str) -> None:
    assert enroll(client, host=host) == 201


def test_page_of_the_service_itself_is_served(client: TestClient) -> None:
    assert enroll(client, origin="http://127.0.0.1:8000") == 201


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_browser_that_names_another_site_is_refused(client: TestClient, site: str) -> None:
    assert enroll(client, **{"sec-fetch-site": site}) == 403


def test_second_host_does_not_hide_behind_the_first(client: TestClient) -> None:
    headers = [("host", "127.0.0.1:8000"), ("host", "evil.example")]
    assert client.get("/identities", headers=headers).status_code == 403


@pytest.mark.parametrize("name", ["forwarded", "x-forwarded-for", "via", "x-real-ip"])
def test_caller_behind_a_proxy_is_not_taken_for_local(client: TestClient, name: str) -> None:
    answer = client.get("/identities", headers={name: "8.8.8.8"})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
