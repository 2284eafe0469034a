"""Writes sent again under their Idempotency-Key: done once and answered alike by every service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, text, update

from app.errors import OutcomeUnknownError
from app.services.access import create_key
from app.services.images import Images
from app.storage import idempotency
from app.storage.database import Database, Session
from app.storage.records import Answer
from app.storage.schema import IdempotencyKeyRow
from tests.support.bad_requests import File, Raw, Text, Value, as_json
from tests.support.crowd import enrol_at, evenly
from tests.support.images import angle_png
from tests.support.service import serving, settings_for

Pair = tuple[TestClient, TestClient]

KEY = {"Idempotency-Key": "a key of 2026"}
PHOTO = {"image": angle_png(20)}
NEW: dict[str, Any] = {"data": {"identity": "grace"}, "files": PHOTO}
Write = tuple[str, str, dict[str, Any], int]
ENROL: Write = ("POST", "/enroll", NEW, 201)
CREATE: Write = ("POST", "/collections", {"json": {"name": "visitors", "policy": {"max_yaw": 0.5}}}, 201)
WRITES: list[Write] = [
    ENROL,
    ("POST", "/enroll", {"data": {"identity": "ada", "replace": "true"}, "files": PHOTO}, 200),
    (
        "PATCH",
        "/identities/ada",
        {"json": {"identity": "\u0410\u0434\u0430", "metadata": {"n": 10**30}}},
        200,
    ),
    ("DELETE", "/identities/grace", {}, 204),
    CREATE,
    ("PATCH", "/collections/visitors", {"json": {"policy": {"max_yaw": 1.5}}}, 200),
    (
        "POST",
        "/enroll/batch",
        {"data": {"identity": ["hedy", "mary"]}, "files": [("image", PHOTO["image"])] * 2},
        200,
    ),
    ("POST", "/collections/people/evidence", {"json": {"accept_duplicates": True}}, 201),
    ("DELETE", "/collections/people/evidence", {}, 204),
    ("DELETE", "/collections/people", {}, 204),
]
"""Every kind of write, in an order in which each succeeds."""
TABLES = ("collections", "identities", "reference_templates", "removals", "evidence")


@pytest.fixture
def settings(url: str, tmp_path: Path, crowd_models: Path) -> Any:
    """Settings of services with a store in common."""
    return settings_for(tmp_path, crowd_models, ("crowd",), database_url=url)


@pytest.fixture
def pair(settings: Any) -> Iterator[Pair]:
    """Two services on one store; ``ada`` is enrolled, and ``people`` has 40 identities."""
    with ExitStack() as stack:
        one, other = (stack.enter_context(serving(settings)) for _ in range(2))
        enrol_at(store(one), state(one).models.default, evenly(40))
        one.post("/enroll", data={"identity": "ada"}, files=PHOTO).raise_for_status()
        yield one, other


def state(service: TestClient) -> Any:
    return service.app.state.context  # type: ignore[attr-defined]


def store(service: TestClient) -> Database:
    database: Database = state(service).database
    return database


def rows(service: TestClient, *tables: str) -> list[list[tuple[Any, ...]]]:
    """Return all that is stored, apart from the answers."""

    def read(session: Session) -> list[list[tuple[Any, ...]]]:
        return [
            sorted((tuple(row) for row in session.execute(text(f"SELECT * FROM {table}"))), key=repr)
            for table in tables or TABLES
        ]

    return store(service).read_now(read)


def kept(service: TestClient) -> int:
    return len(rows(service, "idempotency_keys")[0])


def send(service: TestClient, write: Write, key: str = KEY["Idempotency-Key"], **headers: str) -> Any:
    method, path, request, _ = write
    return service.request(method, path, **request, headers={"Idempotency-Key": key, **headers})


def essence(response: Any) -> tuple[Any, ...]:
    return (
        response.status_code,
        response.content,
        response.headers.get("etag"),
        response.headers.get("content-type"),
    )


def replayed(response: Any) -> bool:
    return bool(response.headers.get("idempotent-replayed") == "true")


@contextmanager
def no_encoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail on whoever encodes an image."""

    async def refuse(*_: object) -> None:
        raise AssertionError("an image was encoded")

    with monkeypatch.context() as patch:
        patch.setattr(Images, "encode", refuse)
        yield


def test_repeat_gets_the_answer_from_either_service_and_does_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, write in enumerate(WRITES):
        first = send(pair[0], write, f"key {number}")
        assert (first.status_code, replayed(first)) == (write[3], False), first.text
        done = rows(pair[0])
        with no_encoding(monkeypatch):
            for service in pair:
                again = send(service, write, f"key {number}")
                assert (essence(again), replayed(again)) == (essence(first), True)
        assert rows(pair[0]) == done
    assert kept(pair[0]) == len(WRITES)


