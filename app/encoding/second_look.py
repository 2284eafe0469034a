"""Find a face's landmarks again on a crop in which it stands upright and large.

YuNet's landmarks hardly follow the tilt of a head, least of all on small faces, and the encoder depends on
them: a head turned by 30 degrees was a non-match. On a crop turned by a first estimate, with the face at a
size the network knows well, they are right. Measured on photos in the wild: the model card of ``faces``.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.encoding.alignment import can_align, cut_out
from app.encoding.detection import Face, FaceDetector, intersection_over_union
from app.encoding.manifest import SecondLook

LEAST_SCALE, MOST_SCALE = 1e-4, 16.0
"""Bounds of the scaling to the crop; the smallest faces that are found, of 10 pixels, need the larger."""


def look_again(image: Image.Image, face: Face, detector: FaceDetector) -> Face:
    """Return the face with its landmarks as a closer look shows them.

    Box and score stay those of the first look: they say where the face is in the image, not in a turned crop.
    The face is returned as it is where the manifest wants no second look, or none shows the same face.

    Args:
        image: Upright RGB image.
        face: A face detected in it.
        detector: What detected it.
    """
    spec = detector.spec.second_look
    if spec is None:
        return face
    for _ in range(spec.looks):
        forward = upright_crop(face, spec)
        crop = cut_out(image, forward, (spec.canvas, spec.canvas))
        seen = _same_face(_moved_box(face, forward), detector.faces_on(crop), detector.spec.nms_iou)
        if seen is None:
            break
        linear, shift = forward[:, :2], forward[:, 2]
        landmarks = (seen.landmarks - shift) @ np.linalg.inv(linear).T
        if not can_align(landmarks):
            break
        face = replace(face, landmarks=landmarks)
        if abs(turn_of(seen.landmarks)) <= spec.turn:
            break
    return face


def turn_of(landmarks: NDArray[np.float64]) -> float:
    """Return the clockwise turn of a face in degrees, by the direction from the eyes to the mouth.

    The line between the eyes would be the obvious measure, but detected eyes are the most level of all.
    """
    x, y = landmarks[3:].mean(axis=0) - landmarks[:2].mean(axis=0)
    return math.degrees(math.atan2(-x, y))


def upright_crop(face: Face, spec: SecondLook) -> NDArray[np.float64]:
    """Return float64[2, 3] from pixels of the image to a crop with the face upright in its middle."""
    # In this order a size that is not a number gives way to a bound.
    scale = spec.face / min(spec.face / LEAST_SCALE, max(spec.face / MOST_SCALE, face.size))
    turn = math.radians(turn_of(face.landmarks))
    a, b = scale * math.cos(turn), scale * math.sin(turn)
    linear = np.array([[a, b], [-b, a]])
    shift = (spec.canvas - 1) / 2.0 - linear @ face.landmarks.mean(axis=0)
    return np.concatenate([linear, shift[:, None]], axis=1)


def _moved_box(face: Face, forward: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the face's box in the crop: its centre is turned, its sides are not."""
    corner, size = np.array(face.box[:2]), np.array(face.box[2:])
    centre = forward[:, :2] @ (corner + size / 2.0) + forward[:, 2]
    size = size * math.hypot(forward[0, 0], forward[1, 0])
    return np.concatenate([centre - size / 2.0, size])


def _same_face(box: NDArray[np.float64], faces: list[Face], least_overlap: float) -> Face | None:
    """Return the face whose box overlaps most, if so much that suppression would call them one face."""
    if not faces:
        return None
    overlaps = intersection_over_union(box, np.array([face.box for face in faces]))
    best = int(np.argmax(overlaps))
    return faces[best] if overlaps[best] > least_overlap else None
