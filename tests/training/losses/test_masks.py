"""Which pairs and triplets count, and the distances between them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from tests.training.losses import plain_loops
from tests.training.losses.batches import LABELS, on_a_grid, spread_out
from training.losses.masks import (
    balanced_mean,
    different_subject,
    euclidean,
    mean_where,
    pairwise_cosine,
    pairwise_euclidean,
    pairwise_squared_euclidean,
    require_equal_shapes,
    require_same,
    same_subject,
    unit,
    valid_triplets,
)


def test_a_sample_is_no_pair_with_itself() -> None:
    assert same_subject([3, 3, 8]).numpy().tolist() == [
        [False, True, False],
        [True, False, False],
        [False, False, False],
    ]


def test_samples_of_other_labels_are_different_subjects() -> None:
    assert different_subject([3, 3, 8]).numpy().tolist() == [
        [False, False, True],
        [False, False, True],
        [True, True, False],
    ]


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_valid_triplets_are_those_of_the_definition(labels: list[int]) -> None:
    valid = valid_triplets(labels).numpy()
    for a, p, n in itertools.product(range(len(labels)), repeat=3):
        assert valid[a, p, n] == (a != p and labels[a] == labels[p] and labels[a] != labels[n])


@pytest.mark.parametrize("embeddings", [spread_out(0), on_a_grid(0)], ids=["spread out", "on a grid"])
def test_pairwise_distances_are_those_of_plain_loops(embeddings: NDArray[np.float64]) -> None:
    plain, squared = pairwise_euclidean(embeddings).numpy(), pairwise_squared_euclidean(embeddings).numpy()
    cosines = pairwise_cosine(embeddings, embeddings[::-1]).numpy()
    for i, j in itertools.product(range(8), repeat=2):
        a, b = embeddings[i], embeddings[j]
        assert plain[i, j] == pytest.approx(plain_loops.distance(a, b), abs=1e-6)
        assert squared[i, j] == pytest.approx(plain_loops.distance(a, b, squared=True), abs=1e-5)
        assert cosines[i, j] == pytest.approx(plain_loops.cosine(a, embeddings[7 - j]), abs=1e-6)


def test_distance_of_nearly_equal_embeddings_keeps_its_digits() -> None:
    step = np.float32(2.0**-20)
    pair = tf.constant([[1.0, 0.0], [1.0 + step, 0.0]])
    assert pairwise_euclidean(pair).numpy()[0, 1] == step


def test_gradient_between_equal_embeddings_is_zero() -> None:
    embeddings = tf.constant([[1.0, 2.0], [1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        total = tf.reduce_sum(pairwise_euclidean(embeddings))
    assert tape.gradient(total, embeddings).numpy().tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_gradient_of_the_distance_is_the_direction() -> None:
    left = tf.constant([[3.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(left)
        total = tf.reduce_sum(euclidean(left, tf.constant([[0.0, 0.0]])))
    assert tape.gradient(total, left).numpy() == pytest.approx(np.array([[0.6, 0.8]]))


def test_distance_to_an_embedding_that_is_no_number_is_no_number() -> None:
    assert np.isnan(euclidean([np.nan, 0.0], [1.0, 0.0]).numpy())


def test_zero_vector_stays_zero_with_a_finite_gradient() -> None:
    vectors = tf.constant([[0.0, 0.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        units = unit(vectors)
        total = tf.reduce_sum(units)
    assert units.numpy() == pytest.approx(np.array([[0.0, 0.0], [0.6, 0.8]]))
    assert np.isfinite(tape.gradient(total, vectors).numpy()).all()


def test_mean_over_nothing_is_zero() -> None:
    assert mean_where(tf.constant([1.0, 2.0]), tf.constant([False, False])).numpy() == 0.0


def test_mated_and_nonmated_pairs_weigh_the_same() -> None:
    # One mated pair (0, 1) that costs 4; five non-mated ones that cost 1; the diagonal must not count.
    terms = np.ones((4, 4), np.float32)
    terms[0, 1] = terms[1, 0] = 4.0
    np.fill_diagonal(terms, 1000.0)
    assert balanced_mean(tf.constant(terms), [0, 0, 1, 2]).numpy() == 2.5


def test_a_half_without_pairs_adds_nothing() -> None:
    assert balanced_mean(tf.ones((3, 3)), [0, 0, 0]).numpy() == 0.5


@pytest.mark.parametrize(
    "numbers", [[0, 1], [0.0, 1.0], np.array([0, 1], np.uint8)], ids=["int", "float", "uint8"]
)
def test_same_in_numbers_is_refused_with_a_remedy(numbers: object) -> None:
    with pytest.raises(TypeError, match=r"same_from_labels\(values, LabelConvention"):
        require_same(numbers)


def test_same_as_boolean_array_is_taken() -> None:
    assert require_same(np.array([True, False])).numpy().tolist() == [True, False]


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[B, 1\]"):
        require_equal_shapes(tf.zeros((4, 1)), tf.zeros((4,), tf.bool), "logit")
