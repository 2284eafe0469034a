from __future__ import annotations

import keras
import numpy as np
import pytest

from training.encoders.text import TokenDropout, average_pooling, lstm_mean, start_from_idf
from training.evaluation.tfidf import inverse_document_frequency


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


def test_tokens_are_left_out_in_training_alone() -> None:
    keras.utils.set_random_seed(3)
    layer, tokens = TokenDropout(0.25), np.ones((200, 50), np.int32)
    assert np.array_equal(layer(tokens), tokens)
    kept = np.asarray(layer(tokens, training=True))
    assert set(np.unique(kept)) == {0, 1}
    assert kept.mean() == pytest.approx(0.75, abs=0.02)


def test_tokens_left_out_do_not_enter_the_mean() -> None:
    model = average_pooling(10, 4, embedding=6, widths=(), token_dropout=0.5)
    vectors = model.get_layer("vectors").get_weights()[0]
    found = np.asarray(model(np.full((100, 4), 7, np.int32), training=True))
    empty = ~found.any(axis=1)
    assert 0 < empty.sum() < 20  # one text in sixteen loses all its tokens
    np.testing.assert_allclose(found[~empty], np.tile(vectors[7], ((~empty).sum(), 1)), atol=1e-6)


def test_encoder_started_from_idf_compares_about_as_tfidf_does() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 200, (60, 12)).astype(np.int32)
    tokens[:, 6:] = tokens[rng.permutation(60), :6]
    idf = inverse_document_frequency(tokens, 200)
    model = average_pooling(200, 12, embedding=2000, widths=(), unit_length=True)
    start_from_idf(model, idf, seed=1)
    counts = np.stack([np.bincount(row, minlength=200) * idf for row in tokens])
    wanted = counts @ counts.T / np.outer(*[np.linalg.norm(counts, axis=1)] * 2)
    found = np.asarray(model(tokens))
    np.testing.assert_allclose(found @ found.T, wanted, atol=0.12)
