"""Images for tests: drawn here, or real photographs that come with a package."""

from __future__ import annotations

import io
import math
from functools import cache
from pathlib import Path

import numpy as np
import skimage
from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def angle_png(degrees: float) -> bytes:
    """Return a PNG of two grey pixels that the ``angles`` model places at 0 to 90 degrees."""
    radians = math.radians(degrees)
    pixels = np.rint(255 * np.array([[math.cos(radians), math.sin(radians)]])).astype(np.uint8)
    return encoded(Image.fromarray(pixels))


@cache
def astronaut() -> Image.Image:
    """Return NASA's portrait of Eileen Collins (public domain): 512 x 512, one face."""
    path = Path(skimage.__file__).parent / "data" / "astronaut.png"
    with Image.open(path) as image:
        return image.convert("RGB")


@cache
def no_face() -> Image.Image:
    """Return a photograph of a cup of coffee."""
    with Image.open(Path(skimage.__file__).parent / "data" / "coffee.png") as image:
        return image.convert("RGB")


@cache
def two_faces() -> Image.Image:
    """Return the astronaut twice, side by side."""
    face = astronaut()
    pair = Image.new("RGB", (2 * face.width, face.height))
    pair.paste(face, (0, 0))
    pair.paste(face, (face.width, 0))
    return pair
