"""Every format and pixel layout comes out as the same upright 8-bit RGB picture."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from app.encoding.intake import IntakeLimits, decode_image
from tests.support.image_files import (
    exif_of,
    interlaced_png,
    png_file,
    png_of_16_bits,
    quadrants,
    saved_frames,
    stored_as,
)
from tests.support.images import encoded

LIMITS = IntakeLimits()
PICTURE = quadrants()
OTHER = Image.new("RGB", PICTURE.size, (0, 0, 0))


def decoded(data: bytes) -> NDArray[np.int16]:
    image = decode_image(data, LIMITS)
    assert image.mode == "RGB"
    return np.asarray(image, np.int16)


def largest_difference(data: bytes, expected: Image.Image) -> int:
    pixels = decoded(data)
    assert pixels.shape[:2] == (expected.height, expected.width)
    return int(np.abs(pixels - np.asarray(expected.convert("RGB"), np.int16)).max())


def tiff_of(pixels: NDArray[np.generic], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def rgba(left: tuple[int, ...], right: tuple[int, ...]) -> Image.Image:
    picture = Image.new("RGBA", (2, 1), left)
    picture.putpixel((1, 0), right)
    return picture


def palette_of_two() -> Image.Image:
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([0, 0, 0, 9, 9, 9])
    picture.putpixel((1, 0), 1)
    return picture


def lab(picture: Image.Image) -> Image.Image:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    converted = ImageCms.applyTransform(picture, to_lab)
    assert converted is not None
    return converted


LOSSLESS: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: encoded(PICTURE, "PNG"),
    "PNG interlaced": lambda: interlaced_png(np.asarray(PICTURE)),
    "PNG animated": lambda: saved_frames(PICTURE, OTHER, kind="PNG"),
    "WebP lossless": lambda: encoded(PICTURE, "WEBP", lossless=True),
    "WebP animated": lambda: saved_frames(PICTURE, OTHER, kind="WEBP", lossless=True),
    "GIF": lambda: encoded(PICTURE.quantize(4), "GIF"),
    "GIF animated": lambda: saved_frames(PICTURE, OTHER, kind="GIF"),
    "BMP": lambda: encoded(PICTURE, "BMP"),
    "BMP of 8 bits": lambda: encoded(PICTURE.quantize(4), "BMP"),
    "TIFF": lambda: encoded(PICTURE, "TIFF"),
    "TIFF LZW": lambda: encoded(PICTURE, "TIFF", compression="tiff_lzw"),
    "TIFF deflate": lambda: encoded(PICTURE, "TIFF", compression="tiff_adobe_deflate"),
    "TIFF packbits": lambda: encoded(PICTURE, "TIFF", compression="packbits"),
    "TIFF of two pages": lambda: saved_frames(PICTURE, OTHER, kind="TIFF"),
    "TIFF of two LZW pages": lambda: saved_frames(PICTURE, OTHER, kind="TIFF", compression="tiff_lzw"),
    "TIFF in tiles": lambda: tiff_of(np.asarray(PICTURE), tile=(16, 16), photometric="rgb"),
    "TIFF in planes": lambda: tiff_of(
        np.asarray(PICTURE).transpose(2, 0, 1), planarconfig="separate", photometric="rgb"
    ),
    "TIFF big-endian": lambda: tiff_of(np.asarray(PICTURE), byteorder=">", photometric="rgb"),
    "TIFF of 16 bits": lambda: tiff_of(np.asarray(PICTURE, np.uint16) * 257, photometric="rgb"),
    "palette": lambda: encoded(PICTURE.quantize(4), "PNG"),
    "RGBA, opaque": lambda: encoded(PICTURE.convert("RGBA"), "PNG"),
    "PNG of 16 bits": lambda: png_of_16_bits(np.asarray(PICTURE, np.uint16) * 257, 2),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_file_gives_back_every_pixel_of_its_first_picture(name: str) -> None:
    assert largest_difference(LOSSLESS[name](), PICTURE) == 0


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("WEBP", {"quality": 95}),
        ("TIFF", {"compression": "jpeg", "quality": 95}),
        ("MPO", {"quality": 95, "subsampling": 0}),
    ],
)
def test_lossy_file_comes_out_as_nearly_the_same_picture(kind: str, options: dict[str, object]) -> None:
    smooth = Image.linear_gradient("L").resize((48, 32)).convert("RGB")
    assert largest_difference(encoded(smooth, kind, **options), smooth) <= 6


# One colour, as each layout stores it. CMYK inks, LAB and YCbCr lose a few steps on the way.
@pytest.mark.parametrize(
    ("data", "colour", "tolerance"),
    [
        pytest.param(encoded(Image.new("1", (8, 8), 1), "PNG"), (255, 255, 255), 0, id="1"),
        pytest.param(
            encoded(Image.new("1", (8, 8), 1), "TIFF", compression="group4"), (255,) * 3, 0, id="1 fax"
        ),
        pytest.param(encoded(Image.new("L", (8, 8), 77), "PNG"), (77, 77, 77), 0, id="L"),
        pytest.param(encoded(Image.new("L", (8, 8), 77), "JPEG"), (77, 77, 77), 1, id="L JPEG"),
        pytest.param(
            encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), (255, 0, 0), 2, id="CMYK JPEG"
        ),
        pytest.param(
            encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), (255, 0, 0), 0, id="CMYK TIFF"
        ),
        pytest.param(
            encoded(Image.new("YCbCr", (8, 8), (76, 85, 255)), "TIFF"), (254, 0, 0), 2, id="YCbCr TIFF"
        ),
        pytest.param(
            encoded(lab(Image.new("RGB", (8, 8), (200, 50, 30))), "TIFF"), (200, 50, 30), 3, id="LAB TIFF"
        ),
        pytest.param(encoded(Image.new("RGBX", (8, 8), (9, 8, 7, 0)), "TIFF"), (9, 8, 7), 0, id="RGBX TIFF"),
    ],
)
def test_colour_layout_is_converted(data: bytes, colour: tuple[int, int, int], tolerance: int) -> None:
    assert largest_difference(data, Image.new("RGB", (8, 8), colour)) <= tolerance


# Grey samples and the bytes that must come out: scaled by the range of the type, never cut off at 255.
@pytest.mark.parametrize(
    ("data", "grey"),
    [
        pytest.param(
            png_of_16_bits(np.array([[[0], [257], [25_700], [65_535]]], np.uint16), 0),
            [0, 1, 100, 255],
            id="PNG 16",
        ),
        pytest.param(
            tiff_of(np.array([[0, 257, 25_700, 65_535]], np.uint16)), [0, 1, 100, 255], id="TIFF 16"
        ),
        pytest.param(
            tiff_of(np.array([[0, 257, 25_700, 65_535]], np.uint16), byteorder=">"),
            [0, 1, 100, 255],
            id="TIFF 16 >",
        ),
        pytest.param(tiff_of(np.array([[0, 100, 255]], np.int32)), [0, 100, 255], id="32 bits within a byte"),
        pytest.param(
            tiff_of(np.array([[0, 25_700, 65_535]], np.int32)), [0, 100, 255], id="32 bits within two"
        ),
        pytest.param(
            tiff_of(np.array([[0, 400_000, 1_000_000]], np.int32)), [0, 102, 255], id="32 bits beyond"
        ),
        pytest.param(tiff_of(np.array([[-5, 0, 255]], np.int32)), [0, 0, 255], id="negative is black"),
        pytest.param(tiff_of(np.array([[0.0, 0.4, 1.0]], np.float32)), [0, 102, 255], id="float to 1"),
        pytest.param(tiff_of(np.array([[0.0, 102.0, 255.0]], np.float32)), [0, 102, 255], id="float to 255"),
        pytest.param(tiff_of(np.array([[0.0, 4e5, 1e6]], np.float32)), [0, 102, 255], id="float beyond"),
        pytest.param(
            tiff_of(np.array([[np.nan, -np.inf, 0.4, np.inf]], np.float32)),
            [0, 0, 102, 255],
            id="float not finite",
        ),
    ],
)
def test_deep_grey_is_scaled_to_eight_bits(data: bytes, grey: list[int]) -> None:
    assert decoded(data)[0].tolist() == [[value] * 3 for value in grey]


# Left pixel fully transparent black, right pixel opaque dark (9, 9, 9) unless the row says otherwise.
@pytest.mark.parametrize(
    ("data", "right"),
    [
        pytest.param(encoded(rgba((0, 0, 0, 0), (9, 9, 9, 255)), "PNG"), 9, id="RGBA"),
        pytest.param(encoded(rgba((0, 0, 0, 0), (0, 0, 0, 127)), "PNG"), 128, id="RGBA, half transparent"),
        pytest.param(encoded(rgba((0, 0, 0, 0), (9, 9, 9, 255)), "WEBP", lossless=True), 9, id="WebP"),
        pytest.param(encoded(rgba((0, 0, 0, 0), (9, 9, 9, 255)), "TIFF"), 9, id="TIFF"),
        pytest.param(encoded(rgba((0, 0, 0, 0), (9, 9, 9, 255)).convert("LA"), "PNG"), 9, id="LA"),
        pytest.param(
            png_of_16_bits(np.array([[[0, 0], [2313, 65_535]]], np.uint16), 4), 9, id="LA of 16 bits"
        ),
        pytest.param(
            png_of_16_bits(np.array([[[0] * 4, [2313] * 3 + [65_535]]], np.uint16), 6),
            9,
            id="RGBA of 16 bits",
        ),
        pytest.param(encoded(rgba((0, 0, 0, 0), (9, 9, 9, 255)).quantize(2), "PNG"), 9, id="palette"),
        pytest.param(encoded(palette_of_two(), "GIF", transparency=0), 9, id="GIF"),
        pytest.param(
            png_file([b"\0\1"], width=2, colour=3, chunks={b"PLTE": bytes(3) + b"\t\t\t", b"tRNS": b"\0"}),
            9,
            id="palette with an alpha of its own",
        ),
        pytest.param(
            png_file([bytes([0, 0, 0, 9, 9, 9])], width=2, chunks={b"tRNS": bytes(6)}), 9, id="RGB key"
        ),
        pytest.param(png_file([b"\0\t"], width=2, colour=0, chunks={b"tRNS": bytes(2)}), 9, id="grey key"),
        pytest.param(
            png_of_16_bits(np.array([[[0], [2313]]], np.uint16), 0, key=bytes(2)), 9, id="grey key of 16 bits"
        ),
        pytest.param(
            png_file([bytes([0b0110_0000])], width=2, depth=2, colour=0, chunks={b"tRNS": b"\0\1"}),
            170,
            id="grey key of 2 bits",
        ),
        pytest.param(
            png_file([bytes([0x3A])], width=2, depth=4, colour=0, chunks={b"tRNS": b"\0\3"}),
            170,
            id="grey key of 4 bits",
        ),
    ],
)
def test_transparent_pixels_are_laid_on_white(data: bytes, right: int) -> None:
    assert decoded(data).tolist() == [[[255] * 3, [right] * 3]]


def test_shade_of_48_bits_is_not_taken_for_a_shade_of_24() -> None:
    # The key (256, 256, 256) is 1, 1, 1 in eight bits; so is the second pixel, which is not transparent.
    samples = np.array([[[0] * 3, [300] * 3]], np.uint16)
    assert decoded(png_of_16_bits(samples, 2, key=struct.pack(">HHH", 256, 256, 256))).tolist() == [
        [[0] * 3, [1] * 3]
    ]


def as_jpeg(picture: Image.Image, orientation: int) -> bytes:
    return encoded(picture, "JPEG", quality=95, subsampling=0, exif=exif_of(orientation))


def as_png_text(picture: Image.Image, orientation: int) -> bytes:
    # How ImageMagick wrote EXIF before PNG had a chunk for it.
    block = b"Exif\0\0" + exif_of(orientation)
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    return encoded(picture, "PNG", pnginfo=text)


def as_xmp(picture: Image.Image, orientation: int) -> bytes:
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"/>'.encode()
    return encoded(picture, "WEBP", lossless=True, xmp=packet)


def as_tiff_with_xmp(picture: Image.Image, orientation: int) -> bytes:
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"/>'.encode()
    return encoded(picture, "TIFF", tiffinfo={0x0112: orientation, 700: packet}, compression="tiff_lzw")


TURNED: dict[str, Callable[[Image.Image, int], bytes]] = {
    "JPEG": as_jpeg,
    "PNG": lambda picture, turn: encoded(picture, "PNG", exif=exif_of(turn)),
    "PNG text": as_png_text,
    "WebP": lambda picture, turn: encoded(picture, "WEBP", lossless=True, exif=exif_of(turn)),
    "WebP with alpha": lambda picture, turn: encoded(
        picture.convert("RGBA"), "WEBP", lossless=True, exif=exif_of(turn)
    ),
    "XMP": as_xmp,
    "TIFF": lambda picture, turn: encoded(picture, "TIFF", tiffinfo={0x0112: turn}),
    "TIFF LZW": lambda picture, turn: encoded(
        picture, "TIFF", tiffinfo={0x0112: turn}, compression="tiff_lzw"
    ),
    "TIFF and XMP": as_tiff_with_xmp,
    "TIFF of two pages": lambda picture, turn: saved_frames(
        picture, OTHER, kind="TIFF", tiffinfo={0x0112: turn}
    ),
    "TIFF palette": lambda picture, turn: encoded(picture.quantize(4), "TIFF", tiffinfo={0x0112: turn}),
    "TIFF of 16 bits": lambda picture, turn: encoded(
        Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257), "TIFF", tiffinfo={0x0112: turn}
    ),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", TURNED)
def test_orientation_is_applied_exactly_once(name: str, orientation: int) -> None:
    upright = PICTURE.convert("L") if name == "TIFF of 16 bits" else PICTURE
    data = TURNED[name](stored_as(PICTURE, orientation), orientation)
    assert largest_difference(data, upright) <= (8 if name == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    assert largest_difference(as_jpeg(PICTURE, orientation), PICTURE) <= 8


def test_picture_comes_out_without_the_files_metadata_in_its_way() -> None:
    image = decode_image(as_jpeg(stored_as(PICTURE, 6), 6), LIMITS)
    assert image.getexif().get(0x0112, 1) == 1
    assert image.copy().rotate(0).size == (48, 32)
