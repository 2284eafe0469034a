"""The second look: where its crop lies, what comes back of it, and when the first look stands."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.encoding.detection import Face, FaceDetector
from app.encoding.manifest import DetectorSpec, SecondLook
from app.encoding.second_look import look_again, turn_of, upright_crop
from tests.support.detector import Outputs, show_face, silent_outputs

LOOK = SecondLook(canvas=320, face=160, turn=10.0, looks=4)
SPEC = DetectorSpec(
    file="detector.onnx", kind="yunet", canvases=(640,), score_threshold=0.7, nms_iou=0.3, second_look=LOOK
)
UPRIGHT = np.array([[-10.0, -10], [10, -10], [0, 0], [-8, 10], [8, 10]])
"""Landmarks about their mean: eyes above, mouth below."""
CROSSED = np.array([[2.91806, 0], [-2.91806, 0], [0, 0], [-3.52372, 0], [3.52372, 0]]) * 32
"""Eyes swapped, mouth not, in the ratio of the template's widths: the two cancel at every angle."""


def turned(points: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Turn points clockwise about the origin."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.asarray(points @ np.array([[c, s], [-s, c]]))


def face_at(centre: tuple[float, float], size: float, degrees: float = 0.0) -> Face:
    box = (centre[0] - size / 2, centre[1] - size / 2, size, size)
    return Face(box, turned(UPRIGHT, degrees) * size / 40 + centre, 0.9)


class CropNetwork:
    """Answers with one face of chosen size, place and landmarks on every crop.

    Attributes:
        crops: What it was shown.
    """

    def __init__(
        self,
        landmarks: NDArray[np.float64] = UPRIGHT * 4,
        *,
        width: float = 160,
        at: tuple[float, float] = (160, 160),
        answers: int = 99,
    ) -> None:
        self.crops: list[NDArray[np.uint8]] = []
        self._landmarks, self._width, self._at, self._answers = landmarks, width, at, answers

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        self.crops.append(images[0])
        outputs = silent_outputs(*images.shape[1:3])
        if len(self.crops) <= self._answers:
            report(outputs, images.shape[2], self._landmarks, self._width, self._at)
        return outputs


def report(
    outputs: Outputs,
    canvas: int,
    landmarks: NDArray[np.float64],
    width: float,
    at: tuple[float, float],
    confidence: float = 0.9,
) -> None:
    """Let the cell at a place, a multiple of 32, report a face; landmarks are pixels from it."""
    offsets = [(float(x), float(y)) for x, y in landmarks / 32]
    show_face(
        outputs,
        canvas,
        stride=32,
        row=int(at[1]) // 32,
        column=int(at[0]) // 32,
        confidence=(confidence, confidence),
        size=(width / 32, width / 32),
        landmarks=tuple(offsets),
    )


def detector(network: object) -> FaceDetector:
    return FaceDetector(network, SPEC)  # type: ignore[arg-type]


PHOTO = Image.new("RGB", (400, 300), (120, 120, 120))


@pytest.mark.parametrize("degrees", [0, 1, -30, 90, 135, -179])
def test_turn_is_clockwise_from_eyes_above_mouth(degrees: float) -> None:
    assert turn_of(turned(UPRIGHT, degrees) + np.array([50, 70])) == pytest.approx(degrees)


def test_turn_does_not_ask_how_level_the_eyes_are() -> None:
    crooked = UPRIGHT + np.array([[0, 5], [0, -5], [0, 0], [0, 0], [0, 0]])
    assert turn_of(crooked) == pytest.approx(0)


@pytest.mark.parametrize("degrees", [0, 25, -70, 180])
@pytest.mark.parametrize("size", [20.0, 40.0, 800.0])
def test_face_stands_upright_in_the_middle_of_the_crop_at_the_size_wanted(
    degrees: float, size: float
) -> None:
    face = face_at((300, 200), size, degrees)
    forward = upright_crop(face, LOOK)
    # The face's side becomes 160 pixels, four times those 40 that UPRIGHT is drawn for.
    assert face.landmarks @ forward[:, :2].T + forward[:, 2] == pytest.approx(UPRIGHT * 4 + 159.5)


@pytest.mark.parametrize(("size", "scale"), [(10.0, 16.0), (5.0, 16.0), (0.0, 16.0), (1e9, 1e-4)])
def test_scale_is_bounded(size: float, scale: float) -> None:
    forward = upright_crop(Face((0, 0, size, size), UPRIGHT, 0.9), LOOK)
    assert math.hypot(forward[0, 0], forward[1, 0]) == pytest.approx(scale)


class BlobNetwork:
    """Finds a red eye, a green eye and a blue mouth by their centres of mass."""

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        pixels = images[0].astype(np.float64)
        rows, columns = np.indices(pixels.shape[:2])
        red, green, blue = (
            ((columns * p).sum() / p.sum(), (rows * p).sum() / p.sum()) for p in np.moveaxis(pixels, 2, 0)
        )
        landmarks = np.array([red, green, np.mean([red, green, blue], axis=0), blue, blue])
        outputs = silent_outputs(*images.shape[1:3])
        report(outputs, images.shape[2], landmarks - 160, 160, (160, 160))
        return outputs


@pytest.mark.parametrize("size", [40, 100, 500])
@pytest.mark.parametrize("degrees", [0, 30, -45, 100])
def test_landmarks_found_in_the_crop_come_back_to_where_they_are_in_the_image(
    size: int, degrees: float
) -> None:
    # A crop of a face of 40 pixels is enlarged, one of 500 averaged down first; the first look sees no tilt.
    side = 2 * size + 61
    centre = np.array([side / 2 + 7.3, side / 2 - 4.6])
    truth = turned(UPRIGHT, degrees) * size / 40 + centre
    rows, columns = np.indices((side, side))
    blobs = [
        np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (0.06 * size) ** 2))
        for x, y in (truth[0], truth[1], truth[3:].mean(axis=0))
    ]
    image = Image.fromarray((255 * np.stack(blobs, axis=2)).astype(np.uint8))
    level = face_at((float(centre[0]), float(centre[1])), size)
    found = look_again(image, level, detector(BlobNetwork()))
    wanted = np.array([truth[0], truth[1], truth[3:].mean(axis=0)])
    assert np.abs(found.landmarks[[0, 1, 3]] - wanted).max() < 0.004 * size
    assert (found.box, found.score) == (level.box, level.score)


