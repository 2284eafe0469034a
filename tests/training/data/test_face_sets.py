"""The public sets of faces that come cut out."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.encoding.manifest import InputSpec, WholeImage
from tests.support.data import data_set
from tests.support.images import encoded
from training.data.errors import DataError, MissingDataError
from training.data.face_sets import read_celeba_small, read_orl

SPEC = InputSpec(height=6, width=5, channels=3)
FIT = WholeImage(mode="fit")


def write_celeba(folder: Path, identities: str) -> Path:
    """Write images ``000010.jpg`` ... ``000050.jpg`` of the shades 10 to 50."""
    home = folder / "faces" / "celeba_small"
    home.mkdir(parents=True)
    with zipfile.ZipFile(home / "images.zip", "w") as archive:
        for shade in (30, 10, 50, 20, 40):
            archive.writestr(f"{shade:06d}.jpg", encoded(Image.new("RGB", (89, 109), (shade,) * 3), "JPEG"))
    (home / "identity.txt").write_text(identities)
    return folder


def test_subjects_with_one_image_are_left_out(tmp_path: Path) -> None:
    rows = "000010.jpg 7\n000020.jpg 5\n000030.jpg 7\n000040.jpg 9\n000050.jpg 5\n"
    data = read_celeba_small(write_celeba(tmp_path, rows), SPEC, FIT)
    assert data.subjects == ("5", "7")
    assert data.labels.tolist() == [1, 0, 1, 0]
    assert data.images[:, 3, 3, 0].tolist() == [10, 20, 30, 50]


@pytest.mark.parametrize("row", ["000060.jpg 7", "000010.jpg", "000010.jpg 7 8"])
def test_row_that_names_no_image_is_refused(tmp_path: Path, row: str) -> None:
    with pytest.raises(DataError, match="line 2 is not the name of an image"):
        read_celeba_small(write_celeba(tmp_path, f"000010.jpg 7\n{row}\n"), SPEC, FIT)


def test_list_without_a_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no subject with 2 images"):
        read_celeba_small(write_celeba(tmp_path, "000010.jpg 7\n"), SPEC, FIT)


def test_missing_sets_say_how_to_fetch_them(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"identity\.txt is not there; .* fetch celeba_small"):
        read_celeba_small(tmp_path, SPEC, FIT)
    with pytest.raises(MissingDataError, match=r"1\.pgm is not there; .* fetch orl"):
        read_orl(tmp_path, SPEC, FIT)


def test_damaged_archive_is_refused(tmp_path: Path) -> None:
    write_celeba(tmp_path, "")
    (tmp_path / "faces" / "celeba_small" / "images.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="is damaged"):
        read_celeba_small(tmp_path, SPEC, FIT)


def test_orl_has_40_people_with_10_portraits_each(tmp_path: Path) -> None:
    for person in range(1, 41):
        for number in range(1, 11):
            path = tmp_path / "faces" / "orl" / f"s{person}" / f"{number}.pgm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"P5 2 2 255\n" + bytes([person, person, number, number]))
    data = read_orl(tmp_path, InputSpec(height=2, width=2, channels=1), FIT)
    assert data.counts.tolist() == [10] * 40
    assert data.subjects[:2] == ("s1", "s2")
    assert data.images[12, :, 0, 0].tolist() == [2, 3]
    (tmp_path / "faces" / "orl" / "s9" / "1.pgm").write_bytes(b"P5 2 2 255\n1")
    with pytest.raises(DataError, match=r"s9/1\.pgm is damaged"):
        read_orl(tmp_path, SPEC, FIT)


def test_real_orl_is_readable() -> None:
    data = read_orl(data_set("faces/orl"), InputSpec(height=112, width=92, channels=1), FIT)
    assert data.images.shape == (400, 112, 92, 1)
    assert len(np.unique(data.images.reshape(400, -1), axis=0)) == 400


def test_real_celeba_small_has_2854_people_with_two_or_more() -> None:
    data = read_celeba_small(data_set("faces/celeba_small"), SPEC, FIT)
    assert len(data.subjects) == 2854
    assert len(data) == 7425
