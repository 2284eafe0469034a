"""How far probabilities can be trusted: likelihood ratios held against people they were not fitted on.

The subjects are split in two. Likelihood ratios are fitted to the trials of one half, turned into
probabilities with the prior 0.5, and compared with the truth of the other half's trials, mated and non-mated
ones weighing equally; then the other way round, and again with other splits. Three figures each time:

- ECE, expected calibration error: in bins of the stated probability, how far it lies from the share that
  is mated, on average (Naeini, Cooper, Hauskrecht 2015, AAAI);
- Brier score: mean squared difference of the stated probability from 1 or 0; 0.25 for always saying 0.5
  (Brier 1950, Monthly Weather Review 78);
- Cllr: mean logarithmic loss in bits; 1 for always saying 0.5 (Brummer and du Preez 2006, Computer Speech
  and Language 20).

The first is 0 for calibrated probabilities however little they tell; the other two also ask that they tell
mated from non-mated. numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.matching.distances import Metric
from app.matching.evidence import Evidence
from app.matching.likelihood import LikelihoodRatio
from app.matching.trials import TAIL_SHARE, all_trials

BINS: Final = 15
"""Of the stated probability, equally wide."""

SEEDS: Final = (0, 1, 2)

LEAST_SUBJECTS: Final = 10
"""Fewer leave nobody to fit on and somebody to check with."""


@dataclass(frozen=True, eq=False)
class CalibrationError:
    """What probabilities were worth on trials with known truth.

    Attributes:
        ece: Expected calibration error, 0 to 1.
        brier: Brier score, 0 to 1.
        cllr: Mean logarithmic loss in bits.
        stated: float64[B], mean stated probability in each bin; NaN in an empty one.
        observed: float64[B], share that is mated; NaN in an empty one.
        weight: float64[B], share of the trials in each bin, mated and non-mated ones weighing equally.
    """

    ece: float
    brier: float
    cllr: float
    stated: NDArray[np.float64]
    observed: NDArray[np.float64]
    weight: NDArray[np.float64]


def calibration_error(
    logarithm: NDArray[np.float64],
    mated: NDArray[np.floating],
    nonmated: NDArray[np.floating],
    *,
    bins: int = BINS,
) -> CalibrationError:
    """Hold likelihood ratios against the truth, at the prior 0.5.

    Args:
        logarithm: float64[N], natural logarithm of the ratio stated of some trials.
        mated: float[N], how many of these are mated; some in all.
        nonmated: float[N], how many are non-mated; some in all.
        bins: B.

    Raises:
        ValueError: There is no trial of one kind.

    >>> always_even = calibration_error(np.zeros(1), np.ones(1), np.ones(1))
    >>> always_even.ece, always_even.brier, always_even.cllr
    (0.0, 0.25, 1.0)
    """
    if not (mated.sum() > 0 and nonmated.sum() > 0):
        raise ValueError("calibration is measured on mated and on non-mated trials")
    true, false = mated / mated.sum() / 2.0, nonmated / nonmated.sum() / 2.0
    probability = 1.0 / (1.0 + np.exp(-logarithm))
    brier = float((true * np.square(1.0 - probability) + false * np.square(probability)).sum())
    # log2(1 + 1/LR) for mated trials, log2(1 + LR) for non-mated ones, without overflow.
    loss = true * np.logaddexp(0.0, -logarithm) + false * np.logaddexp(0.0, logarithm)
    place = np.minimum((probability * bins).astype(np.intp), bins - 1)
    weight = np.bincount(place, true + false, bins)
    with np.errstate(invalid="ignore"):
        stated = np.bincount(place, (true + false) * probability, bins) / weight
        observed = np.bincount(place, true, bins) / weight
    filled = weight > 0.0
    ece = float((weight[filled] * np.abs(stated - observed)[filled]).sum())
    cllr = float(loss.sum()) / math.log(2.0)
    return CalibrationError(ece, brier, cllr, stated, observed, np.asarray(weight, np.float64))


def error_on(ratio: LikelihoodRatio, trials: Evidence, *, bins: int = BINS) -> CalibrationError:
    """Hold a fitted ratio against trials that it was not fitted on.

    Raises:
        ValueError: There is no trial of one kind.
    """
    edges, mated, nonmated = trials.cells()
    centre = (edges[:-1] + edges[1:]) / 2.0
    logarithm = np.interp(centre, ratio.distance, ratio.logarithm)
    return calibration_error(np.asarray(logarithm, np.float64), mated, nonmated, bins=bins)


@dataclass(frozen=True, eq=False)
class HeldOutError:
    """Calibration errors of all splits, each half fitted on and checked with once.

    Attributes:
        splits: Two for each seed.
    """

    splits: tuple[CalibrationError, ...]

    @property
    def ece(self) -> float:
        """Mean over the splits."""
        return float(np.mean([split.ece for split in self.splits]))

    @property
    def brier(self) -> float:
        """Mean over the splits."""
        return float(np.mean([split.brier for split in self.splits]))

    @property
    def cllr(self) -> float:
        """Mean over the splits."""
        return float(np.mean([split.cllr for split in self.splits]))

    def as_json(self) -> dict[str, float | int | list[float]]:
        """Return means, and the smallest and largest of the splits."""

        def ends(values: Sequence[float]) -> list[float]:
            return [min(values), max(values)]

        return {
            "prior": 0.5,
            "splits": len(self.splits),
            "ece": self.ece,
            "ece_range": ends([split.ece for split in self.splits]),
            "brier": self.brier,
            "brier_range": ends([split.brier for split in self.splits]),
            "cllr": self.cllr,
            "cllr_range": ends([split.cllr for split in self.splits]),
        }


def held_out_error(
    evidence_of: Callable[[NDArray[np.intp]], Evidence],
    units: int,
    *,
    seeds: Sequence[int] = SEEDS,
    progress: Callable[[int], None] = lambda _: None,
) -> HeldOutError | None:
    """Split the subjects in two, fit on either half and check with the other.

    Args:
        evidence_of: Returns the trials among some subjects, by number.
        units: How many subjects there are; images where the subjects are all there are.
        seeds: One split each.
        progress: Called with 1 after each half.

    Returns:
        None with fewer than ``LEAST_SUBJECTS``, or where a half has no trials of one kind.
    """
    if units < LEAST_SUBJECTS:
        return None
    found = []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(units)
        try:
            halves = [evidence_of(np.sort(half)) for half in (order[: units // 2], order[units // 2 :])]
        except ValueError:  # a half without two subjects to compare
            return None
        for fitted, checked in (halves, halves[::-1]):
            ratio = fitted.likelihood_ratio
            if ratio is None or not checked.mated_total:
                return None
            found.append(error_on(ratio, checked))
            progress(1)
    return HeldOutError(tuple(found))


def held_out_of_all_pairs(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int32],
    metric: Metric,
    *,
    seeds: Sequence[int] = SEEDS,
    tail_share: float = TAIL_SHARE,
) -> HeldOutError | None:
    """Return the held-out calibration error where every image is compared with every other.

    Args:
        embeddings: float32[N, D].
        labels: int32[N], the subject of each; numbered from 0 without gaps.
        metric: How they are compared.
        seeds: One split each.
        tail_share: See ``app.matching.trials.all_trials``.
    """

    def evidence_of(subjects: NDArray[np.intp]) -> Evidence:
        mine = np.isin(labels, subjects)
        numbered = np.unique(labels[mine], return_inverse=True)[1].astype(np.int32)
        return all_trials(embeddings[mine], numbered, metric, tail_share=tail_share)

    return held_out_error(evidence_of, int(labels.max()) + 1, seeds=seeds)