def test_repeat_after_a_restart_gets_the_answer(settings: Any) -> None:
    with serving(settings) as service:
        first = send(service, ENROL)
        assert first.status_code == 201
    with serving(settings) as service:
        again = send(service, ENROL)
        assert (essence(again), replayed(again)) == (essence(first), True)
        assert again.headers["etag"] == f'"{first.json()["revision"]}"'
        assert service.get("/collections/default").json()["identities"] == 1


def test_same_fields_in_another_body_are_the_same_request(pair: Pair) -> None:
    first = send(pair[0], ENROL)
    fields: list[tuple[str, Value]] = [
        ("image", File(PHOTO["image"])),
        ("identity", Text("grace")),
        ("replace", Raw("false")),
    ]
    request = as_json(fields)
    request["headers"] |= KEY
    again = pair[1].post("/enroll", **request)
    assert (essence(again), replayed(again)) == (essence(first), True)


@pytest.mark.parametrize(
    ("method", "path", "request_"),
    [
        ("POST", "/enroll", {"data": {"identity": "hedy"}, "files": PHOTO}),
        ("POST", "/enroll", {"data": {"identity": "grace"}, "files": {"image": angle_png(21)}}),
        ("POST", "/enroll", {**NEW, "data": {"identity": "grace", "replace": "true"}}),
        ("POST", "/collections", {"json": {"name": "grace"}}),
        ("DELETE", "/identities/grace", {}),
        ("PATCH", "/identities/grace", {"json": {"metadata": {}}}),
    ],
    ids=["name", "image", "replace", "route", "method", "another method"],
)
def test_key_of_another_request_is_refused_and_changes_nothing(
    pair: Pair, method: str, path: str, request_: dict[str, Any]
) -> None:
    assert send(pair[0], ENROL).status_code == 201
    before = rows(pair[0])
    response = pair[1].request(method, path, **request_, headers=KEY)
    assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")
    assert rows(pair[0]) == before
    assert replayed(send(pair[0], ENROL))


def test_query_belongs_to_the_request(pair: Pair) -> None:
    assert pair[0].delete("/identities/p0?collection=people", headers=KEY).status_code == 204
    response = pair[0].delete("/identities/p0", headers=KEY)
    assert response.json()["code"] == "idempotency_key_reused"


def test_refusal_is_not_kept_so_a_repeat_may_fare_better(pair: Pair) -> None:
    again = ("POST", "/enroll", {"data": {"identity": "ada"}, "files": PHOTO}, 201)
    assert send(pair[0], again).json()["code"] == "identity_exists"
    assert kept(pair[0]) == 0
    pair[0].delete("/identities/ada").raise_for_status()
    response = send(pair[0], again)
    assert (response.status_code, replayed(response)) == (201, False)


def test_callers_do_not_share_keys(pair: Pair) -> None:
    tokens = [create_key(store(pair[0]), name, "full") for name in ("one", "other")]
    first, other = ({"Authorization": f"Bearer {token}"} for token in tokens)
    request = ("POST", "/collections", {"json": {"name": "visitors"}}, 201)
    assert send(pair[0], request, **first).status_code == 201
    assert send(pair[0], request, **other).json()["code"] == "collection_exists"
    assert replayed(send(pair[1], request, **first))
    assert send(pair[0], request).status_code == 401


def test_eight_at_once_are_one_write_and_eight_equal_answers(pair: Pair) -> None:
    for number, (write, changes) in enumerate(zip(WRITES, (1, 1, 1, 1, 0, 0, 2), strict=False)):
        before = pair[0].get("/collections/default").json()["revision"]
        barrier = threading.Barrier(8)

        def one(sender: int, write: Write = write, key: str = f"key {number}", barrier: Any = barrier) -> Any:
            barrier.wait()
            return send(pair[sender % 2], write, key)

        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(one, range(8)))
        assert {essence(response) for response in responses} == {essence(responses[0])}
        assert responses[0].status_code == write[3], responses[0].text
        assert sum(replayed(response) for response in responses) == 7
        assert pair[0].get("/collections/default").json()["revision"] == before + changes
    assert kept(pair[0]) == 7


def test_eight_requests_under_one_key_at_once_are_one_write(pair: Pair) -> None:
    barrier = threading.Barrier(8)

    def one(number: int) -> Any:
        barrier.wait()
        return pair[number % 2].post("/collections", json={"name": f"c{number}"}, headers=KEY)

    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(one, range(8)))
    assert sorted(response.status_code for response in responses) == [201] + [422] * 7
    made = {c["name"] for c in pair[0].get("/collections").json()["collections"]} - {"default", "people"}
    assert made == {response.json()["name"] for response in responses if response.status_code == 201}


