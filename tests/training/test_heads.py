"""Learned heads against their formulas."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.heads import (
    PairFeatures,
    SigmoidDistance,
    WeightedL1,
    head_distance,
    pair_features,
    pool_features,
)
from training.losses.pair_probability import pair_probability_loss


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def weighted_l1(scale: list[float], bias: float) -> WeightedL1:
    head = WeightedL1()
    head.build((1, len(scale)))
    head.set_weights([np.array(scale, np.float32), np.float32(bias)])
    return head


def test_distance_is_one_minus_the_probability() -> None:
    assert head_distance([0.0, 2.0]).numpy() == pytest.approx(1 - 1 / (1 + np.exp([0.0, -2.0])))


def test_distance_of_a_sure_head_keeps_its_order() -> None:
    near, nearer = head_distance([30.0, 40.0]).numpy()
    assert near > nearer > 0


# --- weighted L1 ---


def test_weighted_l1_is_bias_minus_the_weighted_sum() -> None:
    logit = weighted_l1([1.0, 2.0, 0.0], bias=5.0)(np.array([[1.0, 1, 9]]), np.array([[0.0, 3, -9]]))
    assert logit.numpy().tolist() == [5.0 - 1.0 - 4.0]


def test_weighted_l1_of_all_pairs_is_that_of_each() -> None:
    head, embeddings = weighted_l1([0.5, 1.0, 2.0], bias=1.0), drawn(4, 3)
    matrix = head(embeddings[:, None, :], embeddings[None, :, :]).numpy()
    for i, j in itertools.product(range(4), repeat=2):
        expected = 1.0 - sum(
            w * abs(x - y) for w, x, y in zip([0.5, 1, 2], embeddings[i], embeddings[j], strict=True)
        )
        assert matrix[i, j] == pytest.approx(expected, rel=1e-5)


def test_folded_weights_give_the_distance_of_the_head() -> None:
    head, a, b = weighted_l1([0.5, 0.0, 3.0], bias=2.0), drawn(6, 3), drawn(6, 3, seed=1)
    scale = head.folded_scale()
    folded = np.abs(scale * a - scale * b).sum(axis=1)
    assert head(a, b).numpy() == pytest.approx(2.0 - folded, abs=1e-5)
    assert head.similarity(a, b).numpy() == pytest.approx(1 / (1 + np.exp(folded - 2.0)), abs=1e-6)


def test_training_keeps_the_weights_from_turning_negative() -> None:
    head, a, b = weighted_l1([0.1, 0.1], bias=0.0), drawn(16, 2), drawn(16, 2, seed=1)
    a[:, 1] = b[:, 1]
    optimizer = keras.optimizers.SGD(1.0)
    for _ in range(20):  # All pairs are mated, so every weight that is used wants to fall below zero.
        with tf.GradientTape() as tape:
            loss = pair_probability_loss(head(a, b), np.ones(16, bool))
        optimizer.apply(
            tape.gradient(loss, [v.value for v in head.trainable_variables]), head.trainable_variables
        )
    assert head.folded_scale().tolist() == [0.0, np.float32(0.1)]


def test_folding_negative_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="1 weights of the head are negative"):
        weighted_l1([0.5, -0.5], bias=0.0).folded_scale()


# --- sigmoid over a distance ---


def test_sigmoid_distance_is_scale_times_offset_minus_distance() -> None:
    logits = SigmoidDistance(initial_scale=2.0, initial_offset=0.5)(np.array([[0.0, 0.5], [1.0, 2.0]]))
    assert logits.numpy() == pytest.approx(np.array([[1.0, 0.0], [-1.0, -3.0]]))


def test_sigmoid_distance_learns_the_threshold_between_the_kinds() -> None:
    head, distance = SigmoidDistance(), np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.7], np.float32)
    same = np.array([True, True, True, False, False, False])
    head(distance)
    optimizer = keras.optimizers.Adam(0.1)
    for _ in range(30):
        with tf.GradientTape() as tape:
            loss = pair_probability_loss(head(distance), same)
        optimizer.apply(
            tape.gradient(loss, [v.value for v in head.trainable_variables]), head.trainable_variables
        )
    assert float(head.offset) == pytest.approx(0.45, abs=0.04)
    assert ((head(distance).numpy() > 0) == same).all()


# --- pair features ---


def test_maps_pool_to_the_largest_and_the_mean_of_each_channel() -> None:
    maps = drawn(2, 3, 4, 5)
    expected = np.concatenate([maps.max(axis=(1, 2)), maps.mean(axis=(1, 2))], axis=1)
    assert pool_features(maps).numpy() == pytest.approx(expected, abs=1e-6)


def test_padding_of_sequences_does_not_count() -> None:
    sequences, mask = drawn(2, 4, 3) - 5.0, np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)
    padded = sequences.copy()
    padded[0, 2:] = 1000.0
    pooled = pool_features(padded, mask).numpy()
    first = sequences[0, :2]
    assert pooled[0] == pytest.approx(np.concatenate([first.max(axis=0), first.mean(axis=0)]), abs=1e-5)
    assert pooled[1] == pytest.approx(pool_features(sequences).numpy()[1], abs=1e-5)


def test_sequence_without_a_step_pools_to_zeros() -> None:
    assert pool_features(drawn(1, 3, 2), np.zeros((1, 3), bool)).numpy().tolist() == [[0.0] * 4]


def test_vectors_are_not_pooled() -> None:
    assert (pool_features(drawn(3, 4)).numpy() == drawn(3, 4)).all()


def test_pair_features_are_those_of_the_formula() -> None:
    compared = pair_features(tf.constant([[3.0, 4.0]]), tf.constant([[0.0, 5.0]])).numpy()[0]
    assert compared == pytest.approx([9.0, 1.0, 9.0, 9.0, 0.8])


def test_pair_features_head_is_symmetric() -> None:
    head, a, b = PairFeatures(units=8), drawn(5, 4, 4, 3), drawn(5, 4, 4, 3, seed=1)
    assert head(a, b).numpy() == pytest.approx(head(b, a).numpy(), abs=1e-5)


def test_pair_features_head_takes_pooled_vectors_in_place_of_maps() -> None:
    head, a, b = PairFeatures(units=8), drawn(5, 4, 4, 3), drawn(5, 4, 4, 3, seed=1)
    assert head(pool_features(a), pool_features(b)).numpy() == pytest.approx(head(a, b).numpy(), abs=1e-5)


def test_pair_features_head_gives_one_logit_a_pair_of_sequences() -> None:
    head = PairFeatures(units=8)
    assert head(drawn(5, 7, 3), drawn(5, 9, 3)).shape == (5,)


def test_mask_of_an_embedding_reaches_the_pair_features_head() -> None:
    embed, head = keras.layers.Embedding(10, 4, mask_zero=True), PairFeatures(units=8)
    short, padded, other = [np.array([row]) for row in ([3, 4], [3, 4, 0, 0], [5, 6, 7])]
    assert head(embed(padded), embed(other)).numpy() == pytest.approx(
        head(embed(short), embed(other)).numpy(), abs=1e-6
    )


def test_dropout_acts_in_training_only() -> None:
    head, a, b = PairFeatures(units=64, dropout=0.5), drawn(4, 6), drawn(4, 6, seed=1)
    assert (head(a, b).numpy() == head(a, b).numpy()).all()
    assert (head(a, b, training=True).numpy() != head(a, b).numpy()).any()


# --- all of them ---


HEADS = {
    "weighted L1": WeightedL1(initial_weight=0.3, initial_bias=0.5),
    "sigmoid distance": SigmoidDistance(initial_scale=3.0, initial_offset=0.2),
    "pair features": PairFeatures(units=4, dropout=0.3),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_configuration_survives(head: Any) -> None:
    again = type(head).from_config(head.get_config())
    assert {**again.get_config(), "name": ""} == {**head.get_config(), "name": ""}


# Keras itself turns variables into arrays the way that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("head", [WeightedL1, PairFeatures])
def test_a_functional_model_with_a_head_survives_saving(head: Any, tmp_path: Path) -> None:
    a, b = keras.Input((6,)), keras.Input((6,))
    model = keras.Model([a, b], head()(a, b))
    model.save(tmp_path / "model.keras")
    inputs = [drawn(3, 6), drawn(3, 6, seed=1)]
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (again(inputs).numpy() == model(inputs).numpy()).all()


@pytest.mark.parametrize("head", [WeightedL1, PairFeatures])
def test_float16_embeddings_get_float32_logits(head: Any) -> None:
    a, b = drawn(3, 6).astype(np.float16), drawn(3, 6, seed=1).astype(np.float16)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = head()
        logits = layer(a, b)
    finally:
        keras.config.set_dtype_policy("float32")
    assert logits.dtype == tf.float32
    assert logits.numpy() == pytest.approx(
        layer(a.astype(np.float32), b.astype(np.float32)).numpy(), abs=1e-6
    )
