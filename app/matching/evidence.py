"""The trials behind a model's thresholds: from an error rate to a threshold, with a bound.

An ``Evidence`` holds every mated trial and the exact tail of the closest non-mated trials, each with its
subjects; the non-mated trials beyond the tail are summarised by counts in cells of distance. It also holds
how often searches by strangers return somebody, by size of the gallery (``matching.open_set``). It is read
once, when the bundle is loaded. Its bounds treat subjects, not pairs, as independent (``matching.bounds``).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from app.errors import InsufficientEvidenceError
from app.matching import likelihood
from app.matching.bounds import clustered_interval, upper_bound
from app.matching.decision import OperatingPoint
from app.matching.likelihood import LikelihoodRatio
from app.matching.open_set import OpenSetCurve

_LEAST_EXPECTED_PAIRS: Final = 3.0
"""A rate is supported when it stands for at least this many of the distinct subject pairs seen."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of all non-mated trials in cells of distance; the last cell holds its upper edge too.

    Attributes:
        edges: float64[B + 1], strictly rising.
        counts: int64[B].
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check shapes and order."""
        if self.edges.size != self.counts.size + 1 or self.counts.size < 1:
            raise ValueError("a histogram has one edge more than counts")
        if (np.diff(self.edges) <= 0.0).any() or (self.counts < 0).any():
            raise ValueError("a histogram's edges must rise, and its counts must not be negative")

    def below(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return about how many trials lie at or below each distance, evenly spread within a cell."""
        return np.interp(distance, self.edges, np.r_[0.0, np.cumsum(self.counts)])


