"""The texts' encoders of token sequences: int32[N, T], 0 for padding, to float32[N, D]."""

from __future__ import annotations

import keras

from training.encoders.layers import MaskedMean, ended


def average_pooling(
    vocabulary: int,
    length: int,
    *,
    embedding: int = 64,
    widths: tuple[int, ...] = (32, 16),
    dropout: float = 0.0,
) -> keras.Model:
    """Build embedding -> mean over the tokens -> dense layers with ReLU, the last one linear.

    Args:
        vocabulary: Number of tokens, the padding's 0 included.
        length: Tokens a text, T.
        embedding: Size of a token's vector.
        widths: Units of the dense layers; (32, 16) are the text's.
        dropout: Share of the pooled features dropped.
    """
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(vocabulary, embedding)(tokens)
    x = MaskedMean()(x, tokens)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    for number, units in enumerate(widths, start=1):
        x = keras.layers.Dense(units, activation=None if number == len(widths) else "relu")(x)
    return ended(tokens, x, unit_length=False, name="average_pooling")


def lstm_mean(
    vocabulary: int, length: int, *, embedding: int = 128, units: int = 128, dropout: float = 0.0
) -> keras.Model:
    """Build embedding -> LSTM -> mean over the tokens -> length 1.

    Args:
        vocabulary: Number of tokens, the padding's 0 included.
        length: Tokens a text, T.
        embedding: Size of a token's vector.
        units: Of the LSTM, and so the embedding's size; 128 in the text.
        dropout: Share of a token's vector dropped.
    """
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(vocabulary, embedding)(tokens)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    # Padding comes last, so the states of the tokens never see it; the mean leaves its states out.
    x = keras.layers.LSTM(units, return_sequences=True)(x)
    x = MaskedMean()(x, tokens)
    return ended(tokens, x, unit_length=True, name="lstm_mean")
