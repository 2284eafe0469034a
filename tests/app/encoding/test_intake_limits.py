"""What one image may cost: bytes, pixels, seconds and memory, whatever its header says."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from app.encoding import intake
from app.encoding.intake import IntakeLimits, decode_image
from app.errors import ImageError, ImageTooLargeError, ImageUnreadableError
from tests.support.image_files import (
    bmp_file,
    gif_file,
    grey_tiff_tags,
    jpeg_segment,
    jpeg_with_scans,
    jpeg_with_segments,
    jpeg_with_size,
    png_chunk,
    png_file,
    png_of_16_bits,
    quadrants,
    tiff_file,
    tiled_tiff_tags,
    webp_with_canvas,
    webp_with_stated_size,
)
from tests.support.images import astronaut, encoded

LIMITS = IntakeLimits()

# Each says that it is 60,000 x 60,000 pixels or as large as the format allows; none is longer than 2 kB.
BOMBS: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: jpeg_with_size(60_000, 60_000),
    "PNG": lambda: png_file([bytes(9)], width=60_000, height=60_000),
    "GIF": lambda: gif_file(60_000, 60_000),
    "GIF frame": lambda: gif_file(1, 1, frame=(0, 0, 60_000, 60_000)),
    "GIF frame far out": lambda: gif_file(1, 1, frame=(60_000, 60_000, 1, 1)),
    "WebP canvas": lambda: webp_with_canvas(60_000, 60_000, animated=False),
    "WebP animated": lambda: webp_with_canvas(60_000, 60_000, animated=True),
    "WebP lossless": lambda: webp_with_stated_size(16_383, 16_383, lossless=True),
    "WebP lossy": lambda: webp_with_stated_size(16_383, 16_383, lossless=False),
    "TIFF": lambda: tiff_file(grey_tiff_tags(60_000, 60_000), data=bytes(100)),
    "TIFF big-endian": lambda: tiff_file(grey_tiff_tags(60_000, 60_000), data=bytes(100), order=">"),
    "TIFF LZW": lambda: tiff_file(grey_tiff_tags(60_000, 60_000, compression=5), data=bytes(100)),
    "TIFF tile": lambda: tiff_file(tiled_tiff_tags(10, 10, (60_000, 60_000)), data=bytes(100)),
    "TIFF tile deflate": lambda: tiff_file(
        tiled_tiff_tags(10, 10, (60_000, 60_000), compression=8, size=100), data=zlib.compress(bytes(50_000))
    ),
    "BMP": lambda: bmp_file(60_000, 60_000, bytes(99)),
    "BMP top down": lambda: bmp_file(60_000, -60_000, bytes(99)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_pixels_are_refused_from_the_header(name: str) -> None:
    data = BOMBS[name]()
    assert len(data) < 2_000
    started = time.perf_counter()
    with pytest.raises(ImageTooLargeError, match="pixels; the limit is 64000000"):
        decode_image(data, LIMITS)
    assert time.perf_counter() - started < 0.25


def test_refusing_large_headers_takes_no_memory() -> None:
    program = """
import resource
from app.encoding.intake import IntakeLimits, decode_image
from app.errors import ImageTooLargeError
from tests.app.encoding.test_intake_limits import BOMBS
files = [make() for make in BOMBS.values()]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
refused = 0
for data in files:
    try:
        decode_image(data, IntakeLimits())
    except ImageTooLargeError:
        refused += 1
