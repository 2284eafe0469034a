"""What a distance says: how much likelier it is between images of one subject than between those of two.

The likelihood ratio as a function of distance comes from the trials by isotonic regression: the closer, the
larger, and nothing else is assumed. It is fitted on cells of distance with the mated and the non-mated
trials weighing equally, and read between the cells by interpolation of its logarithm. With a prior it gives
a probability by Bayes' rule. The prior is the caller's: how often, before looking, the two are the same.

So few people cannot show odds of millions to one: the ratio is held between the largest and the smallest
that the subjects support.

Sources: pool adjacent violators, Ayer and others (1955), Annals of Mathematical Statistics 26; its use for
calibrated likelihood ratios, Brummer and du Preez (2006), Computer Speech and Language 20.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LikelihoodRatio:
    """Natural logarithm of the ratio over distance.

    Attributes:
        distance: float64[P], rising.
        logarithm: float64[P], never rising.
    """

    distance: NDArray[np.float64]
    logarithm: NDArray[np.float64]

    def at(self, distance: float) -> float:
        """Return the ratio at a distance."""
        return math.exp(float(np.interp(distance, self.distance, self.logarithm)))

    def probability(self, distance: float, prior: float) -> float:
        """Return the probability that two images of this distance show one subject.

        Args:
            distance: In the unit of the trials.
            prior: Probability before looking, 0 < prior < 1.
        """
        odds = prior / (1.0 - prior) * self.at(distance)
        return odds / (1.0 + odds)


def fit(
    edges: NDArray[np.float64],
    mated: NDArray[np.floating],
    nonmated: NDArray[np.floating],
    *,
    smallest: float,
    largest: float,
) -> LikelihoodRatio:
    """Fit the ratio to counts of trials in cells of distance.

    Args:
        edges: float64[B + 1], rising.
        mated: float[B], mated trials in each cell; some in all.
        nonmated: float[B], non-mated trials in each cell; some in all.
        smallest: Ratio that it never falls below.
        largest: Ratio that it never exceeds.
    """
    share_mated, share_nonmated = mated / mated.sum(), nonmated / nonmated.sum()
    weight = share_mated + share_nonmated
    filled = np.flatnonzero(weight)
    centre = (edges[:-1] + edges[1:])[filled] / 2.0
    level, size = _falling(share_mated[filled] / weight[filled], weight[filled])
    with np.errstate(divide="ignore"):
        logarithm = np.log(level) - np.log1p(-level)
    logarithm = np.clip(logarithm, math.log(smallest), math.log(largest))
    # A level holds from the middle of its first cell to that of its last.
    last = np.cumsum(size) - 1
    ends = np.stack([centre[last - size + 1], centre[last]], axis=1)
    return LikelihoodRatio(ends.ravel(), np.repeat(logarithm, 2))


def _falling(
    value: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return levels and lengths of the weighted least-squares fit that never rises."""
    levels: list[list[float]] = []
    for one, its_weight in zip(value.tolist(), weight.tolist(), strict=True):
        levels.append([one, its_weight, 1.0])
        while len(levels) > 1 and levels[-2][0] <= levels[-1][0]:
            upper_value, upper_weight, upper_count = levels.pop()
            below = levels[-1]
            total = below[1] + upper_weight
            below[0] = (below[0] * below[1] + upper_value * upper_weight) / total
            below[1], below[2] = total, below[2] + upper_count
    return np.array([level[0] for level in levels]), np.array([int(level[2]) for level in levels])
