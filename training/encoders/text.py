"""The texts' encoders of token sequences: int32[N, T], 0 for padding, to float32[N, D]."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray

from training.encoders.layers import PACKAGE, MaskedMean, ended
from training.encoders.mobilefacenet import FEATURES

IDF_SCALE = 0.3
"""Length of the vector of a token with an inverse document frequency of 1: a learning rate of 1e-3 then moves
a vector by a few per cent in ten steps."""


@keras.saving.register_keras_serializable(PACKAGE)
class TokenDropout(keras.layers.Layer):
    """In training, replace a share of the tokens by padding: the same text in fewer words.

    Args:
        rate: Share of tokens left out.
        **kwargs: Of ``keras.layers.Layer``.

    Source: "word dropout" of Iyyer et al. (2015), "Deep unordered composition rivals syntactic methods".
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:  # noqa: ANN401 - of the base class
        super().__init__(**kwargs)
        self.rate = rate
        self.generator = keras.random.SeedGenerator()

    def call(self, tokens: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map int32[N, T] to int32[N, T]."""
        if not training:
            return tokens
        dropped = keras.random.uniform(ops.shape(tokens), seed=self.generator) < self.rate
        return ops.where(dropped, ops.zeros_like(tokens), tokens)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "rate": self.rate}


def average_pooling(
    vocabulary: int,
    length: int,
    *,
    embedding: int = 64,
    widths: tuple[int, ...] = (32, 16),
    dropout: float = 0.0,
    token_dropout: float = 0.0,
    unit_length: bool = False,
) -> keras.Model:
    """Build embedding -> mean over the tokens -> dense layers with ReLU, the last one linear.

    Args:
        vocabulary: Number of tokens, the padding's 0 included.
        length: Tokens a text, T.
        embedding: Size of a token's vector.
        widths: Units of the dense layers; (32, 16) are the text's.
        dropout: Share of the pooled features dropped.
        token_dropout: Share of the tokens left out in training.
        unit_length: Scale embeddings to length 1.
    """
    inputs, tokens, x = _vectors(vocabulary, length, embedding, token_dropout)
    x = MaskedMean(name=FEATURES)(x, tokens)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    for number, units in enumerate(widths, start=1):
        x = keras.layers.Dense(units, activation=None if number == len(widths) else "relu")(x)
    return ended(inputs, x, unit_length=unit_length, name="average_pooling")


def lstm_mean(
    vocabulary: int,
    length: int,
    *,
    embedding: int = 128,
    units: int = 128,
    dropout: float = 0.0,
    token_dropout: float = 0.0,
) -> keras.Model:
    """Build embedding -> LSTM -> mean over the tokens -> length 1.

    Args:
        vocabulary: Number of tokens, the padding's 0 included.
        length: Tokens a text, T.
        embedding: Size of a token's vector.
        units: Of the LSTM, and so the embedding's size; 128 in the text.
        dropout: Share of a token's vector dropped.
        token_dropout: Share of the tokens left out in training.
    """
    inputs, tokens, x = _vectors(vocabulary, length, embedding, token_dropout)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    # Padding comes last, so the states of the tokens never see it; the mean leaves its states out.
    x = keras.layers.LSTM(units, return_sequences=True)(x)
    x = MaskedMean(name=FEATURES)(x, tokens)
    return ended(inputs, x, unit_length=True, name="lstm_mean")


def start_from_idf(encoder: keras.Model, idf: NDArray[np.float64], seed: int) -> None:
    """Give the tokens random vectors whose lengths are their inverse document frequencies.

    The mean of such vectors is a random projection of the text's TF-IDF vector, so cosines are about those of
    TF-IDF (Johnson and Lindenstrauss 1984): training starts from that baseline and not from chance.

    Args:
        encoder: Of this module.
        idf: float64[vocabulary], see ``training.evaluation.tfidf.inverse_document_frequency``.
        seed: Of the directions.
    """
    layer = encoder.get_layer("vectors")
    shape = layer.get_weights()[0].shape
    directions = np.random.default_rng([seed, shape[0]]).normal(0.0, shape[1] ** -0.5, shape)
    layer.set_weights([IDF_SCALE * idf[:, None] * directions])


def _vectors(
    vocabulary: int, length: int, embedding: int, token_dropout: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the input, the tokens that are left of it, and their vectors."""
    inputs = keras.Input((length,), dtype="int32", name="tokens")
    tokens = TokenDropout(token_dropout)(inputs) if token_dropout else inputs
    return inputs, tokens, keras.layers.Embedding(vocabulary, embedding, name="vectors")(tokens)
