"""95 % confidence bounds of error rates whose trials share subjects.

Subjects are the independent units. Two trials that share a person are dependent, so the false match rate over
all pairs is a U-statistic of degree two over subjects; its variance is estimated by leaving out one subject
at a time (the jackknife, which errs on the large side for U-statistics: Efron and Stein, 1981), turned into
an effective number of independent trials, and put into Wilson's score bound. That variance is itself an
estimate, and a poor one where a few people carry most of the errors, so the bound takes Student's quantile
with as many degrees of freedom as subjects carry it (Satterthwaite, 1946) instead of the normal one. With
no error seen it is the rule of three on units that share no subject.

Source: Fogliato, Patil, Perona (2024), "Confidence Intervals for Error Rates in 1:1 Matching Tasks",
International Journal of Computer Vision, which recommends Wilson's interval with such a variance.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

_Z95_ONE_SIDED: Final = 1.6448536269514722
_Z95_TWO_SIDED: Final = 1.959963984540054
_T95_BY_FREEDOM: Final = {
    1: 6.314, 1.5: 3.705, 2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 6: 1.943, 8: 1.860, 12: 1.782, 20: 1.725,
    30: 1.697,
}  # fmt: skip
"""Student's one-sided 95 % quantile by degrees of freedom."""


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
        return rule_of_three(subjects // 2)
    pairs = subjects * (subjects - 1) / 2.0
    remaining = (subjects - 1) * (subjects - 2) / 2.0 * (trials / pairs)
    left_out = (total - false_matches_by_subject) / remaining
    # However alike the images of two people match, there are no more independent trials than pairs of people.
    return jackknife_upper(total / trials, left_out, at_most=min(pairs, float(trials)))


def jackknife_upper(rate: float, left_out: NDArray[np.float64], *, at_most: float) -> float:
    """Return a 95 % upper bound of a rate from the rates without each subject in turn.

    Args:
        rate: Over all subjects, above 0.
        left_out: float64[S], the rate without each subject.
        at_most: Independent trials that the trials can be worth at most.
    """
    if rate >= 1.0:
        return 1.0
    variance, carriers = _jackknife(left_out)
    effective = min(rate * (1.0 - rate) / variance if variance > 0.0 else at_most, at_most)
    return wilson_upper(rate, effective, quantile=_t95(carriers - 1.0))


def clustered_interval(errors: NDArray[np.int64], trials: NDArray[np.int64]) -> tuple[float, float]:
    """Return a two-sided 95 % interval of an error rate whose trials belong to one subject each.

    Args:
        errors: int64[S], errors in the trials of each subject.
        trials: int64[S], trials of each subject; those without any do not count.

    Returns:
        Ends of Wilson's interval for as many independent trials as the subjects' differences say, with the
        normal quantile widened to Student's. All errors or none: one trial a subject.

    >>> clustered_interval(np.array([0, 0, 0, 0]), np.array([9, 9, 9, 9]))[0]
    0.0
    """
    took_part = trials > 0
    errors, trials = errors[took_part], trials[took_part]
    total, count = int(errors.sum()), int(trials.sum())
    if total in {0, count} or trials.size < 2:
        return wilson_interval(total / count, float(trials.size))
    return jackknife_interval(total / count, (total - errors) / (count - trials), at_most=float(count))


def jackknife_interval(rate: float, left_out: NDArray[np.float64], *, at_most: float) -> tuple[float, float]:
    """Return a two-sided 95 % interval of a rate from the rates without each subject in turn.

    Args:
        rate: Over all subjects, above 0 and below 1.
        left_out: float64[S], the rate without each subject.
        at_most: Independent trials that the trials can be worth at most.
    """
    variance, carriers = _jackknife(left_out)
    effective = min(rate * (1.0 - rate) / variance if variance > 0.0 else at_most, at_most)
    return _wilson(rate, effective, _Z95_TWO_SIDED * _t95(carriers - 1.0) / _Z95_ONE_SIDED)


def rule_of_three(units: int) -> float:
    """Return the 95 % upper bound of a rate of which no error was seen in independent units."""
    return min(1.0, 3.0 / units) if units else 1.0


def wilson_interval(rate: float, trials: float) -> tuple[float, float]:
    """Return Wilson's two-sided 95 % interval of a proportion seen in a number of independent trials.

    Args:
        rate: Proportion seen, 0 to 1.
        trials: Above 0; need not be a whole number.

    >>> round(wilson_interval(0.5, 100)[0], 4)
    0.4038
    """
    return _wilson(rate, trials, _Z95_TWO_SIDED)


def wilson_upper(rate: float, trials: float, *, quantile: float = _Z95_ONE_SIDED) -> float:
    """Return Wilson's one-sided 95 % upper bound for a proportion seen in a number of trials.

    Args:
        rate: Proportion seen.
        trials: Independent trials; need not be a whole number.
        quantile: How many standard errors the bound lies above; larger where their size is uncertain.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    return _wilson(rate, trials, quantile)[1]


def _jackknife(left_out: NDArray[np.float64]) -> tuple[float, float]:
    """Return the variance of a rate, and how many subjects carry it.

    The number is Satterthwaite's: all subjects when all deviate alike, one when one alone deviates.
    """
    squares = np.square(left_out - left_out.mean())
    total = float(squares.sum())
    carriers = total**2 / float(np.square(squares).sum()) if total > 0.0 else math.inf
    return (left_out.size - 1) / left_out.size * total, carriers


def _t95(freedom: float) -> float:
    """Return Student's one-sided 95 % quantile; nearly linear in one over the degrees of freedom."""
    table = sorted((1.0 / known, value) for known, value in _T95_BY_FREEDOM.items())
    at, values = zip((0.0, _Z95_ONE_SIDED), *table, strict=True)
    return float(np.interp(1.0 / max(freedom, 1.0), at, values))


def _wilson(rate: float, trials: float, quantile: float) -> tuple[float, float]:
    z2 = quantile**2
    centre = rate + z2 / (2.0 * trials)
    spread = quantile * math.sqrt(rate * (1.0 - rate) / trials + z2 / (4.0 * trials * trials))
    scale = 1.0 + z2 / trials
    # It always holds the rate; rounding must not say otherwise, nor leave 0 to 1.
    return max(0.0, min(rate, (centre - spread) / scale)), min(1.0, max(rate, (centre + spread) / scale))
