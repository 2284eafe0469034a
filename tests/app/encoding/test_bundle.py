"""A bundle is refused, and the file named, unless every part is what its manifest says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from app.encoding.bundle import _check_detector, load_bundle, read_manifest, verify_files
from app.encoding.model import open_model
from app.encoding.seal import write_seal
from app.errors import BundleError
from tests.support.bundles import angle_encoder
from tests.support.detector import silent_outputs
from training.bundle_files import file_entry

FILES = ("encoder.onnx", "golden.npz", "evidence.npz", "manifest.json")


@pytest.fixture
def folder(tmp_path: Path, angle_models: Path) -> Path:
    """A copy of the ``angles`` bundle to damage."""
    return Path(shutil.copytree(angle_models / "angles", tmp_path / "angles"))


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and seal it, so that only what it says can be wrong."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    write_seal(folder)


def accept_files_as_they_are(folder: Path) -> None:
    """Write the digests of the files into manifest and seal, so that only their content can be wrong."""

    def restamp(manifest: dict[str, Any]) -> None:
        for name in manifest["files"]:
            manifest["files"][name] = file_entry(folder / name).model_dump()

    edit_manifest(folder, restamp)


def rewrite_arrays(path: Path, **changes: Any) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    changed = {name: value(kept[name]) if callable(value) else value for name, value in changes.items()}
    np.savez(path, **{name: value for name, value in {**kept, **changed}.items() if value is not None})


def test_bundle_that_is_as_it_says_is_loaded(folder: Path) -> None:
    bundle = load_bundle(folder, "cpu")
    assert bundle.manifest.model_id == "angles"
    assert bundle.detector is None
    assert bundle.evidence.subjects == 100
    assert open_model(folder, provider="cpu").digest == bundle.manifest.digest


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_flipped_byte_is_refused_and_its_file_named(folder: Path, name: str, place: float) -> None:
    data = bytearray((folder / name).read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"^angles/{name} is altered: sha256 [0-9a-f]{{64}}, SHA256SUMS"):
        load_bundle(folder, "cpu")


@pytest.mark.parametrize("name", FILES[:-1])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=rf"^angles/{name} is missing$"):
        load_bundle(folder, "cpu")


def test_folder_in_place_of_a_file_is_a_missing_file(folder: Path) -> None:
    (folder / "golden.npz").unlink()
    (folder / "golden.npz").mkdir()
    with pytest.raises(BundleError, match=r"^angles/golden\.npz is missing$"):
        load_bundle(folder, "cpu")


def test_missing_bundle_names_those_that_are_there(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no bundle at .*/people .* holds: angles$"):
        load_bundle(folder.parent / "people", "cpu")


def test_missing_bundle_in_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds: none$"):
        load_bundle(tmp_path / "people", "cpu")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 1}', "\x00\xff"])
def test_manifest_that_is_no_manifest_is_named(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(BundleError, match=r"^angles/manifest\.json: "):
        read_manifest(folder)


def test_bundle_in_a_folder_of_another_name_is_refused(folder: Path) -> None:
    moved = folder.rename(folder.parent / "people")
    with pytest.raises(BundleError, match=r"^people/manifest\.json: model_id is 'angles'$"):
        load_bundle(moved, "cpu")


def test_default_operating_point_that_does_not_exist_is_refused(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(default_operating_point="fmr-1e-9"))
    with pytest.raises(BundleError, match=r"^angles/manifest\.json: .*'fmr-1e-9' is not among"):
        load_bundle(folder, "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"input": {"height": 2, "width": 2, "channels": 1}},
            r"input images is tensor\(uint8\) \['N', 1, 2, 1\]",
        ),
        ({"input": {"height": 1, "width": 2, "channels": 3}}, r"the manifest says uint8 \[N, 1, 2, 3\]"),
        ({"dimensions": 3}, r"output embeddings is .* \['N', 2\], the manifest says float32 \[N, 3\]"),
    ],
)
def test_shape_that_contradicts_the_manifest_is_refused(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(change))
    with pytest.raises(BundleError, match=rf"^angles/encoder\.onnx: .*{message}"):
        load_bundle(folder, "cpu")


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def other_input_name(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "pictures"
    model.graph.node[0].input[0] = "pictures"


def other_output_name(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "vectors"
    model.graph.node[-1].output[0] = "vectors"


def float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", onnx.TensorProto.UINT8, ["N"]))


@pytest.mark.parametrize(
    "change", [fixed_batch, other_input_name, other_output_name, float_input, second_input]
)
def test_encoder_of_another_form_is_refused(folder: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load_from_string(angle_encoder())
    change(model)
    (folder / "encoder.onnx").write_bytes(model.SerializeToString())
    accept_files_as_they_are(folder)
    with pytest.raises(BundleError, match=r"^angles/encoder\.onnx: "):
        load_bundle(folder, "cpu")


def test_encoder_that_is_no_graph_is_refused(folder: Path) -> None:
    (folder / "encoder.onnx").write_bytes(b"not a graph")
    accept_files_as_they_are(folder)
    with pytest.raises(BundleError, match=r"encoder\.onnx cannot be loaded"):
        load_bundle(folder, "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": lambda found: found + 0.0011}, "the encoder's embeddings differ by 0.0011"),
        ({"embeddings": lambda found: found * np.nan}, "the encoder's embeddings differ by nan"),
        ({"embeddings": lambda found: found[:2]}, "embeddings are "),
        ({"embeddings": None}, "images and embeddings are wanted"),
        ({"images": None}, "images and embeddings are wanted"),
        ({"images": np.zeros((3, 2, 2, 1), np.uint8)}, "images are uint8"),
        ({"images": np.zeros((3, 1, 2, 1), np.float32)}, "images are float32"),
        (
            {"images": np.zeros((0, 1, 2, 1), np.uint8), "embeddings": np.zeros((0, 2), np.float32)},
            "embeddings are ",
        ),
        ({"pairs": None}, "pairs and pair_distance are wanted .*write them with 'python -m training"),
        ({"pair_distance": None}, "pairs and pair_distance are wanted"),
        ({"pairs": lambda found: found.ravel()}, r"pairs are int32 \(8,\)"),
        ({"pairs": lambda found: found.astype(float)}, "pairs are float64"),
        ({"pairs": lambda found: found + 1}, "pairs name an image that is not there; there are 7"),
        ({"pairs": lambda found: found - 1}, "pairs name an image that is not there; there are 7"),
        ({"pair_distance": lambda found: found[1:]}, "pair_distance is "),
        ({"pair_distance": lambda found: found * np.inf}, "pair_distance is "),
    ],
)
def test_golden_embedding_that_differs_is_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    rewrite_arrays(folder / "golden.npz", **change)
    accept_files_as_they_are(folder)
    with pytest.raises(BundleError, match=rf"^angles/golden\.npz: .*{message}"):
        load_bundle(folder, "cpu")


def test_golden_embedding_within_the_tolerance_is_accepted(folder: Path) -> None:
    rewrite_arrays(folder / "golden.npz", embeddings=lambda found: found + 0.0009)
    accept_files_as_they_are(folder)
    load_bundle(folder, "cpu")


@pytest.mark.parametrize("name", ["golden.npz", "evidence.npz"])
@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04 cut off"], ids=["empty", "text", "cut"])
def test_file_of_arrays_that_is_no_archive_is_named(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    accept_files_as_they_are(folder)
    with pytest.raises(BundleError, match=rf"^angles/{name}: "):
        load_bundle(folder, "cpu")


def test_pickled_arrays_are_never_unpickled(folder: Path) -> None:
    np.savez(folder / "golden.npz", images=np.array([object()]), embeddings=0, pairs=0, pair_distance=0)
    accept_files_as_they_are(folder)
    with pytest.raises(BundleError, match=r"^angles/golden\.npz: .*allow_pickle"):
        load_bundle(folder, "cpu")


@pytest.mark.parametrize("count", ["subjects", "mated", "nonmated"])
def test_count_that_contradicts_the_evidence_is_refused(folder: Path, count: str) -> None:
    edit_manifest(folder, lambda manifest: manifest["evidence"].update({count: 7}))
    with pytest.raises(
        BundleError, match=r"^angles/evidence\.npz has subjects, mated, nonmated \(100, 200, 4950\)"
    ):
        load_bundle(folder, "cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"nonmated_distance": None},
        {"nonmated_subjects": np.zeros((3, 2), np.int32)},
        {"mated_subject": np.full(200, 100, np.int32)},
        {"nonmated_distance": np.full(4950, np.nan)},
    ],
)
def test_evidence_that_contradicts_itself_is_refused(folder: Path, change: dict[str, Any]) -> None:
    rewrite_arrays(folder / "evidence.npz", **change)
    accept_files_as_they_are(folder)
    with pytest.raises(BundleError, match=r"^angles/evidence\.npz: "):
        load_bundle(folder, "cpu")


def test_decision_that_differs_is_refused_by_pair_threshold_and_provider(folder: Path) -> None:
    # A reference that was just below the threshold where the encoder is just above it: embeddings agree.
    threshold = json.loads((folder / "manifest.json").read_text())["operating_points"][0]["threshold"]

    def pulled(found: NDArray[np.float64]) -> NDArray[np.float64]:
        assert found[1] > threshold
        return np.array([*found[:1], threshold, *found[2:]])

    rewrite_arrays(folder / "golden.npz", pair_distance=pulled)
    accept_files_as_they_are(folder)
    with pytest.raises(
        BundleError,
        match=r"^angles/golden\.npz: provider cpu decides pair 1 \(images 0 and 4\) otherwise than the "
        rf"reference at threshold {threshold:.6f} \(fmr-1e-2\): non-match \(distance 0\.51983\d\), the "
        rf"reference match \(distance {threshold:.6f}\)$",
    ):
        load_bundle(folder, "cpu")


def test_golden_file_without_any_pair_decides_nothing(folder: Path) -> None:
    rewrite_arrays(folder / "golden.npz", pairs=np.empty((0, 2), np.int32), pair_distance=np.empty(0))
    accept_files_as_they_are(folder)
    golden = load_bundle(folder, "cpu").golden
    assert (golden.pairs, golden.decisions, golden.largest_distance_difference) == (0, 0, 0.0)


def test_manifest_that_lists_another_digest_than_the_seal_is_named(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest["files"]["golden.npz"].update(sha256="0" * 64))
    with pytest.raises(BundleError, match=r"^angles/manifest\.json says that golden\.npz has sha256 0{64}"):
        verify_files(folder)


def test_sealed_file_that_the_manifest_does_not_list_is_named(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    write_seal(folder)
    with pytest.raises(BundleError, match=r"^angles/notes\.txt is sealed but not listed in manifest\.json$"):
        verify_files(folder)


def test_listed_file_that_is_not_sealed_is_named(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest["files"].update(plot={"sha256": "0" * 64, "bytes": 1}))
    with pytest.raises(BundleError, match=r"^angles/plot is listed in manifest\.json but not sealed$"):
        verify_files(folder)


class FakeGraph:
    """The parts of a loaded graph that the check of a detector looks at."""

    provider = "cpu"

    def __init__(self) -> None:
        self.inputs: dict[str, tuple[str, list[Any]]] = {"images": ("tensor(uint8)", ["N", "H", "W", 3])}
        self.outputs = dict.fromkeys(silent_outputs(64, 96), ("tensor(float)", ["N", "cells", "k"]))

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return silent_outputs(*images.shape[1:3])


class FloatDetector(FakeGraph):
    def __init__(self) -> None:
        super().__init__()
        self.inputs["images"] = ("tensor(float)", ["N", "H", "W", 3])


class DetectorWithoutLandmarks(FakeGraph):
    def __init__(self) -> None:
        super().__init__()
        del self.outputs["kps_16"]


class DetectorOfOneSize(FakeGraph):
    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return silent_outputs(320, 320)


def test_detector_of_yunets_form_is_accepted() -> None:
    _check_detector("faces", "detector.onnx", FakeGraph())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (FloatDetector(), "is not a YuNet graph"),
        (DetectorWithoutLandmarks(), "is not a YuNet graph"),
        (DetectorOfOneSize(), r"output bbox_16 is \(1, 400, 4\); \[1, 24, k\] is wanted"),
    ],
)
def test_detector_of_another_form_is_refused(graph: FakeGraph, message: str) -> None:
    with pytest.raises(BundleError, match=rf"^faces/detector\.onnx:? {message}"):
        _check_detector("faces", "detector.onnx", graph)  # type: ignore[arg-type]
