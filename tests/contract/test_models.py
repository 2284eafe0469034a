"""Every bundle in ``models/`` is what seal and manifest say, and altering any file of it is noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.encoding.bundle import verify_files
from app.encoding.golden import GOLDEN_TOLERANCE, check_golden, read_golden
from app.encoding.manifest import MANIFEST_NAME
from app.encoding.model import Model, open_model
from app.encoding.seal import SEAL_NAME, SIGNATURE_NAME
from app.encoding.signature import make_key, read_trusted_keys, sign_bundle
from app.errors import BundleError
from app.matching.distances import MAX_DISTANCE

MODELS = Path(__file__).parents[2] / "models"
FOLDERS = sorted(path.parent for path in MODELS.glob(f"*/{MANIFEST_NAME}"))
FILES = [(folder, path.name) for folder in FOLDERS for path in sorted(folder.iterdir())]

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
    golden = read_golden(MODELS / model.model_id, model.manifest)
    images, expected = golden.images, golden.embeddings
    batch = encoder(images)["embeddings"]
    alone = np.concatenate([encoder(image[None])["embeddings"] for image in images])
    print(f"\n{model.model_id}: golden embeddings within {np.abs(batch - expected).max():.2g}")
    assert np.abs(batch - expected).max() < GOLDEN_TOLERANCE
    assert np.abs(alone - expected).max() < GOLDEN_TOLERANCE


def test_golden_images_are_told_apart(model: Model) -> None:
    # A graph that ignores its input would pass a comparison of equal embeddings.
    golden = read_golden(MODELS / model.model_id, model.manifest)
    # The second images of pairs are blends, some of them close to one another on purpose.
    embeddings = np.delete(golden.embeddings, golden.pairs[:, 1], axis=0)
    assert len(embeddings) >= 2
    nearest = min(
        np.abs(embeddings[i] - embeddings[j]).max() for i in range(len(embeddings)) for j in range(i)
    )
    assert nearest > 10 * GOLDEN_TOLERANCE


def test_every_threshold_has_a_golden_pair_just_below_and_just_above(model: Model) -> None:
    golden = read_golden(MODELS / model.model_id, model.manifest)
    for point in model.manifest.operating_points:
        apart = golden.pair_distance - point.threshold
        print(f"\n{model.model_id} {point.name}: {np.sort(apart[np.abs(apart) < 0.02]).round(5)}")
        # Some three to ten tolerances: see MARGIN in training/golden.py.
        assert -10 * GOLDEN_TOLERANCE < apart[apart <= 0].max() < -2.9 * GOLDEN_TOLERANCE
        assert 2.9 * GOLDEN_TOLERANCE < apart[apart > 0].min() < 10 * GOLDEN_TOLERANCE


def test_few_images_are_encoded_at_start(model: Model) -> None:
    assert len(read_golden(MODELS / model.model_id, model.manifest).images) <= 4 + 12


class Leaning:
    """The bundle's encoder with every component a little off, but within the tolerance of embeddings."""

    provider = "cuda"

    def __init__(self, model: Model, away: float) -> None:
        self._encoder = model.images._encoder
        golden = read_golden(MODELS / model.model_id, model.manifest)
        self._lean = np.zeros_like(golden.embeddings)
        for first, second in golden.pairs:
            apart = golden.embeddings[second] - golden.embeddings[first]
            self._lean[second] = away * np.sign(apart)

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {"embeddings": self._encoder(images)["embeddings"] + self._lean}


@pytest.mark.parametrize(
    ("away", "here", "there"),
    [(0.95, "non-match", "match"), (-0.95, "match", "non-match")],
    ids=["too far", "too near"],
)
def test_encoder_whose_embeddings_pass_but_which_decides_otherwise_is_refused(
    model: Model, away: float, here: str, there: str
) -> None:
    encoder: Any = Leaning(model, away * GOLDEN_TOLERANCE)
    with pytest.raises(
        BundleError,
        match=rf"^{model.model_id}/golden\.npz: provider cuda decides pair \d \(images \d and \d\) otherwise "
        rf"than the reference at threshold \d\.\d{{6}} \(fmr-1e-\d\): {here} .*, the reference {there} ",
    ):
        check_golden(MODELS / model.model_id, model.manifest, encoder)


def test_encoder_off_by_what_a_provider_is_off_by_decides_alike(model: Model) -> None:
    for away in (-1e-4, 1e-4):
        encoder: Any = Leaning(model, away)
        check = check_golden(MODELS / model.model_id, model.manifest, encoder)
        assert check.largest_distance_difference > 2e-4


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
    found = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {name: size for name, size in found.items() if name not in {MANIFEST_NAME, SEAL_NAME}} == stated


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
    flip(copy / name, place)
    with pytest.raises(BundleError, match=rf"^{folder.name}/{name} is altered"):
        verify_files(copy)


def flip(path: Path, place: float) -> None:
    """Replace a file, or the link that stands for it, by a copy with one byte changed."""
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 0x80
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize(("folder", "name"), FILES, ids=[f"{f.name}/{name}" for f, name in FILES])
def test_any_missing_file_is_noticed(tmp_path: Path, folder: Path, name: str) -> None:
    copy = linked_copy(folder, tmp_path)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{folder.name}(/{name} is missing| \({name} is missing\))"):
        verify_files(copy)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.95, 1.0])
@pytest.mark.parametrize("name", [SEAL_NAME, SIGNATURE_NAME])
def test_one_flipped_byte_of_a_signed_bundle_is_noticed(
    tmp_path: Path, folder: Path, name: str, place: float
) -> None:
    copy = linked_copy(folder, tmp_path)
    (tmp_path / "trusted").write_text(make_key(tmp_path / "key.pem"))
    sign_bundle(copy, tmp_path / "key.pem")
    trusted = read_trusted_keys(tmp_path / "trusted")
    _, signature = verify_files(copy, trusted)
    assert signature is not None
    flip(copy / name, place)
    for keys in (None, trusted):
        with pytest.raises(BundleError, match=rf"^{folder.name}/{name}( is altered|: key )"):
            verify_files(copy, keys)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_file_that_was_added_is_noticed(tmp_path: Path, folder: Path) -> None:
    copy = linked_copy(folder, tmp_path)
    (copy / "scorer.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=rf"^{folder.name}/scorer\.onnx is not listed in SHA256SUMS"):
        verify_files(copy)


@pytest.mark.parametrize("name", ["MODEL_CARD.md", MANIFEST_NAME, SEAL_NAME])
def test_service_does_not_start_on_one_flipped_byte(tmp_path: Path, name: str) -> None:
    copy = linked_copy(MODELS / "digits", tmp_path)
    flip(copy / name, 0.5)
    command = [sys.executable, "-m", "app.cli", "serve", "--models", "digits", "--models-dir", str(tmp_path)]
    store = ["--database-url", f"sqlite:///{tmp_path}/visavis.db", "--port", "0"]
    done = subprocess.run(
        [*command, *store], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert f"visavis: digits/{name} is altered: " in done.stderr
    with pytest.raises(BundleError, match=rf"^digits/{name} is altered"):
        open_model(copy, provider="cpu")
