"""False discovery rates, their local form and the Poisson tail, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.matching.many_tests import falling_density, false_discovery_rates, local_rates, poisson_tail

VALUES = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=20)


def test_rate_of_a_test_is_that_of_the_best_list_it_is_on() -> None:
    # 10 tests: 0.02 alone would be 0.2, but with 0.021 there are two at 0.105 each.
    assert false_discovery_rates(np.array([0.021, 0.02]), 10).tolist() == pytest.approx([0.105, 0.105])


def test_rates_come_in_the_order_of_the_values_given() -> None:
    assert false_discovery_rates(np.array([0.5, 0.001]), 2).tolist() == pytest.approx([0.5, 0.002])


def test_density_is_the_slope_of_the_least_concave_majorant() -> None:
    # Half the mass by 0.1, a quarter more by 0.2, the last quarter at 1.
    density = falling_density(np.array([0.1, 0.1, 0.2]), 4)
    assert density.tolist() == pytest.approx([5.0, 5.0, 2.5])


def test_density_of_values_that_lie_evenly_is_one_everywhere() -> None:
    assert falling_density(np.linspace(0.1, 1.0, 10), 10).tolist() == pytest.approx([1.0] * 10)


def test_a_doubtful_value_does_not_gain_from_clear_ones() -> None:
    p = np.array([1e-9] * 30 + [2e-3])
    # Thirty clear findings let the list with the doubtful one pass at a rate of 0.1.
    assert false_discovery_rates(p, 1000)[-1] < 0.1
    assert local_rates(p, 1000)[-1] > 0.5


@given(VALUES)
def test_local_rate_never_falls_with_the_value(values: list[float]) -> None:
    local = local_rates(np.sort(values), 2 * len(values))
    assert (np.diff(local) >= -1e-12).all()
    assert ((local >= 0.0) & (local <= 1.0)).all()


@pytest.mark.parametrize(("count", "mean"), [(1, 0.3), (5, 0.3), (2, 7.5), (7, 7.5), (30, 7.5), (120, 100.0)])
def test_poisson_tail_is_the_sum_of_its_terms(count: int, mean: float) -> None:
    terms = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count, count + 400)]
    assert poisson_tail(count, mean) == pytest.approx(math.fsum(terms), rel=1e-9)


def test_poisson_tail_at_its_ends() -> None:
    assert poisson_tail(0, 0.0) == 1.0
    assert poisson_tail(1, 0.0) == 0.0
