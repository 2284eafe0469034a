"""Find faces with YuNet: run the network on a bounded canvas and decode its outputs.

Coordinates are pixels of the upright image, x to the right and y down, with (0, 0) the corner of the
first pixel's centre as in the published models.

Source: output layout of YuNet (Wu, Peng, Yu, 2023, "YuNet: A Tiny Millisecond-level Face Detector"),
as decoded by OpenCV's ``FaceDetectorYN``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.encoding.alignment import can_align
from app.encoding.manifest import DetectorSpec
from app.errors import MultipleFacesError, NoFaceError

FaceChoice = Literal["only", "largest", "central"]

STRIDES = (8, 16, 32)
LANDMARK_NAMES = ("right_eye", "left_eye", "nose_tip", "right_mouth_corner", "left_mouth_corner")
"""Named from the subject's point of view; the right eye is on the left of an upright photo."""


@dataclass(frozen=True)
class Face:
    """One detected face.

    Attributes:
        box: ``x, y, width, height`` in pixels; may reach past the image's border.
        landmarks: float64[5, 2], in the order of ``LANDMARK_NAMES``.
        score: Detection score in 0..1; not a probability.
    """

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float64]
    score: float

    @property
    def size(self) -> float:
        """Shorter side of the box, in pixels."""
        return min(self.box[2], self.box[3])


class DetectorNetwork(Protocol):
    """Runs the detector's graph."""

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Map uint8[1, H, W, 3] (RGB) to the network's outputs by name."""
        ...


class FaceDetector:
    """Detects faces on canvases of rising size until one shows a face."""

    def __init__(self, network: DetectorNetwork, spec: DetectorSpec) -> None:
        self._network = network
        self.spec = spec

    def detect(self, image: Image.Image) -> list[Face]:
        """Return the faces of an upright RGB image, best score first.

        The image is looked at on the first canvas of the manifest; only when that shows nothing are the
        others tried (a smaller one for a face that fills the picture, a larger one for small faces).
        """
        longer = max(image.size)
        tried: set[float] = set()
        for canvas in self.spec.canvases:
            # The first look never enlarges: that costs time and seldom shows more.
            scale = min(canvas / longer, self.spec.max_upscale if tried else 1.0)
            if scale not in tried and (faces := self._detect_at(image, scale)):
                return faces
            tried.add(scale)
        return []

    def _detect_at(self, image: Image.Image, scale: float) -> list[Face]:
        width, height = image.size
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        scaled = (
            image if size == image.size else image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        )
        padded = np.zeros((_next_multiple(size[1], 32), _next_multiple(size[0], 32), 3), np.uint8)
        padded[: size[1], : size[0]] = np.asarray(scaled)
        ratio = np.array([width / size[0], height / size[1]])
        return [
            Face(
                box=tuple((np.array(face.box) * np.tile(ratio, 2)).tolist()),
                landmarks=face.landmarks * ratio,
                score=face.score,
            )
            for face in self.faces_on(padded)
            if can_align(face.landmarks * ratio)
        ]

    def faces_on(self, canvas: NDArray[np.uint8]) -> list[Face]:
        """Return the faces on uint8[H, W, 3] of multiples of 32 in its own pixels, best score first."""
        outputs = self._network(canvas[None])
        boxes, landmarks, scores = decode_outputs(outputs, canvas.shape[:2], self.spec.score_threshold)
        return [
            Face(tuple(boxes[i].tolist()), landmarks[i], float(scores[i]))
            for i in non_maximum_suppression(boxes, scores, self.spec.nms_iou)
            if np.ptp(landmarks[i], axis=0).max() > 1.0
        ]


def choose_face(
    faces: list[Face], choice: FaceChoice, size: tuple[int, int], *, field: str | None = None
) -> Face:
    """Pick the face a request is about.

    Args:
        faces: All faces found.
        choice: ``only`` (an error if there are several), ``largest`` (area of the box) or ``central``
            (nearest to the image's centre).
        size: Width and height of the image in pixels.
        field: Request field, named by errors.

    Raises:
        NoFaceError: There is none.
        MultipleFacesError: There are several and the choice is ``only``.
    """
    if not faces:
        raise NoFaceError(
            "no face was found; send a photo in which the face is upright, at least about 20 pixels wide "
            "and not cut off",
            field=field,
        )
    if choice == "only":
        if len(faces) > 1:
            raise MultipleFacesError([box_fields(face) for face in faces], field=field)
        return faces[0]
    if choice == "largest":
        return max(faces, key=lambda face: face.box[2] * face.box[3])
    centre = np.array(size) / 2.0
    return min(
        faces, key=lambda f: float(np.hypot(*(np.array(f.box[:2]) + np.array(f.box[2:]) / 2 - centre)))
    )


def box_fields(face: Face) -> dict[str, float]:
    """Return the box as named numbers, in pixels rounded to a hundredth."""
    return {
        name: round(value, 2) for name, value in zip(("x", "y", "width", "height"), face.box, strict=True)
    }


def decode_outputs(
    outputs: dict[str, NDArray[np.float32]], shape: tuple[int, ...], score_threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Turn YuNet's raw outputs into boxes, landmarks and scores above the threshold.

    Args:
        outputs: ``cls_s, obj_s`` float32[1, n, 1], ``bbox_s`` float32[1, n, 4], ``kps_s`` float32[1, n, 10]
            for each stride ``s``, cells in row-major order.
        shape: Height and width of the canvas, multiples of 32.
        score_threshold: Least score kept.

    Returns:
        boxes float64[M, 4] (x, y, width, height), landmarks float64[M, 5, 2], scores float64[M].
    """
    boxes, landmarks, scores = [], [], []
    for stride in STRIDES:
        columns = shape[1] // stride
        confidence = np.sqrt(
            np.clip(outputs[f"cls_{stride}"][0, :, 0], 0, 1)
            * np.clip(outputs[f"obj_{stride}"][0, :, 0], 0, 1)
        )
        cells = np.flatnonzero(confidence >= score_threshold)
        origin = np.stack([cells % columns, cells // columns], axis=1).astype(np.float64)
        box = outputs[f"bbox_{stride}"][0, cells].astype(np.float64)
        centre = (origin + box[:, :2]) * stride
        size = np.exp(np.minimum(box[:, 2:], 12.0)) * stride
        offsets = outputs[f"kps_{stride}"][0, cells].astype(np.float64).reshape(-1, 5, 2)
        boxes.append(np.concatenate([centre - size / 2, size], axis=1))
        landmarks.append((offsets + origin[:, None, :]) * stride)
        scores.append(confidence[cells].astype(np.float64))
    return np.concatenate(boxes), np.concatenate(landmarks), np.concatenate(scores)


def non_maximum_suppression(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], iou_threshold: float
) -> list[int]:
    """Return the indices of boxes to keep, best score first, dropping those that overlap a better one.

    Args:
        boxes: float64[M, 4] (x, y, width, height).
        scores: float64[M].
        iou_threshold: Intersection over union above which the worse box is dropped.
    """
    order = np.argsort(-scores, kind="stable")[:1000]
    kept: list[int] = []
    while order.size:
        best, order = int(order[0]), order[1:]
        kept.append(best)
        order = order[intersection_over_union(boxes[best], boxes[order]) <= iou_threshold]
    return kept


def intersection_over_union(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float64[M], the overlap of one box with each of float64[M, 4] (x, y, width, height)."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    union = box[2:].prod() + boxes[:, 2:].prod(axis=1) - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float64).tiny))


def _next_multiple(value: int, step: int) -> int:
    return -(-value // step) * step