@dataclass(frozen=True, eq=False)
class Evidence:
    """Trials measured with the exported model through the service's own preprocessing.

    Attributes:
        mated_distance: float64[M], sorted.
        mated_subject: int32[M], index of the subject of each mated trial.
        nonmated_distance: float64[K], sorted: the closest K of all non-mated trials.
        nonmated_subjects: int32[K, 2], the two subjects of each.
        nonmated_total: Number of non-mated trials run.
        subjects: Number of subjects.
        histogram: All non-mated trials in cells; None where only the tail was kept.
        open_set: FPIR over gallery size and threshold; None where it was not measured.
    """

    mated_distance: NDArray[np.float64]
    mated_subject: NDArray[np.int32]
    nonmated_distance: NDArray[np.float64]
    nonmated_subjects: NDArray[np.int32]
    nonmated_total: int
    subjects: int
    histogram: Histogram | None = None
    open_set: OpenSetCurve | None = None
    _points: dict[tuple[float, str, int], OperatingPoint] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Check shapes and values, and sort both sides."""
        if self.subjects < 2 or not 1 <= self.nonmated_distance.size <= self.nonmated_total:
            raise ValueError(
                "evidence needs two subjects, a non-mated trial and a total that covers the tail"
            )
        if self.nonmated_distance.ndim != 1 or self.mated_distance.ndim != 1:
            raise ValueError("distances must be one row")
        if self.nonmated_subjects.shape != (self.nonmated_distance.size, 2):
            raise ValueError("nonmated_subjects must be [K, 2] beside nonmated_distance [K]")
        if self.mated_subject.shape != self.mated_distance.shape:
            raise ValueError("mated_subject must be [M] beside mated_distance [M]")
        if not (np.isfinite(self.mated_distance).all() and np.isfinite(self.nonmated_distance).all()):
            raise ValueError("a distance is not a finite number")
        for numbers in (self.mated_subject, self.nonmated_subjects):
            if numbers.size and not (numbers.min() >= 0 and numbers.max() < self.subjects):
                raise ValueError(f"a subject's number is not within 0..{self.subjects - 1}")
        if (self.nonmated_subjects[:, 0] == self.nonmated_subjects[:, 1]).any():
            raise ValueError("a non-mated trial has one subject twice")
        if self.histogram is not None and int(self.histogram.counts.sum()) != self.nonmated_total:
            raise ValueError("the histogram's counts are not as many as the non-mated trials")
        order = np.argsort(self.nonmated_distance, kind="stable")
        object.__setattr__(self, "nonmated_distance", self.nonmated_distance[order])
        object.__setattr__(self, "nonmated_subjects", self.nonmated_subjects[order])
        order = np.argsort(self.mated_distance, kind="stable")
        object.__setattr__(self, "mated_distance", self.mated_distance[order])
        object.__setattr__(self, "mated_subject", self.mated_subject[order])

    @property
    def mated_total(self) -> int:
        """Number of mated trials run; all of them are kept."""
        return int(self.mated_distance.size)

    @property
    def smallest_fmr(self) -> float:
        """Smallest false match rate these trials can support."""
        return max(smallest_fmr(self.subjects), 1.0 / self.nonmated_total)

    @property
    def largest_fmr(self) -> float:
        """Rate up to which the tail is exact; 1 when every trial was kept."""
        return self.nonmated_distance.size / self.nonmated_total

    def false_matches(self, threshold: float) -> int | None:
        """Return how many non-mated trials are at or below the threshold; None beyond the tail."""
        count = int(np.searchsorted(self.nonmated_distance, threshold, side="right"))
        complete = self.nonmated_distance.size == self.nonmated_total
        return None if count == self.nonmated_distance.size and not complete else count

    def fmr(self, threshold: float) -> float | None:
        """Return the share of non-mated trials at or below the threshold.

        Beyond the tail it is read from the histogram, to about a cell; None where there is none.
        """
        count = self.false_matches(threshold)
        if count is not None:
            return count / self.nonmated_total
        if self.histogram is None:
            return None
        about = float(self.histogram.below(np.array([threshold]))[0]) / self.nonmated_total
        return min(1.0, max(self.largest_fmr, about))

    def fnmr(self, threshold: float) -> float | None:
        """Return the share of mated trials above the threshold; None without mated trials."""
        if not self.mated_total:
            return None
        matched = int(np.searchsorted(self.mated_distance, threshold, side="right"))
        return 1.0 - matched / self.mated_total

    def fnmr_interval95(self, threshold: float) -> tuple[float, float] | None:
        """Return a two-sided 95 % interval of the false non-match rate; None without mated trials."""
        if not self.mated_total:
            return None
        matched = int(np.searchsorted(self.mated_distance, threshold, side="right"))
        errors = np.bincount(self.mated_subject[matched:], minlength=self.subjects)
        return clustered_interval(errors, self._mated_by_subject)

    def fmr_upper95(self, threshold: float) -> float | None:
        """Return a 95 % upper confidence bound of the false match rate; None beyond the tail."""
        count = self.false_matches(threshold)
        if count is None:
            return None
        pairs = self.nonmated_subjects[:count]
        by_subject = np.bincount(pairs.ravel(), minlength=self.subjects)
        return upper_bound(by_subject, self.nonmated_total)

    def fpir(self, threshold: float, gallery_size: int) -> tuple[float, float] | None:
        """Return the predicted false positive identification rate of a gallery, and its 95 % upper bound.

        Where searches by strangers were not measured it is the union bound, gallery size x FMR: no less than
        the truth, however the comparisons depend on one another. None beyond the tail.
        """
        if self.open_set is not None:
            return self.open_set.at(threshold, gallery_size)
        count, upper = self.false_matches(threshold), self.fmr_upper95(threshold)
        if count is None or upper is None:
            return None
        return min(1.0, count / self.nonmated_total * gallery_size), min(1.0, upper * gallery_size)

    def point_at(self, threshold: float, *, name: str | None = None) -> OperatingPoint:
        """Return what the evidence says of a threshold; rates are None where it does not reach."""
        lower, upper = self.fnmr_interval95(threshold) or (None, None)
        return OperatingPoint(
            name=name,
            threshold=threshold,
            fmr=self.fmr(threshold),
            fmr_upper95=self.fmr_upper95(threshold),
            fnmr=self.fnmr(threshold),
            fnmr_lower95=lower,
            fnmr_upper95=upper,
        )

    def threshold_for(self, max_fmr: float) -> float:
        """Return the highest threshold whose false match rate is at most the target.

        Raises:
            InsufficientEvidenceError: The trials cannot show this rate.
        """
        if max_fmr < self.smallest_fmr:
            raise InsufficientEvidenceError(
                field="max_fmr",
                asked=max_fmr,
                smallest=_rounded_up(self.smallest_fmr),
                reason=f"{self.subjects} subjects in {self.nonmated_total} non-mated trials were measured",
            )
        allowed = math.floor(self.nonmated_total * max_fmr)
        # The product is rounded: 100 * 0.29 is 28.999..., and 29 false matches in 100 are within 0.29.
        if (allowed + 1) / self.nonmated_total <= max_fmr:
            allowed += 1
        elif allowed / self.nonmated_total > max_fmr:
            allowed -= 1
        if allowed >= self.nonmated_distance.size:
            # The tail is exact up to its last trial; a laxer rate is met, not reached, there.
            return float(np.nextafter(self.nonmated_distance[-1], -np.inf))
        return float(np.nextafter(self.nonmated_distance[allowed], -np.inf))

    def point_for_fmr(self, max_fmr: float, *, name: str | None = None) -> OperatingPoint:
        """Return the operating point that holds a false match rate (1:1); see ``threshold_for``."""
        key = (max_fmr, name or "", 0)
        point = self._points.get(key)
        if point is None:
            point = self.point_at(self.threshold_for(max_fmr), name=name)
            point = self._remember(key, point.model_copy(update={"max_fmr": max_fmr}))
        return point

    def point_for_fpir(self, max_fpir: float, gallery_size: int) -> OperatingPoint:
        """Return the operating point that holds a false positive identification rate (1:N).

        Raises:
            InsufficientEvidenceError: At the strictest threshold that the trials support, searches of a
                gallery of this size return more false candidates.
        """
        size = max(gallery_size, 1)
        key = (max_fpir, "", size)
        point = self._points.get(key)
        if point is None:
            point = self.point_at(self._threshold_for_fpir(max_fpir, size))
            point = self._remember(key, point.model_copy(update={"max_fpir": max_fpir}))
        return point

    @cached_property
    def likelihood_ratio(self) -> LikelihoodRatio | None:
        """How much likelier a distance is between images of one subject; None without mated trials."""
        if not self.mated_total:
            return None
        edges, mated, nonmated = self.cells()
        if not nonmated.any():
            return None
        # Three subjects in all could look unlike themselves, three pairs of subjects alike, and not be seen.
        return likelihood.fit(
            edges,
            mated,
            nonmated,
            smallest=min(0.5, 3.0 / self.subjects),
            largest=max(2.0, 1.0 / self.smallest_fmr),
        )

    def cells(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return cells of distance that hold all trials, narrow where either kind is dense.

        Beyond the tail the non-mated trials are those of the histogram, or, without one, in the last cell.

        Returns:
            Edges float64[B + 1], mated and non-mated trials float64[B].
        """
        tail = self.nonmated_distance
        parts = [np.quantile(self.mated_distance, np.linspace(0.0, 1.0, 161))] if self.mated_total else []
        parts.append(tail[np.unique(np.geomspace(1, tail.size, 81).astype(np.int64)) - 1])
        if self.histogram is not None:
            occupied = np.flatnonzero(self.histogram.counts)
            coarse = self.histogram.edges[np.r_[occupied, occupied[-1] + 1]]
            parts.append(coarse[coarse > tail[-1]])
        edges = np.unique(np.concatenate(parts))
        edges = np.r_[np.nextafter(edges[0], -np.inf), edges]
        mated = np.searchsorted(self.mated_distance, edges, side="right").astype(np.float64)
        nonmated = np.asarray(np.searchsorted(tail, edges, side="right"), np.float64)
        if self.histogram is not None:
            beyond = edges > tail[-1]
            nonmated[beyond] = np.maximum(self.histogram.below(edges[beyond]), tail.size)
        nonmated[-1] = self.nonmated_total
        return edges, np.diff(mated), np.diff(nonmated)

    @cached_property
    def _mated_by_subject(self) -> NDArray[np.int64]:
        return np.bincount(self.mated_subject, minlength=self.subjects)

    def _threshold_for_fpir(self, max_fpir: float, size: int) -> float:
        strictest = self.threshold_for(self.smallest_fmr)
        if self.open_set is None:
            rate = max_fpir / size
            if rate < self.smallest_fmr * (1.0 - 1e-12):  # 0.29 / 29 may be a last bit below 0.01
                raise self._too_little(max_fpir, size, self.smallest_fmr * size)
            return self.threshold_for(max(rate, self.smallest_fmr))
        least = self.open_set.at(strictest, size)
        if least is None or least[0] > max_fpir:
            raise self._too_little(max_fpir, size, 1.0 if least is None else least[0])
        return max(self.open_set.threshold_for(max_fpir, size) or strictest, strictest)

    def _too_little(self, max_fpir: float, size: int, least: float) -> InsufficientEvidenceError:
        return InsufficientEvidenceError(
            field="max_fpir",
            asked=max_fpir,
            smallest=min(1.0, _rounded_up(least)),
            reason=f"with {size} enrolled it needs a false match rate below {self.smallest_fmr:.2g}, the "
            f"smallest that trials of {self.subjects} subjects can show",
        )

    def _remember(self, key: tuple[float, str, int], point: OperatingPoint) -> OperatingPoint:
        if len(self._points) >= 1024:
            self._points.clear()
        self._points[key] = point
        return point


