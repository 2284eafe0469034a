"""Samplers: what a batch holds, how evenly, and that it depends on seed and step alone."""

from collections import Counter

import numpy as np
import pytest

from training.data.errors import DataError
from training.data.samplers import (
    FixedPairs,
    LabelConvention,
    Pairs,
    PairSampler,
    PKSampler,
    TripletSampler,
    balanced_pairs,
    same_from_labels,
)

LABELS = np.repeat(np.arange(6), [5, 1, 3, 2, 8, 4])
"""Subject 1 has a single image."""
SHUFFLED = np.random.default_rng(0).permutation(LABELS)


def check_pairs(pairs: Pairs, labels: np.ndarray) -> None:
    """Every pair is what it says, and no image is paired with itself."""
    assert (pairs.same == (labels[pairs.left] == labels[pairs.right])).all()
    assert (pairs.left != pairs.right).all()
    assert pairs.left.dtype == pairs.right.dtype == np.int32


def test_the_two_conventions_are_opposites() -> None:
    assert same_from_labels([0, 1, 1], LabelConvention.ONE_IS_SAME).tolist() == [False, True, True]
    assert same_from_labels([0.0, 1.0], LabelConvention.ONE_IS_DIFFERENT).tolist() == [True, False]


def test_booleans_have_no_convention() -> None:
    with pytest.raises(TypeError, match="already"):
        same_from_labels([True, False], LabelConvention.ONE_IS_DIFFERENT)


@pytest.mark.parametrize("values", [[0, 2], [-1, 1], [0.5, 1.0]])
def test_labels_beside_0_and_1_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        same_from_labels(values, LabelConvention.ONE_IS_SAME)


def test_pairs_with_numbers_for_same_are_refused() -> None:
    index = np.zeros(2, np.int32)
    with pytest.raises(TypeError, match="same_from_labels"):
        Pairs(index, index, np.array([0, 1]))


def test_pk_batch_has_p_subjects_with_k_different_images_side_by_side() -> None:
    labels = np.repeat(np.arange(9), 7)
    sampler = PKSampler(labels, 4, 3, seed=5)
    for step in range(50):
        batch = sampler(step)
        assert batch.dtype == np.int32
        assert len(set(batch.tolist())) == 12
        rows = labels[batch].reshape(4, 3)
        assert (rows == rows[:, :1]).all()
        assert len(set(rows[:, 0])) == 4


def test_pk_takes_every_subject_once_before_any_comes_again() -> None:
    labels = np.repeat(np.arange(9), 2)
    sampler = PKSampler(labels, 3, 2, seed=0)
    for turn in range(5):
        seen = np.concatenate([labels[sampler(step)] for step in range(3 * turn, 3 * turn + 3)])
        assert sorted(seen) == sorted(labels)


def test_pk_repeats_the_images_of_a_small_subject_evenly() -> None:
    batch = PKSampler(SHUFFLED, 5, 4, seed=0)(0)
    rows = {SHUFFLED[row[0]]: Counter(row.tolist()) for row in batch.reshape(5, 4)}
    assert set(rows) == {0, 2, 3, 4, 5}
    assert sorted(rows[3].values()) == [2, 2]
    assert sorted(rows[2].values()) == [1, 1, 2]
    assert sorted(rows[5].values()) == [1, 1, 1, 1]


def test_pk_draws_all_images_of_a_subject_equally_often() -> None:
    labels = np.repeat(np.arange(2), [5, 3])
    sampler = PKSampler(labels, 2, 3, seed=1)
    drawn = Counter(np.concatenate([sampler(step) for step in range(2000)]).tolist())
    # Image of the first subject: 3/5 of 2000 steps, standard deviation 22; of the second: every step.
    assert all(abs(drawn[image] - 1200) < 100 for image in range(5))
    assert all(drawn[image] == 2000 for image in (5, 6, 7))


def test_pk_with_one_image_each_takes_single_images_too() -> None:
    assert set(SHUFFLED[PKSampler(SHUFFLED, 6, 1, seed=0)(0)]) == set(range(6))


def test_pk_refuses_more_subjects_than_have_two_images() -> None:
    with pytest.raises(DataError, match="takes 6 subjects and the data has 5 with two images"):
        PKSampler(SHUFFLED, 6, 2, seed=0)


def test_pair_batch_is_half_mated_half_not() -> None:
    sampler = PairSampler(SHUFFLED, 32, seed=0)
    for step in range(30):
        pairs = sampler(step)
        check_pairs(pairs, SHUFFLED)
        assert pairs.same.sum() == 16


def test_pairs_come_in_random_order() -> None:
    orders = {tuple(PairSampler(SHUFFLED, 8, seed=0)(step).same) for step in range(30)}
    assert len(orders) > 10


def test_mated_pairs_take_subjects_and_ordered_pairs_equally_often() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    sampler = PairSampler(labels, 200, seed=0)
    counts: Counter[tuple[int, int]] = Counter()
    for step in range(60):
        pairs = sampler(step)
        counts.update(zip(pairs.left[pairs.same].tolist(), pairs.right[pairs.same].tolist(), strict=True))
    # 6000 mated pairs: 3000 a subject, over 6 ordered pairs of three images and 2 of two.
    assert len(counts) == 8
    assert all(abs(counts[a, b] - 500) < 90 for a in range(3) for b in range(3) if a != b)
    assert all(abs(counts[a, b] - 1500) < 150 for a, b in ((3, 4), (4, 3)))


