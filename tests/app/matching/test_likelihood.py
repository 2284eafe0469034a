"""Likelihood ratios: by hand, against the law they come from, and within what subjects can show."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from app.matching.evidence import Evidence, Histogram
from app.matching.likelihood import LikelihoodRatio, fit


def test_levels_pool_where_the_share_would_rise() -> None:
    # Shares of mated trials by cell: 4/5, 2/10 and 3/6 pool to 5/16 of equal weights, then 0.
    ratio = fit(
        np.array([0.0, 1.0, 2.0, 3.0, 4.0]),
        np.array([4.0, 2.0, 3.0, 1.0]),
        np.array([1.0, 8.0, 3.0, 8.0]),
        smallest=1e-3,
        largest=1e3,
    )
    assert ratio.at(0.5) == pytest.approx((4 / 10) / (1 / 20))
    assert ratio.at(2.0) == pytest.approx((5 / 10) / (11 / 20))
    assert ratio.at(3.5) == pytest.approx((1 / 10) / (8 / 20))


def test_ratio_is_held_within_its_limits() -> None:
    ratio = fit(
        np.array([0.0, 1.0, 2.0]), np.array([5.0, 0.0]), np.array([0.0, 9.0]), smallest=0.1, largest=50
    )
    assert ratio.at(0.0) == pytest.approx(50)
    assert ratio.at(2.0) == pytest.approx(0.1)


def test_probability_is_bayes_rule() -> None:
    ratio = LikelihoodRatio(np.array([0.0, 1.0]), np.array([math.log(9.0), math.log(9.0)]))
    assert ratio.probability(0.3, 0.5) == pytest.approx(0.9)
    assert ratio.probability(0.3, 0.1) == pytest.approx(0.5)


def test_ratio_of_a_known_law_is_found() -> None:
    # Mated at normal (0.8, 0.1), non-mated at normal (1.2, 0.1): log ratio 40 - 40 d, that is 0 half-way.
    rng = np.random.default_rng(0)
    mated = rng.normal(0.8, 0.1, 40_000)
    nonmated = np.sort(rng.normal(1.2, 0.1, 400_000))
    edges = np.linspace(0.0, 2.0, 513)
    counts, _ = np.histogram(nonmated, edges)
    subject = np.arange(4000, dtype=np.int32).repeat(10)
    evidence = Evidence(
        mated_distance=mated,
        mated_subject=subject,
        nonmated_distance=nonmated[:5000],
        nonmated_subjects=np.tile(np.array([[0, 1]], np.int32), (5000, 1)),
        nonmated_total=400_000,
        subjects=4000,
        histogram=Histogram(edges, counts),
    )
    ratio = evidence.likelihood_ratio
    assert ratio is not None
    for distance in (0.9, 0.95, 1.0, 1.05, 1.1):
        assert math.log(ratio.at(distance)) == pytest.approx(40 - 40 * distance, abs=0.25)


def test_ratio_never_rises_with_distance() -> None:
    rng = np.random.default_rng(1)
    ratio = fit(
        np.linspace(0, 1, 31),
        rng.integers(0, 5, 30).astype(float),
        rng.integers(0, 5, 30).astype(float),
        smallest=1e-2,
        largest=1e2,
    )
    values = [ratio.at(distance) for distance in np.linspace(-0.1, 1.1, 100)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(values))
