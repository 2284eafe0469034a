"""Every bundle in ``models/`` is what its manifest says, and altering any file of it is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.encoding.bundle import GOLDEN_TOLERANCE, read_manifest, verify_files
from app.encoding.manifest import MANIFEST_NAME
from app.encoding.model import Model, open_model
from app.errors import BundleError
from app.matching.distances import MAX_DISTANCE

MODELS = Path(__file__).parents[2] / "models"
FOLDERS = sorted(path.parent for path in MODELS.glob(f"*/{MANIFEST_NAME}"))
FILES = [(folder, name) for folder in FOLDERS for name in sorted(read_manifest(folder).files)]

pytestmark = pytest.mark.model


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def model(request: pytest.FixtureRequest) -> Model:
    """A loaded bundle; loading has compared digests, shapes and golden embeddings."""
    folder: Path = request.param
    return open_model(folder, provider="cpu")


def test_there_are_bundles() -> None:
    assert "faces" in [folder.name for folder in FOLDERS]


def test_golden_embeddings_come_out_alone_and_as_a_batch(model: Model) -> None:
    encoder = model.images._encoder
    with np.load(MODELS / model.model_id / "golden.npz", allow_pickle=False) as golden:
        images, expected = golden["images"], golden["embeddings"]
    batch = encoder(images)["embeddings"]
    alone = np.concatenate([encoder(image[None])["embeddings"] for image in images])
    print(f"\n{model.model_id}: golden embeddings within {np.abs(batch - expected).max():.2g}")
    assert np.abs(batch - expected).max() < GOLDEN_TOLERANCE
    assert np.abs(alone - expected).max() < GOLDEN_TOLERANCE


def test_golden_images_are_told_apart(model: Model) -> None:
    # A graph that ignores its input would pass a comparison of equal embeddings.
    with np.load(MODELS / model.model_id / "golden.npz", allow_pickle=False) as golden:
        embeddings = golden["embeddings"]
    assert len(embeddings) >= 2
    nearest = min(
        np.abs(embeddings[i] - embeddings[j]).max() for i in range(len(embeddings)) for j in range(i)
    )
    assert nearest > 10 * GOLDEN_TOLERANCE


def test_operating_points_say_what_the_evidence_says(model: Model) -> None:
    for point in model.manifest.operating_points:
        assert point.max_fmr is not None
        assert model.evidence.point_for_fmr(point.max_fmr, name=point.name) == point


def test_stricter_operating_points_have_smaller_thresholds(model: Model) -> None:
    points = sorted(model.manifest.operating_points, key=lambda point: point.max_fmr or 0.0)
    thresholds = [point.threshold for point in points]
    assert thresholds == sorted(set(thresholds))
    largest = MAX_DISTANCE[model.manifest.metric]
    assert thresholds[0] > 0.0
    assert largest is None or thresholds[-1] < largest


def test_bound_is_no_smaller_than_the_rate(model: Model) -> None:
    for point in model.manifest.operating_points:
        assert point.fmr is not None
        assert point.fmr_upper95 is not None
        assert point.fmr <= point.fmr_upper95 <= 1.0


def test_file_sizes_are_as_stated_and_nothing_else_is_there(model: Model) -> None:
    folder = MODELS / model.model_id
    stated = {name: entry.bytes for name, entry in model.manifest.files.items()}
    found = {path.name: path.stat().st_size for path in folder.iterdir() if path.name != MANIFEST_NAME}
    assert found == stated


def linked_copy(folder: Path, target: Path) -> Path:
    """Return a folder of links to the files of a bundle, so that one of them can be replaced."""
    copy = target / folder.name
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).symlink_to(path)
    return copy


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0], ids=["first byte", "middle", "last byte"])
@pytest.mark.parametrize(("folder", "name"), FILES, ids=[f"{f.name}/{name}" for f, name in FILES])
def test_one_flipped_byte_of_any_file_is_noticed(
    tmp_path: Path, folder: Path, name: str, place: float
) -> None:
    copy = linked_copy(folder, tmp_path)
    data = bytearray((folder / name).read_bytes())
    data[int(place * (len(data) - 1))] ^= 0x80
    (copy / name).unlink()
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"^{folder.name}/{name} is altered"):
        verify_files(copy, read_manifest(copy))


@pytest.mark.parametrize(("folder", "name"), FILES, ids=[f"{f.name}/{name}" for f, name in FILES])
def test_any_missing_file_is_noticed(tmp_path: Path, folder: Path, name: str) -> None:
    copy = linked_copy(folder, tmp_path)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"^{folder.name}/{name} is missing$"):
        verify_files(copy, read_manifest(copy))
