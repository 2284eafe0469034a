"""POST /enroll/batch: one answer for many photos, each of which is enrolled or refused by itself."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.errors import BusyError
from app.services.images import Images
from tests.support.images import angle_png
from tests.support.service import serving, settings_for


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def item(identity: str, degrees: float = 10, **fields: object) -> dict[str, object]:
    return {"identity": identity, "image": as_base64(angle_png(degrees)), **fields}


def sent(client: TestClient, items: list[dict[str, object]], **fields: object) -> Any:
    answer = client.post("/enroll/batch", json={"items": items, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def statuses(answer: Any) -> list[tuple[str, str, int | None]]:
    return [(one["identity"], one["status"], one["revision"]) for one in answer["results"]]


def names(client: TestClient) -> list[str]:
    return [one["identity"] for one in client.get("/identities").json()["identities"]]


def test_photos_are_enrolled_in_their_order(client: TestClient) -> None:
    answer = sent(client, [item("ada", 0), item("bob", 45, metadata={"a": 1}), item("cy", 90)])
    assert statuses(answer) == [("ada", "enrolled", 1), ("bob", "enrolled", 2), ("cy", "enrolled", 3)]
    assert (answer["collection"], answer["model"], answer["revision"]) == ("default", "angles", 3)
    assert all(one["error"] is None for one in answer["results"])
    assert len({one["reference_id"] for one in answer["results"]}) == 3
    assert answer["timings_ms"]["encode"] > 0
    assert names(client) == ["ada", "bob", "cy"]
    assert client.get("/identities/bob").json()["metadata"] == {"a": 1}
    found = client.post("/identify", files={"image": angle_png(44)}).json()
    assert found["candidates"][0]["identity"] == "bob"
    assert client.get("/identities/bob").headers["ETag"] == '"2"'


def test_form_pairs_identities_with_images(client: TestClient) -> None:
    answer = client.post(
        "/enroll/batch",
        data={"identity": ["ada", "bob"], "metadata": ['{"n": 1}', '{"n": 2}'], "collection": "default"},
        files=[("image", angle_png(0)), ("image", angle_png(90))],
    )
    assert statuses(answer.json()) == [("ada", "enrolled", 1), ("bob", "enrolled", 2)]
    claim = {"identity": "bob"}
    assert client.post("/verify", data=claim, files={"image": angle_png(90)}).json()["distance"] == 0
    assert client.get("/identities/bob").json()["metadata"] == {"n": 2}


def test_one_bad_photo_spoils_no_other(client: TestClient) -> None:
    sent(client, [item("known")])
    bad: dict[str, object] = {"identity": "bad", "image": as_base64(b"no image")}
    answer = sent(client, [item("ada"), bad, item("known"), item("ada"), item("bob")])
    assert statuses(answer) == [
        ("ada", "enrolled", 2),
        ("bad", "refused", None),
        ("known", "refused", None),
        ("ada", "refused", None),
        ("bob", "enrolled", 3),
    ]
    errors = [one["error"] for one in answer["results"] if one["error"]]
    assert [error["code"] for error in errors] == ["image_unreadable", "identity_exists", "identity_exists"]
    assert errors[0]["field"] == "items.1.image"
    assert "replace=true" in errors[1]["detail"]
    assert [one["reference_id"] is None for one in answer["results"]] == [False, True, True, True, False]
    assert (names(client), answer["revision"]) == (["known", "ada", "bob"], 3)


def test_form_names_the_bad_image_by_its_place(client: TestClient) -> None:
    answer = client.post(
        "/enroll/batch",
        data={"identity": ["ada", "bob"]},
        files=[("image", angle_png(0)), ("image", b"%PDF-1.7")],
    ).json()
    assert answer["results"][1]["error"]["code"] == "unsupported_media_type"
    assert answer["results"][1]["error"]["field"] == "image.1"


def test_batch_of_which_nothing_is_accepted_changes_nothing(client: TestClient) -> None:
    sent(client, [item("ada")])
    answer = sent(client, [item("ada"), {"identity": "bob", "image": as_base64(b"no image")}])
    assert [status for _, status, _ in statuses(answer)] == ["refused", "refused"]
    assert answer["revision"] == client.get("/collections/default").json()["revision"] == 1


def test_replace_and_add_hold_for_their_item(client: TestClient) -> None:
    body = {"name": "several", "policy": {"max_references": 2}}
    client.post("/collections", json=body).raise_for_status()
    sent(client, [item("ada", 0), item("bob", 0)], collection="several")
    answer = sent(
        client,
        [
            item("ada", 45, replace=True),
            item("bob", 45, add=True),
            item("bob", 90, add=True),
            item("new", 90, replace=True),
        ],
        collection="several",
    )
    assert statuses(answer) == [
        ("ada", "replaced", 3),
        ("bob", "added", 4),
        ("bob", "refused", None),
        ("new", "enrolled", 5),
    ]
    assert answer["results"][2]["error"]["code"] == "too_many_references"
    assert answer["results"][2]["error"]["max_references"] == 2
    shown = client.get("/identities/bob", params={"collection": "several"}).json()
    assert shown["references"] == 2


def test_photo_below_the_floor_is_refused_with_its_shortfalls(client: TestClient) -> None:
    body = {"name": "bright", "policy": {"min_brightness": 0.6}}
    client.post("/collections", json=body).raise_for_status()
    (one, other) = sent(client, [item("ada", 45), item("bob", 0)], collection="bright")["results"]
    assert one["status"] == "enrolled"
    assert other["error"]["code"] == "quality_too_low"
    assert other["error"]["shortfalls"][0]["measure"] == "brightness"


def test_repeat_under_a_key_gets_the_same_answer_and_encodes_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    request: dict[str, Any] = {
        "json": {"items": [item("ada"), {"identity": "bad", "image": as_base64(b"no image")}]},
        "headers": {"Idempotency-Key": "batch-1"},
    }
    first = client.post("/enroll/batch", **request)
    monkeypatch.setattr(Images, "encode", None)
    second = client.post("/enroll/batch", **request)
    assert second.status_code == 200
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.content == first.content
    assert names(client) == ["ada"]
    other = {**request, "json": {"items": [item("bob")]}}
    assert client.post("/enroll/batch", **other).json()["code"] == "idempotency_key_reused"


def test_batch_of_the_most_items_is_enrolled_beside_a_small_queue(tmp_path: Path, angle_models: Path) -> None:
    settings = settings_for(
        tmp_path, angle_models, ("angles", "other"), encoder_queue_limit=0, encoder_threads=2
    )
    with serving(settings) as client:
        answer = sent(client, [item(f"p{number}", number * 0.9) for number in range(100)])
        assert [one["status"] for one in answer["results"]] == ["enrolled"] * 100
        assert answer["revision"] == 100


def test_queue_that_is_full_refuses_the_batch_as_a_whole(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Images.encode
    calls = 0

    async def full(self: Images, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise BusyError("too much is waiting; try again")
        return await encode(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Images, "encode", full)
        answer = client.post("/enroll/batch", json={"items": [item(f"p{number}") for number in range(9)]})
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert answer.headers["Retry-After"] == "1"
    assert names(client) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"items": []}, "items"),
        ({"items": [item(f"p{n}") for n in range(101)]}, "items"),
        ({}, "items"),
        ({"items": [{"identity": "ada"}]}, "items.0.image"),
        ({"items": [item("ada"), item(" ")]}, "items.1.identity"),
        ({"items": [item("ada", replace=True, add=True)]}, "items.0"),
        ({"items": [item("ada", colour="red")]}, "items.0.colour"),
        ({"items": [item("ada")], "replace": True}, "replace"),
    ],
)
def test_malformed_batch_is_refused_as_a_whole(client: TestClient, body: Any, field: str) -> None:
    answer = client.post("/enroll/batch", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["field"] == field
    assert names(client) == []


@pytest.mark.parametrize(
    ("data", "images", "problem"),
    [
        ({"identity": ["ada"]}, 2, "got 1 and 2"),
        ({"identity": ["ada", "bob"], "metadata": ["{}"]}, 2, "got 1 for 2"),
        ({"identity": ["ada"], "replace": "true", "add": "true"}, 1, "not both"),
        ({"identity": ["ada"], "metadata": ["[1]"]}, 1, "dictionary"),
    ],
)
def test_form_that_does_not_go_in_step_is_refused(
    client: TestClient, data: Any, images: int, problem: str
) -> None:
    files = [("image", angle_png(10))] * images
    answer = client.post("/enroll/batch", data=data, files=files)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert problem in json.dumps(answer.json()["errors"])
    assert names(client) == []


def test_batch_without_a_body_is_refused(client: TestClient) -> None:
    answer = client.post("/enroll/batch")
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "or send no body" not in answer.json()["detail"]
