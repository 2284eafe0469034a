"""95 % intervals of error rates when trials share subjects.

Trials that share a subject are dependent: someone whose photos are hard is hard in every trial. An interval
that takes trials for independent is then too narrow. So subjects are resampled, not trials: S are drawn
from the S there are with replacement, a mated trial counts as often as its subject was drawn, a non-mated
trial as often as the product of its two subjects' counts (Owen's pigeonhole bootstrap, with one set of
pigeons on both sides). The rate is measured anew in each resample, and the variance of these rates says how
many independent trials the trials are worth; Wilson's score interval for that number is the answer. Where
all trials agree there is no variance: then only trials that share no subject with one another count.

The product counts err on the wide side: where each subject is in few non-mated trials, as in LFW's lists,
their intervals are up to 1.7 times as wide as they need to be; where all are compared with all, they are not.

Trials that come in clusters (one-shot trials of one run, or one alphabet) need no resampling: the variance of
their rate follows from how the clusters differ. Clusters are few, so that variance is itself uncertain, and
the number of trials is lowered by the square of the normal over Student's quantile.

Sources: Owen (2007), "The pigeonhole bootstrap", Annals of Applied Statistics 1(2); Fogliato, Patil, Perona
(2024), "Confidence Intervals for Error Rates in 1:1 Matching Tasks", IJCV, which recommends Wilson's
interval with a variance that knows of shared subjects; Wilson (1927), JASA 22; Korn, Graubard (1998),
"Confidence intervals for proportions with small expected number of positive counts estimated from survey
data", Survey Methodology 24(2), for the clusters.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.matching import bounds

_Z95_TWO_SIDED: Final = 1.959963984540054
_T95_BY_FREEDOM: Final = {
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 8: 2.306, 10: 2.228, 15: 2.131, 20: 2.086,
    30: 2.042, 60: 2.000, math.inf: _Z95_TWO_SIDED,
}  # fmt: skip
"""Student's two-sided 95 % quantile by degrees of freedom."""


class Interval(NamedTuple):
    """Ends of a two-sided 95 % interval of a proportion; either end alone holds with 97.5 %."""

    lower95: float
    upper95: float


def resample_subjects(rng: np.random.Generator, subjects: int, resamples: int) -> NDArray[np.int64]:
    """Return how often each subject is drawn in each resample.

    Returns:
        int64[resamples, subjects]; each row sums to the number of subjects.
    """
    draws = rng.integers(subjects, size=(resamples, subjects))
    rows = np.arange(resamples)[:, None] * subjects
    return np.bincount((draws + rows).ravel(), minlength=resamples * subjects).reshape(resamples, subjects)


