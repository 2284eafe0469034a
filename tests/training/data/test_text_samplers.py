"""Samplers of given pairs and of pairs of two kinds: balanced, complete, a function of seed and step."""

from collections import Counter

import numpy as np
import pytest

from training.data.errors import DataError
from training.data.text_samplers import CrossPairSampler, GivenPairs, balanced_cross_pairs

SAME = np.array([True] * 5 + [False] * 3)
LEFT = np.repeat(np.arange(4), 5)
RIGHT = np.array([0, 1, 1, 2, 3, 3, 3])


def test_given_pairs_are_half_mated_and_keep_their_rows_together() -> None:
    sampler = GivenPairs(SAME, 4, seed=1)
    for step in range(20):
        pairs = sampler(step)
        assert pairs.same.sum() == 2
        assert np.array_equal(pairs.left, pairs.right)
        assert np.array_equal(SAME[pairs.left], pairs.same)


def test_every_given_pair_of_a_kind_comes_once_before_one_comes_again() -> None:
    sampler = GivenPairs(SAME, 2, seed=1)
    drawn = [sampler(step) for step in range(15)]
    mated = [int(pairs.left[pairs.same][0]) for pairs in drawn]
    others = [int(pairs.left[~pairs.same][0]) for pairs in drawn]
    assert all(sorted(mated[start : start + 5]) == [0, 1, 2, 3, 4] for start in (0, 5, 10))
    assert all(sorted(others[start : start + 3]) == [5, 6, 7] for start in range(0, 15, 3))
    assert mated[:5] != mated[5:10]


@pytest.mark.parametrize("sampler", [GivenPairs(SAME, 4, 3), CrossPairSampler(LEFT, RIGHT, 4, 3)])
def test_a_step_has_the_same_pairs_whatever_was_drawn_before(
    sampler: GivenPairs | CrossPairSampler,
) -> None:
    later = sampler(7)
    sampler(0)
    again = sampler(7)
    assert np.array_equal(later.left, again.left)
    assert np.array_equal(later.right, again.right)
    assert not np.array_equal(later.left, sampler(8).left)


def test_odd_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        GivenPairs(SAME, 3, 1)
    with pytest.raises(ValueError, match="even"):
        CrossPairSampler(LEFT, RIGHT, 3, 1)


def test_given_pairs_of_one_kind_are_refused() -> None:
    with pytest.raises(DataError, match="one kind"):
        GivenPairs(np.ones(4, np.bool_), 2, 1)


def test_cross_pairs_are_mated_where_both_kinds_show_one_subject() -> None:
    sampler = CrossPairSampler(LEFT, RIGHT, 8, seed=2)
    for step in range(50):
        pairs = sampler(step)
        assert pairs.same.sum() == 4
        assert np.array_equal(LEFT[pairs.left] == RIGHT[pairs.right], pairs.same)


def test_all_other_subjects_are_equally_likely_in_a_non_mated_pair() -> None:
    sampler = CrossPairSampler(LEFT, RIGHT, 100, seed=2)
    drawn = [sampler(step) for step in range(200)]
    counts = Counter(
        (int(LEFT[left]), int(RIGHT[right]))
        for pairs in drawn
        for left, right in zip(pairs.left[~pairs.same], pairs.right[~pairs.same], strict=True)
    )
    assert len(counts) == 12
    assert max(counts.values()) < 1.25 * min(counts.values())


def test_every_left_sample_is_in_as_many_test_pairs() -> None:
    pairs = balanced_cross_pairs(LEFT, RIGHT, 80, seed=4)
    assert pairs.same.sum() == 40
    assert np.array_equal(LEFT[pairs.left] == RIGHT[pairs.right], pairs.same)
    for kind in (pairs.same, ~pairs.same):
        assert np.bincount(pairs.left[kind], minlength=20).tolist() == [2] * 20


def test_subject_that_the_right_kind_lacks_is_refused() -> None:
    with pytest.raises(DataError, match="both kinds of every subject"):
        CrossPairSampler(LEFT, RIGHT[RIGHT != 2], 4, 1)
