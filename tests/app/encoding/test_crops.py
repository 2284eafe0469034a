"""A kept crop is the encoder's input to the last bit, and says itself how it was cut from the photo."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.encoding.crops import fitted, to_png
from app.encoding.manifest import Encoding
from tests.support.images import encoded

YUNET = {"file": "d.onnx", "kind": "yunet", "canvases": [320], "score_threshold": 0.5, "nms_iou": 0.3}


def encoding(height: int, width: int, channels: int = 3, **preprocess: Any) -> Encoding:
    how = preprocess or {"mode": "face-5pt"}
    return Encoding.model_validate(
        {
            "input": {"height": height, "width": width, "channels": channels},
            "preprocess": how,
            "detector": YUNET if how["mode"] == "face-5pt" else None,
            "dimensions": 2,
            "metric": "euclidean",
        }
    )


def noise(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_crop_for_a_model_of_the_same_input_is_pixel_for_pixel_what_was_kept(channels: int) -> None:
    how = encoding(8, 6, channels, mode="fit")
    pixels = noise(8, 6, channels)
    crop = fitted(to_png(pixels, how), how)
    assert crop is not None
    np.testing.assert_array_equal(crop.pixels, pixels)
    assert crop.resized_from is None


def test_crop_of_another_size_is_resized_and_says_from_what() -> None:
    crop = fitted(to_png(np.full((112, 112, 3), 77, np.uint8), encoding(112, 112)), encoding(160, 160))
    assert crop is not None
    assert (crop.pixels.shape, crop.resized_from) == ((160, 160, 3), (112, 112))
    assert (crop.pixels == 77).all()


def test_colours_become_grey_for_a_model_that_wants_grey_and_not_the_other_way() -> None:
    colour, grey = encoding(4, 4, 3, mode="crop"), encoding(4, 4, 1, mode="crop")
    crop = fitted(to_png(noise(4, 4), colour), grey)
    assert crop is not None
    assert crop.pixels.shape == (4, 4, 1)
    assert fitted(to_png(noise(4, 4, 1), grey), colour) is None


@pytest.mark.parametrize(
    ("kept", "wanted"),
    [
        (encoding(8, 8), encoding(8, 8, mode="fit")),
        (encoding(8, 8, mode="crop"), encoding(8, 8, mode="pad")),
        (encoding(8, 8, mode="pad", background=0), encoding(8, 8, mode="pad", background=255)),
        (encoding(8, 8, mode="crop"), encoding(8, 4, mode="crop")),
        (encoding(8, 8), encoding(16, 8)),
    ],
    ids=["face and whole", "crop and pad", "background", "proportions", "proportions of a face"],
)
def test_crop_that_shows_another_part_of_the_photo_is_not_used(kept: Encoding, wanted: Encoding) -> None:
    assert fitted(to_png(noise(8, 8), kept), wanted) is None


def test_whole_images_that_are_stretched_need_not_have_the_same_proportions() -> None:
    crop = fitted(to_png(noise(8, 8), encoding(8, 8, mode="fit")), encoding(4, 8, mode="fit"))
    assert crop is not None
    assert crop.pixels.shape == (4, 8, 3)


def test_png_that_does_not_say_how_it_was_cut_is_not_used() -> None:
    assert fitted(encoded(Image.fromarray(noise(8, 8))), encoding(8, 8)) is None
