"""Several references of one identity: the nearest counts, in whichever process, and the policy is held."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from tests.support.images import angle_png
from tests.support.service import serving, settings_for

Pair = tuple[TestClient, TestClient]


@pytest.fixture
def pair(url: str, tmp_path: Path, angle_models: Path) -> Iterator[Pair]:
    """Two services on one store, with a collection ``several`` that allows three references."""
    settings = settings_for(tmp_path, angle_models, ("angles", "other"), database_url=url)
    with ExitStack() as stack:
        one, other = (stack.enter_context(serving(settings)) for _ in range(2))
        policy = {"max_references": 3, "keep_images": "aligned"}
        one.post("/collections", json={"name": "several", "policy": policy}).raise_for_status()
        yield one, other


def enrol(service: TestClient, name: str, degrees: float, **fields: str) -> Any:
    data = {"identity": name, "collection": "several", **fields}
    return service.post("/enroll", data=data, files={"image": angle_png(degrees)})


def found(service: TestClient, degrees: float) -> dict[str, float]:
    response = service.post("/identify", data={"collection": "several"}, files={"image": angle_png(degrees)})
    return {one["identity"]: one["distance"] for one in response.raise_for_status().json()["candidates"]}


def verified(service: TestClient, name: str, degrees: float) -> float:
    data = {"identity": name, "collection": "several"}
    response = service.post("/verify", data=data, files={"image": angle_png(degrees)})
    return float(response.raise_for_status().json()["distance"])


def listed(service: TestClient, name: str) -> list[Any]:
    path = f"/identities/{quote(name, safe='')}/references"
    references: list[Any] = service.get(path, params={"collection": "several"}).json()["references"]
    return references


def remove(service: TestClient, name: str, reference_id: str) -> Any:
    path = f"/identities/{quote(name, safe='')}/references/{reference_id}"
    return service.delete(path, params={"collection": "several"})


def apart(degrees: float) -> Any:
    return pytest.approx(2 * math.sin(math.radians(degrees) / 2), abs=0.02)


def count(service: TestClient, table: str) -> int:
    database = service.app.state.context.database  # type: ignore[attr-defined]
    return int(database.read_now(lambda session: session.scalar(text(f"SELECT count(*) FROM {table}"))))


def test_nearest_of_several_references_counts_in_verify_and_identify_of_every_service(pair: Pair) -> None:
    one, other = pair
    enrol(one, "ada", 0)
    enrol(one, "eve", 45)
    assert found(other, 90) == {"ada": apart(90), "eve": apart(45)}
    answer = enrol(one, "ada", 80, add="true")
    assert (answer.status_code, answer.json()["added"], answer.json()["references"]) == (201, True, 2)
    for service in pair:
        assert found(service, 90) == {"ada": apart(10), "eve": apart(45)}
        assert verified(service, "ada", 90) == apart(10)
        assert verified(service, "ada", 3) == apart(3)


def test_removed_reference_is_compared_with_by_nobody(pair: Pair) -> None:
    one, other = pair
    enrol(one, "ada", 0)
    second = enrol(one, "ada", 80, add="true").json()["reference_id"]
    assert found(other, 90) == {"ada": apart(10)}
    assert remove(one, "ada", second).status_code == 204
    assert found(other, 90) == {"ada": apart(90)}
    assert verified(other, "ada", 90) == apart(90)
    assert count(one, "kept_images") == 1


def test_added_to_nobody_is_enrolled(pair: Pair) -> None:
    answer = enrol(pair[0], "ada", 0, add="true")
    assert (answer.status_code, answer.json()["added"], answer.json()["references"]) == (201, False, 1)


def test_one_more_than_the_policy_allows_is_refused_and_changes_nothing(pair: Pair) -> None:
    service = pair[0]
    for degrees in (0, 20, 40):
        enrol(service, "ada", degrees, add="true").raise_for_status()
    before = service.get("/collections/several").json()["revision"]
    refused = enrol(service, "ada", 60, add="true")
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_references")
    assert refused.json()["max_references"] == 3
    assert len(listed(service, "ada")) == 3
    assert service.get("/collections/several").json()["revision"] == before


def test_added_by_many_at_once_are_no_more_than_the_policy_allows(pair: Pair) -> None:
    enrol(pair[0], "ada", 0)
    statuses: list[int] = []

    def add(number: int) -> None:
        statuses.append(enrol(pair[number % 2], "ada", 10 * number, add="true").status_code)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 201, 409, 409, 409, 409, 409, 409]
    assert len(listed(pair[0], "ada")) == 3


def test_replace_leaves_the_new_reference_alone(pair: Pair) -> None:
    one, other = pair
    enrol(one, "ada", 0)
    enrol(one, "ada", 40, add="true")
    answer = enrol(one, "ada", 90, replace="true").json()
    assert (answer["replaced"], answer["references"]) == (True, 1)
    assert found(other, 0) == {"ada": apart(90)}
    assert count(one, "kept_images") == 1


def test_last_reference_cannot_be_removed_by_itself(pair: Pair) -> None:
    service = pair[0]
    only = enrol(service, "ada", 0).json()["reference_id"]
    refused = remove(service, "ada", only)
    assert (refused.status_code, refused.json()["code"]) == (409, "last_reference")
    assert verified(service, "ada", 0) == apart(0)


def test_reference_of_somebody_else_is_not_found(pair: Pair) -> None:
    service = pair[0]
    enrol(service, "ada", 0)
    enrol(service, "ada", 10, add="true")
    other = enrol(service, "eve", 45).json()["reference_id"]
    refused = remove(service, "ada", other)
    assert (refused.status_code, refused.json()["code"]) == (404, "reference_not_found")
    assert verified(service, "eve", 45) == apart(0)


def test_references_of_whatever_name_are_found_when_its_slashes_are_encoded(pair: Pair) -> None:
    service = pair[0]
    for name in ("a/b", "references", "a/references", "references/x", "50%", "é/ü", "a b"):
        enrol(service, name, 0)
        second = enrol(service, name, 10, add="true").json()["reference_id"]
        assert [one["id"] for one in listed(service, name)][1] == second
        assert remove(service, name, second).status_code == 204
        assert len(listed(service, name)) == 1
        path = f"/identities/{quote(name, safe='')}"
        assert service.get(path, params={"collection": "several"}).json()["identity"] == name


def test_crops_go_when_the_policy_no_longer_keeps_them(pair: Pair) -> None:
    service = pair[0]
    enrol(service, "ada", 0)
    assert count(service, "kept_images") == 1
    changed = service.patch("/collections/several", json={"policy": {"max_references": 5}})
    assert (changed.status_code, changed.json()["policy"]["keep_images"]) == (200, "none")
    assert count(service, "kept_images") == 0
    assert enrol(service, "eve", 0).status_code == 201
    assert count(service, "kept_images") == 0


def test_deleted_identity_leaves_neither_template_nor_crop(pair: Pair) -> None:
    service = pair[0]
    enrol(service, "ada", 0)
    enrol(service, "ada", 10, add="true")
    service.delete("/identities/ada", params={"collection": "several"}).raise_for_status()
    assert (count(service, "reference_templates"), count(service, "kept_images")) == (0, 0)
