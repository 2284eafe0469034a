"""Files and folders imported on both stores: each row once, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from app.context import load_models
from app.encoding.quality import QualityFloor
from app.errors import (
    CollectionNotFoundError,
    ModelMismatchError,
    OutcomeUnknownError,
)
from app.services.imports import embeddings, run
from app.services.imports.batch import Reject
from app.services.imports.rejects import RejectsFile
from app.services.imports.run import DuplicateRowError, Import, ImportOptions, ImportUnderWayError, Report
from app.services.models import Models
from app.storage import bulk, collections, identities, imports
from app.storage.database import Database, DatabaseUnavailableError
from app.storage.records import Collection, to_bytes
from tests.support.embedding_files import contract_of, rows_of, unit_vectors, write_file, write_jsonl
from tests.support.images import angle_png
from tests.support.server import ROOT
from tests.support.service import serving, settings_for
from tests.support.vectors import SIZE, vector_png, write_vector_bundle

ROWS = 250
VECTORS = unit_vectors(ROWS, SIZE)


@pytest.fixture(scope="module")
def vector_models(tmp_path_factory: pytest.TempPathFactory, angle_models: Path) -> Path:
    """Folder with the bundles ``vectors`` and ``angles``."""
    folder = tmp_path_factory.mktemp("bulk")
    write_vector_bundle(folder)
    (folder / "angles").symlink_to(angle_models / "angles")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, vector_models: Path) -> Models:
    folder = tmp_path_factory.mktemp("unused")
    return Models(load_models(settings_for(folder, vector_models, ("vectors", "angles"))))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "ROWS_OF_A_BATCH", 100)
    monkeypatch.setattr(run, "PAUSE_S", 0.01)


@pytest.fixture
def source(tmp_path: Path, models: Models) -> Path:
    """250 people in 64 dimensions."""
    return write_file(tmp_path / "people.npz", rows_of(VECTORS), contract_of(models.default))


def opened(database: Database, models: Models, source: Path, **options: Any) -> Import:
    return Import(database, models, source, "people", ImportOptions(**{"create": True, **options}))


def imported(database: Database, models: Models, source: Path, **options: Any) -> tuple[Report, list[Reject]]:
    rejects: list[Reject] = []
    with closing(opened(database, models, source, **options)) as work:
        return work.run(rejected=rejects.append), rejects


def gallery(database: Database) -> Collection:
    return database.read_now(collections.get, "people")


def stored(database: Database) -> dict[str, list[bytes]]:
    """Return the embeddings of each identity."""
    found: dict[str, list[bytes]] = {}
    for page in database.read_now(lambda session: list(bulk.pages(session, gallery(database), 97))):
        for one in page:
            found.setdefault(one.identity, []).append(one.embedding)
    return found


def expected(vectors: Any = VECTORS) -> dict[str, list[bytes]]:
    return {f"p{number:04d}": [to_bytes(vector)] for number, vector in enumerate(vectors)}


def counts(report: Report) -> tuple[int, int, int, int]:
    return report.imported, report.replaced, report.skipped, report.rejected


# what is stored


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".jsonl"])
def test_every_row_is_there_once_with_one_revision_a_batch(
    database: Database, models: Models, tmp_path: Path, suffix: str
) -> None:
    path = write_file(tmp_path / f"people{suffix}", rows_of(VECTORS), contract_of(models.default))
    report, rejects = imported(database, models, path)
    assert (counts(report), rejects) == ((ROWS, 0, 0, 0), [])
    assert (report.rows, report.resumed_at, report.revision) == (ROWS, 0, 3)
    assert gallery(database).revision == 3
    assert stored(database) == expected()
    listed = database.read_now(identities.page, gallery(database), after=0, limit=999)
    assert [one.name for one in listed] == [f"p{number:04d}" for number in range(ROWS)]
    assert [one.metadata for one in listed] == [{"number": number} for number in range(ROWS)]
    assert [one.revision for one in listed] == [1] * 100 + [2] * 100 + [3] * 50
    age = datetime.now(UTC) - listed[0].created_at
    assert 0 <= age.total_seconds() < 60
    assert {one.references for one in listed} == {1}


def test_finished_source_changes_nothing_unless_it_is_asked_for_again(
    database: Database, models: Models, source: Path
) -> None:
    first, _ = imported(database, models, source)
    second, rejects = imported(database, models, source, on_duplicate="replace")
    assert (counts(second), second.resumed_at, second.rows_per_second, rejects) == (
        counts(first),
        ROWS,
        None,
        [],
    )
    assert gallery(database).revision == 3
    third, _ = imported(database, models, source, on_duplicate="replace", again=True)
    assert (counts(third), third.resumed_at, gallery(database).revision) == ((0, ROWS, 0, 0), 0, 6)
    assert stored(database) == expected()


def test_row_whose_identity_was_renamed_is_imported_again(
    database: Database, models: Models, source: Path
) -> None:
    imported(database, models, source)
    database.write_now(
        lambda session: identities.change(
            session,
            gallery(database),
            collections.next_revision(session, gallery(database)),
            "p0000",
            new_name="somebody",
            metadata=None,
        )
    )
    report, _ = imported(database, models, source, on_duplicate="skip", again=True)
    assert counts(report) == (1, 0, ROWS - 1, 0)
    assert stored(database) == {**expected(), "somebody": expected()["p0000"]}


def test_running_service_finds_what_is_imported_and_forgets_what_is_replaced(
    database: Database, url: str, models: Models, source: Path, vector_models: Path, tmp_path: Path
) -> None:
    def nearest(client: Any, vector: Any) -> list[tuple[str, float]]:
        form = {"collection": "people", "top_k": "1"}
        answer = client.post("/identify", data=form, files={"image": vector_png(vector)})
        return [(one["identity"], one["distance"]) for one in answer.json()["candidates"]]

    settings = settings_for(tmp_path, vector_models, ("vectors", "angles"), database_url=url)
    with serving(settings) as client:
        client.post("/collections", json={"name": "people"}).raise_for_status()
        assert nearest(client, VECTORS[3]) == []
        imported(database, models, source)
        ((name, distance),) = nearest(client, VECTORS[3])
        assert name == "p0003"
        assert distance < 0.02  # the photo has eight bits a number
        other = [{"identity": "p0003", "embedding": -VECTORS[3]}]
        path = write_file(tmp_path / "other.npz", other, contract_of(models.default))
        imported(database, models, path, on_duplicate="replace")
        assert nearest(client, VECTORS[3])[0][0] != "p0003"
        assert nearest(client, -VECTORS[3])[0][0] == "p0003"
        shown = client.get("/identities/p0003", params={"collection": "people"}).json()
        assert (shown["references"], shown["metadata"], shown["revision"]) == (1, {"number": 3}, 4)


def test_number_of_a_deleted_identity_is_not_given_again(
    database: Database, models: Models, source: Path, tmp_path: Path
) -> None:
    imported(database, models, source)
    listed = database.read_now(identities.page, gallery(database), after=0, limit=999)
    database.write_now(
        lambda session: identities.remove(
            session,
            gallery(database),
            collections.next_revision(session, gallery(database)),
            listed[-1].name,
        )
    )
    row = [{"identity": "new", "embedding": VECTORS[0]}]
    imported(database, models, write_file(tmp_path / "new.npz", row, contract_of(models.default)))
    new = database.read_now(identities.get, gallery(database), "new")
    assert new.id > listed[-1].id
    database.write_now(
        lambda session: identities.add(
            session,
            gallery(database),
            collections.next_revision(session, gallery(database)),
            "enrolled",
            {},
        )
    )
    assert database.read_now(identities.get, gallery(database), "enrolled").id > new.id


# identities that are enrolled


@pytest.mark.parametrize(
    ("on_duplicate", "wanted"),
    [("reject", (248, 0, 0, 2)), ("skip", (248, 0, 2, 0)), ("replace", (248, 2, 0, 0))],
)
def test_rows_of_enrolled_identities(
    database: Database, models: Models, tmp_path: Path, on_duplicate: str, wanted: tuple[int, ...]
) -> None:
    """``p0001`` is enrolled before, and ``p0000`` occurs again in the second batch."""
    before = [{"identity": "p0001", "embedding": -VECTORS[1], "metadata": {"from": "before"}}]
    contract = contract_of(models.default)
    imported(database, models, write_file(tmp_path / "before.npz", before, contract))
    rows = rows_of(VECTORS)
    rows[150] = {"identity": "p0000", "embedding": VECTORS[150]}
    report, rejects = imported(
        database, models, write_file(tmp_path / "rows.npz", rows, contract), on_duplicate=on_duplicate
    )
    assert counts(report) == wanted
    kept = on_duplicate == "replace"
    assert stored(database)["p0001"] == [to_bytes(VECTORS[1] if kept else -VECTORS[1])]
    assert stored(database)["p0000"] == [to_bytes(VECTORS[150] if kept else VECTORS[0])]
    named = {
        name: database.read_now(identities.get, gallery(database), name).metadata
        for name in ("p0000", "p0001")
    }
    assert named == {"p0000": {"number": 0}, "p0001": {"number": 1} if kept else {"from": "before"}}
    if on_duplicate == "reject":
        assert [(one.row, one.identity, one.code) for one in rejects] == [
            (1, "p0001", "identity_exists"),
            (150, "p0000", "identity_exists"),
        ]


def test_identity_twice_in_a_batch_is_replaced_by_its_later_row(
    database: Database, models: Models, tmp_path: Path
) -> None:
    rows = rows_of(VECTORS[:20])
    rows[15] = {"identity": "p0000", "embedding": VECTORS[15]}
    path = write_file(tmp_path / "rows.npz", rows, contract_of(models.default))
    report, _ = imported(database, models, path, on_duplicate="replace")
    assert counts(report) == (19, 1, 0, 0)
    assert stored(database)["p0000"] == [to_bytes(VECTORS[15])]
    assert database.read_now(identities.get, gallery(database), "p0000").metadata == {"number": 0}


def test_import_that_shall_fail_stops_before_the_batch_of_the_first_duplicate(
    database: Database, models: Models, tmp_path: Path
) -> None:
    rows = rows_of(VECTORS)
    rows[150]["identity"] = "p0000"
    path = write_file(tmp_path / "rows.npz", rows, contract_of(models.default))
    with pytest.raises(DuplicateRowError, match=r"row 150: identity 'p0000' .* from row 100 on"):
        imported(database, models, path, on_duplicate="fail")
    assert len(stored(database)) == 100
    report, _ = imported(database, models, path)
    assert (report.resumed_at, counts(report)) == (100, (249, 0, 0, 1))


def test_rows_of_one_identity_that_follow_one_another_are_its_references(
    database: Database, models: Models, tmp_path: Path
) -> None:
    """Four rows each, over the borders of batches; the collection keeps three."""
    rows = [
        {"identity": f"p{number // 4:04d}", "embedding": vector, "metadata": {"number": number}}
        for number, vector in enumerate(VECTORS[:240])
    ]
    path = write_file(tmp_path / "rows.parquet", rows, contract_of(models.default))
    policy = {"max_references": 3}
    database.write_now(collections.add, "people", "vectors", models.default.digest, policy)
    report, rejects = imported(database, models, path)
    assert counts(report) == (180, 0, 0, 60)
    assert {one.code for one in rejects} == {"too_many_references"}
    assert [one.row for one in rejects] == list(range(3, 240, 4))
    kept = [{to_bytes(vector) for vector in VECTORS[n : n + 3]} for n in range(0, 240, 4)]
    assert [set(found) for found in stored(database).values()] == kept


# rows that cannot be used


def test_unusable_rows_are_rejected_each_with_its_reason(
    database: Database, models: Models, tmp_path: Path
) -> None:
    one = VECTORS[0]
    rows: list[Any] = [
        {"identity": "good", "embedding": one},
        {"identity": "not finite", "embedding": [float("nan"), *one.tolist()[1:]]},
        {"identity": "too large", "embedding": [1e300, *one.tolist()[1:]]},
        {"identity": "long", "embedding": (one * 1.002)},
        {"identity": "nearly", "embedding": (one * 1.0005)},
        {"identity": "zero", "embedding": (one * 0)},
        {"identity": "short", "embedding": one[:-1]},
        {"identity": "text", "embedding": "no base64!"},
        {"identity": "words", "embedding": ["a"] * SIZE},
        {"identity": "none", "embedding": None},
        {"identity": " padded", "embedding": one},
        {"identity": 7, "embedding": one},
        {"embedding": one},
        {"identity": "list", "embedding": one, "metadata": [1]},
        {"identity": "large", "embedding": one, "metadata": {"a": "b" * 17_000}},
        {"identity": "when", "embedding": one, "created_at": "yesterday"},
        "no JSON",
        "[1]",
        {"identity": "last", "embedding": one},
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows, contract_of(models.default))
    report, rejects = imported(database, models, path)
    assert counts(report) == (3, 0, 0, 16)
    assert set(stored(database)) == {"good", "nearly", "last"}
    assert {one.row: (one.identity, one.detail) for one in rejects} == {
        1: ("not finite", "the embedding is not finite"),
        2: ("too large", "the embedding is not finite"),
        3: ("long", "the embedding has norm 1.002; those of the model have norm 1"),
        5: ("zero", "the embedding has norm 0; those of the model have norm 1"),
        6: ("short", "the embedding has 63 dimensions; 64 are wanted"),
        7: ("text", "the embedding is neither a list of numbers nor base64"),
        8: ("words", "the embedding is neither a list of numbers nor base64"),
        9: ("none", "the embedding is neither a list of numbers nor base64"),
        10: (" padded", "identity: no control characters, no blanks at either end, not '.' or '..'"),
        11: (None, "there is no identity, or it is no text"),
        12: (None, "there is no identity, or it is no text"),
        13: ("list", "metadata is no JSON object"),
        14: ("large", "metadata: at most 16384 bytes of JSON are kept"),
        15: ("when", "created_at is 'yesterday'; a moment as in ISO 8601 is wanted"),
        16: (None, "there is no identity, or it is no text"),
        17: (None, "there is no identity, or it is no text"),
    }


def test_embeddings_of_another_model_are_refused_as_a_whole(
    database: Database, models: Models, tmp_path: Path
) -> None:
    for changes in ({"model_digest": "e" * 64}, {"dimensions": 3}, {"metric": "cosine"}):
        path = write_file(tmp_path / "rows.npz", rows_of(VECTORS), contract_of(models.default, **changes))
        with pytest.raises(ModelMismatchError, match="embeddings of vectors"):
            imported(database, models, path, model="vectors")
        with pytest.raises(CollectionNotFoundError):  # nor was it made for them
            gallery(database)


def test_collection_is_made_for_the_model_that_the_file_names(
    database: Database, models: Models, tmp_path: Path
) -> None:
    row = [{"identity": "ada", "embedding": np.array([0.6, 0.8], np.float32)}]
    path = write_file(tmp_path / "rows.npz", row, contract_of(models.get("angles")))
    imported(database, models, path)
    assert gallery(database).model_id == "angles"


# broken off


def _reference_rejects(database: Database, models: Models, source: Path, path: Path) -> bytes:
    """Import undisturbed into another collection; its rejects, but for the first line."""
    with closing(Import(database, models, source, "undisturbed", ImportOptions(create=True))) as work:
        file = RejectsFile(path, collection="undisturbed", source_sha256=work.source_sha256, position=0)
        with closing(file):
            work.run(file)
    return path.read_bytes().partition(b"\n")[2]


@pytest.fixture
def spoiled(tmp_path: Path, models: Models) -> Path:
    """250 rows of which every tenth is rejected."""
    rows = rows_of(VECTORS)
    for row in rows[::10]:
        row["embedding"] = row["embedding"] * 2
    return write_file(tmp_path / "spoiled.npz", rows, contract_of(models.default))


@pytest.mark.parametrize("failing", ["add_all", "replace_all"])
def test_batch_that_fails_leaves_no_row_and_no_reject(
    database: Database,
    models: Models,
    spoiled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
) -> None:
    wanted = _reference_rejects(database, models, spoiled, tmp_path / "undisturbed.jsonl")
    calls = 0
    work_of = getattr(bulk, failing)

    def third_time(*args: Any) -> None:
        nonlocal calls
        work_of(*args)
        calls += 1
        if calls == 2:
            raise RuntimeError("a fault, after the rows were written")

    path = tmp_path / "rejects.jsonl"

    def attempt() -> Report:
        with closing(opened(database, models, spoiled)) as work:
            file = RejectsFile(
                path,
                collection="people",
                source_sha256=work.source_sha256,
                position=work.position,
            )
            with closing(file):
                return work.run(file)

    with monkeypatch.context() as patch:
        patch.setattr(bulk, failing, third_time)
        with pytest.raises(RuntimeError, match="a fault"):
            attempt()
    assert len(stored(database)) == 90
    assert gallery(database).revision == 1
    # Row 100 is a reject, and went with the first batch.
    assert [json.loads(line)["row"] for line in path.read_text().splitlines()[1:]] == list(range(0, 101, 10))
    report = attempt()
    assert (report.resumed_at, counts(report)) == (101, (225, 0, 0, 25))
    assert len(stored(database)) == 225
    assert path.read_bytes().partition(b"\n")[2] == wanted


def test_rejects_beyond_the_commit_are_cut_off_by_the_next_run(
    database: Database, models: Models, spoiled: Path, tmp_path: Path
) -> None:
    """As after a kill between the file's rows and the commit, in the middle of a line."""
    wanted = _reference_rejects(database, models, spoiled, tmp_path / "undisturbed.jsonl")
    with closing(opened(database, models, spoiled)) as work:
        path = tmp_path / "rejects.jsonl"
        head = json.dumps({"visavis_rejects": 1, "collection": "people", "source_sha256": work.source_sha256})
        path.write_bytes(head.encode() + b"\n" + wanted[: len(wanted) // 3])
        file = RejectsFile(path, collection="people", source_sha256=work.source_sha256, position=0)
        with closing(file):
            work.run(file)
    assert path.read_bytes() == head.encode() + b"\n" + wanted


class _Flaky(Database):
    """A store whose writes fail now and then, before their commit or after it."""

    fails: Iterator[type[Exception] | None] = iter(())

    def write_now(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        failure = next(self.fails, None)
        if failure is DatabaseUnavailableError:
            raise failure("locked")
        result = super().write_now(work, *args, **kwargs)
        if failure is not None:
            raise failure("the connection broke during the commit")
        return result


def test_batch_is_tried_again_and_not_written_twice_when_its_answer_was_lost(
    url: str, models: Models, spoiled: Path, tmp_path: Path
) -> None:
    with closing(_Flaky(url, timeout_s=5, pool_size=2)) as database:
        path = tmp_path / "rejects.jsonl"
        with closing(opened(database, models, spoiled)) as work:
            database.fails = iter(
                [DatabaseUnavailableError, OutcomeUnknownError, None, None, DatabaseUnavailableError]
            )
            file = RejectsFile(path, collection="people", source_sha256=work.source_sha256, position=0)
            with closing(file):
                report = work.run(file)
        assert (counts(report), report.revision) == ((225, 0, 0, 25), 3)
        assert len(stored(database)) == 225
        assert [json.loads(line)["row"] for line in path.read_text().splitlines()[1:]] == list(
            range(0, 250, 10)
        )


def test_store_that_stays_away_ends_the_import_at_a_position_to_go_on_from(
    url: str, models: Models, source: Path
) -> None:
    with closing(_Flaky(url, timeout_s=5, pool_size=2)) as database:
        with closing(opened(database, models, source)) as work:
            database.fails = iter([None, *[DatabaseUnavailableError] * run.ATTEMPTS])
            with pytest.raises(DatabaseUnavailableError):
                work.run()
        report, _ = imported(database, models, source)
        assert (report.resumed_at, counts(report)) == (100, (ROWS, 0, 0, 0))
        assert stored(database) == expected()


_KILLED = """
import os, signal, sys
from app.cli import main
from app.services.imports import embeddings, rejects
from app.storage import bulk

embeddings.ROWS_OF_A_BATCH = 50
point, left = sys.argv.pop(1), 3
owner, name = {
    "rows": (bulk, "add_all"),
    "rejects": (rejects.RejectsFile, "put"),
    "commit": (rejects.RejectsFile, "keep"),
}.get(point, (bulk, "prepare"))
work = getattr(owner, name)

def killed(*args):
    global left
    result = work(*args)
    left -= 1
    if point != "never" and left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, killed)
main()
"""
"""The command line, which kills itself the third time that a batch has got to a point."""


def test_each_row_is_there_once_after_kills(
    url: str, database: Database, models: Models, tmp_path: Path, vector_models: Path
) -> None:
    vectors = unit_vectors(2000, SIZE, seed=1)
    rows = rows_of(vectors)
    for row in rows[::30]:
        row["embedding"] = row["embedding"] * 2
    path = write_file(tmp_path / "people.npz", rows, contract_of(models.default))
    rejects = tmp_path / "rejects.jsonl"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "VISAVIS_DATABASE_URL": url,
        "VISAVIS_MODELS_DIR": str(vector_models),
        "VISAVIS_MODELS": "vectors",
        "VISAVIS_PROVIDER": "cpu",
    }

    def run_until(point: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-c", _KILLED, point, "identities", "import", str(path)]
        command += ["--collection", "people", "--create", "--rejects", str(rejects), "--json"]
        return subprocess.run(command, env=environment, cwd=tmp_path, check=False, capture_output=True)

    def position() -> int:
        return int(database.read_now(lambda session: session.scalar(text("SELECT position FROM imports"))))

    positions = []
    for point in ("rows", "rejects", "commit"):
        assert run_until(point).returncode == -signal.SIGKILL
        positions.append(position())
    batches = [gap // 50 for gap in np.diff([0, *positions])]
    assert batches == [2, 2, 3]
    report = json.loads(run_until("never").stdout)
    rejected = range(0, 2000, 30)
    assert (report["imported"], report["rejected"]) == (2000 - len(rejected), len(rejected))
    assert report["resumed_at"] == positions[-1]
    wanted = {name: found for name, found in expected(vectors).items() if int(name[1:]) not in rejected}
    assert stored(database) == wanted
    written = [json.loads(line)["row"] for line in rejects.read_text().splitlines()[1:]]
    assert written == list(rejected)


# two at once


def test_second_import_of_a_source_stops_where_the_first_has_moved_on(
    database: Database, models: Models, source: Path
) -> None:
    with closing(opened(database, models, source)) as slow, closing(opened(database, models, source)) as fast:
        fast.run()
        with pytest.raises(ImportUnderWayError, match=r"people\.npz into 'people' is under way, or is done"):
            slow.run()
    assert stored(database) == expected()
    assert gallery(database).revision == 3


def test_imports_of_a_source_at_once_write_each_row_once(
    database: Database, models: Models, source: Path
) -> None:
    barrier = threading.Barrier(3)
    outcomes: list[object] = []

    def one() -> None:
        with closing(opened(database, models, source)) as work:
            barrier.wait(30)
            try:
                outcomes.append(counts(work.run()))
            except ImportUnderWayError as error:
                outcomes.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == 3
    report, _ = imported(database, models, source)  # goes on, should all have stopped one another
    assert counts(report) == (ROWS, 0, 0, 0)
    assert stored(database) == expected()
    assert gallery(database).revision == 3


def test_import_and_enrolments_at_once_leave_each_name_once(
    database: Database, models: Models, source: Path
) -> None:
    """Somebody enrols names of the file while it is imported; whoever is first wins."""
    database.write_now(collections.add, "people", "vectors", models.default.digest, {})
    stop = threading.Event()
    enrolled: list[str] = []

    def enrol() -> None:
        for number in range(ROWS - 1, 0, -7):
            if stop.is_set():
                return
            name = f"p{number:04d}"

            def work(session: Any, name: str = name) -> bool:
                found = collections.get(session, "people")
                revision = collections.next_revision(session, found)
                if identities.exists(session, found, name):
                    return False
                identities.add(session, found, revision, name, {})
                return True

            if database.write_now(work):
                enrolled.append(name)

    thread = threading.Thread(target=enrol)
    thread.start()
    try:
        report, rejects = imported(database, models, source)
    finally:
        stop.set()
        thread.join(60)
    assert report.imported + report.rejected == ROWS
    assert {one.identity for one in rejects} <= set(enrolled)
    assert database.read_now(collections.count_identities, gallery(database).id) == ROWS


def test_collection_that_changes_its_model_meanwhile_stops_the_import(
    database: Database, models: Models, source: Path
) -> None:
    with closing(opened(database, models, source)) as work:
        database.write_now(
            lambda session: session.execute(
                text("UPDATE collections SET model_digest = :digest WHERE name = 'people'"),
                {"digest": "e" * 64},
            )
        )
        with pytest.raises(ModelMismatchError, match="start the import again"):
            work.run()


def test_collection_that_was_made_anew_meanwhile_stops_the_import(
    database: Database, models: Models, source: Path
) -> None:
    with closing(opened(database, models, source)) as work:
        database.write_now(collections.remove, "people")
        with pytest.raises(CollectionNotFoundError):
            work.run()
        database.write_now(collections.add, "people", "vectors", models.default.digest, {})
        with pytest.raises(CollectionNotFoundError):
            work.run()
    report, _ = imported(database, models, source)
    assert counts(report) == (ROWS, 0, 0, 0)


# photos


def _photos(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_first_photo_that_is_accepted_becomes_the_reference(
    database: Database, models: Models, tmp_path: Path
) -> None:
    folder = _photos(
        tmp_path / "photos",
        {
            "ada/1.png": b"no image",
            "ada/2.png": angle_png(10),
            "ada/3.png": angle_png(20),
            "bob.png": angle_png(30),
            "ko\u0301/1.png": angle_png(40),
            "lost/1.png": b"no image",
            "nobody/notes.txt": b"text",
            ".hidden/1.png": angle_png(50),
        },
    )
    with closing(opened(database, models, folder, model="angles")) as work:
        rejects: list[Reject] = []
        report = work.run(rejected=rejects.append)
        assert work.passed_over == 1
    assert counts(report) == (3, 0, 1, 2)
    assert [(one.row, one.identity, one.image, one.code) for one in rejects] == [
        (0, "ada", "ada/1.png", "image_unreadable"),
        (5, "lost", "lost/1.png", "image_unreadable"),
    ]
    found = {name: np.frombuffer(rows[0], "<f4") for name, rows in stored(database).items()}
    assert set(found) == {"ada", "bob", "k\u00f3"}
    degrees = {name: round(np.degrees(np.arctan2(y, x))) for name, (x, y) in found.items()}
    assert degrees == {"ada": 10, "bob": 30, "k\u00f3": 40}


def test_collection_that_keeps_several_takes_so_many_photos(
    database: Database, models: Models, tmp_path: Path
) -> None:
    policy = {"max_references": 2, "keep_images": "aligned"}
    angles = models.get("angles")
    database.write_now(collections.add, "people", "angles", angles.digest, policy)
    files = {f"{name}/{n}.png": angle_png(10 * n) for name in ("ada", "bob") for n in (1, 2, 3)}
    report, _ = imported(database, models, _photos(tmp_path / "photos", files))
    assert counts(report) == (4, 0, 2, 0)
    assert {name: len(rows) for name, rows in stored(database).items()} == {"ada": 2, "bob": 2}

    def crops(session: Any) -> int:
        joined = "SELECT count(*) FROM kept_images k JOIN reference_templates r ON r.id = k.sample_id"
        return int(session.scalar(text(joined)))

    assert database.read_now(crops) == 4
    again, _ = imported(database, models, tmp_path / "photos", again=True, on_duplicate="replace")
    assert counts(again) == (0, 4, 2, 0)
    assert database.read_now(crops) == 4


def test_photos_of_enrolled_identities_are_not_looked_at(
    database: Database, models: Models, tmp_path: Path
) -> None:
    folder = _photos(tmp_path / "photos", {"ada/1.png": angle_png(10), "ada/2.png": angle_png(10)})
    imported(database, models, folder, model="angles")
    _photos(folder, {"ada/1.png": b"no longer an image", "bob.png": angle_png(20)})
    report, rejects = imported(database, models, folder)
    assert counts(report) == (1, 0, 0, 2)
    assert [(one.image, one.code) for one in rejects] == [
        ("ada/1.png", "identity_exists"),
        ("ada/2.png", "identity_exists"),
    ]
    assert counts(imported(database, models, folder, again=True, on_duplicate="skip")[0]) == (0, 0, 3, 0)


def test_photo_below_the_floor_is_rejected(database: Database, models: Models, tmp_path: Path) -> None:
    angles = models.get("angles")
    database.write_now(collections.add, "people", "angles", angles.digest, {"max_brightness": 0.5})
    files = {"dark.png": angle_png(0), "light.png": angle_png(45)}
    report, rejects = imported(
        database, models, _photos(tmp_path / "photos", files), floor=QualityFloor(max_brightness=0.1)
    )
    assert counts(report) == (1, 0, 0, 1)
    assert [(one.identity, one.code) for one in rejects] == [("light", "quality_too_low")]


def test_folder_is_the_same_source_until_a_file_of_it_changes(
    database: Database, models: Models, tmp_path: Path
) -> None:
    folder = _photos(tmp_path / "photos", {"ada.png": angle_png(10)})
    first, _ = imported(database, models, folder, model="angles")
    assert imported(database, models, folder)[0].resumed_at == 1
    os.utime(folder / "ada.png", ns=(1, 1))
    second, _ = imported(database, models, folder)
    assert (second.resumed_at, second.source_sha256 != first.source_sha256) == (0, True)


# what is noted of an import


def test_position_goes_with_its_collection(database: Database, models: Models, source: Path) -> None:
    report, _ = imported(database, models, source)

    def state(session: Any) -> Any:
        return imports.find(session, collections.get(session, "people"), report.source_sha256)

    noted = database.read_now(state)
    assert noted.position == ROWS
    assert noted.counts == {"imported": ROWS, "replaced": 0, "skipped": 0, "rejected": 0}
    database.write_now(collections.remove, "people")
    database.write_now(collections.add, "people", "vectors", models.default.digest, {})
    assert database.read_now(state) is None
