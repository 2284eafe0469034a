"""Many files at once: in order, counted, and with failures reported instead of raised."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.encoding.bulk import embed_files
from app.encoding.model import Model, open_model
from tests.support.images import angle_png, encoded


@pytest.fixture(scope="module")
def angles(angle_models: Path) -> Model:
    """The small model that places an image at a chosen angle."""
    return open_model(angle_models / "angles", provider="cpu")


def test_embeddings_come_in_the_order_of_the_files(angles: Model, tmp_path: Path) -> None:
    degrees = np.random.default_rng(4).permutation(91)
    paths = [tmp_path / f"{angle}.png" for angle in degrees]
    for angle, path in zip(degrees, paths, strict=True):
        path.write_bytes(angle_png(float(angle)))
    embedded = embed_files(angles.images, paths, "only")
    expected = [(math.cos(math.radians(angle)), math.sin(math.radians(angle))) for angle in degrees]
    assert embedded.paths == tuple(paths)
    assert embedded.ok.all()
    assert set(embedded.reasons) == {""}
    assert embedded.embeddings.dtype == np.float32
    assert np.abs(embedded.embeddings - expected).max() < 0.005


def test_file_that_fails_is_reported_and_the_others_are_embedded(angles: Model, tmp_path: Path) -> None:
    files = {
        "good.png": angle_png(0),
        "text.png": b"not an image",
        "cut.png": angle_png(0)[:40],
        "black.png": encoded(Image.new("L", (2, 1), 0)),
        "again.png": angle_png(90),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.png").mkdir()
    names = [*files, "missing.png", "folder.png"]
    embedded = embed_files(angles.images, [tmp_path / name for name in names], "only")
    assert embedded.ok.tolist() == [True, False, False, False, True, False, False]
    assert embedded.embeddings[[0, 4]] == pytest.approx(np.array([[1.0, 0.0], [0.0, 1.0]]), abs=1e-6)
    assert not embedded.embeddings[~embedded.ok].any()
    reasons = dict(zip(names, embedded.reasons, strict=True))
    assert reasons["good.png"] == ""
    assert reasons["text.png"].startswith("image_unreadable: the bytes are no image")
    assert reasons["cut.png"].startswith("image_unreadable: the PNG image is damaged or truncated")
    assert reasons["black.png"] == "image_unreadable: the model makes no usable embedding of this image"
    assert reasons["missing.png"] == "image_unreadable: the file cannot be read: No such file or directory"
    assert reasons["folder.png"] == "image_unreadable: the file cannot be read: Is a directory"


@pytest.mark.parametrize("count", [0, 1, 50])
def test_progress_counts_every_file_once(angles: Model, tmp_path: Path, count: int) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(count)]
    for path in paths[::2]:
        path.write_bytes(angle_png(10))
    steps: list[int] = []
    embedded = embed_files(angles.images, paths, "only", progress=steps.append)
    assert steps == [1] * count
    assert embedded.embeddings.shape == (count, 2)
    assert embedded.ok.shape == (count,)


def test_error_that_is_not_the_files_fault_is_raised(
    angles: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    (tmp_path / "a.png").write_bytes(angle_png(0))
    monkeypatch.setattr(angles.images, "prepare", broken)
    with pytest.raises(ZeroDivisionError):
        embed_files(angles.images, [tmp_path / "a.png"], "only")
