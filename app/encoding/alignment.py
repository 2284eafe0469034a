"""Bring a face to the position the encoder was trained on: a similarity transform from five landmarks.

Source: least-squares similarity of Umeyama (1991), "Least-squares estimation of transformation parameters
between two point patterns"; in two dimensions it has a closed form, which is used here. The template of
five points on 112 x 112 pixels is the one common to SphereFace, ArcFace and SFace.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TEMPLATE_112 = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""float64[5, 2]: where the landmarks land, in pixels of the 112 x 112 crop."""

_LEAST_SCALE = 1e-4
"""Smaller than for any face in an image of the largest size; mirrored or scattered points come near it."""


def similarity_transform(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation, uniform scale and shift that bring source points nearest to target points.

    Args:
        source: float64[K, 2], not all equal.
        target: float64[K, 2].

    Returns:
        float64[2, 3]: ``target ~= M[:, :2] @ source + M[:, 2]`` with least squared error, no reflection.

    Raises:
        ValueError: All source points coincide.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    s, t = source - source_mean, target - target_mean
    spread = float((s * s).sum())
    if not spread > 0.0:
        raise ValueError("landmarks coincide")
    a = float((s * t).sum()) / spread
    b = float((s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()) / spread
    linear = np.array([[a, -b], [b, a]])
    return np.concatenate([linear, (target_mean - linear @ source_mean)[:, None]], axis=1)


def can_align(landmarks: NDArray[np.float64]) -> bool:
    """Return whether five landmarks lie like a face's: neither in one point nor so that no turn fits them."""
    try:
        _fit(landmarks, TEMPLATE_112)
    except ValueError:
        return False
    return True


def align_face(
    image: Image.Image, landmarks: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Cut the face out of an image, upright and scaled so that its landmarks meet the template.

    Below twice the template's size this equals OpenCV's bilinear ``warpAffine`` (embedding cosine 1.0000);
    see ``cut_out`` for larger faces.

    Args:
        image: Upright RGB image.
        landmarks: float64[5, 2] in pixels of the image.
        size: Height and width of the crop in pixels; the template is scaled to it.

    Returns:
        uint8[H, W, 3], black where the crop reaches past the image.

    Raises:
        ValueError: The landmarks coincide, or lie so that no rotation fits them (see ``can_align``).
    """
    height, width = size
    template = TEMPLATE_112 * np.array([width / 112.0, height / 112.0])
    return cut_out(image, _fit(landmarks, template), size)


def cut_out(image: Image.Image, forward: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut a turned and scaled rectangle out of an image.

    What would shrink to less than half is first averaged down by a whole factor, so that no pixel of it is
    skipped; else this equals OpenCV's bilinear ``warpAffine``.

    Args:
        image: RGB image.
        forward: float64[2, 3], similarity from pixels of the image to those of the crop.
        size: Height and width of the crop in pixels.

    Returns:
        uint8[H, W, 3], black where the crop reaches past the image.
    """
    height, width = size
    factor = math.floor(1.0 / math.hypot(forward[0, 0], forward[1, 0]))
    if factor >= 2:
        region = _region_of_crop(forward, size, image.size, factor)
        image = image.reduce(factor, box=region)
        # Centre q of a reduced pixel lies at factor * (q + 0.5) - 0.5 behind the region's corner.
        corner = np.array(region[:2]) + 0.5 * factor - 0.5
        linear = forward[:, :2]
        forward = np.concatenate([factor * linear, (linear @ corner + forward[:, 2])[:, None]], axis=1)
    inverse = np.linalg.inv(np.vstack([forward, [0.0, 0.0, 1.0]]))[:2]
    # Pillow measures from pixel corners, the template from pixel centres: half a pixel on either side.
    inverse[:, 2] += 0.5 - inverse[:, :2].sum(axis=1) * 0.5
    crop = image.transform(
        (width, height),
        Image.Transform.AFFINE,
        tuple(inverse.ravel().tolist()),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(crop, np.uint8)


def _fit(landmarks: NDArray[np.float64], template: NDArray[np.float64]) -> NDArray[np.float64]:
    forward = similarity_transform(landmarks, template)
    if not math.hypot(forward[0, 0], forward[1, 0]) > _LEAST_SCALE:
        raise ValueError("landmarks do not lie like a face's")
    return forward


def _region_of_crop(
    forward: NDArray[np.float64], size: tuple[int, int], image_size: tuple[int, int], factor: int
) -> tuple[int, int, int, int]:
    """Return the part of the image that the crop reads, as left, top, right, bottom, a little larger."""
    height, width = size
    inverse = np.linalg.inv(np.vstack([forward, [0.0, 0.0, 1.0]]))[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64) @ inverse.T
    margin = 2 * factor
    limit = np.array(image_size)
    low = np.clip(np.floor(corners.min(axis=0)) - margin, 0, limit - 1).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + margin, low + 1, limit).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
