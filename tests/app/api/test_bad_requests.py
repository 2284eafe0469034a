"""Every row of the table of bad requests gets its answer, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.storage import collections, identities, model_migration
from app.storage.records import NewReference
from tests.support import bad_requests
from tests.support.bad_requests import CLAIM, EXAMPLES, GOOD, Row, as_form, as_json
from tests.support.images import angle_png
from tests.support.service import serving, settings_for

ROWS = bad_requests.every_row()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, angle_models: Any) -> Iterator[TestClient]:
    """A service with two identities, and collections of other models."""
    settings = settings_for(
        tmp_path_factory.mktemp("bad"),
        angle_models,
        ("angles", "other"),
        max_image_bytes=bad_requests.MAX_IMAGE_BYTES,
        max_image_pixels=bad_requests.MAX_IMAGE_PIXELS,
        revision_timeout_s=0.05,
    )
    with serving(settings) as client:
        assert settings.max_body_bytes == bad_requests.MAX_BODY_BYTES
        for name in ("ada", "grace", "\u00c9mile"):
            client.post("/enroll", data={"identity": name}, files={"image": angle_png(0)}).raise_for_status()
        taken = {"Idempotency-Key": bad_requests.TAKEN_KEY}
        others = {"name": "others", "model": "other"}
        client.post("/collections", json=others, headers=taken).raise_for_status()
        database = client.app.state.context.database  # type: ignore[attr-defined]
        moved = database.write_now(collections.add, "moved", "angles", "0" * 64, {})
        reference = NewReference("r", "0" * 64, np.array([1, 0], np.float32), None, {})
        database.write_now(identities.add, moved, 1, "ada", {}, reference)
        database.write_now(collections.add, "orphaned", "gone", "0" * 64, {})
        digest = client.app.state.context.models.default.digest  # type: ignore[attr-defined]
        halfway = database.write_now(collections.add, "halfway", "angles", digest, {})
        database.write_now(model_migration.begin, halfway, "gone", "0" * 64)
        client.post("/collections", json={"name": "between"}).raise_for_status()
        ada = {"identity": "ada", "collection": "between"}
        client.post("/enroll", data=ada, files={"image": angle_png(0)}).raise_for_status()
        path = "/collections/between/migration"
        client.post(path, json={"model": "other"}).raise_for_status()
        client.post(f"{path}/switch").raise_for_status()
        twins = database.write_now(collections.add, "twins", "angles", digest, {})
        for number in range(25):
            reference = NewReference(f"twin{number}", digest, np.array([1, 0], np.float32), None, {})
            database.write_now(identities.add, twins, 1, f"twin {number}", {}, reference)
        yield client


def _stored(client: TestClient) -> Any:
    # Every committed change raises the revision of its collection.
    database = client.app.state.context.database  # type: ignore[attr-defined]
    return database.read_now(collections.page, after=0, limit=100)


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_bad_request_gets_its_problem_and_changes_nothing(service: TestClient, row: Row) -> None:
    before = _stored(service)
    request = dict(row.request)
    if isinstance(request.get("content"), Iterator):  # a stream can be sent once
        request["content"] = bad_requests._in_pieces(bad_requests.MAX_BODY_BYTES)
    response = service.request(row.method, row.path, **request)
    assert response.status_code == row.status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    if row.method != "HEAD":
        problem = response.json()
        assert problem["code"] == row.code, problem
        assert problem["request_id"] == response.headers["x-request-id"]
        assert problem["status"] == row.status
        assert row.names in problem["detail"]
        assert "Traceback" not in problem["detail"]
    assert _stored(service) == before


@pytest.mark.parametrize("via", ["form", "json"])
@pytest.mark.parametrize("path", [*GOOD, "claim"])
def test_the_request_that_each_row_spoils_is_good(client: TestClient, path: str, via: str) -> None:
    client.post("/enroll", data={"identity": "ada"}, files={"image": angle_png(0)}).raise_for_status()
    fields = CLAIM if path == "claim" else GOOD[path]
    send = as_form if via == "form" else as_json
    response = client.post("/verify" if path == "claim" else path, **send(list(fields.items())))
    assert response.is_success, response.text


@pytest.mark.parametrize("via", ["form", "json"])
@pytest.mark.parametrize(
    ("path", "name"), [(p, n) for p, names in bad_requests.CRITERIA.items() for n in names]
)
def test_each_criterion_is_accepted_on_its_own(client: TestClient, path: str, name: str, via: str) -> None:
    send = as_form if via == "form" else as_json
    response = client.post(path, **send([*GOOD[path].items(), (name, EXAMPLES[name])]))
    assert response.is_success, response.text


@pytest.mark.parametrize("name", ["image_a", "image_b"])
def test_bad_image_is_named_in_the_member_field(client: TestClient, name: str) -> None:
    images = {"image_a": angle_png(0), "image_b": angle_png(0), name: b"hello"}
    assert client.post("/verify", files=images).json()["field"] == name


def test_every_broken_field_is_listed(client: TestClient) -> None:
    response = client.post("/collections", json={"name": "a b", "policy": {"max_yaw": -1}, "colour": 1})
    assert [error["field"] for error in response.json()["errors"]] == ["name", "policy.max_yaw", "colour"]


def test_405_lists_the_methods_in_allow(client: TestClient) -> None:
    assert client.put("/identities/ada").headers["allow"] == "DELETE, GET, PATCH"


def test_insufficient_evidence_names_the_smallest_rate_and_it_is_accepted(client: TestClient) -> None:
    photos = {"image_a": angle_png(0), "image_b": angle_png(0)}
    problem = client.post("/verify", data={"max_fmr": "1e-12"}, files=photos).json()
    assert problem["field"] == "max_fmr"
    accepted = client.post("/verify", data={"max_fmr": str(problem["smallest_supported"])}, files=photos)
    assert accepted.status_code == 200


@pytest.mark.parametrize("given", ["abc-1.2_3", "0" * 128])
def test_request_id_of_the_caller_is_kept(client: TestClient, given: str) -> None:
    response = client.get("/nothing", headers={"X-Request-ID": given})
    assert (response.headers["x-request-id"], response.json()["request_id"]) == (given, given)


@pytest.mark.parametrize("given", ["", "a b", "0" * 129, "a\tb", '"quoted"', "{}"])
def test_request_id_that_could_spoil_a_log_is_replaced(client: TestClient, given: str) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": given}).headers["x-request-id"] != given


def test_huge_header_is_no_server_error(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Long": "a" * 1_000_000}).status_code < 500


@pytest.mark.parametrize(
    "name",
    [
        "Ада Лавлейс",
        "艾达",
        "عائشة",
        "a/b",
        "/a/",
        "a/../b",
        "100 %",
        "a?b#c",
        "😀",
        "x" * 256,
        "..a",
        "'; DROP TABLE identities; --",
        "a\u2028b",
    ],
)
def test_identity_of_any_script_is_enrolled_found_shown_and_deleted(client: TestClient, name: str) -> None:
    path = "/identities/" + bad_requests._coded(name)
    enrolled = client.post(
        "/enroll",
        files=as_form([("identity", bad_requests.Text(name)), ("image", bad_requests.File(angle_png(0)))])[
            "files"
        ],
    )
    assert enrolled.json()["identity"] == name
    assert client.post("/identify", files={"image": angle_png(0)}).json()["candidates"][0]["identity"] == name
    assert client.get(path).json()["identity"] == name
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404


def test_unicode_forms_of_a_name_are_one_identity(client: TestClient) -> None:
    client.post("/enroll", data={"identity": "E\u0301mile"}, files={"image": angle_png(0)}).raise_for_status()
    assert client.get("/identities/%C3%89mile").json()["identity"] == "\u00c9mile"
    assert client.get("/identities/E%CC%81mile").json()["identity"] == "\u00c9mile"


@pytest.mark.parametrize(
    "metadata",
    [
        {"text": "\\u0000"},
        json.loads('{"a": ' * 32 + "1" + "}" * 32),
        {"a": "b" * 16_000},
        {"ключ": [1, 2.5, None, True, "😀"]},
        {"big": 10**4000},
        {"": {}},
        {"\0": ["\0"]},
    ],
    ids=["escape", "deep", "large", "unicode", "integer", "empty", "NUL"],
)
def test_metadata_within_the_limits_comes_back_as_it_was(client: TestClient, metadata: Any) -> None:
    data = {"identity": "ada", "metadata": json.dumps(metadata)}
    client.post("/enroll", data=data, files={"image": angle_png(0)}).raise_for_status()
    assert client.get("/identities/ada").json()["metadata"] == metadata
    found = client.post("/identify", files={"image": angle_png(0)}).json()
    assert found["candidates"][0]["metadata"] == metadata


def test_unexpected_failure_is_a_problem_with_the_id_of_its_log_line(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the wheel came off")

    monkeypatch.setattr(client.app.state.context.models, "get", broken)  # type: ignore[attr-defined]
    response = client.get("/models/angles", headers={"X-Request-ID": "r-1"})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == response.json()["request_id"] == "r-1"
    assert "wheel" not in response.text
    assert "the wheel came off" in caplog.text
