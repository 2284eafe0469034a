"""The encoder's input as a PNG that can be kept, and brought to the input of another model later.

The file says itself how the pixels were cut from the photo, so that it can be used when the model that they
were cut for is long gone.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from app.encoding.manifest import Encoding

_ALIGNMENT: Final = "visavis-alignment"


@dataclass(frozen=True)
class Fitted:
    """A crop as the input of a model.

    Attributes:
        pixels: uint8[H, W, C] of the model's input size.
        resized_from: Height and width of the crop, where they are others; None where no pixel was changed.
    """

    pixels: NDArray[np.uint8]
    resized_from: tuple[int, int] | None


def to_png(pixels: NDArray[np.uint8], encoding: Encoding) -> bytes:
    """Return the input of an encoder, uint8[H, W, C], as PNG."""
    about = PngImagePlugin.PngInfo()
    about.add_text(_ALIGNMENT, _alignment(encoding))
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()


def fitted(png: bytes, encoding: Encoding) -> Fitted | None:
    """Return a kept crop as the input of another model.

    Args:
        png: Made by ``to_png``.
        encoding: Of the model.

    Returns:
        None where the model cuts another part out of a photo, or wants colours that the crop lacks.
    """
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        image.load()
        spec = encoding.input
        colours = len(image.getbands())
        same_part = image.width * spec.height == image.height * spec.width or _stretches(encoding)
        alignment = getattr(image, "text", {}).get(_ALIGNMENT)
        if alignment != _alignment(encoding) or not same_part or colours < spec.channels:
            return None
        toned = image.convert("L") if spec.channels < colours else image
        size = (spec.width, spec.height)
        resized = toned if toned.size == size else toned.resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(resized, np.uint8).reshape(spec.height, spec.width, spec.channels)
        return Fitted(pixels, None if image.size == size else (image.height, image.width))


def _alignment(encoding: Encoding) -> str:
    """Return which part of a photo becomes the input, in words that are equal where the part is."""
    how = encoding.preprocess.model_dump(mode="json")
    if how["mode"] != "pad":
        how.pop("background", None)
    return json.dumps(how, sort_keys=True)


def _stretches(encoding: Encoding) -> bool:
    return encoding.preprocess.mode == "fit"
