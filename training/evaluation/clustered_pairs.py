"""How well pairs are told apart when pairs come in clusters: pairs that share a text, or an image.

Pairs of one cluster depend on one another, so clusters are resampled, not pairs (``evaluation.intervals``).
A pair with a distance of at most the threshold is taken for mated.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.intervals import (
    Interval,
    clustered_interval,
    resample_subjects,
    resampled_interval,
)
from training.evaluation.verification import RESAMPLES, SEED, equal_error_rate

BLOCK = 100
"""Resamples held at once."""


@dataclass(frozen=True)
class PairReport:
    """Accuracy at a threshold that the pairs did not choose, and EER, with the ends of 95 % intervals.

    Attributes:
        accuracy: Share of right decisions at the threshold.
        accuracy_lower95: Lower end.
        accuracy_upper95: Upper end.
        threshold: In the unit of the distances.
        eer: Where FMR and FNMR are equal.
        eer_lower95: Lower end.
        eer_upper95: Upper end.
        mated: Pairs that mean the same.
        nonmated: The others.
        clusters: How many sets of pairs were resampled.
    """

    accuracy: float
    accuracy_lower95: float
    accuracy_upper95: float
    threshold: float
    eer: float
    eer_lower95: float
    eer_upper95: float
    mated: int
    nonmated: int
    clusters: int

    def as_json(self) -> dict[str, Any]:
        """Return the report by the names of its figures."""
        return asdict(self)


def evaluate_pairs(
    distance: NDArray[np.float64],
    same: NDArray[np.bool_],
    cluster: NDArray[np.integer],
    threshold: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> PairReport:
    """Measure how well distances tell mated pairs from non-mated ones.

    Args:
        distance: float64[N], finite.
        same: bool[N], True for mated pairs; some of each kind.
        cluster: int[N] from 0 without gaps, which pairs depend on one another.
        threshold: Chosen on other pairs.
        resamples: How often the clusters are resampled.
        seed: Of the resampling.

    Raises:
        ValueError: One kind of pairs is missing.
    """
    if same.all() or not same.any():
        raise ValueError("pairs of both kinds are needed")
    wrong = (distance <= threshold) != same
    errors = clustered_interval(wrong, cluster)
    eer, resampled = _resampled_eer(distance, same, cluster, resamples, seed)
    clusters = int(cluster.max()) + 1
    # Errors of both kinds move the point where they are equal, so all pairs count for it.
    within = resampled_interval(eer, resampled, trials=same.size, independent=clusters)
    return PairReport(
        accuracy=1.0 - float(wrong.mean()),
        accuracy_lower95=1.0 - errors.upper95,
        accuracy_upper95=1.0 - errors.lower95,
        threshold=threshold,
        eer=eer,
        eer_lower95=within.lower95,
        eer_upper95=within.upper95,
        mated=int(same.sum()),
        nonmated=int((~same).sum()),
        clusters=clusters,
    )


def eer_difference(
    distance: NDArray[np.float64],
    baseline: NDArray[np.float64],
    same: NDArray[np.bool_],
    cluster: NDArray[np.integer],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, Interval]:
    """Return the EER less that of a baseline on the same pairs, and the middle 95 % of its resamples.

    Both are measured in the same resamples, so what makes a resample hard for both cancels out.

    Args:
        distance: float64[N].
        baseline: float64[N], distances of the same pairs by other means.
        same: See ``evaluate_pairs``.
        cluster: See ``evaluate_pairs``.
        resamples: How often the clusters are resampled.
        seed: Of the resampling.
    """
    measured, resampled = _resampled_eer(distance, same, cluster, resamples, seed)
    base, base_resampled = _resampled_eer(baseline, same, cluster, resamples, seed)
    lower, upper = np.quantile(resampled - base_resampled, (0.025, 0.975)).tolist()
    return measured - base, Interval(lower, upper)


def _resampled_eer(
    distance: NDArray[np.float64],
    same: NDArray[np.bool_],
    cluster: NDArray[np.integer],
    resamples: int,
    seed: int,
) -> tuple[float, NDArray[np.float64]]:
    """Return the EER, and the EER of each resample that has pairs of both kinds."""
    order = np.argsort(distance, kind="stable")
    apart, mated, drawn = distance[order], same[order], cluster[order]
    # Only the last pair of equal distances is a point of the curve.
    at = np.r_[np.flatnonzero(np.diff(apart) > 0.0), apart.size - 1]

    def rates(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        curves = []
        for kind in (~mated, mated):
            sums = np.cumsum(np.where(kind, weights, 0), axis=1)
            share = sums[:, at] / sums[:, -1:]
            curves.append(np.concatenate([np.zeros((len(weights), 1)), share], axis=1))
        return equal_error_rate(curves[0], 1.0 - curves[1])

    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, resamples, BLOCK):
        counts = resample_subjects(rng, int(cluster.max()) + 1, min(BLOCK, resamples - start))
        weights = counts[:, drawn]
        usable = weights[:, mated].any(axis=1) & weights[:, ~mated].any(axis=1)
        found.append(rates(weights[usable]))
    return float(rates(np.ones((1, apart.size), np.int64))[0]), np.concatenate(found)