def mated_weights(counts: NDArray[np.int64], subject: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return int64[resamples, M], how often each mated trial counts: as often as its subject.

    Args:
        counts: int64[resamples, subjects].
        subject: int[M], the subject of each trial.
    """
    return counts.take(subject, axis=1)


def nonmated_weights(counts: NDArray[np.int64], subjects: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return int64[resamples, K], how often each non-mated trial counts: its subjects' product.

    Args:
        counts: int64[resamples, subjects].
        subjects: int[K, 2], the two subjects of each trial.
    """
    return counts.take(subjects[:, 0], axis=1) * counts.take(subjects[:, 1], axis=1)


def resampled_interval(
    rate: float, resampled: NDArray[np.float64], *, trials: int, independent: int
) -> Interval:
    """Return the interval of a rate from the rates measured in resamples.

    Args:
        rate: Measured on all trials, 0 to 1.
        resampled: float64[resamples], the same measured in each resample.
        trials: How many trials there are; never taken to be worth more than that.
        independent: How many share no subject with one another; decides when resamples do not differ.
    """
    variance = float(resampled.var(ddof=1)) if resampled.size > 1 else 0.0
    if variance == 0.0 or rate in {0.0, 1.0}:
        return wilson_interval(rate, independent)
    return wilson_interval(rate, min(rate * (1.0 - rate) / variance, trials))


def clustered_interval(errors: NDArray[np.bool_], cluster: NDArray[np.integer]) -> Interval:
    """Return the interval of an error rate when trials of one cluster depend on one another.

    Args:
        errors: bool[T], whether each trial went wrong; at least one trial.
        cluster: int[T], 0 or more, the cluster of each; clusters are independent of one another.

    Returns:
        Wilson's interval for as many independent trials as the clusters' differences say; for as many as
        there are clusters when every trial or none went wrong.

    >>> clustered_interval(np.array([True, True, False, False]), np.array([0, 0, 1, 1])).upper95 > 0.99
    True
    """
    trials_in = np.bincount(cluster)
    errors_in = np.bincount(cluster, weights=errors)[trials_in > 0]
    trials_in = trials_in[trials_in > 0]
    clusters, rate = trials_in.size, float(errors.mean())
    if rate in {0.0, 1.0} or clusters < 2:
        return wilson_interval(rate, clusters)
    excess = errors_in - rate * trials_in
    variance = clusters / (clusters - 1) * float(np.square(excess).sum()) / errors.size**2
    worth = min(rate * (1.0 - rate) / variance, errors.size) if variance > 0.0 else float(errors.size)
    return wilson_interval(rate, worth * (_Z95_TWO_SIDED / student_quantile(clusters - 1)) ** 2)


def jackknife_interval(
    *,
    errors: int,
    trials: int,
    errors_without: NDArray[np.int64],
    trials_without: NDArray[np.int64],
    worth_at_most: int,
    independent: int,
) -> Interval:
    """Return the interval of an error rate from what it would be without each subject.

    Args:
        errors: Trials that went wrong.
        trials: All of them, at least one.
        errors_without: int64[S], errors left when a subject takes no part, on any side of a trial.
        trials_without: int64[S], trials left.
        worth_at_most: Independent trials that the trials can be worth at most.
        independent: How many they are worth when every trial or none went wrong.

    Source: the jackknife's variance of a statistic of subjects, Efron and Stein (1981), Annals of
        Statistics 9; it errs on the large side.
    """
    rate = errors / trials
    left = trials_without > 0
    without = errors_without[left] / trials_without[left]
    if errors in {0, trials} or without.size < 2:
        return wilson_interval(rate, independent)
    variance = (without.size - 1) / without.size * float(np.square(without - without.mean()).sum())
    worth = min(rate * (1.0 - rate) / variance, worth_at_most) if variance > 0.0 else float(worth_at_most)
    return wilson_interval(rate, worth * (_Z95_TWO_SIDED / student_quantile(without.size - 1)) ** 2)


def student_quantile(freedom: float) -> float:
    """Return Student's two-sided 95 % quantile, at most 1 % too large between tabulated degrees of freedom.

    Args:
        freedom: Degrees of freedom, 1 or more.
    """
    # Nearly straight in 1 / freedom, and convex, so that interpolation errs on the large side.
    inverse = [1.0 / entry for entry in _T95_BY_FREEDOM]
    return float(np.interp(1.0 / freedom, inverse[::-1], list(_T95_BY_FREEDOM.values())[::-1]))


def wilson_interval(rate: float, trials: float) -> Interval:
    """Return Wilson's two-sided 95 % interval of a proportion seen in a number of independent trials.

    Args:
        rate: Proportion seen, 0 to 1.
        trials: Above 0; need not be a whole number.

    >>> wilson_interval(0.5, 100).lower95.__round__(4)
    0.4038
    """
    return Interval(*bounds.wilson_interval(rate, trials))


def disjoint_pairs(subjects: NDArray[np.integer]) -> int:
    """Count pairs, taken greedily in their order, that share no subject with one taken before.

    Args:
        subjects: int[K, 2], the two subjects of each pair.

    >>> disjoint_pairs(np.array([[0, 1], [1, 2], [2, 3]]))
    2
    """
    taken: set[int] = set()
    count = 0
    for first, second in subjects.tolist():
        if first not in taken and second not in taken:
            taken.update((first, second))
            count += 1
    return count