def smallest_fmr(subjects: int) -> float:
    """Return the smallest false match rate that so many subjects can support, however many their trials.

    >>> smallest_fmr(25)
    0.01
    """
    return _LEAST_EXPECTED_PAIRS / (subjects * (subjects - 1) / 2.0)


def subjects_for(fmr: float) -> int:
    """Return how many subjects it takes to support a false match rate.

    >>> subjects_for(1e-1), subjects_for(1e-2), subjects_for(1e-3)
    (9, 25, 78)
    """
    return next(count for count in itertools.count(2) if smallest_fmr(count) <= fmr)


def _rounded_up(rate: float) -> float:
    """Return a rate of three digits that is no smaller, so that what an error names is accepted."""
    if rate <= 0.0:
        return 0.0
    digits = 2 - math.floor(math.log10(rate))
    return float(f"{math.ceil(rate * 10.0**digits)}e{-digits}")


def evidence_arrays(evidence: Evidence) -> dict[str, NDArray[Any]]:
    """Return the arrays that ``evidence.npz`` holds; ``read_evidence`` reads them back."""
    arrays: dict[str, NDArray[Any]] = {
        "mated_distance": evidence.mated_distance,
        "mated_subject": evidence.mated_subject,
        "mated_total": np.array(evidence.mated_total, np.int64),
        "nonmated_distance": evidence.nonmated_distance,
        "nonmated_subjects": evidence.nonmated_subjects,
        "nonmated_total": np.array(evidence.nonmated_total, np.int64),
        "subjects": np.array(evidence.subjects, np.int64),
    }
    if evidence.histogram is not None:
        arrays["nonmated_edges"] = evidence.histogram.edges
        arrays["nonmated_counts"] = evidence.histogram.counts
    if evidence.open_set is not None:
        curve = evidence.open_set
        arrays["gallery_sizes"], arrays["gallery_thresholds"] = curve.sizes, curve.thresholds
        arrays["fpir"], arrays["fpir_upper95"] = curve.fpir, curve.fpir_upper95
    return arrays


