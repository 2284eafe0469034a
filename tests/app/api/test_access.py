"""Who may do what: keys, roles, loopback and the switch that asks for none."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.errors import InvalidRequestError
from app.services import access
from app.services.access import create_key, list_keys, revoke_key
from tests.support.images import angle_png
from tests.support.service import serving, settings_for

IMAGE = {"image": angle_png(0)}
READING: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/verify", {"files": {"image_a": angle_png(0), "image_b": angle_png(0)}}),
    ("POST", "/identify", {"files": IMAGE}),
    ("POST", "/embed", {"files": IMAGE}),
    ("GET", "/identities", {}),
    ("GET", "/identities/ada", {}),
    ("GET", "/collections", {}),
    ("GET", "/collections/default", {}),
    ("GET", "/models", {}),
    ("GET", "/models/angles", {}),
    ("GET", "/metrics", {}),
]
CHANGING: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/enroll", {"data": {"identity": "ada", "replace": "true"}, "files": IMAGE}),
    ("PATCH", "/identities/ada", {"json": {"metadata": {}}}),
    ("POST", "/collections", {"json": {"name": "visitors"}}),
    ("DELETE", "/collections/visitors", {}),
    ("DELETE", "/identities/ada", {}),
]
OPEN = ["/healthz", "/readyz", "/openapi.json", "/docs"]


def store(client: TestClient) -> Any:
    return client.app.state.context.database  # type: ignore[attr-defined]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def full(client: TestClient) -> str:
    """A key of role ``full``; with it keys are demanded. The identity ``ada`` is enrolled."""
    client.post("/enroll", data={"identity": "ada"}, files=IMAGE).raise_for_status()
    return create_key(store(client), "full", "full")


@pytest.mark.parametrize(("method", "path", "request_"), READING + CHANGING)
def test_request_without_a_key_is_refused_once_a_key_exists(
    client: TestClient, full: str, method: str, path: str, request_: Any
) -> None:
    response = client.request(method, path, **request_)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_loopback_without_keys_is_open(client: TestClient) -> None:
    for method, path, request_ in [*CHANGING[:1], *READING, *CHANGING]:
        assert client.request(method, path, **request_).is_success


def test_key_of_role_full_may_do_everything(client: TestClient, full: str) -> None:
    for method, path, request_ in READING + CHANGING:
        assert client.request(method, path, headers=bearer(full), **request_).is_success


@pytest.mark.parametrize(("method", "path", "request_"), READING)
def test_key_of_role_match_may_read_and_match(
    client: TestClient, full: str, method: str, path: str, request_: Any
) -> None:
    key = create_key(store(client), "gate", "match")
    assert client.request(method, path, headers=bearer(key), **request_).is_success


@pytest.mark.parametrize(("method", "path", "request_"), CHANGING)
def test_key_of_role_match_may_change_nothing(
    client: TestClient, full: str, method: str, path: str, request_: Any
) -> None:
    key = create_key(store(client), "gate", "match")
    response = client.request(method, path, headers=bearer(key), **request_)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    found = client.get("/identities/ada", headers=bearer(full)).json()
    assert found["revision"] == 1


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer vv_",
        "Bearer vv__",
        "Bearer vv_0_0",
        "Bearer vv_000000000000_" + "a" * 43,
        "Bearer {id}",
        "Bearer vv_{id}_",
        "Bearer vv_{id}_" + "a" * 43,
        "Bearer {key}x",
        "Bearer {key} {key}",
        "Bearer {upper}",
        "Basic {key}",
        "Basic dXNlcjpwYXNz",
        "{key}",
        "Bearer " + "a" * 100_000,
        "Bearer vv_é_é",
    ],
)
def test_malformed_or_wrong_key_is_refused(client: TestClient, full: str, header: str) -> None:
    value = header.format(key=full, id=full.split("_")[1], upper=full.upper())
    response = client.get("/models", headers=[(b"Authorization", value.encode("latin-1"))])
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")


def test_scheme_is_read_in_any_case(client: TestClient, full: str) -> None:
    assert client.get("/models", headers={"Authorization": f"bearer {full}"}).status_code == 200


def test_revoked_key_is_refused_at_once(client: TestClient, full: str) -> None:
    create_key(store(client), "second", "full")
    assert client.get("/models", headers=bearer(full)).status_code == 200
    revoke_key(store(client), "full")
    assert client.get("/models", headers=bearer(full)).status_code == 401


def test_revoking_the_last_key_does_not_open_the_service(client: TestClient, full: str) -> None:
    revoke_key(store(client), "full")
    assert client.get("/models").status_code == 401


def test_key_is_checked_before_the_body_is_looked_at(client: TestClient, full: str) -> None:
    assert client.post("/enroll", content=b"garbage").status_code == 401


@pytest.fixture(params=["0.0.0.0", "::", "192.0.2.1", "example.org"])
def exposed(request: pytest.FixtureRequest, tmp_path: Path, angle_models: Path) -> Iterator[TestClient]:
    with serving(settings_for(tmp_path, angle_models, ("angles",), host=request.param)) as client:
        yield client


def test_address_other_than_loopback_demands_a_key_even_when_there_is_none(exposed: TestClient) -> None:
    assert exposed.get("/models").status_code == 401
    assert exposed.post("/enroll", data={"identity": "ada"}, files=IMAGE).status_code == 401


@pytest.mark.parametrize("path", OPEN)
def test_health_and_description_need_no_key(exposed: TestClient, path: str) -> None:
    assert exposed.get(path).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_by_any_name_is_open(tmp_path: Path, angle_models: Path, host: str) -> None:
    with serving(settings_for(tmp_path, angle_models, ("angles",), host=host)) as client:
        assert client.get("/models").status_code == 200


def test_insecure_asks_for_no_key_anywhere(tmp_path: Path, angle_models: Path) -> None:
    settings = settings_for(tmp_path, angle_models, ("angles",), host="0.0.0.0", insecure=True)
    with serving(settings) as client:
        create_key(store(client), "unused", "match")
        assert client.post("/enroll", data={"identity": "ada"}, files=IMAGE).status_code == 201


def test_description_names_the_scheme_where_keys_are_always_demanded(exposed: TestClient) -> None:
    document = exposed.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["paths"]["/enroll"]["post"]["security"] == [{"key": []}]
    assert "security" not in document["paths"]["/healthz"]["get"]


def test_secret_is_nowhere_in_the_store_or_the_log(
    client: TestClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = create_key(store(client), "full", "full")
    secret = key.split("_", 2)[2]
    client.get("/models", headers=bearer(key))
    client.get("/models", headers=bearer(key[:-1] + "x"))
    store(client).engine.dispose()
    files = b"".join(path.read_bytes() for path in tmp_path.glob("visavis.db*"))
    assert b"full" in files
    assert secret.encode() not in files
    assert secret not in caplog.text
    assert all(secret not in str(vars(known)) for known in list_keys(store(client)))


def test_secrets_are_compared_in_constant_time(
    client: TestClient, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def watched(first: str, second: str) -> bool:
        compared.append((first, second))
        return hmac.compare_digest(first, second)

    monkeypatch.setattr(access, "hmac", type("Watched", (), {"compare_digest": staticmethod(watched)}))
    client.get("/models", headers=bearer(full))
    client.get("/models", headers=bearer("vv_000000000000_" + "a" * 43))  # an unknown key costs the same
    assert [len(first) for first, _ in compared] == [64, 64]


def test_keys_have_256_random_bits_each(client: TestClient) -> None:
    keys = {create_key(store(client), f"key {i}", "full") for i in range(20)}
    assert len({key.split("_", 2)[2] for key in keys}) == 20
    assert all(len(key.split("_", 2)[2]) == 43 for key in keys)


@pytest.mark.parametrize("name", ["", "a" * 65, "a\nb", "\x1b[31m", "taken"])
def test_key_name_that_is_taken_or_unprintable_is_refused(client: TestClient, name: str) -> None:
    create_key(store(client), "taken", "full")
    with pytest.raises(InvalidRequestError, match="name"):
        create_key(store(client), name, "full")


def test_revoking_an_unknown_key_is_refused(client: TestClient) -> None:
    with pytest.raises(InvalidRequestError, match="no key 'nobody'"):
        revoke_key(store(client), "nobody")
