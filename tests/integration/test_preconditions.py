"""If-Match and If-Revision: one of many changes wins, and a read waits for what its caller knows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.images import angle_png
from tests.support.service import serving, settings_for

Pair = tuple[TestClient, TestClient]
PHOTO = {"image": angle_png(20)}


@pytest.fixture
def pair(url: str, tmp_path: Path, angle_models: Path) -> Iterator[Pair]:
    """Two services on one store, whose collection ``default`` has ``grace`` and ``ada``."""
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=url, revision_timeout_s=5)
    with ExitStack() as stack:
        one, other = (stack.enter_context(serving(settings)) for _ in range(2))
        for name in ("grace", "ada"):
            enrol(one, name).raise_for_status()
        for service in (one, other):  # two applications in one process must not prepare routes at once
            service.get("/openapi.json").raise_for_status()
        yield one, other


def enrol(service: TestClient, name: str, if_match: str | None = None, **fields: str) -> Any:
    headers = {"If-Match": if_match} if if_match else {}
    return service.post("/enroll", data={"identity": name, **fields}, files=PHOTO, headers=headers)


def etag(service: TestClient, name: str = "ada") -> str:
    return str(service.get(f"/identities/{name}").headers["etag"])


def test_etag_is_the_revision_of_the_identity_in_every_answer_about_it(pair: Pair) -> None:
    one, other = pair
    assert (etag(one, "grace"), etag(other)) == ('"1"', '"2"')
    answers = [
        enrol(one, "hedy"),
        enrol(one, "ada", replace="true"),
        one.patch("/identities/hedy", json={"identity": "mary"}),
        other.get("/identities/mary"),
        other.get("/identities/grace"),
    ]
    assert [answer.headers["etag"] for answer in answers] == ['"3"', '"4"', '"5"', '"5"', '"1"']
    for answer in answers:
        assert answer.headers["etag"] == f'"{answer.json()["revision"]}"'


def test_change_of_one_identity_leaves_the_etags_of_others(pair: Pair) -> None:
    before = etag(pair[0], "grace")
    pair[0].patch("/identities/ada", json={"metadata": {"a": 1}}).raise_for_status()
    assert etag(pair[0], "grace") == before
    response = pair[0].patch("/identities/grace", json={"metadata": {}}, headers={"If-Match": before})
    assert response.status_code == 200


def test_one_of_eight_changes_with_one_etag_succeeds_and_is_what_is_stored(pair: Pair) -> None:
    seen = {"If-Match": etag(pair[0])}
    barrier = threading.Barrier(8)

    def change(number: int) -> Any:
        barrier.wait()
        return pair[number % 2].patch("/identities/ada", json={"metadata": {"by": number}}, headers=seen)

    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(change, range(8)))
    assert sorted(response.status_code for response in responses) == [200] + [412] * 7
    (winner,) = (response.json() for response in responses if response.status_code == 200)
    assert pair[1].get("/identities/ada").json() == winner
    for response in responses:
        if response.status_code == 412:
            problem = response.json()
            assert (problem["code"], problem["expected_revision"]) == ("precondition_failed", 2)
            assert problem["revision"] == winner["revision"] == 3
            assert "revision 2" in problem["detail"]
            assert "revision 3" in problem["detail"]


def test_change_replacement_and_deletion_of_one_etag_exclude_one_another(pair: Pair) -> None:
    one, other = pair

    def change(seen: str) -> Any:
        return one.patch("/identities/ada", json={"metadata": {}}, headers={"If-Match": seen})

    def replace(seen: str) -> Any:
        return enrol(other, "ada", seen, replace="true")

    def delete(seen: str) -> Any:
        return one.delete("/identities/ada", headers={"If-Match": seen})

    for _ in range(5):
        seen = etag(one)
        barrier = threading.Barrier(3)

        def at_once(kind: Any, seen: str = seen, barrier: threading.Barrier = barrier) -> int:
            barrier.wait()
            status: int = kind(seen).status_code
            return status

        with ThreadPoolExecutor(3) as pool:
            statuses = list(pool.map(at_once, (change, replace, delete)))
        assert sum(status < 300 for status in statuses) == 1, statuses
        assert all(status in {200, 204, 404, 412} for status in statuses), statuses
        if statuses[2] == 204:
            enrol(one, "ada").raise_for_status()


@pytest.mark.parametrize("condition", ['"1"', '"3"', '"999999999999999999"'])
def test_failed_condition_changes_nothing(pair: Pair, condition: str) -> None:
    before = pair[0].get("/identities").json()
    given = {"If-Match": condition}
    responses = [
        pair[0].patch("/identities/ada", json={"identity": "mary"}, headers=given),
        pair[0].delete("/identities/ada", headers=given),
        enrol(pair[0], "ada", condition, replace="true"),
    ]
    assert [response.status_code for response in responses] == [412] * 3
    assert pair[1].get("/identities").json() == before


def test_star_asks_that_the_identity_is_enrolled(pair: Pair) -> None:
    any_ = {"If-Match": "*"}
    assert pair[0].patch("/identities/ada", json={"metadata": {}}, headers=any_).status_code == 200
    assert enrol(pair[0], "ada", "*", replace="true").status_code == 200
    assert pair[0].delete("/identities/ada", headers=any_).status_code == 204
    gone = enrol(pair[0], "ada", "*", replace="true")
    assert (gone.status_code, gone.json()["revision"]) == (412, None)
    assert pair[0].patch("/identities/ada", json={"metadata": {}}, headers=any_).status_code == 404
    assert pair[0].delete("/identities/ada", headers=any_).status_code == 404


def test_condition_is_checked_again_after_the_photo_is_encoded(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = etag(pair[0])
    images = pair[0].app.state.context.images  # type: ignore[attr-defined]
    encode = images.encode

    async def overtaken(*args: Any) -> Any:
        encoded = await encode(*args)
        pair[1].patch("/identities/ada", json={"metadata": {"faster": True}}).raise_for_status()
        return encoded

    monkeypatch.setattr(images, "encode", overtaken)
    assert enrol(pair[0], "ada", seen, replace="true").status_code == 412
    assert pair[1].get("/identities/ada").json()["metadata"] == {"faster": True}


def reads(collection: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return every kind of read of a collection."""
    return [
        ("POST", "/identify", {"data": {"collection": collection}, "files": PHOTO}),
        ("POST", "/verify", {"data": {"collection": collection, "identity": "ada"}, "files": PHOTO}),
        ("GET", f"/identities?collection={collection}", {}),
        ("GET", f"/identities/ada?collection={collection}", {}),
    ]


