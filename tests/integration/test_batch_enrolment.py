"""Batches on both stores: beside others that enrol the same names, and broken off."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.storage import identities
from app.storage.database import Database
from tests.support.images import angle_png
from tests.support.service import serving, settings_for


@pytest.fixture
def services(url: str, tmp_path: Path, angle_models: Path) -> Iterator[list[TestClient]]:
    """Two services on one store."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(serving(settings_for(tmp_path, angle_models, ("angles",), database_url=url)))
            for _ in range(2)
        ]


def batch(names: list[str], degrees: float = 10) -> dict[str, Any]:
    image = base64.b64encode(angle_png(degrees)).decode()
    return {"items": [{"identity": name, "image": image} for name in names]}


def test_batches_at_once_enrol_each_name_once(services: list[TestClient], database: Database) -> None:
    names = [f"p{number}" for number in range(30)]

    def send(number: int) -> Any:
        order = names if number % 2 else names[::-1]
        answer = services[number % 2].post("/enroll/batch", json=batch(order))
        assert answer.status_code == 200, answer.text
        return answer.json()["results"]

    with ThreadPoolExecutor(4) as pool:
        results = [one for answer in pool.map(send, range(4)) for one in answer]
    enrolled = [one for one in results if one["status"] == "enrolled"]
    refused = [one for one in results if one["status"] == "refused"]
    assert sorted(one["identity"] for one in enrolled) == sorted(names)
    assert len(refused) == 90
    assert {one["error"]["code"] for one in refused} == {"identity_exists"}
    assert sorted(one["revision"] for one in enrolled) == list(range(1, 31))
    for service in services:
        listed = service.get("/identities", params={"limit": "100"}).json()["identities"]
        assert {one["identity"]: one["revision"] for one in listed} == {
            one["identity"]: one["revision"] for one in enrolled
        }


def test_batch_that_fails_on_its_way_leaves_nothing(
    services: list[TestClient], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth of six fails in a way that nobody foresaw; sent again, all six are enrolled."""
    add = identities.add
    calls = 0

    def failing(*args: Any) -> None:
        nonlocal calls
        add(*args)
        calls += 1
        if calls == 4:
            raise RuntimeError("a fault")

    request: dict[str, Any] = {
        "json": batch([f"p{number}" for number in range(6)]),
        "headers": {"Idempotency-Key": "k"},
    }
    with monkeypatch.context() as patch:
        patch.setattr(identities, "add", failing)
        assert services[0].post("/enroll/batch", **request).status_code == 500
    for table in ("identities", "reference_templates", "idempotency_keys WHERE key = 'k'"):
        with database.engine.connect() as connection:
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0
    assert services[1].get("/collections/default").json()["revision"] == 0
    done = services[1].post("/enroll/batch", **request)
    assert [one["status"] for one in done.json()["results"]] == ["enrolled"] * 6
    replayed = services[0].post("/enroll/batch", **request)
    assert replayed.headers["Idempotent-Replayed"] == "true"
    assert replayed.content == done.content
