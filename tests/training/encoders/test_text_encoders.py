from __future__ import annotations

import numpy as np
import pytest

from training.encoders.text import average_pooling, lstm_mean


def test_average_pooling_has_the_texts_number_of_weights() -> None:
    model = average_pooling(100, 6)
    assert model.count_params() == 100 * 64 + (64 * 32 + 32) + (32 * 16 + 16)
    assert model.output_shape == (None, 16)


def test_average_pooling_is_a_mean_and_two_dense_layers() -> None:
    model = average_pooling(10, 4, embedding=3, widths=(5, 2))
    vectors, kernel_1, bias_1, kernel_2, bias_2 = model.get_weights()
    tokens = np.array([[4, 9, 1, 0]], np.int32)
    pooled = vectors[[4, 9, 1]].mean(axis=0)
    expected = np.maximum(pooled @ kernel_1 + bias_1, 0) @ kernel_2 + bias_2
    np.testing.assert_allclose(np.asarray(model(tokens))[0], expected, atol=1e-6)


@pytest.mark.parametrize("build", [average_pooling, lstm_mean])
def test_padding_changes_no_embedding(build: object) -> None:
    short, long = build(20, 4), build(20, 9)  # type: ignore[operator]
    long.set_weights(short.get_weights())
    tokens = np.array([[3, 7, 2, 0], [5, 0, 0, 0]], np.int32)
    padded = np.pad(tokens, ((0, 0), (0, 5)))
    np.testing.assert_allclose(short(tokens), long(padded), atol=1e-6)


def test_lstm_embeddings_have_length_one() -> None:
    model = lstm_mean(20, 5)
    found = np.asarray(model(np.array([[3, 7, 2, 0, 0], [5, 1, 1, 1, 9]], np.int32)))
    assert found.shape == (2, 128)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_order_of_words_matters_to_the_lstm_alone() -> None:
    forward, backward = np.array([[3, 7, 2]], np.int32), np.array([[2, 7, 3]], np.int32)
    pooled, recurrent = average_pooling(20, 3), lstm_mean(20, 3)
    np.testing.assert_allclose(pooled(forward), pooled(backward), atol=1e-6)
    assert np.abs(np.asarray(recurrent(forward)) - np.asarray(recurrent(backward))).max() > 1e-3
