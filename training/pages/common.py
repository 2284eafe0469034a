"""What all pages of measurements have: where the figures come from, what failed, and thumbnails.

The pages are made of the pictures of training runs (``training.pictures``), which need Matplotlib, and hold
their images themselves. Nothing here needs TensorFlow.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app import __version__
from app.encoding.bulk import Embedded
from app.encoding.intake import IntakeLimits, decode_image
from app.encoding.model import Model
from app.errors import ImageError
from training.pictures.distances import distance_histogram
from training.pictures.report import Block, Report, Result, Shot, Table
from training.pictures.style import percent

SHOWN: Final = 8
"""Comparisons of a kind that are shown as pictures."""

LARGEST_SIDE: Final = 236
"""Of a thumbnail, in pixels: twice what it is shown at, for screens with small pixels."""

FAILURES_LISTED: Final = 100

CARE: Final = (
    "The page holds small copies of the images shown on it: keep and share it as you would the images."
)


@dataclass(frozen=True)
class Measurement:
    """Which model was measured, on what, when and how.

    Attributes:
        model: The model.
        data: Folder or archive of the images; only its name is shown.
        settings: Of the command, by name.
        when: The time to show.
    """

    model: Model
    data: Path
    settings: Mapping[str, str]
    when: datetime

    @property
    def data_name(self) -> str:
        """Name of the folder or archive."""
        return self.data.resolve().name


def page(
    measured: Measurement, *, title: str, results: Sequence[Result], blocks: Sequence[Block | None]
) -> Report:
    """Return a page with its head and its last section.

    Args:
        measured: What was measured.
        title: How: "1:1 verification".
        results: In the order of the table.
        blocks: Sections before the last; None for one without content.
    """
    manifest = measured.model.manifest
    return Report(
        title=f"{measured.model.model_id}: {title} on {measured.data_name}",
        subtitle=manifest.description,
        kind="evaluation report",
        results=results,
        blocks=[*(block for block in blocks if block is not None), _provenance(measured)],
        note=f"Intervals are of 95 %. {CARE}",
    )


def _provenance(measured: Measurement) -> Block:
    manifest = measured.model.manifest
    return Block(
        "measured",
        "What was measured",
        facts={
            "model": f"{manifest.model_id} {manifest.version}",
            "digest": measured.model.digest,
            "distance": manifest.metric,
            "images": measured.data_name,
            **measured.settings,
            "date": f"{measured.when:%Y-%m-%d %H:%M %Z}".strip(),
            "Visavis": __version__,
        },
    )


def failures(embedded: Embedded, folder: Path) -> Block | None:
    """Return the section of the images that could not be embedded; None without any.

    Args:
        embedded: Of all images.
        folder: What their names are relative to.
    """
    failed = [row for row, reason in enumerate(embedded.reasons) if reason]
    if not failed:
        return None
    kinds = Counter(embedded.reasons[row].partition(":")[0] for row in failed)
    listed = [
        (name_of(embedded.paths[row], folder), embedded.reasons[row]) for row in failed[:FAILURES_LISTED]
    ]
    more = len(failed) - len(listed)
    return Block(
        "failures",
        "Failures to acquire",
        lead=f"{len(failed):,} of {len(embedded.paths):,} images "
        f"({percent(len(failed) / len(embedded.paths))}) could not be embedded: "
        + ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
        + ".",
        tables=[Table("Images and reasons", ["image", "reason"], listed)],
        tail=f"And {more:,} more images." if more else "",
    )


def name_of(path: Path, folder: Path) -> str:
    """Return a file's name below a folder."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def shot(path: Path, folder: Path, role: str = "") -> Shot:
    """Return a file's thumbnail with its name, as short as it tells images apart by eye.

    That is without the suffix, and without a folder that the file's own name repeats, as in LFW.
    """
    repeats = path.name.startswith(path.parent.name)
    return Shot(thumbnail(path), name_of(path.with_suffix(""), path.parent if repeats else folder), role)


def thumbnail(path: Path) -> str:
    """Return an image file, read as the service reads it and made small, as a data address.

    An image that is no longer there, or can no longer be read, is an empty square.
    """
    try:
        image = decode_image(path.read_bytes(), IntakeLimits())
    except (OSError, ImageError):
        image = Image.new("RGB", (LARGEST_SIDE, LARGEST_SIDE), (238, 241, 245))
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    kinds = {"jpeg": _encoded(image, "JPEG", quality=82), "png": _encoded(image, "PNG", optimize=True)}
    # Photographs are smaller as JPEG, drawings as PNG, which also keeps their edges.
    kind, data = min(kinds.items(), key=lambda item: len(item[1]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def no_image_twice(order: NDArray[np.intp], images: NDArray[np.intp], count: int) -> list[int]:
    """Return the first trials of an order that show no image that one before them shows.

    Args:
        order: intp[K], trials.
        images: intp[N, 2], the images of each trial.
        count: How many at most.
    """
    seen: set[int] = set()
    chosen: list[int] = []
    for trial in order.tolist():
        shown = {int(image) for image in images[trial]}
        if not shown & seen:
            seen |= shown
            chosen.append(trial)
        if len(chosen) == count:
            break
    return chosen


def histogram(
    report: Report,
    measured: Measurement,
    mated: NDArray[np.float64],
    nonmated: NDArray[np.float64],
    *,
    caption: str,
    section: str = "points",
) -> None:
    """Add a histogram of both kinds of distances with the model's thresholds; infinite ones are counted.

    Args:
        report: The page.
        measured: Whose model has the thresholds.
        mated: float64[M].
        nonmated: float64[K].
        caption: What the two kinds are.
        section: Where it is shown.
    """
    manifest = measured.model.manifest
    thresholds = {point.name or "": point.threshold for point in manifest.operating_points}
    middle = [float(np.median(kind[np.isfinite(kind)])) for kind in (mated, nonmated)]
    report.picture(
        distance_histogram(mated, nonmated, thresholds=thresholds, unit=f"{manifest.metric} distance"),
        "Distances",
        caption=f"{caption} Lines: the thresholds of the model's operating points.",
        alternative=f"Mated distances have the median {middle[0]:.3f}, non-mated ones {middle[1]:.3f}; the "
        f"default threshold is {manifest.default_point.threshold:.3f}.",
        section=section,
    )


def interval(lower: float, upper: float) -> str:
    """Return an interval in words."""
    return f"{percent(lower)} to {percent(upper)}"


def whole(text: str) -> str:
    """Return a text of a narrow column in which no number parts from its sign of percent."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def decided(distance: float, threshold: float, *, mated: bool) -> tuple[str, bool]:
    """Return distance and decision in words, and whether the decision is right."""
    match = distance <= threshold
    right = match == mated
    words = f"distance {distance:.4f}: {'match' if match else 'non-match'}, {'right' if right else 'wrong'}"
    return words, right
