"""From an upright image to the encoder's input, as the manifest says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from app.encoding.alignment import align_face
from app.encoding.detection import Face, FaceChoice, FaceDetector, choose_face
from app.encoding.manifest import InputSpec, WholeImage
from app.encoding.quality import Quality, measure_quality
from app.encoding.second_look import look_again
from app.errors import ImageUnreadableError


@dataclass(frozen=True)
class Prepared:
    """One image ready for the encoder.

    Attributes:
        pixels: uint8[H, W, C] of the manifest's input size.
        face: The face it was cut from; None for whole-image models.
        faces_found: How many faces the image has; None likewise.
        quality: Measures of the input and the face.
        size: Width and height of the upright image in pixels.
    """

    pixels: NDArray[np.uint8]
    face: Face | None
    faces_found: int | None
    quality: Quality
    size: tuple[int, int]


def prepare_face(
    image: Image.Image, detector: FaceDetector, spec: InputSpec, choice: FaceChoice, *, field: str | None
) -> Prepared:
    """Find the face a request is about and align it.

    Raises:
        NoFaceError: None was found, or its landmarks are degenerate.
        MultipleFacesError: Several were found and the choice is ``only``.
    """
    faces = detector.detect(image)
    face = look_again(image, choose_face(faces, choice, image.size, field=field), detector)
    try:
        pixels = align_face(image, face.landmarks, (spec.height, spec.width))
    except ValueError as error:
        raise ImageUnreadableError(f"the face found cannot be aligned: {error}", field=field) from error
    return Prepared(pixels, face, len(faces), measure_quality(pixels, face), image.size)


def prepare_whole(image: Image.Image, how: WholeImage, spec: InputSpec) -> Prepared:
    """Bring the whole image to the input size."""
    size = (spec.width, spec.height)
    toned = image.convert("L") if spec.channels == 1 else image
    if how.mode == "fit":
        scaled = toned.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    elif how.mode == "pad":
        background = (how.background,) * spec.channels
        scaled = ImageOps.pad(toned, size, Image.Resampling.BILINEAR, color=background)
    else:
        scaled = ImageOps.fit(toned, size, Image.Resampling.BILINEAR)
    pixels = np.asarray(scaled, np.uint8).reshape(spec.height, spec.width, spec.channels)
    return Prepared(pixels, None, None, measure_quality(pixels, None), image.size)
