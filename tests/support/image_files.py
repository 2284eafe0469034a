"""Image files put together byte by byte, for what no encoder writes: false headers, odd structure, bombs."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.images import encoded

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What a camera held that way does to the picture; EXIF orientation by number (EXIF 2.32, 4.6.4.A)."""


def quadrants(width: int = 48, height: int = 32) -> Image.Image:
    """Return a picture whose four quarters are red, green, blue and yellow, clockwise from the top left
    but for the last two, so that every turn and mirror image of it differs.
    """
    picture = Image.new("RGB", (width, height), (200, 40, 40))
    picture.paste((40, 160, 40), (width // 2, 0, width, height // 2))
    picture.paste((40, 40, 200), (0, height // 2, width // 2, height))
    picture.paste((220, 200, 60), (width // 2, height // 2, width, height))
    return picture


def stored_as(picture: Image.Image, orientation: int) -> Image.Image:
    """Return the pixels a camera stores beside this EXIF orientation, for the picture to be upright."""
    return picture.transpose(TURNS[orientation]) if orientation in TURNS else picture


def exif_of(orientation: int) -> bytes:
    """Return an EXIF block of one tag."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(
    rows: Sequence[bytes],
    *,
    width: int,
    height: int | None = None,
    depth: int = 8,
    colour: int = 2,
    chunks: Mapping[bytes, bytes] | None = None,
    more: bytes = b"",
) -> bytes:
    """Return a PNG of unfiltered rows.

    Args:
        rows: The samples of each row, packed.
        width: Pixels a row, as the header says.
        height: Rows, as the header says; by default as many as are given.
        depth: Bits a sample.
        colour: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
        chunks: Chunks before the pixels, by kind.
        more: Chunks before the pixels, ready-made.
    """
    header = struct.pack(">IIBBBBB", width, len(rows) if height is None else height, depth, colour, 0, 0, 0)
    before = b"".join(png_chunk(kind, data) for kind, data in (chunks or {}).items())
    pixels = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before + more + pixels + png_chunk(b"IEND", b"")
    )


def png_of_16_bits(samples: NDArray[np.uint16], colour: int, *, key: bytes = b"") -> bytes:
    """Return a PNG of uint16[H, W, C] samples, with a transparent shade if ``key`` is given."""
    rows = [row.astype(">u2").tobytes() for row in samples]
    chunks = {b"tRNS": key} if key else {}
    return png_file(rows, width=samples.shape[1], depth=16, colour=colour, chunks=chunks)


def interlaced_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return an RGB PNG of uint8[H, W, 3] in the seven passes of Adam7, which Pillow never writes."""
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    parts = [pixels[y::down, x::across] for x, y, across, down in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


def gif_file(
    width: int, height: int, *, frame: tuple[int, int, int, int] | None = None, extra: bytes = b""
) -> bytes:
    """Return a GIF of one frame (left, top, width, height) whose data are two black pixels and an end."""
    frame = frame or (0, 0, width, height)
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return screen + extra + b"\x2c" + struct.pack("<HHHHB", *frame, 0) + b"\x02\x02\x04\x0a\x00\x3b"


def bmp_file(width: int, height: int, pixels: bytes, *, bits: int = 24, compression: int = 0) -> bytes:
    """Return a BMP; eight-bit ones have a palette of 256 blacks."""
    palette = bytes(1024) if bits == 8 else b""
    start = 54 + len(palette)
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 256 if palette else 0, 0
    )
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + palette + pixels


def jpeg_with_size(width: int, height: int) -> bytes:
    """Return an 8 x 8 JPEG whose frame header says otherwise."""
    data = encoded(Image.new("RGB", (8, 8)), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def jpeg_with_scans(width: int, height: int, scans: int) -> bytes:
    """Return a grey progressive JPEG whose last scan, a few bytes, is repeated."""
    data = encoded(Image.new("L", (width, height), 128), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    present = data.count(b"\xff\xda")
    return data[:-2] + last * (scans - present) + b"\xff\xd9"


def jpeg_with_segments(picture: Image.Image, segments: bytes) -> bytes:
    """Return a JPEG with ready-made segments right after its start."""
    data = encoded(picture, "JPEG", quality=95)
    return data[:2] + segments + data[2:]


def jpeg_segment(marker: int, data: bytes) -> bytes:
    """Return one JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def webp_with_canvas(width: int, height: int, *, animated: bool) -> bytes:
    """Return a WebP of 4 x 4 pixels whose canvas the header says is larger."""
    pixels = encoded(Image.new("RGBA", (4, 4), (1, 2, 3, 4)), "WEBP", lossless=True)[12:]
    flags = bytes([0x12 if animated else 0x10, 0, 0, 0])
    canvas = flags + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    if animated:
        frame = bytes(6) + (3).to_bytes(3, "little") * 2 + bytes(4) + pixels
        pixels = _riff(b"ANIM", bytes(6)) + _riff(b"ANMF", frame)
    return _riff(b"RIFF", b"WEBP" + _riff(b"VP8X", canvas) + pixels)


def webp_with_stated_size(width: int, height: int, *, lossless: bool) -> bytes:
    """Return a WebP of 4 x 4 pixels, without VP8X chunk, whose bitstream header says otherwise."""
    data = bytearray(encoded(Image.new("RGB", (4, 4)), "WEBP", lossless=lossless))
    if lossless:
        (bits,) = struct.unpack_from("<I", data, 21)
        struct.pack_into("<I", data, 21, bits & 0xF0000000 | (height - 1) << 14 | (width - 1))
    else:
        struct.pack_into("<HH", data, 26, width, height)
    return bytes(data)


def tiff_file(
    tags: Sequence[tuple[int, int, int, int]], *, data: bytes = b"", order: str = "<", following: int = 0
) -> bytes:
    """Return a TIFF whose data lie at offset 8, with one directory behind them.

    Args:
        tags: Number, type (3 SHORT, 4 LONG), count, and value or offset.
        data: What the offsets point into.
        order: Byte order, ``<`` or ``>``.
        following: Offset of the next directory.
    """
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    entries = [
        struct.pack(order + "HHI", tag, kind, count)
        + (
            struct.pack(order + "HH", value, 0)
            if kind == 3 and count == 1
            else struct.pack(order + "I", value)
        )
        for tag, kind, count, value in tags
    ]
    directory = (
        struct.pack(order + "H", len(entries)) + b"".join(entries) + struct.pack(order + "I", following)
    )
    return head + data + directory


def grey_tiff_tags(
    width: int, height: int, *, compression: int = 1, size: int = 0
) -> list[tuple[int, int, int, int]]:
    """Return the tags of an 8-bit grey TIFF in one strip at offset 8, ``size`` bytes long."""
    return [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, size or width * height),
    ]


def tiled_tiff_tags(
    width: int, height: int, tile: tuple[int, int], *, compression: int = 1, size: int = 0
) -> list[tuple[int, int, int, int]]:
    """Return the tags of an 8-bit grey TIFF in one tile at offset 8, ``size`` bytes long."""
    kept = [
        tag for tag in grey_tiff_tags(width, height, compression=compression) if tag[0] not in {273, 278, 279}
    ]
    return [*kept, (322, 4, 1, tile[0]), (323, 4, 1, tile[1]), (324, 4, 1, 8), (325, 4, 1, size)]


def saved_frames(first: Image.Image, *others: Image.Image, kind: str, **options: object) -> bytes:
    """Return a file of several frames or pages."""
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=list(others), **options)
    return buffer.getvalue()


def _riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
