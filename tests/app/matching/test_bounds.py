"""The upper bound of a false match rate: by hand, in order, and how often it holds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.matching.bounds import _t95, upper_bound, wilson_upper


@pytest.mark.parametrize(
    ("subjects", "bound"), [(300, 3 / 150), (301, 3 / 150), (7, 1.0), (6, 1.0), (3, 1.0)]
)
def test_no_false_match_is_the_rule_of_three_on_pairs_without_a_common_subject(
    subjects: int, bound: float
) -> None:
    assert upper_bound(np.zeros(subjects, np.int64), 10**9) == bound


def test_two_subjects_bound_nothing() -> None:
    assert upper_bound(np.array([3, 3]), 1000) == 1.0


def test_every_pair_matching_gives_the_rate_one() -> None:
    assert upper_bound(np.full(10, 9), 45) == 1.0


@given(st.integers(3, 30), st.data())
def test_bound_is_at_least_the_rate_seen_and_at_most_one(subjects: int, data: st.DataObject) -> None:
    pairs = [(i, j) for i in range(subjects) for j in range(i)]
    matching = data.draw(st.lists(st.sampled_from(pairs), unique=True))
    counts = np.bincount(np.array(matching, int).ravel(), minlength=subjects)
    assert len(matching) / len(pairs) <= upper_bound(counts, len(pairs)) <= 1.0


def test_false_matches_of_one_person_bound_less_well_than_those_of_many() -> None:
    # 20 false matches in 4,950 pairs of 100: all with one person, or each between two others.
    one = np.zeros(100, np.int64)
    one[0], one[1:21] = 20, 1
    many = np.zeros(100, np.int64)
    many[:40] = 1
    assert upper_bound(one, 4950) > 1.5 * upper_bound(many, 4950)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(0.2, 6.314), (1, 6.314), (2, 2.920), (7, 1.895), (10, 1.812), (1e9, 1.645)]
)
def test_few_carriers_of_false_matches_take_students_quantile(freedom: float, quantile: float) -> None:
    assert _t95(freedom) == pytest.approx(quantile, rel=0.005)


def test_more_images_of_the_same_people_hardly_narrow_the_bound() -> None:
    counts = np.zeros(100, np.int64)
    counts[:40] = 1
    once, a_hundred_times = upper_bound(counts, 4950), upper_bound(counts * 100, 495_000)
    assert a_hundred_times == pytest.approx(once, rel=0.01)


@given(st.floats(0, 1), st.floats(1, 1e6))
def test_wilsons_bound_is_the_rate_at_which_the_seen_one_is_just_unlikely(rate: float, trials: float) -> None:
    upper = wilson_upper(rate, trials)
    assert rate <= upper <= 1.0
    # (upper - rate) is 1.645 standard errors of a proportion whose true value is upper.
    error = math.sqrt(upper * (1 - upper) / trials)
    assert upper - rate == pytest.approx(1.6448536 * error, rel=1e-6, abs=1e-7)


class Population(NamedTuple):
    """Shares of the variance of a similarity that are due to what two trials may have in common."""

    subjects: int
    images: int
    each_subject: float
    each_pair: float
    each_image: float


def similarities(rng: np.random.Generator, people: Population) -> NDArray[np.float64]:
    """Draw standard normal similarities float64[pairs, images, images] of all images of all pairs."""
    first, second = np.triu_indices(people.subjects, 1)
    rest = 1.0 - people.each_subject - people.each_pair - people.each_image
    subject = rng.standard_normal(people.subjects) * math.sqrt(people.each_subject / 2)
    pair = rng.standard_normal(first.size) * math.sqrt(people.each_pair)
    image = rng.standard_normal((people.subjects, people.images)) * math.sqrt(people.each_image / 2)
    noise = rng.standard_normal((first.size, people.images, people.images)) * math.sqrt(rest)
    common = subject[first] + subject[second] + pair
    return np.asarray(common[:, None, None] + image[first][:, :, None] + image[second][:, None, :] + noise)


def share_above(similarity: float) -> float:
    return 0.5 * math.erfc(similarity / math.sqrt(2.0))


# Who is compared accounts for none, a fifth or two fifths of the variance; the rest is pair, photos, chance.
@pytest.mark.parametrize(
    ("people", "rate"),
    [
        (Population(60, 4, 0.0, 0.6, 0.2), 0.01),
        (Population(60, 4, 0.2, 0.4, 0.2), 0.01),
        (Population(60, 4, 0.2, 0.4, 0.2), 3 / 1770),
        (Population(100, 3, 0.2, 0.4, 0.2), 0.002),
        (Population(60, 4, 0.4, 0.3, 0.2), 0.01),
    ],
)
def test_bound_holds_about_as_often_as_it_says(people: Population, rate: float) -> None:
    rng = np.random.default_rng(11)
    first, second = np.triu_indices(people.subjects, 1)
    held = 0
    rounds = 400
    for _ in range(rounds):
        drawn = similarities(rng, people)
        # As in use, the threshold is taken from the same trials.
        allowed = math.floor(drawn.size * rate)
        threshold = float(np.partition(drawn, -allowed - 1, axis=None)[-allowed - 1])
        matches = (drawn > threshold).sum(axis=(1, 2))
        counts = np.bincount(first, matches, people.subjects) + np.bincount(second, matches, people.subjects)
        held += share_above(threshold) <= upper_bound(counts.astype(np.int64), drawn.size)
    print(f"\n{people}, rate {rate:.2g}: the 95 % bound held in {held / rounds:.1%} of {rounds} galleries")
    assert held / rounds >= 0.92
