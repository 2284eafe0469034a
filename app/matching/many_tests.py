"""Decisions about many tests at once: what share of those found is chance, and how likely a single one is.

Two figures for each test, because they answer two questions. The false discovery rate (Benjamini and
Hochberg, 1995) is the expected share of chance among a test and all that are more extreme; it keeps a clean
gallery from being accused. The local one (Efron and others, 2001) is the probability that this very test is
chance; it keeps a few clear findings from dragging doubtful ones in with them. The local one needs the
density of the p-values, which falls when only small ones are in excess: its maximum likelihood estimate is
the slope of the least concave majorant of their distribution function (Grenander, 1956; used so by Strimmer,
2008, "A unified approach to false discovery rate estimation"). All tests count as chance in the denominator,
which errs on the side of saying so.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def false_discovery_rates(p: NDArray[np.float64], tests: float) -> NDArray[np.float64]:
    """Return the expected share of chance among the tests with a p-value at most that of each.

    Args:
        p: float64[K], the smallest p-values in any order; every smaller one is among them.
        tests: Number of tests in all, at least K.

    >>> false_discovery_rates(np.array([0.03, 0.001, 0.9]), 10).round(3).tolist()
    [0.15, 0.01, 1.0]
    """
    order = np.argsort(p, kind="stable")
    rates = np.minimum(1.0, tests * p[order] / np.arange(1, p.size + 1))
    result = np.empty_like(rates)
    result[order] = np.minimum.accumulate(rates[::-1])[::-1]
    return result


def local_rates(p: NDArray[np.float64], tests: float) -> NDArray[np.float64]:
    """Return the probability that each test is chance; arguments as of ``false_discovery_rates``.

    >>> local_rates(np.array([0.001, 0.002, 0.5]), 4).round(3).tolist()
    [0.004, 0.004, 1.0]
    """
    return np.minimum(1.0, 1.0 / np.maximum(falling_density(p, tests), 1e-300))


def falling_density(p: NDArray[np.float64], tests: float) -> NDArray[np.float64]:
    """Return the density of values on 0..1 at each of the K smallest, given that it falls.

    It is the slope of the least concave majorant of the distribution function, 1 on average.
    """
    values, where, counts = np.unique(np.maximum(p, 1e-300), return_inverse=True, return_counts=True)
    rest = max(0.0, tests - p.size)
    if values.size and values[-1] >= 1.0:
        widths, masses = np.diff(values, prepend=0.0), counts / tests
    else:
        widths = np.diff(np.append(values, 1.0), prepend=0.0)
        masses = np.append(counts, rest) / tests
    # Pool adjacent violators: blocks of (width, mass, members) whose mass per width falls.
    blocks: list[tuple[float, float, int]] = []
    for width, mass in zip(widths.tolist(), masses.tolist(), strict=True):
        block = (width, mass, 1)
        while blocks and blocks[-1][1] * block[0] <= block[1] * blocks[-1][0]:
            last = blocks.pop()
            block = (last[0] + block[0], last[1] + block[1], last[2] + block[2])
        blocks.append(block)
    slopes = np.repeat([mass / width for width, mass, _ in blocks], [members for _, _, members in blocks])
    return np.asarray(slopes[where])


def poisson_tail(count: int, mean: float) -> float:
    """Return the probability of at least so many events when the mean is expected.

    >>> round(poisson_tail(3, 0.5), 6)
    0.014388
    """
    if count <= 0:
        return 1.0
    if mean <= 0.0:
        return 0.0
    term = math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
    if count <= mean:
        below, term = 0.0, math.exp(-mean)
        for number in range(count):
            below += term
            term *= mean / (number + 1)
        return max(0.0, 1.0 - below)
    total, number = 0.0, count
    while term > total * 1e-17:
        total += term
        number += 1
        term *= mean / number
    return min(1.0, total)