def test_non_mated_pairs_take_all_pairs_of_subjects_equally_often() -> None:
    labels = np.repeat(np.arange(4), [1, 10, 2, 4])
    sampler = PairSampler(labels, 200, seed=0)
    counts: Counter[tuple[int, int]] = Counter()
    for step in range(120):
        pairs = sampler(step)
        left, right = labels[pairs.left[~pairs.same]], labels[pairs.right[~pairs.same]]
        counts.update(zip(left.tolist(), right.tolist(), strict=True))
    assert len(counts) == 12
    assert all(abs(count - 1000) < 130 for count in counts.values())


@pytest.mark.parametrize("batch", [0, 7])
def test_batch_that_has_no_halves_is_refused(batch: int) -> None:
    with pytest.raises(ValueError, match="even number"):
        PairSampler(SHUFFLED, batch, seed=0)


@pytest.mark.parametrize(
    ("labels", "reason"), [([0, 1, 2], "no subject has two images"), ([0, 0, 0], "one subject")]
)
def test_labels_without_mated_or_non_mated_pairs_are_refused(labels: list[int], reason: str) -> None:
    for sampler in (PairSampler, TripletSampler):
        with pytest.raises(DataError, match=reason):
            sampler(np.array(labels), 2, seed=0)


def test_triplet_is_anchor_another_image_of_it_and_a_stranger() -> None:
    sampler = TripletSampler(SHUFFLED, 64, seed=0)
    for step in range(20):
        anchor, positive, negative = sampler(step).T
        assert (SHUFFLED[anchor] == SHUFFLED[positive]).all()
        assert (anchor != positive).all()
        assert (SHUFFLED[anchor] != SHUFFLED[negative]).all()


def test_labels_may_have_gaps() -> None:
    labels = np.array([3, 3, 9, 9])
    check_pairs(PairSampler(labels, 20, seed=0)(0), labels)


def test_a_step_is_the_same_whatever_came_before_it() -> None:
    pairs = balanced_pairs(SHUFFLED, 20, 20, seed=0)
    makers = (
        lambda: PKSampler(SHUFFLED, 4, 3, seed=9),
        lambda: TripletSampler(SHUFFLED, 12, seed=9),
    )
    for make in makers:
        used = make()
        in_order = [used(step) for step in range(20)]
        assert all(np.array_equal(make()(step), in_order[step]) for step in (0, 7, 19, 3))
        assert not np.array_equal(in_order[0], in_order[1])
    for make_pairs in (lambda: PairSampler(SHUFFLED, 12, seed=9), lambda: FixedPairs(pairs, 12, seed=9)):
        walked = make_pairs()
        passed = [walked(step) for step in range(20)]
        for step in (0, 7, 19, 3):
            fresh = make_pairs()(step)
            assert np.array_equal(fresh.left, passed[step].left)
            assert np.array_equal(fresh.right, passed[step].right)
            assert np.array_equal(fresh.same, passed[step].same)
        assert not np.array_equal(passed[0].left, passed[1].left)


def test_another_seed_gives_other_batches() -> None:
    assert not np.array_equal(TripletSampler(SHUFFLED, 12, 0)(0), TripletSampler(SHUFFLED, 12, 1)(0))


def test_fixed_pairs_come_once_an_epoch_in_a_new_order() -> None:
    pairs = balanced_pairs(SHUFFLED, 10, 10, seed=0)
    numbered = Pairs(np.arange(20, dtype=np.int32), pairs.right, pairs.same)
    sampler = FixedPairs(numbered, 5, seed=2)
    epochs = [np.concatenate([sampler(4 * epoch + step).left for step in range(4)]) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()


def test_fixed_pairs_refuse_a_batch_larger_than_the_list() -> None:
    with pytest.raises(DataError, match="takes 9 pairs and there are 8"):
        FixedPairs(balanced_pairs(SHUFFLED, 4, 4, seed=0), 9, seed=0)


def test_balanced_pairs_have_every_image_on_the_left_equally_often() -> None:
    pairs = balanced_pairs(SHUFFLED, 66, 69, seed=0)
    check_pairs(pairs, SHUFFLED)
    assert (pairs.same.sum(), (~pairs.same).sum()) == (66, 69)
    assert set(Counter(pairs.left[pairs.same].tolist()).values()) == {3}  # 22 of 23 images have a mate
    assert set(Counter(pairs.left[~pairs.same].tolist()).values()) == {3}


def test_balanced_pairs_of_one_kind_need_only_that_kind() -> None:
    assert balanced_pairs(np.array([0, 1, 2]), 0, 5, seed=0).same.tolist() == [False] * 5
    with pytest.raises(DataError, match="no subject has two images"):
        balanced_pairs(np.array([0, 1, 2]), 1, 5, seed=0)
