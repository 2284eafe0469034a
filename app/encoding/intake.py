"""Turn the bytes of an untrusted image file into an upright RGB image, within limits.

Order of checks: number of bytes, kind of file by its first bytes, dimensions from the header, structure
that is known to make decoders slow, and only then the pixels, against a deadline. Nothing here opens a
path or a URL.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

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
_MAX_JPEG_WORK = 1_500_000_000
"""Scans times pixels, about two seconds; a few bytes of a scan can ask for a pass over all blocks."""
_MAX_JPEG_SEGMENTS = 10_000
"""Metadata of 20 MiB in segments of the usual 64 KiB makes 320."""
_MAX_TIFF_PIECES = 2**18
"""Strips or tiles; 64 million pixels in tiles of 16 x 16 make 250,000."""

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


def decode_image(
    data: bytes,
    limits: IntakeLimits,
    *,
    field: str | None = None,
    reserve: Callable[[int], None] = lambda _: None,
) -> Image.Image:
    """Decode one image: first frame, EXIF orientation applied, converted to 8-bit RGB.

    Args:
        data: The file's bytes: JPEG, PNG, WebP, GIF, TIFF or BMP.
        limits: Bytes, pixels and seconds it may cost.
        field: Request field the image came in, named by errors.
        reserve: Called with the number of pixels before any of them is decoded; may wait.

    Returns:
        Upright image of mode ``RGB``. Transparent pixels are laid on white, samples of 16 bits and more are
        scaled to eight, CMYK and palettes are converted.

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
    try:
        return _decode(data, kind, limits, field, reserve)
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


def _decode(
    data: bytes, kind: str, limits: IntakeLimits, field: str | None, reserve: Callable[[int], None]
) -> Image.Image:
    reader = _DeadlineReader(data, limits.timeout_s)
    # Pillow reserves memory for a WebP's canvas, and lists the pieces of a TIFF, as soon as it opens them.
    if kind == "WEBP":
        canvas = _webp_canvas(data)
        _check_pixels(canvas, limits, field)
        reserve(canvas[0] * canvas[1])
    elif kind == "TIFF":
        _check_tiff_pieces(data, limits, field)
    with Image.open(reader, formats=[kind]) as image:
        _check_pixels(image.size, limits, field)
        if kind == "JPEG":
            _check_jpeg_scans(data, image.size, field)
        elif kind == "PNG":
            _scale_grey_key(image)
        if kind != "WEBP":
            reserve(image.width * image.height)
        reader.restart()  # waiting for others is not decoding
        image.load()
        _check_pixels(image.size, limits, field)
        _make_upright(image)
        return _to_rgb(image)


def _check_pixels(size: tuple[int, int], limits: IntakeLimits, field: str | None) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageUnreadableError("the image has no pixels", field=field)
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"the image is {width} x {height} = {width * height} pixels; the limit is "
            f"{limits.max_pixels}; scale it down",
            field=field,
        )


def _check_jpeg_scans(data: bytes, size: tuple[int, int], field: str | None) -> None:
    scans = _count_jpeg_scans(data)
    if scans > _MAX_JPEG_SCANS or scans * size[0] * size[1] > _MAX_JPEG_WORK:
        raise ImageUnreadableError(
            f"the JPEG has {scans} scans of {size[0]} x {size[1]} pixels, which takes too long to decode; "
            "save it again as an ordinary JPEG",
            field=field,
        )


_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
"""A marker with a segment, or the end; stuffed bytes, restart markers and fill bytes are passed over."""


def _count_jpeg_scans(data: bytes) -> int:
    """Count the scans up to the end of the image.

    What lies inside segments (a thumbnail, a colour profile) or behind the end (a second picture, the
    video of a motion photo) is never decoded and not counted.

    Raises:
        ValueError: There are more segments than any photo has.
    """
    scans, position = 0, 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        marker = _JPEG_MARKER.search(data, position)
        if marker is None or marker[1] == b"\xd9":
            return scans
        scans += marker[1] == b"\xda"
        length = int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        position = marker.end() + max(length, 2)
    raise ValueError("too many segments")


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Return the width and height that the first chunk of a WebP file states."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _check_tiff_pieces(data: bytes, limits: IntakeLimits, field: str | None) -> None:
    """Refuse a first directory with too many strips or tiles, or with tiles larger than any image allowed.

    Raises:
        ValueError: The tags about tiles are not as the specification (TIFF 6.0) wants them.
        struct.error: The directory is cut off.
    """
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, start)
    tile = {322: 1, 323: 1}  # TileWidth, TileLength
    for position in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, position)
        if tag in {273, 324} and count > _MAX_TIFF_PIECES:  # StripOffsets, TileOffsets
            raise ImageUnreadableError(
                f"the TIFF is cut into {count} pieces; save it again as an ordinary TIFF", field=field
            )
        if tag in tile:
            if kind not in {3, 4} or count != 1:
                raise ValueError("tile size")
            (length,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, position + 8)
            tile[tag] = max(tile[tag], length)
    _check_pixels((tile[322], tile[323]), limits, field)


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
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
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


def _scale_grey_key(image: ImageFile.ImageFile) -> None:
    # Pillow widens 2-bit and 4-bit grey to 8 bits but leaves the transparent shade as it is in the file.
    widened = {"L;2": 85, "L;4": 17}.get(str(image.tile[0].args)) if image.tile else None
    if widened and isinstance(image.info.get("transparency"), int):
        image.info["transparency"] *= widened


def _to_rgb(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        samples = np.asarray(image)
        grey = _to_eight_bits(samples)
        if isinstance(key, int):
            grey[samples == key] = _BACKGROUND[0]
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "RGB" and not (isinstance(key, tuple) and max(key) <= 255):
        # Nothing is transparent, or one shade of 48 bits is, which eight bits a channel cannot single out.
        return image
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        paper = Image.new("RGB", image.size, _BACKGROUND)
        paper.paste(rgba, mask=rgba)
        return paper
    return image.convert("RGB")


def _to_eight_bits(samples: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale one channel of 16-bit integers, 32-bit integers or floats to 0..255 by its range.

    16-bit integers reach to 65535. Others have no fixed range: floats that stay within 0..1 reach to 1,
    else values within 0..255 to 255, else those within 0..65535 to 65535, else to the largest.
    """
    if samples.dtype.itemsize == 2:
        top = 65535.0
    else:
        largest = float(np.max(samples, where=np.isfinite(samples), initial=0.0))
        steps = (1.0, 255.0, 65535.0) if samples.dtype.kind == "f" else (255.0, 65535.0)
        top = next((step for step in steps if largest <= step), largest)
    flat = samples.reshape(-1)
    grey = np.empty(flat.shape, np.uint8)
    for start in range(0, flat.size, 2**18):  # in pieces: the floats of a whole image would take a gigabyte
        piece = np.nan_to_num(flat[start : start + 2**18].astype(np.float64), nan=0.0, posinf=top)
        grey[start : start + 2**18] = np.rint(np.clip(piece, 0.0, top) * (255.0 / top))
    return grey.reshape(samples.shape)


class _DecodeDeadlineError(Exception):
    pass


class _DeadlineReader(io.BytesIO):
    """Bytes that stop being readable after a deadline.

    Pillow's decoders ask for the file in pieces of 64 KiB, so this ends a decode that has become slow.
    """

    def __init__(self, data: bytes, timeout_s: float) -> None:
        super().__init__(data)
        self._timeout_s = timeout_s
        self.restart()

    def restart(self) -> None:
        self._deadline = time.monotonic() + self._timeout_s

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._deadline:
            raise _DecodeDeadlineError
        return super().read(size)