def read_evidence(source: Path | IO[bytes]) -> Evidence:
    """Read ``evidence.npz``, from its path or from an open file.

    Raises:
        ValueError: An array is missing or has a shape that contradicts another.
    """
    if isinstance(source, Path):
        # numpy leaves a file open that it opened itself and could not read.
        with source.open("rb") as file:
            return read_evidence(file)
    with np.load(source, allow_pickle=False) as arrays:
        try:
            if int(arrays["mated_total"]) != arrays["mated_distance"].size:
                raise ValueError("mated_total differs from the number of mated distances")
            return Evidence(
                mated_distance=arrays["mated_distance"].astype(np.float64),
                mated_subject=arrays["mated_subject"].astype(np.int32),
                nonmated_distance=arrays["nonmated_distance"].astype(np.float64),
                nonmated_subjects=arrays["nonmated_subjects"].astype(np.int32),
                nonmated_total=int(arrays["nonmated_total"]),
                subjects=int(arrays["subjects"]),
                histogram=Histogram(
                    arrays["nonmated_edges"].astype(np.float64), arrays["nonmated_counts"].astype(np.int64)
                )
                if "nonmated_edges" in arrays
                else None,
                open_set=OpenSetCurve(
                    arrays["gallery_sizes"].astype(np.int64),
                    arrays["gallery_thresholds"].astype(np.float64),
                    arrays["fpir"].astype(np.float64),
                    arrays["fpir_upper95"].astype(np.float64),
                )
                if "gallery_sizes" in arrays
                else None,
            )
        except KeyError as error:
            raise ValueError(f"evidence lacks the array {error}") from error
