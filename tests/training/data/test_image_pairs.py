"""Pairs of image files listed in a table."""

from pathlib import Path

import pytest
from PIL import Image

from app.encoding.manifest import InputSpec, WholeImage
from tests.support.images import encoded
from training.data.errors import DataError
from training.data.image_pairs import read_image_pairs
from training.data.preparing import whole_images

GREY = whole_images(InputSpec(height=2, width=2, channels=1), WholeImage(mode="fit"))


def write(folder: Path, rows: str) -> Path:
    """Write images ``10.png`` to ``40.png`` of those shades, and the table."""
    for shade in (10, 20, 30, 40):
        (folder / f"{shade}.png").write_bytes(encoded(Image.new("L", (3, 3), shade)))
    (folder / "pairs.csv").write_text("image1,image2,same\n" + rows)
    return folder / "pairs.csv"


def test_each_file_is_read_once_and_pairs_point_at_it(tmp_path: Path) -> None:
    read = read_image_pairs(write(tmp_path, "30.png,10.png,1\n10.png,40.png,0\n"), GREY)
    assert read.paths == ("10.png", "30.png", "40.png")
    assert read.images[:, 0, 0, 0].tolist() == [10, 30, 40]
    assert read.pairs.left.tolist() == [1, 0]
    assert read.pairs.right.tolist() == [0, 2]
    assert read.pairs.same.tolist() == [True, False]


def test_paths_may_begin_in_another_folder(tmp_path: Path) -> None:
    table = write(tmp_path, "30.png,10.png,1\n")
    moved = tmp_path / "lists" / "pairs.csv"
    moved.parent.mkdir()
    table.rename(moved)
    assert len(read_image_pairs(moved, GREY, images=tmp_path).pairs) == 1


def test_missing_and_bad_images_are_named_by_line(tmp_path: Path) -> None:
    table = write(tmp_path, "30.png,10.png,1\n10.png,99.png,0\nbad.png,10.png,0\n")
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"line 3: 99\.png: .*No such file.*; line 4: bad\.png: the bytes are no image"
    ):
        read_image_pairs(table, GREY)


def test_one_picture_twice_labelled_different_is_refused(tmp_path: Path) -> None:
    table = write(tmp_path, "30.png,10.png,1\n20.png,copy.png,0\n")
    (tmp_path / "copy.png").write_bytes((tmp_path / "20.png").read_bytes())
    with pytest.raises(DataError, match="line 3: both sides are the same picture"):
        read_image_pairs(table, GREY)
