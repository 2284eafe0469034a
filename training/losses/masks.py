"""Which pairs and triplets of a batch count, and how far apart its embeddings are.

The distances subtract embeddings instead of expanding the square: expanded, two nearly equal embeddings
lose all digits (on a GPU, whose matrix products round to ten bits, much earlier), and those are the pairs
a loss asks about. The price is a tensor of B * B * D floats.
"""

from __future__ import annotations

import tensorflow as tf

SMALLEST_SQUARED_NORM = 1e-12
"""Vectors at or below it have no direction: they stay as they are instead of being scaled to norm 1."""


def as_float32(values: tf.Tensor) -> tf.Tensor:
    """Return the values as float32: sums of squares overflow float16 and lose their digits in bfloat16."""
    return tf.cast(tf.convert_to_tensor(values), tf.float32)


def require_same(same: tf.Tensor) -> tf.Tensor:
    """Return ``same`` as a boolean tensor, or refuse it.

    Raises:
        TypeError: It is not boolean. The texts disagree on whether 1 means same or different, so a number
            cannot be read without knowing which.
    """
    tensor = tf.convert_to_tensor(same)
    if tensor.dtype != tf.bool:
        raise TypeError(
            f"`same` must be boolean (True: same subject), not {tensor.dtype.name}: 1 means same in some "
            "sources and different in others; convert with same_from_labels(values, "
            "LabelConvention.ONE_IS_SAME), or ONE_IS_DIFFERENT, of training.data.samplers"
        )
    return tensor


def require_equal_shapes(values: tf.Tensor, same: tf.Tensor, name: str) -> None:
    """Refuse ``same`` and values that would broadcast into every combination of the batch.

    Raises:
        ValueError: The shapes cannot be equal, for example [B, 1] and [B].
    """
    if not values.shape.is_compatible_with(same.shape):
        raise ValueError(
            f"`{name}` has shape {values.shape} and `same` has {same.shape}; they must be equal "
            "(a last dense layer of one unit gives [B, 1]: take its [:, 0])"
        )


def _same_label(labels: tf.Tensor) -> tf.Tensor:
    flat = tf.reshape(labels, [-1])
    return tf.equal(flat[:, tf.newaxis], flat[tf.newaxis, :])


def same_subject(labels: tf.Tensor) -> tf.Tensor:
    """Return bool[B, B]: True where row and column are two samples of one subject (the diagonal is False)."""
    equal = _same_label(labels)
    return tf.linalg.set_diag(equal, tf.zeros_like(tf.linalg.diag_part(equal)))


def different_subject(labels: tf.Tensor) -> tf.Tensor:
    """Return bool[B, B]: True where row and column show different subjects."""
    return tf.logical_not(_same_label(labels))


def valid_triplets(labels: tf.Tensor) -> tf.Tensor:
    """Return bool[B, B, B]: True at (anchor, positive, negative) that make a triplet.

    The positive is another sample of the anchor's subject, the negative one of a different subject.
    """
    return tf.logical_and(same_subject(labels)[:, :, tf.newaxis], different_subject(labels)[:, tf.newaxis, :])


def squared_euclidean(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Return the squared Euclidean distance along the last axis; the other axes broadcast."""
    return tf.reduce_sum(tf.square(as_float32(left) - as_float32(right)), axis=-1)


def euclidean(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Return the Euclidean distance along the last axis; the other axes broadcast.

    Between equal vectors it is 0 with gradient 0, where the square root alone would give NaN.
    """
    return _root(squared_euclidean(left, right))


def pairwise_squared_euclidean(embeddings: tf.Tensor) -> tf.Tensor:
    """Return float32[B, B], the squared Euclidean distances within a batch."""
    return squared_euclidean(embeddings[:, tf.newaxis, :], embeddings[tf.newaxis, :, :])


def pairwise_euclidean(embeddings: tf.Tensor) -> tf.Tensor:
    """Return float32[B, B], the Euclidean distances within a batch; gradient 0 where they are 0."""
    return _root(pairwise_squared_euclidean(embeddings))


def pairwise_distance(embeddings: tf.Tensor, *, squared: bool) -> tf.Tensor:
    """Return float32[B, B], plain or squared Euclidean distances within a batch."""
    return pairwise_squared_euclidean(embeddings) if squared else pairwise_euclidean(embeddings)


def unit(vectors: tf.Tensor) -> tf.Tensor:
    """Return the vectors (last axis) at norm 1; a zero vector stays zero, with a finite gradient."""
    vectors = as_float32(vectors)
    squared_norm = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    has_direction = squared_norm > SMALLEST_SQUARED_NORM
    return vectors * tf.math.rsqrt(tf.where(has_direction, squared_norm, tf.ones_like(squared_norm)))


def pairwise_cosine(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Return float32[B, C], the cosine of every row of ``left`` with every row of ``right``."""
    return tf.matmul(unit(left), unit(right), transpose_b=True)


def mean_where(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return the mean of the values where the mask is True; 0 with gradient 0 where it never is."""
    kept = tf.where(mask, values, tf.zeros_like(values))
    return tf.math.divide_no_nan(tf.reduce_sum(kept), tf.cast(tf.math.count_nonzero(mask), values.dtype))


def balanced_mean(terms: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return half the mean over mated plus half the mean over non-mated pairs of a batch.

    A batch of P subjects with K samples holds about P times as many non-mated pairs as mated ones; a plain
    mean would let them drown the mated pairs. A half without any pair adds nothing.

    Args:
        terms: float32[B, B], the loss of every pair; the diagonal is left out.
        labels: int[B].
    """
    mated = mean_where(terms, same_subject(labels))
    nonmated = mean_where(terms, different_subject(labels))
    return 0.5 * (mated + nonmated)


def _root(squared: tf.Tensor) -> tf.Tensor:
    # "Equal to 0" instead of "above 0" as the question: NaN must stay NaN, so that a dead run is noticed.
    equal = tf.equal(squared, 0)
    return tf.where(equal, tf.zeros_like(squared), tf.sqrt(tf.where(equal, tf.ones_like(squared), squared)))
