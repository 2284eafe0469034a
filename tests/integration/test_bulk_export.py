"""Exports of both stores: of one revision, and answered alike where they are imported."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.errors import CollectionNotFoundError, InvalidRequestError, ModelMismatchError
from app.services import exports
from app.services.exports import export
from app.services.imports.run import Import, ImportOptions
from app.services.models import Models
from app.services.portable.files import open_source
from app.storage import bulk, collections
from app.storage.database import Database, Session
from tests.support.crowd import at, enrol_at, evenly
from tests.support.images import angle_png
from tests.support.service import serving, settings_for

SUFFIXES = [".jsonl", ".npz", ".parquet"]


@pytest.fixture
def client(url: str, tmp_path: Path, angle_models: Path) -> Iterator[TestClient]:
    with serving(settings_for(tmp_path, angle_models, ("angles", "other"), database_url=url)) as opened:
        yield opened


@contextmanager
def elsewhere(tmp_path: Path, angle_models: Path) -> Iterator[TestClient]:
    """Another deployment, with a store of its own."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with serving(settings_for(folder, angle_models, ("angles", "other"))) as opened:
        yield opened


def state(client: TestClient) -> Any:
    return client.app.state.context  # type: ignore[attr-defined]


def answers(client: TestClient) -> list[Any]:
    """Return what is answered about ``people``, but for what belongs to one store."""
    form = {"collection": "people", "top_k": "100"}
    found = [
        client.post("/identify", data=form, files={"image": angle_png(degrees)}).json()["candidates"]
        for degrees in (3, 47, 90)
    ]
    for identity in ("p0", "Ада/1"):
        claim = {"collection": "people", "identity": identity}
        answer = client.post("/verify", data=claim, files={"image": angle_png(20)}).json()
        found.append([answer["distance"], answer["match"], answer["threshold"]])
        shown = client.get(f"/identities/{identity}", params={"collection": "people"}).json()
        found.append([shown[name] for name in ("identity", "metadata", "references")])
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_import_of_an_export_elsewhere_answers_identically(
    client: TestClient, tmp_path: Path, angle_models: Path, suffix: str
) -> None:
    context = state(client)
    enrol_at(context.database, context.models.default, {f"p{n}": 7.3 * n for n in range(50)})
    metadata = json.dumps({"team": "ä", "since": 1815})
    form = {"collection": "people", "identity": "Ада/1", "metadata": metadata}
    client.post("/enroll", data=form, files={"image": angle_png(33)}).raise_for_status()
    path = tmp_path / f"people{suffix}"
    made = export(context.database, context.models, "people", path)
    assert (made.references, made.pending) == (51, 0)
    assert (made.contract.collection, made.contract.revision) == ("people", 2)
    assert made.contract.model_digest == context.models.default.digest
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with elsewhere(tmp_path, angle_models) as other:
        there = state(other)
        options = ImportOptions(create=True)
        with closing(Import(there.database, there.models, path, "people", options)) as work:
            assert work.run().imported == 51
        assert answers(other) == answers(client)
        assert stored(there.database) == stored(context.database)


def stored(database: Database) -> list[Any]:
    """Return every reference of ``people``, but for its own name."""

    def read(session: Session) -> list[Any]:
        pages = bulk.pages(session, collections.get(session, "people"), 20)
        return [one._replace(reference_id="") for page in pages for one in page]

    return database.read_now(read)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_reference_of_an_identity_is_exported(
    client: TestClient, tmp_path: Path, angle_models: Path, suffix: str
) -> None:
    body = {"name": "people", "policy": {"max_references": 3}}
    client.post("/collections", json=body).raise_for_status()
    for degrees in (10, 20, 30):
        form = {"collection": "people", "identity": "ada", "add": "true"}
        client.post("/enroll", data=form, files={"image": angle_png(degrees)}).raise_for_status()
    context = state(client)
    path = tmp_path / f"people{suffix}"
    assert export(context.database, context.models, "people", path).references == 3
    with elsewhere(tmp_path, angle_models) as other:
        other.post("/collections", json=body).raise_for_status()
        there = state(other)
        with closing(Import(there.database, there.models, path, "people", ImportOptions())) as work:
            work.run()
        for degrees in (9, 21, 34):
            form = {"collection": "people"}
            found = [
                one.post("/identify", data=form, files={"image": angle_png(degrees)}).json()["candidates"]
                for one in (client, other)
            ]
            assert found[0] == found[1]
            assert len(found[0]) == 1


@pytest.fixture
def models(tmp_path: Path, angle_models: Path) -> Models:
    from app.context import load_models

    return Models(load_models(settings_for(tmp_path, angle_models, ("angles", "other"))))


def test_export_is_of_one_revision_while_others_write(
    database: Database, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People are added in pairs; an export between the two of a pair has neither."""
    monkeypatch.setattr(exports, "IDENTITIES_OF_A_PAGE", 3)
    enrol_at(database, models.default, evenly(20))
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            enrol_at(database, models.default, {f"a{number}": 1.0, f"b{number}": 2.0})
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for attempt in range(10):
            path = tmp_path / f"{attempt}.jsonl"
            made = export(database, models, "people", path)
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            names = [line["identity"] for line in lines[1:]]
            pairs = lines[0]["revision"] - 1
            assert made.references == len(names) == 20 + 2 * pairs
            assert set(names[20:]) == {f"{one}{number}" for one in "ab" for number in range(pairs)}
    finally:
        stop.set()
        thread.join(30)


def test_broken_off_export_leaves_the_file_as_it_was(
    database: Database, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol_at(database, models.default, evenly(20))
    path = tmp_path / "people.npz"
    export(database, models, "people", path)
    before = path.read_bytes()
    monkeypatch.setattr(exports, "IDENTITIES_OF_A_PAGE", 3)

    class _Full:
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None: ...

        def __call__(self, rows: int) -> None:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        export(database, models, "people", path, progress=lambda _: _Full())
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.glob("*people*")] == ["people.npz"]
    assert not list(tmp_path.glob(".*partial"))


def test_identity_without_a_reference_by_the_model_is_counted_and_left_out(
    database: Database, models: Models, tmp_path: Path
) -> None:
    enrol_at(database, models.default, {"ada": 10.0})
    enrol_at(database, models.get("other"), {"bob": 20.0})
    path = tmp_path / "people.npz"
    made = export(database, models, "people", path)
    assert (made.references, made.pending) == (1, 1)
    with closing(open_source(path)) as source:
        (rows,) = source.read(0, 9, 2)
    assert rows.identities == ["ada"]
    assert rows.embeddings.tobytes() == at(10.0).tobytes()


def test_export_that_cannot_be_says_why(database: Database, models: Models, tmp_path: Path) -> None:
    with pytest.raises(CollectionNotFoundError):
        export(database, models, "people", tmp_path / "people.npz")
    for name, problem in (("people.csv", ".jsonl, .npz, .parquet"), ("no/people.npz", "there is no folder")):
        with pytest.raises(InvalidRequestError, match=problem):
            export(database, models, "people", tmp_path / name)

    def foreign(session: Session) -> None:
        collections.add(session, "foreign", "angles", "e" * 64, {})

    database.write_now(foreign)
    with pytest.raises(ModelMismatchError):
        export(database, models, "foreign", tmp_path / "people.npz")
    assert not list(tmp_path.glob("*people*"))