@pytest.mark.parametrize(
    ("left", "looks"), [(0, 1), (9.9, 1), (-9.9, 1), (10.1, 4), (-10.1, 4), (30, 4)], ids=str
)
def test_face_still_turned_in_the_crop_is_looked_at_again_a_few_times(left: float, looks: int) -> None:
    network = CropNetwork(turned(UPRIGHT * 4, left))
    found = look_again(PHOTO, face_at((200, 150), 80), detector(network))
    assert len(network.crops) == looks
    # Every crop was turned by what the one before it showed.
    assert turn_of(found.landmarks) == pytest.approx(looks * left, abs=1e-3)


def test_crop_is_square_and_shows_the_image_where_it_is() -> None:
    network = CropNetwork()
    look_again(PHOTO, face_at((0, 0), 80), detector(network))
    (crop,) = network.crops
    assert crop.shape == (320, 320, 3)
    # The face lies on the corner of the photo: only the lower right quarter of the crop shows it.
    assert (crop[165:, 165:] == 120).all()
    assert not crop[:155].any()
    assert not crop[:, :155].any()


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(CropNetwork(answers=0), id="nothing seen"),
        pytest.param(CropNetwork(at=(32, 32)), id="a face elsewhere"),
        pytest.param(CropNetwork(width=64), id="a face much smaller"),
        pytest.param(CropNetwork(width=320), id="a face much larger"),
        pytest.param(CropNetwork(UPRIGHT * 0), id="landmarks in one point"),
        pytest.param(CropNetwork(CROSSED), id="landmarks that no turn fits"),
        pytest.param(CropNetwork(UPRIGHT * math.nan), id="landmarks that are no numbers"),
    ],
)
def test_first_look_stands_where_the_second_shows_no_such_face(network: CropNetwork) -> None:
    face = face_at((200, 150), 80, 20)
    assert look_again(PHOTO, face, detector(network)) is face
    assert len(network.crops) == 1


def test_what_an_earlier_look_found_stands_where_a_later_one_shows_nothing() -> None:
    network = CropNetwork(turned(UPRIGHT * 4, 20), answers=2)
    found = look_again(PHOTO, face_at((200, 150), 80), detector(network))
    assert len(network.crops) == 3
    assert turn_of(found.landmarks) == pytest.approx(40, abs=1e-3)


def test_face_that_overlaps_most_counts_not_the_surest() -> None:
    def network(images: NDArray[np.uint8]) -> Outputs:
        outputs = silent_outputs(*images.shape[1:3])
        report(outputs, 320, turned(UPRIGHT, 50), 96, (64, 160), confidence=0.99)
        report(outputs, 320, UPRIGHT * 4, 128, (160, 160), confidence=0.75)
        return outputs

    found = look_again(PHOTO, face_at((200, 150), 80), detector(network))
    # In the crop 0.5 pixels off the middle, which is a quarter in the photo.
    assert found.landmarks == pytest.approx(UPRIGHT * 2 + [200.25, 150.25], abs=1e-4)


def test_without_a_second_look_in_the_manifest_nothing_is_looked_at() -> None:
    network = CropNetwork()
    plain = FaceDetector(network, SPEC.model_copy(update={"second_look": None}))
    face = face_at((200, 150), 80, 20)
    assert look_again(PHOTO, face, plain) is face
    assert network.crops == []


NAN = math.nan


@pytest.mark.parametrize("image", [PHOTO, Image.new("RGB", (1, 1)), Image.new("RGB", (9000, 1))], ids=str)
@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 0), (NAN, NAN, NAN, NAN), (0, 0, 1e-300, 1e-300), (-1e6, -1e6, 1e12, 1e12), (9e9, 0, 30, 30)],
)
@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (1e7, 1), (0, 1e5), (0, 0.01), (-500, -1)])
def test_odd_faces_raise_nothing(
    image: Image.Image, box: tuple[float, float, float, float], shift: float, scale: float
) -> None:
    face = Face(box, UPRIGHT * scale + shift, 0.9)
    assert np.isfinite(look_again(image, face, detector(CropNetwork())).landmarks).all()
