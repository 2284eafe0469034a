"""The page of an audit: one HTML file with the photos in question side by side.

It needs nothing else, has no date, and escapes every text: names of identities come from outside.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2
import numpy as np

from app.encoding.intake import IntakeLimits, decode_image
from app.errors import ImageError
from app.matching.audit import AuditResult, DuplicatePair, Stranger, Swapped
from app.services.audit import Sample

_TEMPLATE: Final = "audit.html.j2"
_SIDE: Final = 112
"""Longer side of a thumbnail, pixels."""
_PHOTOS: Final = 6
"""Photos of an identity in one row."""
MOST_SHOWN: Final = 200
"""Findings of a kind; more are counted."""


@dataclass(frozen=True)
class Photo:
    """A thumbnail as a data address (empty when there is none), and its file's name."""

    address: str
    name: str


@dataclass(frozen=True)
class Row:
    """A finding: a line of figures, and the photos of each side with its caption."""

    title: str
    figures: str
    sides: tuple[tuple[str, tuple[Photo, ...]], ...]


@dataclass(frozen=True)
class Findings:
    """The findings of a kind, and how many there are in all."""

    rows: tuple[Row, ...]
    total: int

    @property
    def left_out(self) -> int:
        """How many are not shown."""
        return self.total - len(self.rows)


def audit_page(result: AuditResult, sample: Sample, *, title: str, model: str) -> str:
    """Return the page.

    Args:
        result: What was found.
        sample: What was audited; thumbnails are made of its images.
        title: The collection or the folder.
        model: The model's id.
    """
    album = _Album(sample)
    likely = [pair for pair in result.duplicates if pair.likely]
    others = [pair for pair in result.duplicates if not pair.likely]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("app.pages", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number
    return environment.get_template(_TEMPLATE).render(
        title=title,
        model=model,
        result=result,
        sample=sample,
        names=sample.names,
        duplicates=_shown((album.pair(one) for one in likely), len(likely)),
        others=_shown((album.pair(one) for one in others[:5]), min(5, len(others))),
        swapped=_shown((album.swapped(one) for one in result.swapped), len(result.swapped)),
        strangers=_shown((album.stranger(one) for one in result.strangers), len(result.strangers)),
        mixed=_shown(
            (
                Row(
                    sample.names[one.label],
                    f"typical distance {one.distance:.3f} between its {one.images} images",
                    (("", album.of(one.label, _PHOTOS * 2)),),
                )
                for one in result.mixed
            ),
            len(result.mixed),
        ),
    )


def number(value: float | None) -> str:
    """Return a figure as text: whole when large, two digits when small.

    >>> number(12345.6), number(3.14159), number(0.00123), number(0.0), number(None)
    ('12,346', '3.1', '0.0012', '0', '-')
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.2g}"


def _shown(rows: Iterable[Row], total: int) -> Findings:
    return Findings(tuple(row for row, _ in zip(rows, range(MOST_SHOWN), strict=False)), total)


class _Album:
    """Thumbnails of a sample's images."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        order = np.argsort(sample.labels, kind="stable")
        ends = np.cumsum(np.bincount(sample.labels, minlength=len(sample.names)))
        self._rows = np.split(order, ends[:-1]) if len(sample.names) else []

    def of(self, label: int, most: int, *, but: int = -1) -> tuple[Photo, ...]:
        """Return the first photos of an identity; none for references, which keep no photo."""
        rows = [row for row in self._rows[label].tolist() if row != but and self._sample.images[row]]
        return tuple(self.one(row) for row in rows[:most])

    def one(self, row: int) -> Photo:
        """Return the photo of an embedding."""
        path = self._sample.images[row]
        return Photo("", "the reference") if path is None else Photo(_thumbnail(path), path.name)

    def pair(self, pair: DuplicatePair) -> Row:
        """Return a pair of identities."""
        first, second = self._sample.names[pair.first], self._sample.names[pair.second]
        return Row(
            f"{first} and {second}",
            f"distance {pair.distance:.3f}, FMR {pair.fmr:.2g}; {number(pair.expected)} pairs so close "
            f"expected by chance (at most {number(pair.expected_upper95)}), {pair.found:,} found; "
            f"chance {pair.chance:.2g}",
            ((first, self.of(pair.first, _PHOTOS)), (second, self.of(pair.second, _PHOTOS))),
        )

    def swapped(self, one: Swapped) -> Row:
        """Return an image that is another identity's."""
        said, nearest = self._sample.names[one.label], self._sample.names[one.nearest]
        return Row(
            f"{self.one(one.image).name} of {said} is probably {nearest}",
            f"distance {one.own_distance:.3f} to the others of {said}, {one.distance:.3f} to {nearest}; "
            f"{number(one.expected)} images so near expected by chance, chance {one.chance:.2g}",
            (
                ("the image", (self.one(one.image),)),
                (f"others of {said}", self.of(one.label, _PHOTOS - 1, but=one.image)),
                (nearest, self.of(one.nearest, _PHOTOS - 1)),
            ),
        )

    def stranger(self, one: Stranger) -> Row:
        """Return an image that is near to nobody."""
        said = self._sample.names[one.label]
        return Row(
            f"{self.one(one.image).name} of {said}",
            f"distance {one.own_distance:.3f} to the others of {said}; probability {one.probability:.2g}",
            (
                ("the image", (self.one(one.image),)),
                (f"others of {said}", self.of(one.label, _PHOTOS, but=one.image)),
            ),
        )


@functools.lru_cache(maxsize=4096)
def _thumbnail(path: Path) -> str:
    try:
        image = decode_image(path.read_bytes(), IntakeLimits())
    except (OSError, ImageError):
        return ""
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