print(refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    refused, kibibytes = map(int, ran.stdout.split())
    assert refused == len(BOMBS)
    assert kibibytes < 32 * 1024
    assert ran.stderr == ""


def test_bytes_at_the_limit_pass_and_one_more_does_not() -> None:
    data = encoded(quadrants())
    assert decode_image(data, IntakeLimits(max_bytes=len(data))).size == (48, 32)
    with pytest.raises(ImageTooLargeError, match=f"has {len(data)} bytes; the limit is {len(data) - 1}"):
        decode_image(data, IntakeLimits(max_bytes=len(data) - 1))


def test_pixels_at_the_limit_pass_and_one_more_does_not() -> None:
    data = encoded(quadrants(48, 32))
    assert decode_image(data, IntakeLimits(max_pixels=48 * 32)).size == (48, 32)
    with pytest.raises(ImageTooLargeError, match="48 x 32 = 1536 pixels; the limit is 1535"):
        decode_image(data, IntakeLimits(max_pixels=48 * 32 - 1))


def test_limit_can_be_set_above_pillows_own() -> None:
    # Pillow warns at 89 million pixels and raises at 179 million. This one has 200 million, and no data.
    data = png_file([b""], width=20_000, height=10_000, depth=1, colour=0)
    with pytest.raises(ImageUnreadableError) as caught:
        decode_image(data, IntakeLimits(max_pixels=200_000_000))
    assert "(OSError)" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(tiff_file(grey_tiff_tags(0, 10)), id="TIFF"),
        pytest.param(gif_file(0, 0), id="GIF"),
        pytest.param(png_file([b""], width=0), id="PNG"),
        pytest.param(bmp_file(0, 5, b""), id="BMP"),
    ],
)
def test_image_without_pixels_is_unreadable(data: bytes) -> None:
    with pytest.raises(ImageUnreadableError):
        decode_image(data, LIMITS)


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which every look at it takes a second, so that each piece read costs one."""
    ticks = itertools.count()
    monkeypatch.setattr(intake, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


@pytest.mark.usefixtures("slow_clock")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 100}),
        ("PNG", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("BMP", {}),
    ],
)
def test_decoding_past_the_deadline_is_refused(kind: str, options: dict[str, object]) -> None:
    data = encoded(astronaut(), kind, **options)
    with pytest.raises(ImageUnreadableError, match=r"^decoding took longer than 1 s; "):
        decode_image(data, IntakeLimits(timeout_s=1.0), field="image_a")


@pytest.mark.usefixtures("slow_clock")
def test_decoding_before_the_deadline_is_not_refused() -> None:
    assert decode_image(encoded(astronaut(), "PNG"), IntakeLimits(timeout_s=1e6)).size == (512, 512)


def test_slow_run_length_decoder_ends_at_the_deadline() -> None:
    # Pillow decodes this one in Python, two bytes at a time: 18 MB take about ten seconds.
    data = bmp_file(6_000, 6_000, b"\x01\x01" * 9_000_000, bits=8, compression=1)
    started = time.perf_counter()
    with pytest.raises(ImageUnreadableError, match=r"decoding took longer than 0\.2 s"):
        decode_image(data, IntakeLimits(timeout_s=0.2))
    assert time.perf_counter() - started < 2.0


def test_millions_of_empty_chunks_end_at_the_deadline() -> None:
    data = png_file([bytes(3)], width=1, more=png_chunk(b"abCd", b"") * 1_500_000)
    started = time.perf_counter()
    with pytest.raises(ImageUnreadableError, match=r"decoding took longer than 0\.2 s"):
        decode_image(data, IntakeLimits(timeout_s=0.2))
    assert time.perf_counter() - started < 2.0


def test_jpeg_of_a_hundred_scans_passes_and_one_more_does_not() -> None:
    assert decode_image(jpeg_with_scans(16, 16, 100), LIMITS).size == (16, 16)
    with pytest.raises(ImageUnreadableError, match="the JPEG has 101 scans of 16 x 16 pixels"):
        decode_image(jpeg_with_scans(16, 16, 101), LIMITS)


def test_few_scans_of_many_pixels_are_refused() -> None:
    # 90 scans in 260 kB; without the rule libjpeg is busy for five seconds.
    data = jpeg_with_scans(4_000, 5_000, 90)
    assert len(data) < 300_000
    with pytest.raises(ImageUnreadableError, match="the JPEG has 90 scans"):
        decode_image(data, LIMITS)


def test_progressive_jpeg_of_the_largest_size_is_not_refused_for_its_scans() -> None:
    intake._check_jpeg_scans(jpeg_with_scans(16, 16, 20), (8_000, 8_000), None)


def test_scans_in_metadata_and_behind_the_end_are_not_counted() -> None:
    markers = b"\xff\xda\x00\x02" * 9_000
    segments = jpeg_segment(0xE1, markers) + jpeg_segment(0xFE, markers)
    data = jpeg_with_segments(quadrants(), segments)
    plain = decode_image(jpeg_with_segments(quadrants(), b""), LIMITS)
    assert decode_image(data + markers * 4, LIMITS).tobytes() == plain.tobytes()


def test_jpeg_of_very_many_segments_is_refused() -> None:
    data = jpeg_with_segments(quadrants(), jpeg_segment(0xFE, b"") * 10_000)
    with pytest.raises(ImageUnreadableError, match="damaged or truncated"):
        decode_image(data, LIMITS)


def test_counting_scans_is_linear_in_fill_bytes() -> None:
    # Each of the fill bytes could begin a marker; looking ahead from every one would take hours.
    started = time.perf_counter()
    assert intake._count_jpeg_scans(b"\xff\xd8" + b"\xff" * 10_000_000 + b"\x00") == 0
    assert time.perf_counter() - started < 2.0


@pytest.mark.parametrize("tag", [273, 324])
def test_tiff_in_too_many_pieces_is_refused(tag: int) -> None:
    tags = [*grey_tiff_tags(8_000, 8_000)[:5], (277, 3, 1, 1), (tag, 4, 2**18 + 1, 8)]
    started = time.perf_counter()
    with pytest.raises(ImageUnreadableError, match="the TIFF is cut into 262145 pieces"):
        decode_image(tiff_file(tags, data=bytes(4 * (2**18 + 1))), LIMITS)
    assert time.perf_counter() - started < 0.25


def test_tile_of_a_type_the_specification_does_not_know_is_refused() -> None:
    # libtiff reads 16 (LONG8) through an offset, where our check does not look.
    tags = [tag if tag[0] != 322 else (322, 16, 1, 8) for tag in tiled_tiff_tags(10, 10, (16, 16))]
    with pytest.raises(ImageUnreadableError):
        decode_image(tiff_file(tags, data=(60_000).to_bytes(8, "little")), LIMITS)


def test_converting_deep_grey_takes_a_few_bytes_a_pixel() -> None:
    data = png_of_16_bits(np.zeros((2_000, 2_000, 1), np.uint16), 0)
    tracemalloc.start()
    decode_image(data, LIMITS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2_000 * 2_000


def test_threads_decode_what_one_thread_does() -> None:
    photo = astronaut().resize((200, 200))
    files = [
        encoded(photo, kind, **options)
        for kind, options in (
            ("JPEG", {}),
            ("PNG", {}),
            ("WEBP", {}),
            ("GIF", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("BMP", {}),
        )
    ]
    alone = [decode_image(data, LIMITS).tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode_image(data, LIMITS).tobytes(), files * 10))
    assert together == alone * 10


def test_error_of_a_limit_names_the_field() -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(gif_file(60_000, 60_000), LIMITS, field="image_b")
    assert caught.value.details() == {"field": "image_b"}
