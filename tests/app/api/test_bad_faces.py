"""Photos that the ``faces`` model refuses, and those it accepts although something is odd about them."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from tests.support import bad_requests
from tests.support.bad_requests import Row
from tests.support.images import astronaut, encoded, two_faces

pytestmark = pytest.mark.model

ROWS = bad_requests.face_rows()


@pytest.fixture(scope="module")
def service(faces_client: TestClient) -> TestClient:
    body = {"name": "strict", "policy": {"min_face_size": 100}}
    faces_client.post("/collections", json=body).raise_for_status()
    return faces_client


@pytest.mark.parametrize(("row", "named"), ROWS, ids=[row.id for row, _ in ROWS])
def test_unusable_photo_gets_its_code_and_is_named(service: TestClient, row: Row, named: str) -> None:
    response = service.request(row.method, row.path, **row.request)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (row.status, row.code, named)


def test_multiple_faces_lists_a_box_for_each(service: TestClient) -> None:
    photo = encoded(two_faces(), "JPEG")
    problem = service.post("/enroll", data={"identity": "two"}, files={"image": photo}).json()
    centres = sorted(box["x"] + box["width"] / 2 for box in problem["boxes"])
    assert centres == pytest.approx([222, 734], abs=20)


def test_quality_too_low_tells_value_and_rule(service: TestClient) -> None:
    photo = encoded(astronaut().resize((200, 200)))
    data = {"identity": "small", "collection": "strict"}
    (shortfall,) = service.post("/enroll", data=data, files={"image": photo}).json()["shortfalls"]
    assert shortfall["measure"] == "face_size"
    assert shortfall["value"] < 100


def test_photo_below_the_floor_of_one_collection_is_enrolled_in_another(service: TestClient) -> None:
    photo = encoded(astronaut().resize((200, 200)))
    assert service.post("/enroll", data={"identity": "small"}, files={"image": photo}).status_code == 201
