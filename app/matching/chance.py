"""How often two different subjects come this close: the false match rate, carried below what was measured.

Where the evidence has many false matches the rate is measured. Below that it is carried on along a straight
line in the logarithm, through two measured rates a factor of ten apart: an exponential tail. The logarithm of
a distribution function whose density falls off like a normal one is concave, and a concave curve lies below
the line that was drawn through two of its points higher up; so the line errs on the side of more chance hits.
The lines are drawn well above the smallest distances on purpose: there a single pair of the evidence's own
subjects that is one person outweighs everything else, and would pass for chance.

A gallery that is large enough is asked as well. Its own pairs at the two distances are nearly all chance, so
where they are more than the evidence says (a gallery of one age and one descent, poorer photos), the rate and
the slope are raised to what the gallery shows; never lowered. And a gallery of thousands with one image each
has itself the close pairs that the evidence lacks: as many as it has identities, of which duplicates can only
be a part. There its own distribution is followed down to that many, and the line drawn from there.

Sources: exponential tail as the generalised Pareto distribution with shape 0, Pickands (1975), "Statistical
inference using extreme order statistics"; log-concavity, Bagnoli and Bergstrom (2005), "Log-concave
probability and its applications"; the correction by the tests' own excess, Devlin and Roeder (1999), "Genomic
control for association studies".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.matching.evidence import Evidence

_LOW_RATE: Final = 1e-3
"""False match rate from which on the tail is measured rather than carried on."""
_RATIO: Final = 10.0
"""Between the two rates that give the slope."""
_ENOUGH: Final = 50.0
"""Pairs of identities expected by chance with which a gallery may correct the rate."""
_GRID: Final = 257
_LEAST_RATIO: Final = 3
"""Between the numbers of pairs that give the slope there."""


@dataclass(frozen=True, eq=False)
class Chance:
    """The probability that two different subjects are at most so far apart.

    Attributes:
        high: Distance up to which a rate is given.
        low: Distance below which it is carried on.
        scale: Distance over which the rate falls by a factor of e below ``low``; infinite where the evidence
            is too small to give a slope, and the rate then stays as it is at ``low``.
        high_rate: Rate at ``high``.
        low_rate: Rate at ``low``.
        upper: Factor from the rate to its 95 % upper bound, at least 1.
        excess: False matches that the evidence has where the tail leaves room for one. Many more than one
            mean that some of its subjects are one person; 0 when it cannot be said.
        excess_at: The distance where that is.
    """

    high: float
    low: float
    scale: float
    high_rate: float
    low_rate: float
    upper: float
    excess: int
    excess_at: float
    _grid: NDArray[np.float64]
    _log_rates: NDArray[np.float64]

    def rate(self, distance: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return the rate at each distance; beyond ``high`` it is that at ``high``."""
        at = np.asarray(distance, np.float64)
        measured = np.exp(np.interp(at, self._grid, self._log_rates))
        if math.isinf(self.scale):
            return np.asarray(measured)
        carried = self.low_rate * np.exp(np.minimum(at - self.low, 0.0) / self.scale)
        return np.where(at < self.low, carried, np.maximum(measured, self.low_rate))

    def distance_for(self, rate: float) -> float:
        """Return the distance at which the rate is that, not above ``high`` and not below 0."""
        if rate >= self.high_rate:
            return self.high
        if rate >= self.low_rate:
            return float(np.interp(math.log(rate), self._log_rates, self._grid))
        if math.isinf(self.scale):
            return 0.0
        return max(0.0, self.low + self.scale * math.log(rate / self.low_rate))

    def corrected(self, pairs: int, share_high: float, share_low: float) -> Chance:
        """Return the chance with what a gallery itself shows, where that is more.

        Args:
            pairs: Pairs of different identities in the gallery.
            share_high: Share of its comparisons at or below ``high``.
            share_low: Share at or below ``low``.
        """
        if pairs * self.high_rate < _ENOUGH:
            return self
        factor = max(1.0, share_high / self.high_rate)
        low_rate, scale = self.low_rate * factor, self.scale
        if pairs * self.low_rate >= _ENOUGH and not math.isinf(scale) and share_low > 0.0:
            low_rate = max(low_rate, share_low)
            if share_high > share_low:
                scale = max(scale, (self.high - self.low) / math.log(share_high / share_low))
        return replace(
            self,
            high_rate=self.high_rate * factor,
            low_rate=low_rate,
            scale=scale,
            _log_rates=self._log_rates + math.log(factor),
        )

    def followed(self, distance: NDArray[np.float64], compared: int, identities: int) -> Chance:
        """Return the chance with the line drawn further down, by the close pairs of a large gallery.

        Args:
            distance: float64[K], of its closest pairs, in any order; one image an identity.
            compared: Pairs of images in all.
            identities: How many it has; so many pairs may be taken for chance, whatever duplicates they hold.
        """
        pairs = min(distance.size, int(compared * self.low_rate))
        if identities < 2 or pairs < _LEAST_RATIO * identities:
            return self
        # The line goes through the last tenfold of pairs before there are as few as identities.
        counts = np.geomspace(identities, min(pairs, _RATIO * identities), _GRID).astype(np.int64)
        ranked = np.partition(distance, np.unique(counts) - 1)
        at, rates = ranked[counts - 1], counts / compared
        if at[0] >= at[-1] or at[-1] >= self.low:
            return self
        beyond = self._grid > at[-1]
        return replace(
            self,
            low=float(at[0]),
            low_rate=float(rates[0]),
            scale=float((at[-1] - at[0]) / math.log(rates[-1] / rates[0])),
            _grid=np.concatenate([at, self._grid[beyond]]),
            _log_rates=np.maximum.accumulate(
                np.log(np.concatenate([rates, np.exp(self._log_rates[beyond])]))
            ),
        )


def chance_of(evidence: Evidence) -> Chance:
    """Return what the evidence says about chance hits, however small their distance."""
    low_target = min(1.0, max(_LOW_RATE, evidence.smallest_fmr))
    high_target = min(1.0, _RATIO * low_target)
    high, low = evidence.threshold_for(high_target), evidence.threshold_for(low_target)
    high_rate, low_rate = evidence.fmr(high) or 0.0, evidence.fmr(low) or 0.0
    bound = evidence.fmr_upper95(high) or 1.0
    if not 0.0 < low_rate < high_rate or low >= high:
        # Too few trials for a slope: the bound of the rate that they do support, however close the pair.
        flat = max(high_rate, bound, evidence.smallest_fmr)
        grid = np.array([high])
        return Chance(high, high, math.inf, flat, flat, 1.0, 0, 0.0, grid, np.log([flat]))
    grid = np.linspace(low, high, _GRID)
    rates = np.array([evidence.fmr(float(at)) or low_rate for at in grid])
    scale = (high - low) / math.log(high_rate / low_rate)
    excess_at = low + scale * math.log(1.0 / (evidence.nonmated_total * low_rate))
    excess = evidence.false_matches(excess_at) or 0
    upper = max(1.0, bound / high_rate)
    return Chance(
        high, low, scale, high_rate, low_rate, upper, excess, max(0.0, excess_at), grid, np.log(rates)
    )
