"""Files of embeddings: what is written comes back, from any row on, and what is no such file says so."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import InvalidRequestError
from app.services.portable import npz
from app.services.portable.contract import Contract, Rows, embedding_of, json_object
from app.services.portable.files import open_source, open_writer
from app.storage.bulk import ExportedReference
from tests.support.embedding_files import unit_vectors, write_file, write_jsonl, write_parquet

SUFFIXES = [".jsonl", ".npz", ".parquet"]
CONTRACT = Contract(
    visavis_export=1,
    model_id="m",
    model_digest="d" * 64,
    dimensions=8,
    metric="euclidean",
    collection="people",
    revision=7,
    created_at=datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
)
VECTORS = unit_vectors(200, 8)


def reference(number: int) -> ExportedReference:
    return ExportedReference(
        identity=f"{'ж' * (number % 7)}{number}",
        metadata={"a": "ä\u0000\U0001f600" * (number % 3)} if number % 2 else {},
        reference_id=f"{number:036d}",
        embedding=VECTORS[number].tobytes(),
        face={"score": 0.5} if number % 5 else None,
        quality={"sharpness": number / 3},
        created_at=datetime(2026, 1, 2, 3, 4, 5, number, UTC),
    )


REFERENCES = [reference(number) for number in range(200)]


def written(path: Path, references: list[ExportedReference] = REFERENCES) -> Path:
    with path.open("w+b") as file:
        writer = open_writer(path, file, CONTRACT, len(references))
        for start in range(0, len(references), 60):
            writer.write(references[start : start + 60])
        writer.finish()
        writer.close()
    return path


def read(path: Path, start: int = 0, size: int = 64, dimensions: int = 8) -> list[Rows]:
    source = open_source(path)
    try:
        return list(source.read(start, size, dimensions))
    finally:
        source.close()


def column(chunks: list[Rows], name: str) -> list[Any]:
    return [value for chunk in chunks for value in chunk.columns[name]]


def refused(path: Path) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        read(path)
    assert caught.value.problems[0]["field"] == "source"
    return caught.value.problems[0]["problem"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("start", [0, 1, 59, 64, 137, 199])
def test_references_come_back_bit_for_bit_from_any_row_on(tmp_path: Path, suffix: str, start: int) -> None:
    path = written(tmp_path / f"people{suffix}")
    source = open_source(path)
    assert (source.contract, source.rows) == (CONTRACT, 200)
    source.close()
    chunks = read(path, start)
    wanted = REFERENCES[start:]
    assert chunks[0].start == start
    assert all(len(chunk.identities) <= 64 for chunk in chunks)
    assert [name for chunk in chunks for name in chunk.identities] == [one.identity for one in wanted]
    rows = np.concatenate([chunk.embeddings for chunk in chunks])
    assert rows.tobytes() == VECTORS[start:].tobytes()
    for name in ("metadata", "face", "quality"):
        assert [json_object(value) for value in column(chunks, name)] == [
            getattr(one, name) for one in wanted
        ]
    moments = column(chunks, "created_at")
    texts = [moment if isinstance(moment, str) else moment.isoformat() for moment in moments]
    assert texts == [one.created_at.isoformat() for one in wanted]
    assert not any(chunk.problems for chunk in chunks)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_export_is_a_file_without_rows(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"nobody{suffix}", [])
    source = open_source(path)
    assert (source.contract, source.rows) == (CONTRACT, 0)
    source.close()
    assert read(path) == []


def test_numpy_reads_an_npz_export(tmp_path: Path) -> None:
    with np.load(written(tmp_path / "people.npz")) as arrays:
        assert arrays["embedding"].dtype == np.float32
        assert arrays["embedding"].tobytes() == VECTORS.tobytes()
        assert arrays["identity"].tolist() == [one.identity for one in REFERENCES]
        assert [json.loads(text) for text in arrays["metadata"]] == [one.metadata for one in REFERENCES]
        assert json.loads(str(arrays["contract"]))["model_digest"] == "d" * 64


def test_long_metadata_of_one_row_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "_BYTES_AT_ONCE", 64 * 1024)
    long = REFERENCES[7]._replace(metadata={"a": "b" * 10_000})
    path = written(tmp_path / "people.npz", [*REFERENCES[:7], long, *REFERENCES[8:]])
    assert path.stat().st_size < 100_000
    chunks = read(path)
    assert {len(chunk.identities) for chunk in chunks} == {1}
    assert json_object(column(chunks, "metadata")[7]) == long.metadata


# what other tools write


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_without_a_contract_has_none(tmp_path: Path, suffix: str) -> None:
    rows = [{"identity": "ada", "embedding": VECTORS[0], "metadata": {}}]
    source = open_source(write_file(tmp_path / f"people{suffix}", rows, None))
    assert (source.contract, source.rows) == (None, 1)
    source.close()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "changes", [{"visavis_export": 2}, {"model_digest": "short"}, {"dimensions": "many"}, {"metric": "chess"}]
)
def test_contract_that_is_not_understood_is_refused(
    tmp_path: Path, suffix: str, changes: dict[str, Any]
) -> None:
    contract = {**CONTRACT.model_dump(mode="json"), **changes}
    rows = [{"identity": "ada", "embedding": VECTORS[0], "metadata": {}}]
    path = write_file(tmp_path / f"people{suffix}", rows, contract)
    assert f"its contract is not one that this version reads ({next(iter(changes))}" in refused(path)


def test_contract_of_a_later_version_may_say_more(tmp_path: Path) -> None:
    contract = {**CONTRACT.model_dump(mode="json"), "colour": "red"}
    source = open_source(write_jsonl(tmp_path / "people.jsonl", [], contract))
    assert source.contract == CONTRACT
    source.close()


@pytest.mark.parametrize("kind", [np.float16, np.float64, ">f4"])
def test_other_floats_are_read_as_float32(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "people.npz"
    np.savez(path, identity=np.array(["ada"]), embedding=VECTORS[:1].astype(kind))
    (rows,) = read(path)
    assert rows.embeddings.dtype == np.float32
    np.testing.assert_allclose(rows.embeddings, VECTORS[:1], atol=1e-3)


def test_text_may_be_bytes_of_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    np.savez(path, identity=np.array(["жук".encode()]), embedding=VECTORS[:1])
    assert read(path)[0].identities == ["жук"]
    np.savez(path, identity=np.array([b"\xff"]), embedding=VECTORS[:1])
    assert refused(path) == "the array identity holds text that is not UTF-8"


def test_compressed_archive_is_read(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    np.savez_compressed(path, identity=np.array(["ada", "bob"]), embedding=VECTORS[:2])
    assert read(path, 1)[0].embeddings.tobytes() == VECTORS[1].tobytes()


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"embedding": VECTORS}, "has no array 'identity'"),
        ({"identity": np.array(["a"])}, "has no array 'embedding'"),
        ({"identity": np.array(["a"]), "embedding": VECTORS}, "are wanted, not"),
        ({"identity": np.array(["a"] * 8), "embedding": VECTORS[0]}, "are wanted, not"),
        ({"identity": np.array("a"), "embedding": VECTORS}, "are wanted, not"),
        ({"identity": np.arange(200), "embedding": VECTORS}, "array identity is of type int64; text"),
        ({"identity": np.array(["a"] * 200), "embedding": np.zeros((200, 8), int)}, "floating-point numbers"),
        (
            {"identity": np.array(["a"] * 200), "embedding": np.asfortranarray(VECTORS)},
            "lies column by column",
        ),
        ({"identity": np.array(["a"] * 200), "embedding": VECTORS[:, :7]}, "have 7 dimensions; 8 are wanted"),
        (
            {"identity": np.array(["a"] * 200), "embedding": VECTORS, "contract": np.array(["a", "b"])},
            "the array contract is not one text",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, arrays: dict[str, Any], problem: str) -> None:
    path = tmp_path / "people.npz"
    np.savez(path, **arrays)
    assert problem in refused(path)


def test_array_of_objects_is_refused_and_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    np.savez(path, identity=np.array(["ada", None], object), embedding=VECTORS[:2])
    assert refused(path) == "the array identity is of type object; text (numpy's U) is wanted"


def test_damaged_archive_says_where(tmp_path: Path) -> None:
    path = written(tmp_path / "people.npz")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        info = archive.getinfo("embedding.npy")
    data[info.header_offset + 3000] ^= 1
    path.write_bytes(bytes(data))
    assert refused(path).startswith("the array embedding is damaged (Bad CRC-32")
    path.write_bytes(bytes(data[:1000]))
    assert "cannot be read as npz" in refused(path)


def test_parquet_lists_of_another_length_are_problems_of_their_rows(tmp_path: Path) -> None:
    rows = [
        {"identity": str(number), "embedding": embedding}
        for number, embedding in enumerate(
            [VECTORS[0].tolist(), None, VECTORS[2, :7].tolist(), VECTORS[3].tolist(), []] * 30
        )
    ]
    chunks = read(write_parquet(tmp_path / "people.parquet", rows, None), 2)
    problems = {chunk.start + number: text for chunk in chunks for number, text in chunk.problems.items()}
    assert {number % 5 for number in problems} == {1, 2, 4}
    assert len(problems) == 89
    assert problems[2] == "the embedding has 7 dimensions; 8 are wanted"
    assert problems[6] == "there is no embedding"
    found = np.concatenate([chunk.embeddings for chunk in chunks])
    assert found[1].tobytes() == VECTORS[3].tobytes()
    assert found[3].tobytes() == VECTORS[0].tobytes()
    assert not found[0].any()


def test_parquet_of_other_columns_is_refused(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "people.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"name": ["ada"]}), path)
    assert "has no column 'identity'" in refused(path)
    pyarrow.parquet.write_table(pyarrow.table({"identity": ["ada"], "embedding": [1.0]}), path)
    assert refused(path) == "the column embedding is of type double; a list of float32 is wanted"
    path.write_bytes(b"PAR1")
    assert "cannot be read as Parquet" in refused(path)


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "people.parquet")

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("app.services.portable.parquet.importlib.import_module", missing)
    assert refused(path) == "Parquet needs the extra: pip install 'visavis[parquet]'"


def test_empty_and_endless_lines_are_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.portable.jsonl.MAX_LINE", 1000)
    good = json.dumps({"identity": "ada", "embedding": VECTORS[0].tolist()})
    path = tmp_path / "people.jsonl"
    path.write_text(f'\n{good}\n\n  \n{{"a": "{"b" * 5000}"}}\n{good}', encoding="utf-8")
    source = open_source(path)
    assert source.rows == 3
    source.close()
    chunks = read(path, size=2)
    assert [chunk.start for chunk in chunks] == [0, 2]
    assert [chunk.problems for chunk in chunks] == [{1: "the line is no JSON object"}, {}]
    assert chunks[1].embeddings.tobytes() == VECTORS[0].tobytes()


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("identity,embedding\n")
    assert refused(path) == (
        "people.csv is neither a folder of photos nor a file of embeddings (.jsonl, .npz, .parquet)"
    )
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        read(tmp_path / "missing.jsonl")


# single values


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (base64.b64encode(bytes(7)).decode(), "has 7 bytes, which are no float32 numbers"),
        (base64.b64encode(bytes(8)).decode(), "has 2 dimensions; 8 are wanted"),
        ("no base64", "neither a list of numbers nor base64"),
        ([True] * 8, "neither a list of numbers nor base64"),
        ([[0.5] * 8], "neither a list of numbers nor base64"),
        ({"a": 1}, "neither a list of numbers nor base64"),
        ([10**400] * 8, "is not finite"),
    ],
)
def test_value_that_is_no_embedding_is_refused(value: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        embedding_of(value, 8)


def test_list_and_base64_of_an_embedding_are_the_same() -> None:
    text = base64.b64encode(VECTORS[5].tobytes()).decode()
    assert embedding_of(text, 8).tobytes() == VECTORS[5].tobytes()
    assert embedding_of(json.loads(json.dumps(VECTORS[5].tolist())), 8).tobytes() == VECTORS[5].tobytes()


@pytest.mark.parametrize("value", ["[1]", "7", "{", 7, [1], "[" * 100_000])
def test_value_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        json_object(value)
