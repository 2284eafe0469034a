"""Two services on one store: what one has acknowledged, the other's next request knows."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.storage import collections, identities
from app.storage.records import NewReference
from tests.support.images import angle_png
from tests.support.service import serving, settings_for

Pair = tuple[TestClient, TestClient]


@pytest.fixture
def pair(url: str, tmp_path: Path, angle_models: Path) -> Iterator[Pair]:
    """Two services with a store in common and nothing else."""
    settings = settings_for(tmp_path, angle_models, ("angles", "other"), database_url=url)
    with ExitStack() as stack:
        yield stack.enter_context(serving(settings)), stack.enter_context(serving(settings))


def enrol(service: TestClient, name: str, degrees: float, **fields: str) -> Any:
    response = service.post("/enroll", data={"identity": name, **fields}, files={"image": angle_png(degrees)})
    assert response.is_success, response.text
    return response.json()


def found(service: TestClient, degrees: float, **fields: str) -> Any:
    data = {"top_k": "100", **fields}
    response = service.post("/identify", data=data, files={"image": angle_png(degrees)})
    assert response.is_success, response.text
    return response.json()


def names(answer: Any) -> list[str]:
    return [candidate["identity"] for candidate in answer["candidates"]]


def test_enrolled_in_one_is_found_by_the_other(pair: Pair) -> None:
    one, other = pair
    for i in range(10):
        revision = enrol(one, f"ada-{i}", 9 * i)["revision"]
        answer = found(other, 9 * i)
        assert names(answer)[0] == f"ada-{i}"
        assert (answer["revision"], answer["gallery_size"]) == (revision, i + 1)
        one, other = other, one


def test_deleted_in_one_is_never_returned_by_the_other(pair: Pair) -> None:
    one, other = pair
    for i in range(10):
        enrol(one, f"ada-{i}", 9 * i)
    for i in range(10):
        assert f"ada-{i}" in names(found(other, 9 * i))
        assert one.delete(f"/identities/ada-{i}").status_code == 204
        assert f"ada-{i}" not in names(found(other, 9 * i))
        one, other = other, one


def test_renamed_in_one_has_its_new_name_in_the_other(pair: Pair) -> None:
    one, other = pair
    enrol(one, "ada", 0)
    found(other, 0)
    one.patch("/identities/ada", json={"identity": "grace", "metadata": {"a": 1}}).raise_for_status()
    (candidate,) = found(other, 0)["candidates"]
    assert (candidate["identity"], candidate["metadata"]) == ("grace", {"a": 1})


def test_replaced_in_one_is_measured_anew_by_the_other(pair: Pair) -> None:
    one, other = pair
    enrol(one, "ada", 0)
    assert found(other, 0)["candidates"][0]["distance"] == pytest.approx(0, abs=0.01)
    enrol(one, "ada", 90, replace="true")
    (candidate,) = found(other, 0)["candidates"]
    assert candidate["distance"] == pytest.approx(math.sqrt(2), abs=0.01)


def test_name_deleted_and_enrolled_again_has_only_its_new_template(pair: Pair) -> None:
    one, other = pair
    enrol(one, "ada", 0)
    found(other, 0)
    one.delete("/identities/ada")
    enrol(one, "ada", 90)
    (candidate,) = found(other, 90)["candidates"]
    assert candidate["distance"] == pytest.approx(0, abs=0.01)


def test_collection_made_again_is_not_served_from_the_old_gallery(pair: Pair) -> None:
    one, other = pair
    one.post("/collections", json={"name": "visitors"}).raise_for_status()
    for name in ("ada", "grace"):
        enrol(one, name, 0, collection="visitors")
    assert len(names(found(other, 0, collection="visitors"))) == 2
    assert one.delete("/collections/visitors").status_code == 204
    assert (
        other.post("/identify", data={"collection": "visitors"}, files={"image": angle_png(0)}).status_code
        == 404
    )
    one.post("/collections", json={"name": "visitors"}).raise_for_status()
    assert names(found(other, 0, collection="visitors")) == []
    enrol(one, "alan", 0, collection="visitors")
    enrol(one, "edsger", 0, collection="visitors")
    assert names(found(other, 0, collection="visitors")) == ["alan", "edsger"]


def test_collection_made_again_for_another_model_is_searched_with_that_model(pair: Pair) -> None:
    one, other = pair
    one.post("/collections", json={"name": "visitors"}).raise_for_status()
    enrol(one, "ada", 0, collection="visitors")
    found(other, 0, collection="visitors")
    one.delete("/collections/visitors")
    one.post("/collections", json={"name": "visitors", "model": "other"}).raise_for_status()
    enrol(one, "ada", 60, collection="visitors")
    answer = found(other, 0, collection="visitors")
    assert (answer["model"], answer["metric"]) == ("other", "cosine")
    assert answer["candidates"][0]["distance"] == pytest.approx(0.5, abs=0.01)


def test_random_changes_in_either_leave_both_with_the_state_of_a_dictionary(pair: Pair) -> None:
    choose = random.Random(20)
    expected: dict[str, float] = {}
    for step in range(150):
        writer, reader = choose.sample(pair, 2)
        name, degrees = f"n{choose.randrange(12)}", choose.randrange(91)
        kind = choose.choice(["enrol", "enrol", "delete", "rename"])
        if kind == "enrol":
            enrol(writer, name, degrees, replace="true")
            expected[name] = degrees
        elif kind == "delete":
            status = writer.delete(f"/identities/{name}").status_code
            assert status == (204 if expected.pop(name, None) is not None else 404)
        else:
            to = f"m{step}"
            status = writer.patch(f"/identities/{name}", json={"identity": to}).status_code
            assert status == (200 if name in expected else 404)
            if name in expected:
                expected[to] = expected.pop(name)
        answer = found(reader, 0)
        assert answer["gallery_size"] == len(expected)
        for candidate in answer["candidates"]:
            distance = 2 * math.sin(math.radians(expected[candidate["identity"]]) / 2)
            assert candidate["distance"] == pytest.approx(distance, abs=0.01)


def test_search_during_deletions_returns_none_that_was_acknowledged_before_it_began(pair: Pair) -> None:
    writer, reader = pair
    for i in range(30):
        enrol(writer, f"ada-{i}", i)
    gone: list[str] = []

    def delete() -> None:
        for i in range(30):
            assert writer.delete(f"/identities/ada-{i}").status_code == 204
            gone.append(f"ada-{i}")

    thread = threading.Thread(target=delete)
    thread.start()
    searches = 0
    while thread.is_alive() or searches == 0:
        before = set(gone)
        assert not before & set(names(found(reader, 0)))
        searches += 1
    thread.join()
    assert names(found(reader, 0)) == []


def test_template_of_another_build_of_the_model_is_never_found(pair: Pair) -> None:
    service = pair[0]
    enrol(service, "ada", 0)
    database = service.app.state.context.database  # type: ignore[attr-defined]
    default = database.read_now(collections.get, "default")

    def smuggle(session: Any) -> None:
        reference = NewReference("r", "0" * 64, np.array([1, 0], np.float32), None, {})
        revision = collections.next_revision(session, default)
        identities.add(session, default, revision, "foreign", {}, reference)

    database.write_now(smuggle)
    assert names(found(service, 0)) == ["ada"]
    assert service.delete("/identities/foreign").status_code == 204
    assert names(found(service, 0)) == ["ada"]


def test_claim_of_an_identity_whose_template_another_build_made_is_refused(pair: Pair) -> None:
    service = pair[0]
    database = service.app.state.context.database  # type: ignore[attr-defined]
    default = database.read_now(collections.get, "default")
    reference = NewReference("r", "0" * 64, np.array([1, 0], np.float32), None, {})
    database.write_now(identities.add, default, 1, "foreign", {}, reference)
    response = service.post("/verify", data={"identity": "foreign"}, files={"image": angle_png(0)})
    assert (response.status_code, response.json()["code"]) == (409, "model_mismatch")


def test_pages_over_http_stay_stable_while_the_other_service_writes(pair: Pair) -> None:
    one, other = pair
    for i in range(7):
        enrol(one, f"ada-{i}", 0)
    seen: list[str] = []
    cursor = None
    while True:
        query: dict[str, Any] = {"limit": 3, **({"cursor": cursor} if cursor else {})}
        page = one.get("/identities", params=query).json()
        seen += [identity["identity"] for identity in page["identities"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        if len(seen) == 3:
            other.delete("/identities/ada-0")
            other.delete("/identities/ada-4")
            enrol(other, "late", 0)
    assert seen == ["ada-0", "ada-1", "ada-2", "ada-3", "ada-5", "ada-6", "late"]


def test_page_that_ends_exactly_at_the_last_identity_leads_to_an_empty_one(pair: Pair) -> None:
    service = pair[0]
    for i in range(4):
        enrol(service, f"ada-{i}", 0)
    page = service.get("/identities", params={"limit": 4}).json()
    last = service.get("/identities", params={"limit": 4, "cursor": page["next_cursor"]}).json()
    assert (last["identities"], last["next_cursor"]) == ([], None)
