"""A store that the first version filled answers the same after the upgrade to this one."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.encoding.model import open_model
from app.storage import migrate
from app.storage.database import Database
from tests.support.images import angle_png
from tests.support.service import serving, settings_for

MOMENT = "2026-03-01 12:00:00.000000"
STORED = "2026-03-01T12:00:00Z"
ANGLES = {"ada": 10.0, "grace": 40.0, "alan/turing": 80.0}
SECRET = "a" * 43
KEY = f"vv_0123456789ab_{SECRET}"


def embedding(degrees: float) -> bytes:
    """Return the template of an angle as the first version stored it: little-endian float32."""
    return struct.pack("<2f", math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))


def fill(database: Database, digest: str) -> None:
    """Write what the first version had written after four enrolments, a deletion and a rename."""
    statements: list[tuple[str, dict[str, Any]]] = [
        (
            "INSERT INTO collections (id, name, model_id, model_digest, policy, revision, created_at) "
            "VALUES (:id, :name, 'angles', :digest, :policy, :revision, :at)",
            {"id": 1, "name": "default", "policy": "{}", "revision": 6},
        ),
        (
            "INSERT INTO collections (id, name, model_id, model_digest, policy, revision, created_at) "
            "VALUES (:id, :name, 'angles', :digest, :policy, :revision, :at)",
            {"id": 2, "name": "visitors", "policy": '{"max_yaw": 0.5}', "revision": 0},
        ),
        (
            "INSERT INTO removals (collection_id, revision, identity_id) VALUES (1, 5, :gone)",
            {"gone": 4},
        ),
        (
            "INSERT INTO api_keys (id, name, secret_sha256, role, created_at) "
            "VALUES ('0123456789ab', 'door', :sha256, 'full', :at)",
            {"sha256": hashlib.sha256(SECRET.encode()).hexdigest()},
        ),
    ]
    for number, (name, degrees) in enumerate(ANGLES.items(), start=1):
        statements += [
            (
                "INSERT INTO identities (id, collection_id, name, details, revision, created_at, updated_at) "
                "VALUES (:id, 1, :name, :details, :revision, :at, :at)",
                {
                    "id": number,
                    "name": name,
                    "details": json.dumps({"number": number}),
                    "revision": 6 if name == "ada" else number,
                },
            ),
            (
                "INSERT INTO reference_templates "
                "(id, identity_id, model_digest, embedding, face, quality, created_at) "
                "VALUES (:reference, :id, :digest, :embedding, NULL, :quality, :at)",
                {
                    "reference": f"00000000-0000-4000-8000-00000000000{number}",
                    "id": number,
                    "embedding": embedding(degrees),
                    "quality": json.dumps({"sharpness": 1.0, "brightness": 0.5, "contrast": 0.2}),
                },
            ),
        ]
    with database.engine.begin() as connection:
        for statement, values in statements:
            connection.execute(text(statement), {"digest": digest, "at": MOMENT, **values})
        if not database.is_sqlite:  # rows with numbers of their own leave the sequences where they were
            connection.execute(text("SELECT setval(pg_get_serial_sequence('collections', 'id'), 2)"))
            connection.execute(text("SELECT setval(pg_get_serial_sequence('identities', 'id'), 4)"))


@pytest.fixture(params=["0001", "head"])
def upgraded(request: pytest.FixtureRequest, empty_url: str, angle_models: Path) -> str:
    """URL of a store of this version's schema, which the first version wrote before the upgrade, or after it
    because it was still running.
    """
    digest = open_model(angle_models / "angles", provider="cpu").digest
    with closing(Database(empty_url, timeout_s=10, pool_size=1)) as database:
        migrate.upgrade(database, request.param)
        fill(database, digest)
        migrate.upgrade(database)
        migrate.require_current(database)
    return empty_url


def identify(service: TestClient, degrees: float, **fields: str) -> Any:
    response = service.post("/identify", data=fields, files={"image": angle_png(degrees)})
    assert response.status_code == 200, response.text
    return response.json()


def apart(one: float, other: float) -> float:
    return 2 * math.sin(math.radians(abs(one - other)) / 2)


def test_store_of_the_first_version_answers_as_it_did(
    upgraded: str, tmp_path: Path, angle_models: Path
) -> None:
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=upgraded)
    with serving(settings) as service:
        service.headers["Authorization"] = f"Bearer {KEY}"
        listed = service.get("/identities").json()
        assert [identity["identity"] for identity in listed["identities"]] == list(ANGLES)
        for number, identity in enumerate(listed["identities"], start=1):
            assert identity["metadata"] == {"number": number}
            assert identity["references"] == 1
            assert identity["revision"] == (6 if number == 1 else number)
            assert identity["created_at"] == identity["updated_at"] == STORED
            assert service.get(f"/identities/{identity['identity']}").json() == identity

        for probe in (0.0, 30.0, 90.0):
            answer = identify(service, probe)
            assert (answer["gallery_size"], answer["revision"]) == (3, 6)
            expected = sorted(ANGLES, key=lambda name: apart(ANGLES[name], probe))
            assert [candidate["identity"] for candidate in answer["candidates"]] == expected
            for candidate in answer["candidates"]:
                # The probe's pixels are whole numbers, so its angle is off by up to a quarter of a degree.
                assert candidate["distance"] == pytest.approx(
                    apart(ANGLES[candidate["identity"]], probe), abs=0.005
                )
            for candidate in answer["candidates"]:
                verified = service.post(
                    "/verify", data={"identity": candidate["identity"]}, files={"image": angle_png(probe)}
                ).json()
                assert verified["distance"] == candidate["distance"]

        visitors = service.get("/collections/visitors").json()
        assert (visitors["policy"]["max_yaw"], visitors["identities"]) == (0.5, 0)
        assert service.get("/identities", headers={"Authorization": "Bearer vv_no_no"}).status_code == 401


def test_store_of_the_first_version_takes_writes_and_numbers_them_on(
    upgraded: str, tmp_path: Path, angle_models: Path
) -> None:
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=upgraded)
    with serving(settings) as service:
        service.headers["Authorization"] = f"Bearer {KEY}"
        enrolled = service.post("/enroll", data={"identity": "new"}, files={"image": angle_png(60)})
        assert (enrolled.status_code, enrolled.json()["revision"]) == (201, 7)
        replaced = service.post(
            "/enroll", data={"identity": "ada", "replace": "true"}, files={"image": angle_png(0)}
        )
        assert (replaced.status_code, replaced.json()["revision"]) == (200, 8)
        assert service.delete("/identities/grace").status_code == 204
        answer = identify(service, 0, top_k="100")
        assert [c["identity"] for c in answer["candidates"]] == ["ada", "new", "alan/turing"]
        assert answer["revision"] == 9
        made = service.post("/collections", json={"name": "more"})
        assert made.status_code == 201, made.text
        assert identify(service, 0, collection="more")["candidates"] == []


def test_store_of_the_second_version_keeps_its_evidence(
    empty_url: str, tmp_path: Path, angle_models: Path
) -> None:
    digest = open_model(angle_models / "angles", provider="cpu").digest
    with closing(Database(empty_url, timeout_s=10, pool_size=1)) as database:
        migrate.upgrade(database, "0002")
        fill(database, digest)
        with database.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO evidence (id, collection_id, model_digest, revision, description, subjects, "
                    "images, mated, nonmated, trials, created_at) VALUES (1, 1, :digest, 6, 'own', 3, 3, 0, "
                    "3, :trials, :at)"
                ),
                {"digest": digest, "trials": b"\0", "at": MOMENT},
            )
            connection.execute(text("UPDATE collections SET evidence_id = 1 WHERE id = 1"))
        migrate.upgrade(database)
        with database.engine.connect() as connection:
            row = connection.execute(
                text(
                    "SELECT c.evidence_id, e.description, c.removals_from, c.other_model_id, c.migration "
                    "FROM collections c JOIN evidence e ON e.id = c.evidence_id"
                )
            ).one()
    assert tuple(row) == (1, "own", 0, None, None)