@pytest.mark.parametrize("read", reads("visitors"), ids=[path for _, path, _ in reads("visitors")])
def test_read_waits_for_the_revision_and_shows_it(pair: Pair, read: tuple[str, str, dict[str, Any]]) -> None:
    """As on a replica, where what the caller knows has not arrived yet: even the collection is not there."""
    one, other = pair
    method, path, request = read
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(other.request, method, path, **request, headers={"If-Revision": "2"})
        time.sleep(0.1)
        one.post("/collections", json={"name": "visitors"}).raise_for_status()
        enrol(one, "grace", collection="visitors").raise_for_status()
        time.sleep(0.1)
        assert not reading.done()
        enrol(one, "ada", collection="visitors").raise_for_status()
        response = reading.result()
    assert response.status_code == 200, response.text
    assert response.json()["revision"] == 2


@pytest.mark.parametrize("asked", ["0", "1", "2"])
def test_revision_that_is_reached_is_answered(pair: Pair, asked: str) -> None:
    for method, path, request in reads("default"):
        response = pair[1].request(method, path, **request, headers={"If-Revision": asked})
        assert (response.status_code, response.json()["revision"]) == (200, 2), response.text


def test_revision_that_was_never_given_out_is_refused_after_the_wait(
    url: str, tmp_path: Path, angle_models: Path
) -> None:
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=url, revision_timeout_s=0.2)
    with serving(settings) as service:
        enrol(service, "ada").raise_for_status()
        for method, path, request in reads("default"):
            started = time.monotonic()
            response = service.request(method, path, **request, headers={"If-Revision": "2"})
            assert time.monotonic() - started >= 0.2
            problem = response.json()
            assert (response.status_code, problem["code"]) == (409, "revision_not_reached")
            assert (problem["wanted_revision"], problem["revision"]) == (2, 1)


def test_two_images_read_no_collection_and_name_no_revision(pair: Pair) -> None:
    photos = {"image_a": PHOTO["image"], "image_b": PHOTO["image"]}
    response = pair[0].post("/verify", files=photos, headers={"If-Revision": "999"})
    assert (response.status_code, response.json()["revision"]) == (200, None)
