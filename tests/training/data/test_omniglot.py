"""Omniglot's zip files, drawn here and the real ones."""

import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.encoding.intake import IntakeLimits, decode_image
from app.encoding.manifest import InputSpec, WholeImage
from app.encoding.preprocess import prepare_whole
from tests.support.data import data_set
from tests.support.images import encoded
from training.data.errors import DataError, MissingDataError
from training.data.omniglot import read_omniglot

SPEC = InputSpec(height=35, width=35, channels=1)
FIT = WholeImage(mode="fit")


def bitmap(row: int) -> bytes:
    """Return a PNG of one bit a pixel: white paper, a black line of three pixels' height."""
    pixels = np.ones((105, 105), np.bool_)
    pixels[row : row + 3] = False
    return encoded(Image.fromarray(pixels))


def write_zip(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "omniglot" / "images_background.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"images_background/{name}", data)
    return folder


def test_alphabets_characters_and_drawers_come_from_the_paths(tmp_path: Path) -> None:
    folder = write_zip(
        tmp_path,
        {
            "Greek/": b"",
            "Greek/character02/0002_07.png": bitmap(60),
            "Greek/character01/0001_02.png": bitmap(30),
            "Greek/character01/0001_01.png": bitmap(0),
            "Angelic/character01/0003_20.png": bitmap(90),
            "Angelic/.DS_Store": b"rubbish",
        },
    )
    drawn = read_omniglot(folder, "background", SPEC, FIT)
    assert drawn.images.subjects == ("Angelic/character01", "Greek/character01", "Greek/character02")
    assert drawn.images.groups == ("Angelic", "Greek", "Greek")
    assert drawn.images.labels.tolist() == [0, 1, 1, 2]
    assert drawn.drawers.tolist() == [20, 1, 2, 7]
    darkest = drawn.images.images[..., 0].astype(int).sum(axis=2).argmin(axis=1)
    assert darkest.tolist() == [30, 0, 10, 20]  # rows of the 105, divided by 3


def test_ink_is_black_on_white_paper(tmp_path: Path) -> None:
    image = read_omniglot(
        write_zip(tmp_path, {"Greek/character01/0001_01.png": bitmap(51)}), "background", SPEC, FIT
    ).images.images[0, ..., 0]
    assert image[0, 0] == 255
    assert image[17, 17] < 64  # the filter takes in a little paper on both sides


def test_missing_file_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="visavis data fetch omniglot"):
        read_omniglot(tmp_path, "evaluation", SPEC, FIT)


def test_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    write_zip(tmp_path, {})
    (tmp_path / "omniglot" / "images_background.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"images_background\.zip is damaged"):
        read_omniglot(tmp_path, "background", SPEC, FIT)


def test_zip_without_characters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no image named like"):
        read_omniglot(write_zip(tmp_path, {"readme.txt": b""}), "background", SPEC, FIT)


def test_damaged_image_is_refused(tmp_path: Path) -> None:
    folder = write_zip(tmp_path, {"Greek/character01/0001_01.png": bitmap(0)[:60]})
    with pytest.raises(DataError, match="damaged or truncated"):
        read_omniglot(folder, "background", SPEC, FIT)


def test_real_evaluation_set_has_659_characters_of_20_drawers() -> None:
    spec = InputSpec(height=28, width=28, channels=1)
    drawn = read_omniglot(data_set("omniglot/images_evaluation.zip"), "evaluation", spec, FIT)
    assert drawn.images.images.shape == (659 * 20, 28, 28, 1)
    assert len(drawn.images.subjects) == 659
    assert drawn.images.groups is not None
    assert len(set(drawn.images.groups)) == 20
    assert Counter(drawn.drawers.tolist()) == dict.fromkeys(range(1, 21), 659)


def test_an_image_is_what_the_service_would_make_of_the_file() -> None:
    folder = data_set("omniglot/images_evaluation.zip")
    with zipfile.ZipFile(folder / "omniglot" / "images_evaluation.zip") as archive:
        name = min(member for member in archive.namelist() if member.endswith(".png"))
        data = archive.read(name)
    served = prepare_whole(decode_image(data, IntakeLimits()), FIT, SPEC).pixels
    assert np.array_equal(read_omniglot(folder, "evaluation", SPEC, FIT).images.images[0], served)
