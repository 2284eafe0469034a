"""Galleries in memory: which are kept, and that dropping one changes no answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.services import catalogue, galleries
from app.storage import collections, templates
from tests.support.images import angle_png


def found(client: TestClient, collection: str) -> list[str]:
    data = {"collection": collection}
    answer = client.post("/identify", data=data, files={"image": angle_png(0)}).json()
    return [candidate["identity"] for candidate in answer["candidates"]]


def held(client: TestClient) -> Any:
    return client.app.state.context.identification._galleries._by_collection  # type: ignore[attr-defined]


def test_gallery_searched_longest_ago_is_dropped_and_read_again_when_needed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galleries, "MAX_GALLERIES", 2)
    for name in ("a", "b", "c"):
        client.post("/collections", json={"name": name}).raise_for_status()
        data = {"identity": f"of {name}", "collection": name}
        client.post("/enroll", data=data, files={"image": angle_png(0)}).raise_for_status()
    for name in ("a", "b", "a", "c", "b", "a"):
        assert found(client, name) == [f"of {name}"]
        assert len(held(client)) <= 2


def test_search_of_an_unchanged_collection_reads_no_row_again(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/enroll", data={"identity": "ada"}, files={"image": angle_png(0)}).raise_for_status()
    assert found(client, "default") == ["ada"]
    monkeypatch.setattr(templates, "changed_since", None)
    monkeypatch.setattr(templates, "every", None)  # would fail if called
    assert found(client, "default") == ["ada"]


def test_enrolling_brings_a_deleted_default_collection_back(client: TestClient) -> None:
    assert client.delete("/collections/default").status_code == 204
    made = client.post("/enroll", data={"identity": "ada"}, files={"image": angle_png(0)})
    assert (made.status_code, made.json()["revision"]) == (201, 1)
    assert found(client, "default") == ["ada"]


def test_default_collection_that_another_process_makes_first_is_used(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = client.app.state.context  # type: ignore[attr-defined]
    # What the slower of two sees: nothing when it looks, the row of the faster when it inserts.
    monkeypatch.setattr(collections, "find", lambda *_: None)
    monkeypatch.setattr(collections, "get", lambda *_: "of the faster")
    made = context.database.write_now(catalogue.ensure_default_collection, context.models.default)
    assert made == "of the faster"


def test_gallery_of_many_batches_has_every_identity(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "BATCH", 2)
    for name in "abcde":
        client.post("/enroll", data={"identity": name}, files={"image": angle_png(0)}).raise_for_status()
    assert sorted(found(client, "default")) == list("abcde")


def test_identity_deleted_after_a_load_that_broke_off_is_not_found(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ada", "bob"):
        client.post("/enroll", data={"identity": name}, files={"image": angle_png(0)}).raise_for_status()
    with monkeypatch.context() as broken:
        real = templates.every
        broken.setattr(templates, "BATCH", 1)

        def first_only(*args: Any) -> Any:
            yield next(real(*args))
            raise RuntimeError("the connection broke")

        broken.setattr(templates, "every", first_only)
        assert client.post("/identify", files={"image": angle_png(0)}).status_code == 500
    assert client.delete("/identities/ada").status_code == 204
    assert found(client, "default") == ["bob"]


def test_gallery_of_a_deleted_collection_is_forgotten_by_the_next_search(client: TestClient) -> None:
    client.post("/collections", json={"name": "a"}).raise_for_status()
    assert found(client, "a") == []
    assert len(held(client)) == 1
    client.delete("/collections/a").raise_for_status()
    assert (
        client.post("/identify", data={"collection": "a"}, files={"image": angle_png(0)}).status_code == 404
    )
    assert len(held(client)) == 0


def test_searches_that_wait_are_answered_in_one_pass(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, name in enumerate(("ada", "bob", "eve")):
        client.post("/enroll", data={"identity": name}, files={"image": angle_png(90 * place)})
    found(client, "default")
    context = client.app.state.context  # type: ignore[attr-defined]
    searches, model = context.identification._galleries, context.models.default
    (gallery,) = searches._by_collection.values()
    passes = []
    nearest_each = gallery.gallery.nearest_each

    def counted(probes: Any, k: int) -> Any:
        passes.append(len(probes))
        return nearest_each(probes, k)

    monkeypatch.setattr(gallery.gallery, "nearest_each", counted)
    probes = [np.eye(2, dtype=np.float32)[place % 2] for place in range(12)]
    with ThreadPoolExecutor(12) as threads, gallery.lock:
        asked = [
            threads.submit(searches.search_now, "default", probe, model, 1 + place % 3)
            for place, probe in enumerate(probes)
        ]
        while len(gallery._waiting) < 12:
            time.sleep(0.001)
        gallery.lock.release()
        answers = [one.result() for one in asked]
        gallery.lock.acquire()
    assert passes == [12]
    assert [len(answer.candidates) for answer in answers] == [1 + place % 3 for place in range(12)]
    alone = [
        searches.search_now("default", probe, model, 1 + place % 3) for place, probe in enumerate(probes)
    ]
    assert answers == alone


def test_refused_search_does_not_spoil_those_that_come_after(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/enroll", data={"identity": "ada"}, files={"image": angle_png(0)}).raise_for_status()
    with monkeypatch.context() as broken:
        broken.setattr(templates, "described", lambda *_: 1 / 0)
        assert client.post("/identify", files={"image": angle_png(0)}).status_code == 500
    assert found(client, "default") == ["ada"]


def test_store_put_back_to_an_older_state_is_followed(client: TestClient) -> None:
    for name in ("ada", "bob"):
        client.post("/enroll", data={"identity": name}, files={"image": angle_png(0)}).raise_for_status()
    assert sorted(found(client, "default")) == ["ada", "bob"]
    context = client.app.state.context  # type: ignore[attr-defined]
    with context.database.engine.begin() as connection:
        connection.execute(text("DELETE FROM identities WHERE name = 'bob'"))
        connection.execute(text("UPDATE collections SET revision = 1"))
    assert found(client, "default") == ["ada"]


def test_few_changes_are_followed_and_not_loaded_anew(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/enroll", data={"identity": "ada"}, files={"image": angle_png(0)}).raise_for_status()
    assert found(client, "default") == ["ada"]
    monkeypatch.setattr(templates, "every", None)  # would fail if called
    for name in ("bob", "eve"):
        client.post("/enroll", data={"identity": name}, files={"image": angle_png(0)}).raise_for_status()
    client.delete("/identities/ada").raise_for_status()
    assert sorted(found(client, "default")) == ["bob", "eve"]


def test_many_changes_are_loaded_at_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.post("/enroll", data={"identity": "ada"}, files={"image": angle_png(0)}).raise_for_status()
    assert found(client, "default") == ["ada"]
    monkeypatch.setattr(galleries, "SNAPSHOT_FROM", 1)
    monkeypatch.setattr(templates, "changed_since", None)  # would fail if called
    for name in ("bob", "eve"):
        client.post("/enroll", data={"identity": name}, files={"image": angle_png(0)}).raise_for_status()
    assert sorted(found(client, "default")) == ["ada", "bob", "eve"]
