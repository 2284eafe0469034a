"""identities import and export on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from app.encoding.bundle import read_manifest
from app.services.imports import embeddings
from app.services.imports.run import Import
from tests.support.cli import visavis, visavis_json
from tests.support.embedding_files import write_file, write_jsonl
from tests.support.images import angle_png

NAMES = ["ada", "bob", "cy", "dee"]


def contract(angle_models: Path) -> dict[str, object]:
    manifest = read_manifest(angle_models / "angles")
    return {
        "visavis_export": 1,
        "model_id": "angles",
        "model_digest": manifest.digest,
        "dimensions": 2,
        "metric": "euclidean",
    }


@pytest.fixture
def source(folder: Path, angle_models: Path) -> Path:
    rows = [
        {"identity": name, "embedding": np.array([np.cos(n), np.sin(n)], np.float32)}
        for n, name in enumerate(NAMES)
    ]
    return write_file(folder / "people.npz", rows, contract(angle_models))


def names(collection: str = "people") -> list[str]:
    return [one["identity"] for one in visavis_json("identities", "list", "--collection", collection)]


def test_file_is_imported_once(source: Path) -> None:
    command = ("identities", "import", source, "--collection", "people", "--create")
    done = visavis(*command)
    assert done.exit_code == 0
    assert done.stdout.startswith("4 imported, 0 replaced, 0 skipped, 0 rejected; ")
    assert done.stdout.endswith(" rows a second; people is at revision 1\n")
    assert "importing: 4 of 4" in done.stderr
    assert names() == NAMES
    again = visavis(*command)
    assert again.exit_code == 0
    assert again.stdout == (
        f"{source} was imported into people before, nothing is changed (4 imported, 0 replaced, 0 skipped, "
        "0 rejected); --again imports it again\n"
    )
    report = visavis_json(*command, "--again", "--on-duplicate", "skip")
    assert {name: report[name] for name in ("rows", "imported", "skipped", "resumed_at", "revision")} == {
        "rows": 4,
        "imported": 0,
        "skipped": 4,
        "resumed_at": 0,
        "revision": 1,
    }
    assert len(report["source_sha256"]) == 64


def test_collection_that_is_not_there_is_made_only_where_it_is_asked_for(source: Path, folder: Path) -> None:
    visavis("db", "upgrade")
    refused = visavis("identities", "import", source, "--collection", "people")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("visavis: collection_not_found: there is no collection 'people'")
    assert [one["name"] for one in visavis_json("collections", "list")] == ["default"]


def test_store_that_is_not_there_is_made_only_with_create(source: Path, folder: Path) -> None:
    assert visavis("identities", "import", source, "--collection", "people").exit_code == 1
    assert not (folder / "visavis.db").exists()


def test_rejected_rows_are_shown_and_kept_in_a_file(folder: Path, angle_models: Path) -> None:
    rows: list[dict[str, object]] = [{"identity": f"p{n}", "embedding": [2.0, 0.0]} for n in range(25)]
    rows.append({"identity": "good", "embedding": [1.0, 0.0]})
    path = write_jsonl(folder / "people.jsonl", rows, contract(angle_models))
    done = visavis(
        "identities", "import", path, "--collection", "people", "--create", "--rejects", "rejects.jsonl"
    )
    assert done.exit_code == 0
    assert done.stdout.startswith("1 imported, 0 replaced, 0 skipped, 25 rejected; ")
    shown = [line for line in done.stderr.splitlines() if line.startswith("row ")]
    assert shown[0] == (
        "row 0, p0: invalid_request: the embedding has norm 2; those of the model have norm 1"
    )
    assert len(shown) == 20
    assert done.stderr.endswith("and 5 more rows were rejected; rejects.jsonl has them all\n")
    lines = [json.loads(line) for line in Path("rejects.jsonl").read_text().splitlines()]
    assert (lines[0]["collection"], lines[0]["visavis_rejects"]) == ("people", 1)
    assert [line["row"] for line in lines[1:]] == list(range(25))
    assert lines[1] == {
        "row": 0,
        "identity": "p0",
        "code": "invalid_request",
        "detail": "the embedding has norm 2; those of the model have norm 1",
    }


@pytest.mark.parametrize("content", ["my notes", "my notes\n", '{"row": 1}\n'])
def test_file_of_something_else_is_not_taken_for_rejects(source: Path, content: str) -> None:
    Path("notes.txt").write_text(content)
    refused = visavis(
        "identities", "import", source, "--collection", "people", "--create", "--rejects", "notes.txt"
    )
    assert refused.exit_code == 1
    assert "holds something else than this import's rejects; name another file" in refused.stderr
    assert Path("notes.txt").read_text() == content
    assert names() == []


def test_rejects_in_a_folder_that_is_not_there_stop_before_anything(source: Path, folder: Path) -> None:
    command = ("identities", "import", source, "--collection", "people", "--create", "--rejects", "no/file")
    assert "rejects: there is no folder no" in visavis(*command).stderr
    assert not (folder / "visavis.db").exists()


def test_embeddings_that_nobody_vouches_for_are_refused(
    source: Path, folder: Path, angle_models: Path
) -> None:
    rows = [{"identity": "ada", "embedding": [1.0, 0.0]}]
    path = write_jsonl(folder / "rows.jsonl", rows, None)
    command = ("identities", "import", path, "--collection", "people", "--create")
    refused = visavis(*command)
    assert refused.exit_code == 1
    assert "vouch for it with --model-digest" in refused.stderr
    other = visavis(*command, "--model-digest", "e" * 64)
    assert other.stderr.startswith("visavis: model_mismatch: collection 'people' holds templates of model")
    digest = str(contract(angle_models)["model_digest"])
    assert visavis(*command, "--model-digest", digest).exit_code == 0
    contradicted = visavis(
        "identities", "import", source, "--collection", "people", "--model-digest", "e" * 64
    )
    assert "model_digest: the file says that its embeddings are of angles" in contradicted.stderr


def test_import_of_another_model_than_the_collections_is_refused(source: Path) -> None:
    visavis("collections", "create", "people", "--model", "other")
    refused = visavis("identities", "import", source, "--collection", "people")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("visavis: model_mismatch: ")
    assert "import them into a collection of their own model, or import the photos" in refused.stderr
    asked = visavis("identities", "import", source, "--collection", "people", "--model", "angles")
    assert asked.stderr.startswith("visavis: model_mismatch: ")


def test_broken_off_import_goes_on_where_it_was(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "ROWS_OF_A_BATCH", 1)
    work_of = Import._commit
    batches = 0

    def interrupted(self: Import, *args: object) -> object:
        nonlocal batches
        batches += 1
        if batches == 3:
            raise KeyboardInterrupt
        return work_of(self, *args)  # type: ignore[arg-type]

    command = ("identities", "import", source, "--collection", "people", "--create")
    with monkeypatch.context() as patch:
        patch.setattr(Import, "_commit", interrupted)
        stopped = visavis(*command)
    assert stopped.exit_code == 1
    assert "stopped at row 2; the same command goes on there" in stopped.stderr
    assert names() == NAMES[:2]
    done = visavis(*command)
    assert "going on at row 2 of 4" in done.stderr
    assert done.stdout.startswith("4 imported, ")
    assert names() == NAMES


def test_rejects_of_an_earlier_run_without_a_file_are_missed(
    folder: Path, angle_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "ROWS_OF_A_BATCH", 2)
    rows = [{"identity": f"p{n}", "embedding": [1.0 + n % 2, 0.0]} for n in range(6)]
    path = write_jsonl(folder / "people.jsonl", rows, contract(angle_models))
    command = ("identities", "import", path, "--collection", "people", "--create")
    with monkeypatch.context() as patch:
        reads = embeddings.Embeddings.read
        patch.setattr(embeddings.Embeddings, "read", lambda self, start: [next(reads(self, start))])
        visavis(*command)
    done = visavis(*command, "--rejects", "rejects.jsonl")
    assert "1 rows that an earlier run rejected are not in rejects.jsonl" in done.stderr
    rows_kept = [json.loads(line)["row"] for line in Path("rejects.jsonl").read_text().splitlines()[1:]]
    assert rows_kept == [3, 5]


def test_photos_are_imported_from_a_folder() -> None:
    for name, data in (("ada/1.png", b"no image"), ("ada/2.png", angle_png(10)), ("bob.png", angle_png(20))):
        path = Path("photos") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    Path("photos/list.csv").write_text("")
    done = visavis("identities", "import", "photos", "--collection", "default")
    assert done.exit_code == 1  # no store yet
    visavis("db", "upgrade")
    done = visavis("identities", "import", "photos", "--collection", "default")
    assert done.stdout.startswith("2 imported, 0 replaced, 0 skipped, 1 rejected; ")
    assert "1 files are no images by their name; passed over" in done.stderr
    assert "row 0, ada/1.png: image_unreadable: " in done.stderr
    found = visavis_json("identify", "at10.png")
    assert found["candidates"][0]["identity"] == "ada"


def test_export_is_imported_elsewhere(source: Path) -> None:
    visavis("identities", "import", source, "--collection", "people", "--create")
    done = visavis_json("identities", "export", "--collection", "people", "--out", "out.jsonl")
    assert {name: done[name] for name in ("out", "references", "pending", "model_id", "revision")} == {
        "out": "out.jsonl",
        "references": 4,
        "pending": 0,
        "model_id": "angles",
        "revision": 1,
    }
    there = ("--database-url", "sqlite:///there.db")
    visavis("identities", "import", "out.jsonl", "--collection", "copy", "--create", *there)
    listed = visavis_json("identities", "list", "--collection", "copy", *there)
    assert [one["identity"] for one in listed] == NAMES
    text = visavis("identities", "export", "--collection", "people", "--out", "out.npz")
    assert text.stdout == "out.npz: 4 references, revision 1\n"
    assert "exporting: 4 of 4" in text.stderr


def test_export_to_another_kind_of_file_is_refused(source: Path) -> None:
    visavis("identities", "import", source, "--collection", "people", "--create")
    refused = visavis("identities", "export", "--collection", "people", "--out", "people.csv")
    assert refused.exit_code == 1
    assert "out: people.csv: name a file that ends with one of .jsonl, .npz, .parquet" in refused.stderr
