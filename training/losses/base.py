"""What the Keras classes of the losses have in common."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from training.losses.masks import require_same


class PairLoss(keras.losses.Loss):
    """Loss of separate pairs: ``y_true`` is ``same`` (boolean), ``y_pred`` one number a pair.

    Keras turns the truth into floats before ``call``, so the dtype is checked before Keras sees it.
    """

    def __call__(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return the mean loss of the pairs.

        Raises:
            TypeError: ``y_true`` is not boolean.
        """
        return super().__call__(require_same(y_true), y_pred, sample_weight)


class BatchLoss(keras.losses.Loss):
    """Loss of a whole batch at once: ``y_true`` is labels int[B], ``y_pred`` what ``batch_loss`` takes.

    Keras hands labels over as float32, which is exact up to 2**24 subjects.
    """

    def __call__(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return the loss of the batch.

        Raises:
            ValueError: Sample weights were given; the loss is one number for all samples together.
        """
        if sample_weight is not None:
            raise ValueError(f"{self.name} is a loss of the whole batch and takes no sample weights")
        return super().__call__(y_true, y_pred)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return float32[1]: Keras shares out a vector among replicas, but leaves a scalar as it is."""
        return tf.reshape(self.batch_loss(y_true, y_pred), [1])

    def batch_loss(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        """Return the scalar loss of the batch."""
        raise NotImplementedError


def serialisable(cls: Any) -> Any:  # noqa: ANN401 - Keras classes are untyped
    """Register a class so that saved models find it again."""
    return keras.saving.register_keras_serializable(package="visavis")(cls)
