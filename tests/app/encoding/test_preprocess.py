"""From an image to the encoder's input, and through the three verbs of an encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.encoding.detection import Face, FaceDetector
from app.encoding.image_encoder import ImageEncoder, ImageInput, Timings
from app.encoding.intake import IntakeLimits
from app.encoding.manifest import DetectorSpec, InputSpec, WholeImage
from app.encoding.model import Model, open_model
from app.encoding.preprocess import prepare_face, prepare_whole
from app.errors import (
    ImageTooLargeError,
    ImageUnreadableError,
    InvalidRequestError,
    NoFaceError,
)
from tests.support.detector import FakeNetwork
from tests.support.images import angle_png, encoded

GREY = InputSpec(height=4, width=4, channels=1)
COLOUR = InputSpec(height=4, width=4, channels=3)


def rows(values: list[list[int]]) -> Image.Image:
    return Image.fromarray(np.array(values, np.uint8)).convert("RGB")


def whole(image: Image.Image, spec: InputSpec, **how: object) -> NDArray[np.uint8]:
    prepared = prepare_whole(image, WholeImage.model_validate(how), spec)
    assert prepared.face is None
    assert prepared.size == image.size
    return prepared.pixels


def test_image_of_the_input_size_is_taken_as_it_is() -> None:
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (4, 4, 3), np.uint8))
    for mode in ("fit", "pad", "crop"):
        assert np.array_equal(whole(image, COLOUR, mode=mode), np.asarray(image))


def test_grey_input_is_luminance() -> None:
    pixels = whole(Image.new("RGB", (4, 4), (255, 0, 0)), GREY, mode="fit")
    assert pixels.shape == (4, 4, 1)
    assert set(pixels.ravel().tolist()) == {76}  # 0.299 * 255


# A picture twice as wide as high: black on the left, white on the right.
WIDE = rows([[0] * 8 + [255] * 8] * 8)


def test_fit_stretches() -> None:
    assert whole(WIDE, GREY, mode="fit")[:, [0, 3], 0].tolist() == [[0, 255]] * 4


def test_pad_keeps_proportions_and_fills_with_the_background() -> None:
    pixels = whole(WIDE, GREY, mode="pad", background=100)[:, :, 0]
    assert pixels[[0, 3]].tolist() == [[100] * 4] * 2
    assert pixels[[1, 2]][:, [0, 3]].tolist() == [[0, 255]] * 2


def test_pad_is_white_unless_told_otherwise() -> None:
    assert (whole(WIDE, COLOUR, mode="pad")[0] == 255).all()


def test_crop_keeps_proportions_and_cuts_both_ends() -> None:
    # Columns 4 to 11 are kept; the filter reads a little beyond them.
    stripes = rows([[99] * 4 + [0] * 4 + [255] * 4 + [99] * 4] * 8)
    pixels = whole(stripes, GREY, mode="crop")[:, :, 0]
    assert (pixels[:, 0] < 20).all()
    assert (pixels[:, 3] > 220).all()


def test_large_image_is_averaged_not_sampled() -> None:
    checks = (np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)
    for mode in ("fit", "pad", "crop"):
        pixels = whole(Image.fromarray(checks).convert("RGB"), GREY, mode=mode)
        assert np.abs(pixels.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("mode", ["fit", "pad", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 7)])
def test_image_of_any_shape_becomes_the_input_size(mode: str, size: tuple[int, int]) -> None:
    assert whole(Image.new("RGB", size, (9, 9, 9)), COLOUR, mode=mode).shape == (4, 4, 3)


FACES = DetectorSpec(file="detector.onnx", kind="yunet", canvases=(320,), score_threshold=0.7, nms_iou=0.3)
CROP = InputSpec(height=112, width=112, channels=3)


def test_face_is_cut_out_and_comes_with_its_quality() -> None:
    detector = FaceDetector(FakeNetwork(lambda *canvas: True), FACES)
    prepared = prepare_face(Image.new("RGB", (320, 320), (51, 51, 51)), detector, CROP, "only", field=None)
    assert prepared.pixels.shape == (112, 112, 3)
    assert prepared.size == (320, 320)
    assert prepared.face is not None
    assert prepared.face.box == pytest.approx([24, 8, 32, 32])
    assert prepared.quality.face_size == pytest.approx(32)
    assert prepared.quality.eye_distance == 16


def test_image_without_a_face_names_its_field() -> None:
    with pytest.raises(NoFaceError) as caught:
        prepare_face(
            Image.new("RGB", (9, 9)), FaceDetector(FakeNetwork(), FACES), CROP, "only", field="image_b"
        )
    assert caught.value.details() == {"field": "image_b"}


def test_face_that_cannot_be_aligned_names_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = FaceDetector(FakeNetwork(), FACES)
    in_one_point = Face((0.0, 0.0, 9.0, 9.0), np.ones((5, 2)), 0.9)
    monkeypatch.setattr(detector, "detect", lambda image: [in_one_point])
    with pytest.raises(ImageUnreadableError, match="cannot be aligned") as caught:
        prepare_face(Image.new("RGB", (9, 9)), detector, CROP, "only", field="image")
    assert caught.value.details() == {"field": "image"}


@pytest.fixture(scope="module")
def angles(angle_models: Path) -> Model:
    """The small model that places an image at a chosen angle."""
    return open_model(angle_models / "angles", provider="cpu")


def test_batch_is_encoded_row_by_row(angles: Model) -> None:
    timings = Timings()
    prepared = [angles.images.prepare(ImageInput(angle_png(d)), "only", timings) for d in (0, 90, 45)]
    together = angles.images.encode(prepared, timings)
    assert together == pytest.approx(np.array([[1, 0], [0, 1], [0.5**0.5, 0.5**0.5]]), abs=1e-6)
    for row, item in zip(together, prepared, strict=True):
        assert np.array_equal(angles.images.encode([item], timings)[0], row)


def test_timings_add_up_over_images(angles: Model) -> None:
    timings = Timings()
    seen = [0.0]
    for _ in range(3):
        prepared = angles.images.prepare(ImageInput(angle_png(0)), "only", timings)
        angles.images.encode([prepared], timings)
        seen.append(timings.decode + timings.detect + timings.encode)
    assert seen == sorted(seen)
    assert min(timings.decode, timings.detect, timings.encode) > 0.0
    total = Timings(1.0, 2.0, 3.0)
    total.add(Timings(10.0, 20.0, 30.0))
    assert total == Timings(11.0, 22.0, 33.0)


@pytest.mark.parametrize("data", [b"", b"text", encoded(Image.new("RGB", (4, 4)))[:45]])
def test_image_that_cannot_be_decoded_names_its_field(angles: Model, data: bytes) -> None:
    with pytest.raises(ImageUnreadableError) as caught:
        angles.images.prepare(ImageInput(data, "image_a"), "only", Timings())
    assert caught.value.details() == {"field": "image_a"}


def test_limits_are_those_the_model_was_opened_with(angle_models: Path) -> None:
    strict = open_model(angle_models / "angles", provider="cpu", limits=IntakeLimits(max_pixels=1))
    with pytest.raises(ImageTooLargeError):
        strict.images.prepare(ImageInput(angle_png(0)), "only", Timings())


def test_embedding_without_a_direction_is_refused(angles: Model) -> None:
    # Black makes the zero vector, which is at distance 1 from every reference.
    black = angles.images.prepare(ImageInput(encoded(Image.new("L", (2, 1), 0))), "only", Timings())
    with pytest.raises(ImageUnreadableError, match="no usable embedding"):
        angles.images.encode([black], Timings())


class BrokenGraph:
    """An encoder whose embeddings are no numbers."""

    provider = "cpu"

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {"embeddings": np.full((len(images), 2), np.nan, np.float32)}


def test_embedding_that_is_not_finite_is_refused(angles: Model) -> None:
    encoder = ImageEncoder(angles.manifest, BrokenGraph(), None, IntakeLimits())  # type: ignore[arg-type]
    prepared = encoder.prepare(ImageInput(angle_png(0)), "only", Timings())
    with pytest.raises(ImageUnreadableError, match="no usable embedding"):
        encoder.encode([prepared], Timings())


def test_model_of_whole_images_detects_no_faces(angles: Model) -> None:
    with pytest.raises(InvalidRequestError, match="takes whole images and detects no faces"):
        angles.images.detect(ImageInput(angle_png(0)), Timings())
