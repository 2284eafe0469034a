"""What all pages share: thumbnails, names, failures, and which comparisons are shown."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.encoding.bulk import Embedded
from tests.support.images import astronaut, encoded
from training.pages.common import (
    FAILURES_LISTED,
    LARGEST_SIDE,
    decided,
    failures,
    no_image_twice,
    shot,
    thumbnail,
)


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_photograph_is_a_small_jpeg(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(astronaut()))
    address = thumbnail(tmp_path / "a.png")
    assert address.startswith("data:image/jpeg;base64,")
    assert len(address) < 30_000
    assert max(opened(address).size) == LARGEST_SIDE


def test_drawing_keeps_its_edges_as_png(tmp_path: Path) -> None:
    drawing = Image.new("1", (105, 105), 1)
    drawing.paste(0, (20, 20, 90, 30))
    drawing.save(tmp_path / "a.png")
    address = thumbnail(tmp_path / "a.png")
    assert address.startswith("data:image/png;base64,")
    assert opened(address).size == (105, 105)


def test_photograph_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "a.jpg", exif=exif)
    assert opened(thumbnail(tmp_path / "a.jpg")).size == (40, 80)


@pytest.mark.parametrize("data", [None, b"no image"])
def test_image_that_is_gone_is_an_empty_square(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "a.png").write_bytes(data)
    assert opened(thumbnail(tmp_path / "a.png")).size == (LARGEST_SIDE, LARGEST_SIDE)


def test_name_leaves_out_a_folder_that_the_file_repeats(tmp_path: Path) -> None:
    assert shot(tmp_path / "Ada" / "Ada_0001.jpg", tmp_path).name == "Ada_0001"
    assert shot(tmp_path / "s1" / "7.png", tmp_path).name == "s1/7"


def test_no_image_is_in_two_of_the_trials_shown() -> None:
    images = np.array([[0, 1], [1, 2], [3, 4], [4, 0], [5, 6]])
    assert no_image_twice(np.array([0, 1, 2, 3, 4]), images, 8) == [0, 2, 4]
    assert no_image_twice(np.array([3, 0, 1, 4, 2]), images, 2) == [3, 1]


@pytest.mark.parametrize(
    ("distance", "mated", "words", "right"),
    [
        (0.5, True, "distance 0.5000: match, right", True),
        (0.5, False, "distance 0.5000: match, wrong", False),
        (0.6, True, "distance 0.6000: non-match, wrong", False),
        (0.6, False, "distance 0.6000: non-match, right", True),
    ],
)
def test_distance_equal_to_the_threshold_is_a_match(
    distance: float, mated: bool, words: str, right: bool
) -> None:
    assert decided(distance, 0.5, mated=mated) == (words, right)


def embedded(reasons: list[str]) -> Embedded:
    paths = tuple(Path("set") / f"{row}.png" for row in range(len(reasons)))
    ok = np.array([not reason for reason in reasons])
    return Embedded(paths, np.zeros((len(reasons), 2), np.float32), ok, tuple(reasons))


def test_failures_are_counted_by_reason_and_listed() -> None:
    block = failures(
        embedded(["", "no_face: none", "", "no_face: none", "image_unreadable: cut"]), Path("set")
    )
    assert block is not None
    assert block.lead == ("3 of 5 images (60.00 %) could not be embedded: 2 no_face, 1 image_unreadable.")
    assert list(block.tables[0].rows[0]) == ["1.png", "no_face: none"]
    assert block.tail == ""


def test_many_failures_are_listed_in_part() -> None:
    block = failures(embedded(["no_face: none"] * (FAILURES_LISTED + 3)), Path("set"))
    assert block is not None
    assert (len(block.tables[0].rows), block.tail) == (FAILURES_LISTED, "And 3 more images.")


def test_no_failure_is_no_section() -> None:
    assert failures(embedded(["", ""]), Path("set")) is None
