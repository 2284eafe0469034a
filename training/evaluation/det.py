"""The curve of both error rates over the threshold: what DET and ROC plots are drawn from.

A DET plot shows FNMR against FMR, a ROC plot 1 - FNMR against FMR; both have one point for each decision that
differs. Trials that could not be compared are left out, as in the rates of ``verification``.

Source: ISO/IEC 19795-1; Martin et al. (1997), "The DET curve in assessment of detection task performance".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidRequestError
from training.evaluation.verification import Trials


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """Error rates at every threshold that decides differently from the one before.

    Attributes:
        thresholds: float64[T], rising; the first is minus infinity, at which nothing matches.
        fmr: float64[T], rising from 0 to 1.
        fnmr: float64[T], falling from 1 to 0.
    """

    thresholds: NDArray[np.float64]
    fmr: NDArray[np.float64]
    fnmr: NDArray[np.float64]

    @property
    def area_under_roc(self) -> float:
        """Return the chance that a mated trial is nearer than a non-mated one, ties counting half."""
        heights = 1.0 - self.fnmr
        return float((np.diff(self.fmr) * (heights[1:] + heights[:-1]) / 2.0).sum())

    def thinned(self, points: int) -> ErrorCurve:
        """Return about that many points or fewer, spread evenly over the logarithms of both rates.

        Points are left out, never moved; the first and the last stay.
        """
        if self.thresholds.size <= points:
            return self
        rising, falling = np.unique(self.fmr[self.fmr > 0])[0], np.unique(self.fnmr[self.fnmr > 0])[0]
        by_fmr = np.searchsorted(self.fmr, np.geomspace(rising, 1.0, points // 2))
        by_fnmr = np.searchsorted(-self.fnmr, -np.geomspace(falling, 1.0, points // 2))
        keep = np.unique(np.concatenate([[0, self.thresholds.size - 1], by_fmr, by_fnmr]))
        keep = keep[keep < self.thresholds.size]
        return ErrorCurve(self.thresholds[keep], self.fmr[keep], self.fnmr[keep])

    def as_json(self) -> dict[str, list[float]]:
        """Return the points; the first threshold, which JSON cannot say, is left out with its point."""
        return {
            "thresholds": self.thresholds[1:].tolist(),
            "fmr": self.fmr[1:].tolist(),
            "fnmr": self.fnmr[1:].tolist(),
        }


def error_curve(trials: Trials) -> ErrorCurve:
    """Return FMR and FNMR at every threshold.

    Raises:
        InvalidRequestError: None of a kind could be compared.

    >>> one = Trials(np.array([0.1, 0.4]), np.array([True, False]), np.array([[0, 0], [0, 1]]))
    >>> error_curve(one).fnmr.tolist()
    [1.0, 0.0, 0.0]
    """
    mated = np.sort(trials.distance[trials.mated & trials.compared])
    nonmated = np.sort(trials.distance[~trials.mated & trials.compared])
    if not mated.size or not nonmated.size:
        problem = f"{mated.size} mated and {nonmated.size} non-mated trials were compared; both are needed"
        raise InvalidRequestError([{"field": "pairs", "problem": problem}])
    thresholds = np.concatenate([[-np.inf], np.unique(np.concatenate([mated, nonmated]))])
    return ErrorCurve(
        thresholds,
        np.searchsorted(nonmated, thresholds, side="right") / nonmated.size,
        (mated.size - np.searchsorted(mated, thresholds, side="right")) / mated.size,
    )
