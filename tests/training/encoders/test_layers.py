from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.data.smoke import drawn_characters
from training.encoders.layers import Ink, MaskedMean, ScaleEach, UnitLength


def test_drawing_and_its_negative_are_the_same_ink() -> None:
    images = drawn_characters(4, 3, 20, seed=1).images
    np.testing.assert_allclose(Ink()(images), Ink()(255 - images), atol=1e-6)


def test_ground_is_zero_and_full_ink_is_one() -> None:
    image = np.full((1, 4, 4, 1), 255, np.uint8)
    image[0, 1, 2] = 0
    ink = np.asarray(Ink()(image))[0, :, :, 0]
    assert ink[1, 2] == 1.0
    assert ink.sum() == 1.0


def test_each_drawing_is_inverted_or_not_on_its_own() -> None:
    pair = np.full((2, 4, 4, 1), 255, np.uint8)
    pair[:, 0, 0] = 0
    pair[1] = 255 - pair[1]
    ink = np.asarray(Ink()(pair))
    np.testing.assert_array_equal(ink[0], ink[1])


def test_embeddings_get_length_one_and_keep_their_direction() -> None:
    np.testing.assert_allclose(UnitLength()(np.array([[3.0, 4.0], [0.0, -2.0]])), [[0.6, 0.8], [0.0, -1.0]])


def test_zero_embedding_stays_zero_with_a_finite_gradient() -> None:
    zero = tf.Variable([[0.0, 0.0]])
    with tf.GradientTape() as tape:
        result = UnitLength()(zero)
        total = tf.reduce_sum(result)
    assert np.asarray(result).tolist() == [[0, 0]]
    assert np.isfinite(tape.gradient(total, zero)).all()


def test_lengths_are_computed_in_float32_under_mixed_precision() -> None:
    layer = UnitLength()
    result = layer(tf.constant([[300.0, 400.0]], tf.float16))  # 300^2 overflows float16
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, [[0.6, 0.8]], rtol=1e-6)


def test_mean_leaves_padding_out() -> None:
    sequence = np.array([[[2.0], [4.0], [90.0]], [[7.0], [8.0], [9.0]]], np.float32)
    tokens = np.array([[5, 6, 0], [0, 0, 0]])
    np.testing.assert_allclose(MaskedMean()(sequence, tokens), [[3.0], [0.0]])


def test_layers_come_back_from_their_configuration() -> None:
    inputs = keras.Input((4, 4, 1), dtype="uint8")
    x = keras.layers.Flatten()(Ink()(inputs))
    model = keras.Model(inputs, UnitLength()(ScaleEach([0.5] * 15 + [2.0])(x)))
    again = keras.Model.from_config(model.get_config())
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1), np.uint8)
    np.testing.assert_array_equal(model(images), again(images))


@pytest.mark.parametrize("scale", [[2.0, 0.0, 1.0]])
def test_each_component_is_scaled_by_its_own_constant(scale: list[float]) -> None:
    np.testing.assert_allclose(ScaleEach(scale)(np.ones((2, 3), np.float32)), [scale, scale])
