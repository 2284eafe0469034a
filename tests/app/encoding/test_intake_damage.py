"""Whatever the bytes, the answer is an image or an ``ImageError`` that names the field and the remedy."""

from __future__ import annotations

import functools
import subprocess
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.encoding.intake import IntakeLimits, decode_image
from app.errors import ImageError, ImageUnreadableError, UnsupportedMediaTypeError
from tests.support.image_files import (
    gif_file,
    grey_tiff_tags,
    jpeg_segment,
    jpeg_with_segments,
    png_chunk,
    png_file,
    quadrants,
    saved_frames,
    tiff_file,
)
from tests.support.images import encoded

LIMITS = IntakeLimits(max_pixels=1_000_000)
PICTURE = quadrants(24, 16)

FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(PICTURE, "JPEG"),
    "JPEG progressive": lambda: encoded(PICTURE, "JPEG", progressive=True),
    "PNG": lambda: encoded(PICTURE, "PNG"),
    "PNG palette": lambda: encoded(PICTURE.quantize(4), "PNG"),
    "WebP lossy": lambda: encoded(PICTURE, "WEBP"),
    "WebP lossless": lambda: encoded(PICTURE, "WEBP", lossless=True),
    "WebP animated": lambda: saved_frames(PICTURE, PICTURE.rotate(180), kind="WEBP", lossless=True),
    "GIF animated": lambda: saved_frames(PICTURE, PICTURE.rotate(180), kind="GIF"),
    "TIFF": lambda: encoded(PICTURE, "TIFF"),
    "TIFF LZW": lambda: encoded(PICTURE, "TIFF", compression="tiff_lzw"),
    "TIFF JPEG": lambda: encoded(PICTURE, "TIFF", compression="jpeg"),
    "TIFF of two pages": lambda: saved_frames(PICTURE, PICTURE, kind="TIFF"),
    "BMP": lambda: encoded(PICTURE, "BMP"),
}


@functools.cache
def file_bytes(name: str) -> bytes:
    return FILES[name]()


def pixels(data: bytes) -> list[int]:
    return np.asarray(decode_image(data, LIMITS)).ravel().tolist()


def outcome(data: bytes) -> str:
    """Return ``image`` or the code of the error; anything else that is raised fails the test."""
    try:
        image = decode_image(data, LIMITS)
    except ImageError as error:
        return error.code
    assert image.mode == "RGB"
    assert np.asarray(image).shape == (image.height, image.width, 3)
    return "image"


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_unreadable_or_whole(name: str) -> None:
    data = file_bytes(name)
    outcomes = [outcome(data[: len(data) * part // 16]) for part in range(17)]
    assert outcomes[0] == "image_unreadable"
    assert outcomes[16] == "image"
    assert set(outcomes) <= {"image", "image_unreadable"}


@pytest.mark.parametrize(
    "name", ["JPEG", "JPEG progressive", "PNG", "WebP lossy", "WebP lossless", "BMP", "TIFF LZW"]
)
def test_half_a_file_is_not_taken_for_a_picture(name: str) -> None:
    data = file_bytes(name)
    with pytest.raises(ImageUnreadableError, match="damaged or truncated"):
        decode_image(data[: len(data) // 2], LIMITS)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_altered_bytes_raise_nothing_but_image_errors(name: str, data: st.DataObject) -> None:
    altered = bytearray(file_bytes(name))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(altered) - 1))
        match data.draw(st.sampled_from(("set", "remove", "insert", "repeat"))):
            case "set":
                altered[at] = data.draw(st.integers(0, 255))
            case "remove":
                del altered[at : at + data.draw(st.integers(1, 8))]
            case "insert":
                altered[at:at] = data.draw(st.binary(min_size=1, max_size=8))
            case _:
                altered[at:at] = altered[at : at + data.draw(st.integers(1, 64))]
        if not altered:
            break
    assert outcome(bytes(altered)) in {
        "image",
        "image_unreadable",
        "image_too_large",
        "unsupported_media_type",
    }


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([file_bytes(name)[:16] for name in FILES]), st.binary(max_size=256))
def test_signature_before_noise_raises_nothing_but_image_errors(signature: bytes, noise: bytes) -> None:
    assert outcome(signature + noise) in {"image", "image_unreadable", "image_too_large"}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIC"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00", "AVIF"),
        (b"%PDF-1.7\n", "PDF"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (encoded(PICTURE, "ICO"), "ICO"),
        (encoded(PICTURE, "JPEG2000"), "JPEG 2000"),
        (encoded(PICTURE, "JPEG2000", no_jp2=True), "JPEG 2000"),
        (b"\xff\x0a\xfa\x0f", "JPEG XL"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"PK\x03\x04\x14\x00\x00\x00", "ZIP"),
        (b"8BPS\x00\x01", "PSD"),
        (b"II+\x00\x08\x00\x00\x00", "BigTIFF"),
        (b"\x1aE\xdf\xa3\x01\x00", "video"),
    ],
)
def test_kind_of_file_that_is_known_but_not_read_is_named(data: bytes, name: str) -> None:
    with pytest.raises(
        UnsupportedMediaTypeError, match=rf"{name}.* is not supported; send JPEG, PNG"
    ) as caught:
        decode_image(data, LIMITS, field="image_a")
    assert caught.value.details() == {"field": "image_a"}


