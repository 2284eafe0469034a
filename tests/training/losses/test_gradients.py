"""What every loss of embeddings promises of its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from tests.training.losses import plain_loops
from tests.training.losses.batches import LABELS, on_a_grid, spread_out
from training.losses.closest_negatives import closest_negatives_loss
from training.losses.contrastive import batch_contrastive_loss
from training.losses.masks import pairwise_euclidean
from training.losses.pair_probability import batch_pair_probability_loss
from training.losses.triplet import batch_all_triplet_loss, batch_hard_triplet_loss, semi_hard_triplet_loss

Loss = Callable[..., tf.Tensor]


def second_view(embeddings: Any) -> Any:
    """Return another view of each sample: turned by half a radian in the first two axes."""
    turn = np.eye(embeddings.shape[1])
    turn[:2, :2] = [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]
    return embeddings @ (tf.constant(turn, embeddings.dtype) if tf.is_tensor(embeddings) else turn)


def pair_probability(embeddings: tf.Tensor, labels: list[int]) -> tf.Tensor:
    return batch_pair_probability_loss(2.0 * (1.0 - pairwise_euclidean(embeddings)), labels)


def plain_pair_probability(embeddings: NDArray[np.float64], labels: list[int]) -> float:
    def cost(i: int, j: int, same: bool) -> float:
        apart = plain_loops.distance(embeddings[i], embeddings[j])
        return plain_loops.cross_entropy(2.0 * (1.0 - apart), same)

    return plain_loops.halves(cost, labels)


LOSSES: dict[str, tuple[Loss, Callable[..., float]]] = {
    "contrastive": (
        lambda e, y: batch_contrastive_loss(e, y, 1.5),
        lambda e, y: plain_loops.batch_contrastive(e, y, 1.5),
    ),
    "batch all": (
        lambda e, y: batch_all_triplet_loss(e, y, 0.7)[0],
        lambda e, y: plain_loops.batch_all(e, y, 0.7).loss,
    ),
    "semi-hard": (
        lambda e, y: semi_hard_triplet_loss(e, y, 0.7)[0],
        lambda e, y: plain_loops.semi_hard(e, y, 0.7).loss,
    ),
    "batch hard": (
        lambda e, y: batch_hard_triplet_loss(e, y, 0.7)[0],
        lambda e, y: plain_loops.batch_hard(e, y, 0.7).loss,
    ),
    "batch hard, squared": (
        lambda e, y: batch_hard_triplet_loss(e, y, 0.7, squared=True)[0],
        lambda e, y: plain_loops.batch_hard(e, y, 0.7, squared=True).loss,
    ),
    "closest negatives": (
        lambda e, y: closest_negatives_loss(e, second_view(e), 0.7, labels=y),
        lambda e, y: plain_loops.mean(plain_loops.closest_negatives(e, second_view(e), 0.7, y)),
    ),
    "pair probability": (pair_probability, plain_pair_probability),
}

every_loss = pytest.mark.parametrize("name", LOSSES)


def value_and_gradient(
    loss: Loss, embeddings: NDArray[np.float64], labels: list[int], dtype: tf.DType = tf.float32
) -> tuple[tf.Tensor, tf.Tensor]:
    point = tf.constant(embeddings, dtype)
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = loss(point, labels)
    return value, tape.gradient(value, point)


@every_loss
@pytest.mark.parametrize(
    "labels", [LABELS[kind] for kind in ("several subjects", "single samples among them", "not in order")]
)
def test_gradient_is_that_of_plain_loops(name: str, labels: list[int]) -> None:
    loss, plain = LOSSES[name]
    embeddings = spread_out(8)
    _, slope = value_and_gradient(loss, embeddings, labels)
    expected = plain_loops.gradient(lambda e: plain(e, labels), embeddings)
    assert np.abs(expected).max() > 0.01
    assert slope.numpy() == pytest.approx(expected, abs=2e-4)


@every_loss
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_loss_and_gradient_of_duplicates_are_finite(name: str, labels: list[int]) -> None:
    for embeddings in (on_a_grid(9), np.zeros((8, 2)), np.ones((8, 2))):
        value, slope = value_and_gradient(LOSSES[name][0], embeddings, labels)
        assert np.isfinite(value.numpy())
        assert np.isfinite(slope.numpy()).all()


@pytest.mark.parametrize("name", ["batch all", "semi-hard", "batch hard", "batch hard, squared"])
@pytest.mark.parametrize("labels", [LABELS["only single samples"], LABELS["one subject"]])
def test_without_triplets_loss_and_gradient_are_zero(name: str, labels: list[int]) -> None:
    value, slope = value_and_gradient(LOSSES[name][0], spread_out(10), labels)
    assert value.numpy() == 0.0
    assert not slope.numpy().any()


def test_without_negatives_closest_negatives_and_its_gradient_are_zero() -> None:
    value, slope = value_and_gradient(LOSSES["closest negatives"][0], spread_out(10), LABELS["one subject"])
    assert value.numpy() == 0.0
    assert not slope.numpy().any()


@every_loss
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16], ids=["float16", "bfloat16"])
def test_low_precision_embeddings_get_the_float32_loss_of_their_values(name: str, dtype: tf.DType) -> None:
    loss, _ = LOSSES[name]
    labels = LABELS["several subjects"]
    # Multiples of 1/8 are exact in both formats, as is a second view with the axes in reverse.
    embeddings = np.round(spread_out(11) * 8) / 8
    if name == "closest negatives":
        loss = lambda e, y: closest_negatives_loss(e, e[:, ::-1], 0.7, labels=y)  # noqa: E731
    exact, _ = value_and_gradient(loss, embeddings, labels)
    value, slope = value_and_gradient(loss, embeddings, labels, dtype)
    assert value.dtype == tf.float32
    assert value.numpy() == exact.numpy()
    assert slope.dtype == dtype
