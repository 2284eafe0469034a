"""How often a search by a stranger returns somebody, as the gallery grows.

FPIR(N, t) is the share of searches by subjects who are not enrolled that return any of N references at
distance <= t. Were all comparisons independent it would be 1 - (1 - FMR)^N. They are not: a search compares
one probe with everybody, and some probes resemble many people while most resemble none. The false matches
then fall together, and that formula overstates. So the rate is measured: for each probe image the share of
images of every other subject within t is known, and with it the chance that a gallery of N random subjects,
one random image each, holds none of them.

Up to as many subjects as were measured this is an average over the probes. Beyond, a gallery is taken as
several that were measured: 1 - (1 - FPIR(M, t))^(N / M), which is never less than the truth (Jensen's
inequality: the chance of no false candidate is a convex function of the chance in one part).

Source: FPIR as in ISO/IEC 19795-1; bounds as in ``matching.bounds``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.matching.bounds import jackknife_upper, rule_of_three

_SIZES: Final = 20
"""Sizes of galleries that the curve is computed for, evenly spaced in their logarithm."""
_THRESHOLDS: Final = 48
"""Thresholds that it is computed for, evenly spaced in the logarithm of the trials they admit."""


@dataclass(frozen=True, eq=False)
class OpenSetCurve:
    """FPIR over the size of the gallery and the threshold.

    Attributes:
        sizes: int64[G], rising, from 1.
        thresholds: float64[T], strictly rising, in the unit of the distances.
        fpir: float64[G, T].
        fpir_upper95: float64[G, T], 95 % upper confidence bounds, subjects being the independent units.
    """

    sizes: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    fpir: NDArray[np.float64]
    fpir_upper95: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check shapes and order."""
        shape = (self.sizes.size, self.thresholds.size)
        if self.fpir.shape != shape or self.fpir_upper95.shape != shape or 0 in shape:
            raise ValueError(f"fpir and fpir_upper95 must be {list(shape)}, sizes by thresholds")
        if self.sizes[0] != 1 or (np.diff(self.sizes) <= 0).any() or (np.diff(self.thresholds) <= 0).any():
            raise ValueError("sizes must rise from 1, and thresholds must rise")
        for rates in (self.fpir, self.fpir_upper95):
            if not ((rates >= 0.0) & (rates <= 1.0)).all():
                raise ValueError("a false positive identification rate is not within 0..1")

    def at(self, threshold: float, gallery_size: int) -> tuple[float, float] | None:
        """Return FPIR and its upper bound; None above the largest threshold measured.

        Below the smallest one the figures of the smallest stand: the rate is no larger there.
        """
        if threshold > self.thresholds[-1]:
            return None
        fpir, upper = self._column(gallery_size)
        return (
            float(np.interp(threshold, self.thresholds, fpir)),
            float(np.interp(threshold, self.thresholds, upper)),
        )

    def threshold_for(self, max_fpir: float, gallery_size: int) -> float | None:
        """Return the highest threshold whose FPIR is at most the target; None if the smallest has more."""
        fpir, _ = self._column(gallery_size)
        if fpir[0] > max_fpir:
            return None
        above = np.flatnonzero(fpir > max_fpir)
        if above.size == 0:
            return float(self.thresholds[-1])
        high = int(above[0])
        low_rate, high_rate = float(fpir[high - 1]), float(fpir[high])
        part = (max_fpir - low_rate) / (high_rate - low_rate)
        low, top = float(self.thresholds[high - 1]), float(self.thresholds[high])
        # Never the upper end itself, whose rate is above the target, however the sum is rounded.
        return min(low + part * (top - low), math.nextafter(top, -math.inf))

    def _column(self, gallery_size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return FPIR and bound at every threshold for a gallery's size."""
        size = max(gallery_size, 1)
        largest = int(self.sizes[-1])
        if size > largest:
            parts = size / largest
            return _of_parts(self.fpir[-1], parts), _of_parts(self.fpir_upper95[-1], parts)
        high = int(np.searchsorted(self.sizes, size))
        if self.sizes[high] == size:
            return self.fpir[high], self.fpir_upper95[high]
        low, top = self.sizes[high - 1], self.sizes[high]
        part = float(np.log(size / low) / np.log(top / low))
        return (
            _between(self.fpir[high - 1], self.fpir[high], part),
            _between(self.fpir_upper95[high - 1], self.fpir_upper95[high], part),
        )


def open_set_curve(
    distance: NDArray[np.float64],
    images: NDArray[np.integer],
    image_subject: NDArray[np.integer],
) -> OpenSetCurve | None:
    """Measure the curve from the closest non-mated trials.

    Args:
        distance: float64[K], sorted: the closest of all pairs of images of two subjects.
        images: int[K, 2], the two images of each.
        image_subject: int[I], the subject of each image, from 0 without gaps.

    Returns:
        The curve for galleries of 1 to S - 1 of the S subjects; None with fewer than three subjects.
    """
    subjects = int(image_subject.max()) + 1
    if subjects < 3 or distance.size == 0:
        return None
    thresholds = _grid_of_thresholds(distance)
    sizes = np.unique(np.round(np.geomspace(1, subjects - 1, _SIZES)).astype(np.int64))
    close = _CloseImages(distance, images, image_subject, thresholds)
    fpir = np.empty((sizes.size, thresholds.size))
    upper = np.empty_like(fpir)
    for row, size in enumerate(sizes):
        fpir[row], upper[row] = close.rates(int(size), thresholds.size)
    # What bounds the rate of a larger gallery, or of a laxer threshold, bounds this one too; where only a
    # trial or two count, that is the better bound.
    for axis in (0, 1):
        upper = np.flip(np.minimum.accumulate(np.flip(upper, axis), axis=axis), axis)
    return OpenSetCurve(sizes, thresholds, fpir, upper)


class _CloseImages:
    """For each probe image and other subject, which thresholds admit how many of the subject's images."""

    def __init__(
        self,
        distance: NDArray[np.float64],
        images: NDArray[np.integer],
        image_subject: NDArray[np.integer],
        thresholds: NDArray[np.float64],
    ) -> None:
        self._subjects = int(image_subject.max()) + 1
        self._image_subject = image_subject
        self._images_of = np.bincount(image_subject, minlength=self._subjects)
        probe = np.concatenate([images[:, 0], images[:, 1]]).astype(np.int64)
        other = image_subject[np.concatenate([images[:, 1], images[:, 0]])].astype(np.int64)
        level = np.tile(np.searchsorted(thresholds, distance), 2)
        kept = level < thresholds.size
        probe, other, level = probe[kept], other[kept], level[kept]
        # Entries of one probe and one subject stand together, in order of the threshold that admits them.
        order = np.lexsort((level, other, probe))
        self._probe, self._other, self._level = probe[order], other[order], level[order]
        group = self._probe * self._subjects + self._other
        starts = np.r_[True, group[1:] != group[:-1]]
        self._group = np.cumsum(starts) - 1
        first = np.flatnonzero(starts)
        self._ordinal = np.arange(group.size) - first[self._group] + 1
        self._group_probe, self._group_other = self._probe[first], self._other[first]

    def rates(self, size: int, levels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return FPIR and upper bound at every threshold for galleries of a size."""
        share = size / (self._subjects - 1)
        within = self._images_of[self._other]

        def logarithm(count: NDArray[np.int64]) -> NDArray[np.float64]:
            # A subject enrolled for certain, all of whose images are within reach, leaves no chance of none.
            return np.asarray(np.log1p(-np.minimum(share * (count / within), 1.0 - 1e-12)))

        step = logarithm(self._ordinal) - logarithm(self._ordinal - 1)
        of_probe = np.zeros(self._image_subject.size)
        of_group = np.zeros(self._group_probe.size)
        fpir, upper = np.empty(levels), np.empty(levels)
        by_level = np.argsort(self._level, kind="stable")
        ends = np.searchsorted(self._level[by_level], np.arange(levels), side="right")
        start = 0
        for level, end in enumerate(ends):
            entries = by_level[start:end]
            start = int(end)
            np.add.at(of_probe, self._probe[entries], step[entries])
            np.add.at(of_group, self._group[entries], step[entries])
            fpir[level], upper[level] = self._rate_and_bound(of_probe, of_group, size)
        return fpir, upper

    def _rate_and_bound(
        self, of_probe: NDArray[np.float64], of_group: NDArray[np.float64], size: int
    ) -> tuple[float, float]:
        hit = -np.expm1(of_probe)
        total = float(hit.sum())
        if total == 0.0:
            # Searches are independent when they share neither probe nor anybody enrolled.
            return 0.0, rule_of_three(self._subjects // (size + 1))
        images = hit.size
        own = np.bincount(self._image_subject, hit, minlength=self._subjects)
        active = np.flatnonzero(of_group)
        # Without a subject in the gallery, the chance of no hit rises by that subject's factor.
        gone = np.exp(of_probe[self._group_probe[active]]) * np.expm1(-of_group[active])
        lost = np.bincount(self._group_other[active], gone, minlength=self._subjects)
        left_out = (total - own - lost) / (images - self._images_of)
        # A probe near a subject enrolled for certain misses by a last bit.
        rate = total / images if total / images < 1.0 - 1e-9 else 1.0
        pairs = self._subjects * (self._subjects - 1) / 2.0
        return rate, jackknife_upper(rate, left_out, at_most=pairs)


def _grid_of_thresholds(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return thresholds that admit one trial, all of them, and numbers between in equal ratios."""
    counts = np.unique(np.round(np.geomspace(1, distance.size, _THRESHOLDS)).astype(np.int64))
    return np.unique(distance[counts - 1])


def _of_parts(rate: NDArray[np.float64], parts: float) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(parts * np.log1p(-rate)))


def _between(low: NDArray[np.float64], high: NDArray[np.float64], part: float) -> NDArray[np.float64]:
    """Interpolate in the logarithm of the rates where neither is 0."""
    with np.errstate(divide="ignore"):
        straight = np.exp((1.0 - part) * np.log(low) + part * np.log(high))
    return np.where((low > 0.0) & (high > 0.0), straight, high)