@pytest.mark.parametrize(
    "data",
    [b"hello, world", b"\x00", b"\xff", b"<html></html>", b"RIFF\x00\x00\x00\x00WAVEfmt ", bytes(range(256))],
)
def test_text_and_noise_are_no_image(data: bytes) -> None:
    with pytest.raises(ImageUnreadableError, match="the bytes are no image; send JPEG, PNG") as caught:
        decode_image(data, LIMITS, field="image_a")
    assert caught.value.details() == {"field": "image_a"}


def test_no_bytes_are_called_empty() -> None:
    with pytest.raises(ImageUnreadableError, match=r"^the image is empty \(0 bytes\)$"):
        decode_image(b"", LIMITS)


def test_error_without_a_field_names_none() -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(b"hello", LIMITS)
    assert caught.value.details() == {}


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF animated", "BMP"])
def test_file_that_is_also_an_archive_is_only_its_image(name: str) -> None:
    # A ZIP is found by its end, so image + ZIP is both; no other decoder than the image's sees the bytes.
    data = file_bytes(name)
    assert pixels(data + b"PK\x05\x06" + bytes(18)) == pixels(data)


def test_image_inside_another_kind_of_file_is_not_looked_for() -> None:
    with pytest.raises(ImageUnreadableError):
        decode_image(b"GIF" + file_bytes("PNG"), LIMITS)
    with pytest.raises(UnsupportedMediaTypeError):
        decode_image(b"%PDF-1.7\n" + file_bytes("JPEG"), LIMITS)


ENDLESS = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x69\x87\x04\0\x01\0\0\0\x08\0\0\0" + b"\x08\0\0\0"
"""An EXIF block whose only directory names itself as its EXIF directory, and as the next one."""

BAD_EXIF = {
    "empty": b"",
    "no header": b"garbage",
    "header only": b"II*\0",
    "directory outside": b"II*\0\xff\xff\xff\x7f",
    "tags missing": b"II*\0\x08\0\0\0\xff\xff",
    "value outside": b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
    "type unknown": b"II*\0\x08\0\0\0\x01\0\x12\x01\x63\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
    "orientation as text": b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\x006\0\0\0\0\0\0\0",
    "endless": ENDLESS,
    "resolution divided by nothing": b"II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0"
    + bytes(8),
}


@pytest.mark.parametrize("name", BAD_EXIF)
def test_malformed_exif_leaves_the_picture_as_it_is(name: str) -> None:
    block = BAD_EXIF[name]
    plain = jpeg_with_segments(PICTURE, b"")
    assert pixels(jpeg_with_segments(PICTURE, jpeg_segment(0xE1, b"Exif\0\0" + block))) == pixels(plain)
    assert pixels(png_file([bytes([10, 20, 30])], width=1, chunks={b"eXIf": block})) == [10, 20, 30]
    plain = encoded(PICTURE, "WEBP", lossless=True)
    assert pixels(encoded(PICTURE, "WEBP", lossless=True, exif=block)) == pixels(plain)


