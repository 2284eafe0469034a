"""Decoding of YuNet's outputs, suppression, the choice of a face, and the ladder of canvases."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from app.encoding.detection import (
    Face,
    FaceChoice,
    FaceDetector,
    box_fields,
    choose_face,
    decode_outputs,
    intersection_over_union,
    non_maximum_suppression,
)
from app.encoding.manifest import DetectorSpec
from app.errors import MultipleFacesError, NoFaceError
from tests.support.detector import FakeNetwork, show_face, silent_outputs

SPEC = DetectorSpec(
    file="detector.onnx",
    kind="yunet",
    canvases=(640, 320, 1280, 160),
    max_upscale=2.0,
    score_threshold=0.7,
    nms_iou=0.3,
)


def face(x: float, y: float, width: float, height: float, score: float = 0.9) -> Face:
    landmarks = np.array([[0.0, 0.0], [2, 0], [1, 1], [0, 2], [2, 2]])
    return Face((x, y, width, height), landmarks, score)


# Cell (row 3, column 1) on a canvas 64 high and 96 wide; its corner is at (1, 3) strides.
@pytest.mark.parametrize(
    ("stride", "row", "box", "nose"),
    [
        # Centre (1.5, 2.75) * 8 = (12, 22), size (2, 4) * 8 = (16, 32).
        (8, 3, (4, 6, 16, 32), (8, 24)),
        # Centre (24, 44), size (32, 64).
        (16, 3, (8, 12, 32, 64), (16, 48)),
        # Two rows only: row 1, centre (1.5, 0.75) * 32 = (48, 24), size (64, 128).
        (32, 1, (16, -40, 64, 128), (32, 32)),
    ],
)
def test_cell_becomes_a_box_and_landmarks(
    stride: int, row: int, box: tuple[float, ...], nose: tuple[float, float]
) -> None:
    outputs = silent_outputs(64, 96)
    show_face(
        outputs,
        96,
        stride=stride,
        row=row,
        column=1,
        confidence=(0.9, 0.4),
        offset=(0.5, -0.25),
        size=(2.0, 4.0),
    )
    boxes, landmarks, scores = decode_outputs(outputs, (64, 96), 0.5)
    assert boxes == pytest.approx(np.array([box]), abs=1e-4)
    assert scores == pytest.approx([0.6])  # sqrt(0.9 * 0.4)
    right_eye, _, tip, _, left_mouth = landmarks[0].tolist()
    assert tip == pytest.approx(nose)
    assert right_eye == pytest.approx((nose[0] - stride, nose[1] - stride))
    assert left_mouth == pytest.approx((nose[0] + 0.8 * stride, nose[1] + stride))


@pytest.mark.parametrize(
    ("confidence", "kept"),
    [
        ((0.7, 0.7), 1),
        ((0.7, 0.69), 0),
        ((1.0, 0.49), 1),
        ((2.0, 0.5), 1),
        ((2.0, 0.48), 0),
        ((-0.9, -0.9), 0),
        ((math.nan, 0.9), 0),
    ],
)
def test_score_is_the_geometric_mean_of_two_confidences_within_0_and_1(
    confidence: tuple[float, float], kept: int
) -> None:
    outputs = silent_outputs(32, 32)
    show_face(outputs, 32, stride=8, row=0, column=0, confidence=confidence)
    assert len(decode_outputs(outputs, (32, 32), 0.7 - 1e-6)[2]) == kept


def test_faces_of_all_strides_are_returned_together() -> None:
    outputs = silent_outputs(64, 64)
    for stride in (8, 16, 32):
        show_face(outputs, 64, stride=stride, row=1, column=1)
    boxes, landmarks, scores = decode_outputs(outputs, (64, 64), 0.7)
    assert boxes[:, 2].tolist() == pytest.approx([32, 64, 128])
    assert landmarks.shape == (3, 5, 2)
    assert scores.shape == (3,)


def test_box_of_absurd_size_stays_finite() -> None:
    outputs = silent_outputs(32, 32)
    show_face(outputs, 32, stride=32, row=0, column=0)
    outputs["bbox_32"][0, 0, 2:] = 1e6
    assert np.isfinite(decode_outputs(outputs, (32, 32), 0.7)[0]).all()


def test_no_face_gives_empty_arrays() -> None:
    boxes, landmarks, scores = decode_outputs(silent_outputs(32, 64), (32, 64), 0.7)
    assert (boxes.shape, landmarks.shape, scores.shape) == ((0, 4), (0, 5, 2), (0,))


def naive_suppression(boxes: list[tuple[int, ...]], scores: list[float], limit: Fraction) -> list[int]:
    def overlap(first: tuple[int, ...], second: tuple[int, ...]) -> Fraction:
        width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
        height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
        shared = max(width, 0) * max(height, 0)
        return Fraction(shared, first[2] * first[3] + second[2] * second[3] - shared)

    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[index], boxes[other]) <= limit for other in kept):
            kept.append(index)
    return kept


BOXES = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 12), st.integers(1, 12))


@given(st.lists(st.tuples(BOXES, st.sampled_from([0.7, 0.8, 0.9])), max_size=25), st.sampled_from([1, 2, 3]))
def test_suppression_is_the_naive_greedy_one(
    found: list[tuple[tuple[int, ...], float]], quarters: int
) -> None:
    boxes, scores = [box for box, _ in found], [score for _, score in found]
    kept = non_maximum_suppression(np.array(boxes, np.float64).reshape(-1, 4), np.array(scores), quarters / 4)
    assert kept == naive_suppression(boxes, scores, Fraction(quarters, 4))


def test_overlap_equal_to_the_limit_is_kept() -> None:
    # Two boxes of 2 x 1 that share half of each: 1 / 3 of their union.
    boxes = np.array([[0.0, 0, 2, 1], [1, 0, 2, 1]])
    assert non_maximum_suppression(boxes, np.array([0.8, 0.9]), 1 / 3) == [1, 0]
    assert non_maximum_suppression(boxes, np.array([0.8, 0.9]), 0.33) == [1]


def test_overlap_is_the_share_of_the_union() -> None:
    boxes = np.array([[0.0, 0, 2, 2], [1, 1, 2, 2], [2, 0, 2, 2], [0, 0, 1, 2], [9, 9, 0, 0]])
    found = intersection_over_union(boxes[0], boxes)
    assert found == pytest.approx([1, 1 / 7, 0, 1 / 2, 0])
    assert intersection_over_union(boxes[4], boxes[4:]).tolist() == [0]


SMALL_CENTRAL = face(45, 45, 10, 10, score=0.8)
LARGE_ASIDE = face(0, 0, 40, 40, score=0.7)
SURE_ASIDE = face(80, 0, 5, 30, score=0.99)


@pytest.mark.parametrize(("choice", "expected"), [("largest", LARGE_ASIDE), ("central", SMALL_CENTRAL)])
@pytest.mark.parametrize("turn", range(3))
def test_choice_among_several_faces(choice: FaceChoice, expected: Face, turn: int) -> None:
    faces = [SMALL_CENTRAL, LARGE_ASIDE, SURE_ASIDE]
    assert choose_face(faces[turn:] + faces[:turn], choice, (100, 100)) is expected


def test_central_is_measured_from_the_middle_of_an_oblong_image() -> None:
    left, right = face(40, 40, 20, 20), face(140, 40, 20, 20)
    assert choose_face([left, right], "central", (200, 100)) in (left, right)
    assert choose_face([left, right], "central", (240, 100)) is right
    assert choose_face([left, right], "central", (160, 100)) is left


@pytest.mark.parametrize("choice", ["only", "largest", "central"])
def test_single_face_is_chosen_whatever_the_rule(choice: FaceChoice) -> None:
    assert choose_face([SMALL_CENTRAL], choice, (100, 100)) is SMALL_CENTRAL


@pytest.mark.parametrize("choice", ["only", "largest", "central"])
def test_no_face_is_an_error_that_names_the_field(choice: FaceChoice) -> None:
    with pytest.raises(NoFaceError) as caught:
        choose_face([], choice, (100, 100), field="image_a")
    assert caught.value.details() == {"field": "image_a"}


def test_several_faces_are_an_error_that_lists_their_boxes() -> None:
    with pytest.raises(MultipleFacesError) as caught:
        choose_face([SMALL_CENTRAL, LARGE_ASIDE], "only", (100, 100), field="image")
    assert caught.value.details() == {
        "field": "image",
        "boxes": [
            {"x": 45, "y": 45, "width": 10, "height": 10},
            {"x": 0, "y": 0, "width": 40, "height": 40},
        ],
    }


def test_box_is_given_in_hundredths_of_a_pixel() -> None:
    assert box_fields(face(1.2345, -2.005, 3, 4.999)) == {"x": 1.23, "y": -2.0, "width": 3, "height": 5.0}


# Canvases (height, width) are the scaled image rounded up to multiples of 32.
@pytest.mark.parametrize(
    ("size", "canvases"),
    [
        pytest.param(
            (4000, 3000), [(480, 640), (256, 320), (960, 1280), (128, 160)], id="photo: scaled to each"
        ),
        pytest.param((3000, 4000), [(640, 480), (320, 256), (1280, 960), (160, 128)], id="upright photo"),
        pytest.param(
            # As it is; at most doubled to 600 x 400 where 1280 is wanted.
            (300, 200),
            [(224, 320), (224, 320), (416, 608), (128, 160)],
            id="small: enlarged on later looks",
        ),
        pytest.param(
            # 320 and 1280 both mean doubled: one look.
            (100, 80),
            [(96, 128), (160, 224), (128, 160)],
            id="very small: no look twice",
        ),
        pytest.param(
            (640, 640), [(640, 640), (320, 320), (1280, 1280), (160, 160)], id="as wide as the canvas"
        ),
        pytest.param((1, 1), [(32, 32), (32, 32)], id="one pixel"),
        pytest.param((10_000, 1), [(32, 640), (32, 320), (32, 1280), (32, 160)], id="a line"),
    ],
)
def test_image_without_a_face_is_looked_at_on_each_canvas_once(
    size: tuple[int, int], canvases: list[tuple[int, int]]
) -> None:
    network = FakeNetwork()
    assert FaceDetector(network, SPEC).detect(Image.new("RGB", size)) == []
    assert network.canvases == canvases


@pytest.mark.parametrize(
    ("sees", "looks"), [((480, 640), 1), ((256, 320), 2), ((960, 1280), 3), ((128, 160), 4)]
)
def test_search_ends_at_the_first_canvas_with_a_face(sees: tuple[int, int], looks: int) -> None:
    network = FakeNetwork(lambda *canvas: canvas == sees)
    assert len(FaceDetector(network, SPEC).detect(Image.new("RGB", (4000, 3000)))) == 1
    assert len(network.canvases) == looks


@pytest.mark.parametrize(
    ("size", "sees", "factor"),
    [
        pytest.param((320, 320), (320, 320), 1.0, id="as it is"),
        pytest.param((1280, 640), (320, 640), 2.0, id="halved"),
        pytest.param((2560, 1280), (160, 320), 8.0, id="on the second canvas"),
        pytest.param((200, 200), (416, 416), 0.5, id="doubled"),
    ],
)
def test_coordinates_are_those_of_the_image(
    size: tuple[int, int], sees: tuple[int, int], factor: float
) -> None:
    detector = FaceDetector(FakeNetwork(lambda *canvas: canvas == sees), SPEC)
    (found,) = detector.detect(Image.new("RGB", size))
    # On the canvas: cell (5, 3) of 8 pixels, a box of 4 x 4 cells around it, the nose on it.
    assert found.box == pytest.approx([24 * factor, 8 * factor, 32 * factor, 32 * factor], rel=1e-5)
    assert found.landmarks[2].tolist() == pytest.approx([40 * factor, 24 * factor])
    assert found.size == pytest.approx(32 * factor)
    assert found.score == pytest.approx(0.9)


def test_canvas_is_the_image_with_black_to_the_right_and_below() -> None:
    shown: list[NDArray[np.uint8]] = []

    def network(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        shown.append(images)
        return silent_outputs(*images.shape[1:3])

    FaceDetector(network, SPEC.model_copy(update={"canvases": (640,)})).detect(
        Image.new("RGB", (40, 50), (10, 20, 30))
    )
    (canvas,) = shown
    assert canvas.shape == (1, 64, 64, 3)
    assert (canvas[0, :50, :40] == (10, 20, 30)).all()
    assert not canvas[0, 50:].any()
    assert not canvas[0, :, 40:].any()


@pytest.mark.parametrize(
    "landmarks",
    [
        pytest.param(((0.0, 0.0),) * 5, id="in one point"),
        # Eyes swapped, mouth not, in the ratio of the template's widths: the two cancel at every angle.
        pytest.param(
            ((2.91806, 0.0), (-2.91806, 0.0), (0.0, 0.0), (-3.52372, 0.0), (3.52372, 0.0)), id="crossed"
        ),
        pytest.param(((math.nan, 0.0),) * 5, id="not a number"),
    ],
)
def test_face_that_cannot_be_aligned_is_left_out(landmarks: tuple[tuple[float, float], ...]) -> None:
    def network(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        outputs = silent_outputs(*images.shape[1:3])
        show_face(outputs, images.shape[2], stride=8, row=1, column=1)
        show_face(outputs, images.shape[2], stride=32, row=5, column=5, landmarks=landmarks)
        return outputs

    (found,) = FaceDetector(network, SPEC).detect(Image.new("RGB", (320, 320)))
    assert found.box[2] == pytest.approx(32)