@contextmanager
def failing(moment: str, error: Exception) -> Iterator[None]:
    """Fail just before or just after the commit of a transaction that keeps an answer."""

    add = idempotency.add

    def adding(session: Session, *args: Any, **kwargs: Any) -> bool:
        session.info["keeps"] = True
        return add(session, *args, **kwargs)

    def fail(session: Session) -> None:
        if "keeps" in session.info and not session.in_nested_transaction():
            raise error

    event.listen(Session, moment, fail)
    try:
        with mock.patch.object(idempotency, "add", adding):
            yield
    finally:
        event.remove(Session, moment, fail)


def test_end_before_the_commit_leaves_neither_the_change_nor_its_answer(pair: Pair) -> None:
    for number, write in enumerate(WRITES):
        before = rows(pair[0])
        with failing("before_commit", RuntimeError("the power is gone")):
            assert send(pair[0], write, f"key {number}").status_code == 500
        assert (rows(pair[0]), kept(pair[0])) == (before, number)
        again = send(pair[1], write, f"key {number}")
        assert (again.status_code, replayed(again)) == (write[3], False)


def test_end_after_the_commit_leaves_both(pair: Pair) -> None:
    for number, write in enumerate(WRITES):
        with failing("after_commit", RuntimeError("the power is gone")):
            assert send(pair[0], write, f"key {number}").status_code == 500
        done = rows(pair[0])
        again = send(pair[1], write, f"key {number}")
        assert (again.status_code, replayed(again)) == (write[3], True)
        assert rows(pair[0]) == done


def test_outcome_that_is_unknown_is_looked_up_under_the_key(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = store(pair[0])
    write = database.write

    async def cut_off(*args: Any) -> None:
        await write(*args)
        raise OutcomeUnknownError("the connection broke during the commit")

    monkeypatch.setattr(database, "write", cut_off)
    without = pair[0].post("/collections", json={"name": "first"})
    assert (without.status_code, without.json()["code"]) == (503, "outcome_unknown")
    response = send(pair[0], CREATE)
    assert (response.status_code, response.json()["name"]) == (201, "visitors")


def _aged(service: TestClient, hours: float) -> None:
    moment = datetime.now(UTC) - timedelta(hours=hours)
    store(service).write_now(
        lambda session: session.execute(update(IdempotencyKeyRow).values(created_at=moment))
    )


def test_answer_is_kept_for_the_hours_of_the_setting(pair: Pair) -> None:
    request = ("POST", "/enroll", {**NEW, "data": {"identity": "grace", "replace": "true"}}, 201)
    first = send(pair[0], request)
    _aged(pair[0], 23.9)
    assert replayed(send(pair[1], request))
    _aged(pair[0], 24.1)
    later = send(pair[1], request)
    assert (later.status_code, replayed(later)) == (200, False)
    assert later.json()["revision"] == first.json()["revision"] + 1
    assert replayed(send(pair[0], request))


def test_old_answers_go_with_later_writes_and_at_a_start(pair: Pair, settings: Any) -> None:
    def fill(session: Session) -> None:
        answer = Answer(204)
        since = datetime.now(UTC) - timedelta(days=9)
        for number in range(3 * idempotency.PRUNED_AT_ONCE):
            idempotency.add(session, "", f"k{number}", idempotency.Kept("0" * 64, answer), since=since)

    store(pair[0]).write_now(fill)
    _aged(pair[0], 25)
    send(pair[0], CREATE).raise_for_status()
    assert kept(pair[0]) == 2 * idempotency.PRUNED_AT_ONCE + 1
    with serving(settings) as service:
        assert kept(service) == 1
        assert replayed(send(service, CREATE))


def test_without_a_key_nothing_is_kept(pair: Pair) -> None:
    pair[0].post("/enroll", **NEW).raise_for_status()
    assert kept(pair[0]) == 0


def test_kept_answer_holds_no_image_and_no_template(pair: Pair) -> None:
    send(pair[0], ENROL).raise_for_status()
    read = store(pair[0]).read_now
    body = read(lambda session: session.scalar(text("SELECT answer FROM idempotency_keys")))
    templates = read(lambda session: session.scalars(text("SELECT embedding FROM reference_templates")).all())
    assert b"grace" in bytes(body)
    for secret in (PHOTO["image"], *map(bytes, templates)):
        assert secret not in bytes(body)
