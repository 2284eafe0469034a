"""Turn the bytes of an untrusted image file into an upright RGB image, within limits.

Order of checks: number of bytes, kind of file by its first bytes, dimensions from the header, structure
that is known to make decoders slow, and only then the pixels, against a deadline. Nothing here opens a
path or a URL.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from app.encoding import quiet_libtiff
from app.errors import (
    ImageError,
    ImageTooLargeError,
    ImageUnreadableError,
    UnsupportedMediaTypeError,
)

# Our own limit is checked on the header before any pixel is decoded, and can be set above Pillow's.
Image.MAX_IMAGE_PIXELS = None

# A damaged file must cost an answer, not log lines: Pillow warns in words of the file's making, and each
# new text would also be remembered for ever.
quiet_libtiff.silence()
warnings.filterwarnings("ignore", module=r"PIL\.")

SUPPORTED: Final = "JPEG, PNG, WebP, GIF, TIFF or BMP"
IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp"})
"""How such files are usually called; used only to find files in folders."""

_MAX_JPEG_SCANS = 100
"""A progressive photo has about ten; each scan makes the decoder pass over every block again."""

_BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels: paper, for signatures and cut-out portraits."""


@dataclass(frozen=True)
class IntakeLimits:
    """What one image may cost."""

    max_bytes: int = 20 * 2**20
    """Bytes of the file."""
    max_pixels: int = 64_000_000
    """Width times height."""
    timeout_s: float = 5.0
    """Seconds of decoding."""


def decode_image(data: bytes, limits: IntakeLimits, *, field: str | None = None) -> Image.Image:
    """Decode one image: first frame, EXIF orientation applied, converted to 8-bit RGB.

    Args:
        data: The file's bytes: JPEG, PNG, WebP, GIF, TIFF or BMP.
        limits: Bytes, pixels and seconds it may cost.
        field: Request field the image came in, named by errors.

    Returns:
        Upright image of mode ``RGB``. Transparent pixels are laid on white, 16-bit samples keep their
        upper eight bits, CMYK and palettes are converted.

    Raises:
        ImageTooLargeError: Too many bytes or pixels.
        UnsupportedMediaTypeError: Another kind of file, such as HEIC or PDF.
        ImageUnreadableError: Empty, truncated, damaged, or too slow to decode.
    """
    if not data:
        raise ImageUnreadableError("the image is empty (0 bytes)", field=field)
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(
            f"the image has {len(data)} bytes; the limit is {limits.max_bytes}", field=field
        )
    kind = _sniff(data, field)
    if kind == "JPEG" and (scans := data.count(b"\xff\xda")) > _MAX_JPEG_SCANS:
        raise ImageUnreadableError(
            f"the JPEG has {scans} scans, more than {_MAX_JPEG_SCANS}; save it again as an ordinary JPEG",
            field=field,
        )
    try:
        return _decode(data, kind, limits, field)
    except ImageError:
        raise
    except _DecodeDeadlineError:
        raise ImageUnreadableError(
            f"decoding took longer than {limits.timeout_s:g} s; save the image again in a simpler form",
            field=field,
        ) from None
    except Exception as error:  # a decoder may raise anything on hostile bytes; all of it means one thing
        raise ImageUnreadableError(
            f"the {kind} image is damaged or truncated ({type(error).__name__})", field=field
        ) from error


def _decode(data: bytes, kind: str, limits: IntakeLimits, field: str | None) -> Image.Image:
    reader = _DeadlineReader(data, time.monotonic() + limits.timeout_s)
    with Image.open(reader, formats=[kind]) as image:
        _check_pixels(image, limits, field)
        image.load()
        _check_pixels(image, limits, field)
        _make_upright(image)
        return _to_rgb(image)


def _check_pixels(image: Image.Image, limits: IntakeLimits, field: str | None) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageUnreadableError("the image has no pixels", field=field)
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"the image is {width} x {height} = {width * height} pixels; the limit is "
            f"{limits.max_pixels}; scale it down",
            field=field,
        )


def _sniff(data: bytes, field: str | None) -> str:
    """Name the format by the file's first bytes, so that exactly one decoder ever sees them."""
    head = data[:16]
    signatures = (
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF87a", "GIF"),
        (b"GIF89a", "GIF"),
        (b"II*\x00", "TIFF"),
        (b"MM\x00*", "TIFF"),
        (b"BM", "BMP"),
    )
    for signature, name in signatures:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    other = _recognised_but_unsupported(head)
    if other:
        raise UnsupportedMediaTypeError(f"{other} is not supported; send {SUPPORTED}", field=field)
    raise ImageUnreadableError(f"the bytes are no image; send {SUPPORTED}", field=field)


def _recognised_but_unsupported(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        return "HEIC, AVIF or a video"
    for signature, name in (
        (b"%PDF", "PDF"),
        (b"<svg", "SVG"),
        (b"<?xml", "XML or SVG"),
        (b"\x00\x00\x01\x00", "ICO"),
        (b"8BPS", "PSD"),
        (b"\x00\x00\x00\x0cjP", "JPEG 2000"),
        (b"\xff\x0a", "JPEG XL"),
        (b"II+\x00", "BigTIFF"),
        (b"MM\x00+", "BigTIFF"),
        (b"\x1aE\xdf\xa3", "a video"),
        (b"PK\x03\x04", "a ZIP archive"),
    ):
        if head.startswith(signature):
            return name
    return None


def _make_upright(image: Image.Image) -> None:
    # Damaged EXIF says nothing about the pixels, which are already decoded.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, (*_BACKGROUND, 255))
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(samples: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale 16-bit integers, 32-bit integers and floats to 0..255 by their range, not by clipping."""
    values = np.nan_to_num(samples.astype(np.float32), nan=0.0, posinf=65535.0, neginf=0.0)
    largest = float(values.max(initial=0.0))
    if samples.dtype.kind == "f" and largest <= 1.0:
        scale = 255.0
    elif samples.dtype.itemsize == 2 or largest > 255.0:
        scale = 255.0 / 65535.0
    else:
        scale = 1.0
    return np.asarray(np.clip(np.rint(values * np.float32(scale)), 0, 255), np.uint8)


class _DecodeDeadlineError(Exception):
    pass


class _DeadlineReader(io.BytesIO):
    """Bytes that stop being readable after a deadline.

    Pillow's decoders ask for the file in pieces of 64 KiB, so this ends a decode that has become slow.
    """

    def __init__(self, data: bytes, deadline: float) -> None:
        super().__init__(data)
        self._deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._deadline:
            raise _DecodeDeadlineError
        return super().read(size)
