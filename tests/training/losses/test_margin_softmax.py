"""Additive-margin softmax against its definition."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.losses import plain_loops
from tests.training.losses.batches import spread_out
from training.losses.margin_softmax import MarginSoftmax, margin_softmax_loss


@pytest.mark.parametrize("margin", [0.0, 0.35])
def test_loss_is_that_of_plain_loops(margin: float) -> None:
    generator = np.random.default_rng(7)
    cosines, labels = generator.uniform(-1, 1, (20, 6)), generator.integers(0, 6, 20)
    expected = plain_loops.margin_softmax(cosines, labels.tolist(), 30.0, margin)
    assert margin_softmax_loss(cosines, labels, 30.0, margin).numpy() == pytest.approx(expected, rel=1e-5)


def test_margin_makes_an_even_choice_cost_more() -> None:
    # Two subjects, equal cosines: log(1 + exp(scale * margin)).
    loss = margin_softmax_loss([[0.5, 0.5]], [0], scale=4.0, margin=0.25)
    assert loss.numpy() == pytest.approx(math.log(1 + math.e))


def test_layer_gives_the_loss_of_its_directions() -> None:
    layer, embeddings, labels = (
        MarginSoftmax(5, scale=8.0, margin=0.2),
        spread_out(0),
        [0, 1, 2, 3, 4, 0, 1, 2],
    )
    loss = layer(tf.constant(embeddings, tf.float32), tf.constant(labels)).numpy()
    directions = layer.directions.value.numpy()
    cosines = np.array([[plain_loops.cosine(e, d) for d in directions] for e in embeddings])
    assert loss == pytest.approx(plain_loops.margin_softmax(cosines, labels, 8.0, 0.2), rel=1e-5)


def test_length_of_embeddings_does_not_matter() -> None:
    layer, embeddings = MarginSoftmax(3), tf.constant(spread_out(1), tf.float32)
    labels = tf.constant([0, 1, 2, 0, 1, 2, 0, 1])
    assert layer(5.0 * embeddings, labels).numpy() == pytest.approx(
        layer(embeddings, labels).numpy(), rel=1e-5
    )


def test_training_it_separates_the_subjects() -> None:
    keras.utils.set_random_seed(0)
    layer, labels = MarginSoftmax(2, scale=10.0), tf.constant([0] * 4 + [1] * 4)
    embeddings, optimizer = tf.Variable(spread_out(2).astype(np.float32)), keras.optimizers.Adam(0.1)
    layer(embeddings, labels)
    for _ in range(60):
        with tf.GradientTape() as tape:
            loss = layer(embeddings, labels)
        weights = [layer.directions.value]
        optimizer.apply(tape.gradient(loss, weights), [layer.directions])
        with tf.GradientTape() as tape:
            loss = layer(embeddings, labels)
        embeddings.assign_sub(tape.gradient(loss, embeddings))
    assert layer.cosines(embeddings).numpy().argmax(axis=1).tolist() == labels.numpy().tolist()
    assert loss.numpy() < 0.01


def test_computes_in_float32_under_mixed_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = MarginSoftmax(4)
        loss = layer(tf.constant(spread_out(3), tf.float16), tf.constant([0, 1, 2, 3, 0, 1, 2, 3]))
    finally:
        keras.config.set_dtype_policy("float32")
    assert loss.dtype == tf.float32
    assert keras.ops.dtype(layer.directions) == "float32"


def test_configuration_survives() -> None:
    layer = MarginSoftmax(7, scale=16.0, margin=0.1)
    again = MarginSoftmax.from_config(layer.get_config())
    assert (again.subjects, again.scale, again.margin) == (7, 16.0, 0.1)