def text_chunk(kind: bytes, size: int) -> bytes:
    packed = zlib.compress(bytes(size), 9)
    body = b"k\0\1\0\0\0" + packed if kind == b"iTXt" else b"k\0\0" + packed
    return png_chunk(kind, body)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_text_that_unpacks_to_a_hundred_megabytes_is_refused(kind: bytes) -> None:
    data = png_file([bytes(3)], width=1, more=text_chunk(kind, 100_000_000))
    assert len(data) < 200_000
    with pytest.raises(ImageUnreadableError):
        decode_image(data, LIMITS)


def test_many_texts_of_a_megabyte_are_refused() -> None:
    data = png_file([bytes(3)], width=1, more=text_chunk(b"zTXt", 1_000_000) * 300)
    with pytest.raises(ImageUnreadableError):
        decode_image(data, LIMITS)


def test_ordinary_text_does_no_harm() -> None:
    assert outcome(png_file([bytes(3)], width=1, more=text_chunk(b"zTXt", 1_000))) == "image"


def test_gif_frame_larger_than_its_screen_is_decoded_within_the_limit() -> None:
    image = decode_image(gif_file(1, 1, frame=(0, 0, 2, 1)), LIMITS)
    assert image.size == (2, 1)


TAGS = grey_tiff_tags(4, 4)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(tiff_file([]), id="no tags"),
        pytest.param(tiff_file(TAGS[:2]), id="size only"),
        pytest.param(b"II*\0\xff\xff\xff\xff", id="directory outside"),
        pytest.param(b"II*\0\x08\0\0\0\xff\xff" + bytes(100), id="65,535 tags announced"),
        pytest.param(
            tiff_file([(tag, 3, 2**32 - 1, 8) for tag, *_ in TAGS], data=bytes(16)), id="endless values"
        ),
        pytest.param(tiff_file([*TAGS, (330, 4, 1, 2**31)], data=bytes(16)), id="sub-directory outside"),
        pytest.param(tiff_file([*TAGS[:-1], (279, 4, 1, 2**32 - 1)], data=bytes(16)), id="strip of 4 GB"),
        pytest.param(
            tiff_file([*TAGS[:6], (277, 3, 1, 65_535)], data=bytes(16)), id="65,535 samples a pixel"
        ),
        pytest.param(
            tiff_file([t if t[0] != 259 else (259, 3, 1, 9_999) for t in TAGS]), id="compression unknown"
        ),
    ],
)
def test_absurd_tiff_directory_is_an_image_or_unreadable(data: bytes) -> None:
    assert outcome(data) in {"image", "image_unreadable"}


@pytest.mark.parametrize("following", [8 + 16, 8, 2**31])
def test_tiff_whose_next_directory_is_absurd_gives_its_first_picture(following: int) -> None:
    # 8 + 16 is the first directory itself: a ring.
    data = tiff_file(TAGS, data=bytes(range(16)), following=following)
    assert pixels(data) == [grey for grey in range(16) for _ in "RGB"]


def test_tag_values_shared_by_all_tags_do_not_multiply_in_memory() -> None:
    program = """
import resource
from app.encoding.intake import IntakeLimits, decode_image
from app.errors import ImageError
from tests.support.image_files import grey_tiff_tags, tiff_file
block = 2_000_000
tags = [*grey_tiff_tags(4, 4), *((tag, 7, block, 8) for tag in range(1_000, 6_000))]
data = tiff_file(tags, data=bytes(block))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_image(data, IntakeLimits())
except ImageError:
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 32 * 1024


def test_damaged_files_write_nothing_and_warn_of_nothing() -> None:
    program = """
from app.encoding.intake import IntakeLimits, decode_image
from app.errors import ImageError
from tests.app.encoding.test_intake_damage import BAD_EXIF, FILES, PICTURE
from tests.support.image_files import grey_tiff_tags, jpeg_segment, jpeg_with_segments, tiff_file
files = [make() for make in FILES.values()]
cut = [data[: len(data) * part // 8] for data in files for part in range(8)]
exif = [jpeg_with_segments(PICTURE, jpeg_segment(0xE1, b"Exif\\0\\0" + block)) for block in BAD_EXIF.values()]
fax = tiff_file(grey_tiff_tags(400, 400, compression=4, size=999), data=bytes(999))
tags = tiff_file([*grey_tiff_tags(4, 4), *((tag, 7, 999, 8) for tag in range(1_000, 2_000))], data=bytes(999))
for data in [*cut, *exif, fax, tags]:
    try:
        decode_image(data, IntakeLimits())
    except ImageError:
        pass
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "")
