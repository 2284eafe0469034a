"""The trials behind a model's thresholds: from an error rate to a threshold, with a bound.

An ``Evidence`` holds every mated trial and the exact tail of the closest non-mated trials, each with its
subjects. It is read once, when the bundle is loaded.

The bound treats subjects as the independent units. Two trials that share a person are dependent, so the
false match rate over all pairs is a U-statistic of degree two over subjects; its variance is estimated by
leaving out one subject at a time (the jackknife, which errs on the large side for U-statistics: Efron and
Stein, 1981), turned into an effective number of independent trials, and put into Wilson's score bound.
That variance is itself an estimate, and a poor one where a few people carry most of the false matches, so
the bound takes Student's quantile with as many degrees of freedom as subjects carry it (Satterthwaite,
1946) instead of the normal one. With no false match seen it is the rule of three on disjoint subject pairs.

Source: Fogliato, Patil, Perona (2024), "Confidence Intervals for Error Rates in 1:1 Matching Tasks",
International Journal of Computer Vision, which recommends Wilson's interval with such a variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.errors import InsufficientEvidenceError
from app.matching.decision import OperatingPoint

_Z95_ONE_SIDED: Final = 1.6448536269514722
_T95_BY_FREEDOM: Final = {
    1: 6.314, 1.5: 3.705, 2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 6: 1.943, 8: 1.860, 12: 1.782, 20: 1.725,
    30: 1.697,
}  # fmt: skip
"""Student's one-sided 95 % quantile by degrees of freedom."""
_LEAST_EXPECTED_PAIRS: Final = 3.0
"""A rate is supported when it stands for at least this many of the distinct subject pairs seen."""


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
    """

    mated_distance: NDArray[np.float64]
    mated_subject: NDArray[np.int32]
    nonmated_distance: NDArray[np.float64]
    nonmated_subjects: NDArray[np.int32]
    nonmated_total: int
    subjects: int
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
        """Return the share of non-mated trials at or below the threshold; None beyond the tail."""
        count = self.false_matches(threshold)
        return None if count is None else count / self.nonmated_total

    def fnmr(self, threshold: float) -> float | None:
        """Return the share of mated trials above the threshold; None without mated trials."""
        if not self.mated_total:
            return None
        matched = int(np.searchsorted(self.mated_distance, threshold, side="right"))
        return 1.0 - matched / self.mated_total

    def fmr_upper95(self, threshold: float) -> float | None:
        """Return a 95 % upper confidence bound of the false match rate; None beyond the tail."""
        count = self.false_matches(threshold)
        if count is None:
            return None
        pairs = self.nonmated_subjects[:count]
        by_subject = np.bincount(pairs.ravel(), minlength=self.subjects)
        return upper_bound(by_subject, self.nonmated_total)

    def point_at(self, threshold: float, *, name: str | None = None) -> OperatingPoint:
        """Return what the evidence says of a threshold; rates are None where it does not reach."""
        return OperatingPoint(
            name=name,
            threshold=threshold,
            fmr=self.fmr(threshold),
            fmr_upper95=self.fmr_upper95(threshold),
            fnmr=self.fnmr(threshold),
        )

    def threshold_for(self, max_fmr: float) -> float:
        """Return the highest threshold whose false match rate is at most the target.

        Raises:
            InsufficientEvidenceError: The trials cannot show this rate, or the kept tail ends before it.
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

        A search of N references returns a false candidate with at most N times the false match rate,
        however the comparisons depend on one another (the union bound), so the rate is divided by N.

        Raises:
            InsufficientEvidenceError: The rate divided by the gallery's size is below what is supported.
        """
        size = max(gallery_size, 1)
        key = (max_fpir, "", size)
        point = self._points.get(key)
        if point is None:
            rate = max_fpir / size
            if rate < self.smallest_fmr * (1.0 - 1e-12):  # 0.29 / 29 may be a last bit below 0.01
                raise InsufficientEvidenceError(
                    field="max_fpir",
                    asked=max_fpir,
                    smallest=min(1.0, _rounded_up(self.smallest_fmr * size)),
                    reason=f"with {size} enrolled it needs a false match rate of {rate:.2g}, and "
                    f"{self.subjects} subjects were measured",
                )
            point = self.point_at(self.threshold_for(max(rate, self.smallest_fmr)))
            point = self._remember(key, point.model_copy(update={"max_fpir": max_fpir}))
        return point

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


def upper_bound(false_matches_by_subject: NDArray[np.int64], trials: int) -> float:
    """Return a 95 % upper confidence bound of a false match rate, subjects being the independent units.

    Args:
        false_matches_by_subject: int64[S]; each false match counts once for either of its two subjects.
        trials: All non-mated trials, spread about evenly over the subject pairs.

    Returns:
        A proportion; 1 when fewer than three subjects were seen.

    Source: see the module's docstring.

    >>> round(upper_bound(np.zeros(300, np.int64), 1_000_000), 4)
    0.02
    """
    subjects = false_matches_by_subject.size
    total = int(false_matches_by_subject.sum()) // 2
    if subjects < 3:
        return 1.0
    if total == 0:
        return min(1.0, 3.0 / (subjects // 2))
    rate = total / trials
    pairs = subjects * (subjects - 1) / 2.0
    per_pair = trials / pairs
    remaining = (subjects - 1) * (subjects - 2) / 2.0 * per_pair
    left_out = (total - false_matches_by_subject) / remaining
    squares = np.square(left_out - left_out.mean())
    variance = (subjects - 1) / subjects * float(squares.sum())
    # Satterthwaite: all subjects when all deviate alike, one when one alone deviates.
    carriers = float(squares.sum()) ** 2 / float(np.square(squares).sum()) if variance > 0.0 else math.inf
    # However alike the images of two people match, there are no more independent trials than pairs of people.
    effective = min(rate * (1.0 - rate) / variance if variance > 0.0 else pairs, pairs, float(trials))
    return wilson_upper(rate, effective, quantile=_t95(carriers - 1.0))


def _t95(freedom: float) -> float:
    """Return Student's one-sided 95 % quantile; nearly linear in one over the degrees of freedom."""
    table = sorted((1.0 / known, value) for known, value in _T95_BY_FREEDOM.items())
    at, values = zip((0.0, _Z95_ONE_SIDED), *table, strict=True)
    return float(np.interp(1.0 / max(freedom, 1.0), at, values))


def wilson_upper(rate: float, trials: float, *, quantile: float = _Z95_ONE_SIDED) -> float:
    """Return Wilson's one-sided 95 % upper bound for a proportion seen in a number of trials.

    Args:
        rate: Proportion seen.
        trials: Independent trials; need not be a whole number.
        quantile: How many standard errors the bound lies above; larger where their size is uncertain.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    z2 = quantile**2
    centre = rate + z2 / (2.0 * trials)
    spread = quantile * math.sqrt(rate * (1.0 - rate) / trials + z2 / (4.0 * trials * trials))
    # It is never below the rate; rounding must not say otherwise.
    return min(1.0, max(rate, (centre + spread) / (1.0 + z2 / trials)))


def _rounded_up(rate: float) -> float:
    """Return a rate of three digits that is no smaller, so that what an error names is accepted."""
    digits = 2 - math.floor(math.log10(rate))
    return float(f"{math.ceil(rate * 10.0**digits)}e{-digits}")


def read_evidence(path: Path) -> Evidence:
    """Read ``evidence.npz``.

    Raises:
        ValueError: An array is missing or has a shape that contradicts another.
    """
    # numpy leaves a file open that it opened itself and could not read.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
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
            )
        except KeyError as error:
            raise ValueError(f"evidence lacks the array {error}") from error
