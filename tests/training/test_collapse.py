"""When a run counts as dead: on made-up numbers, and on real small runs."""

from __future__ import annotations

import doctest
import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from training import collapse
from training.collapse import (
    CollapsedError,
    CollapseDetector,
    Observation,
    Reason,
    embedding_variance,
)
from training.losses.triplet import MINING, TripletCounts

DIMENSIONS = 16
ALIVE = 0.5 / DIMENSIONS


def detector(**changes: Any) -> CollapseDetector:
    return CollapseDetector(DIMENSIONS, **{"collapsed_loss": 0.2, "patience": 3, **changes})


def observe(step: int = 1, loss: float = 0.1, variance: float = ALIVE, **more: float) -> Observation:
    return Observation(step=step, loss=loss, embedding_variance=variance, **more)


def verdict(seen: Observation, checks: int = 3, **changes: Any) -> Reason | None:
    """Return the reason after so many equal observations."""
    watching = detector(**changes)
    error = None
    for _ in range(checks):
        error = watching.examine(seen)
    return error.reason if error else None


def test_examples_in_the_documentation_hold() -> None:
    results = doctest.testmod(collapse)
    assert results.attempted >= 1
    assert results.failed == 0


def test_embeddings_all_over_the_sphere_have_a_spread_near_one() -> None:
    drawn = np.random.default_rng(0).normal(size=(4000, 8))
    assert embedding_variance(drawn) * 8 == pytest.approx(1.0, abs=0.01)


def test_length_of_embeddings_is_no_spread() -> None:
    assert embedding_variance([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]) == pytest.approx(0.0, abs=1e-15)


def test_zero_embeddings_have_no_spread() -> None:
    assert embedding_variance(np.zeros((4, 3))) == 0.0


def test_a_healthy_run_is_left_alone() -> None:
    assert verdict(observe(active_triplets=10, valid_triplets=100), checks=50) is None


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_not_finite_stops_at_once(loss: float) -> None:
    assert verdict(observe(loss=loss), checks=1) is Reason.LOSS_NOT_FINITE


def test_embeddings_that_are_not_finite_stop_at_once() -> None:
    assert verdict(observe(variance=math.nan), checks=1) is Reason.LOSS_NOT_FINITE


def test_collapsed_embeddings_stop_once_patience_is_spent() -> None:
    collapsed = observe(variance=1e-5 / DIMENSIONS)
    assert verdict(collapsed, checks=2) is None
    assert verdict(collapsed, checks=3) is Reason.EMBEDDINGS_COLLAPSED


def test_one_healthy_check_in_between_starts_the_count_again() -> None:
    watching, collapsed = detector(), observe(variance=0.0)
    sequence = [collapsed, collapsed, observe(), collapsed, collapsed]
    assert [watching.examine(seen) for seen in sequence] == [None] * 5
    assert watching.examine(collapsed) is not None


def test_two_reasons_in_turn_are_not_added_up() -> None:
    watching = detector()
    for seen in [observe(variance=0.0), observe(loss=0.2)] * 5:
        assert watching.examine(seen) is None


def test_loss_within_a_percent_of_the_margin_is_stuck() -> None:
    assert verdict(observe(loss=0.2 * 1.009)) is Reason.LOSS_STUCK_AT_MARGIN
    assert verdict(observe(loss=0.2 * 1.011)) is None


def test_without_a_collapsed_loss_no_loss_is_stuck() -> None:
    assert verdict(observe(loss=0.2), collapsed_loss=None) is None


def test_grace_excuses_everything_but_a_loss_that_is_not_finite() -> None:
    assert verdict(observe(step=100, variance=0.0), checks=50, grace_steps=100) is None
    assert verdict(observe(step=101, variance=0.0), grace_steps=100) is Reason.EMBEDDINGS_COLLAPSED
    assert verdict(observe(step=1, loss=math.nan), checks=1, grace_steps=100) is Reason.LOSS_NOT_FINITE


def test_no_active_triplet_and_no_loss_is_success() -> None:
    assert verdict(observe(loss=0.0, active_triplets=0, valid_triplets=120), checks=50) is None


def test_no_active_triplet_and_a_solved_validation_is_success() -> None:
    solved = observe(loss=0.0, active_triplets=0, valid_triplets=120, validation_error=0.01)
    assert verdict(solved, checks=50) is None


def test_no_active_triplet_and_a_poor_validation_is_not() -> None:
    poor = observe(loss=0.0, active_triplets=0, valid_triplets=120, validation_error=0.3)
    assert verdict(poor) is Reason.NO_ACTIVE_TRIPLETS


def test_no_triplet_at_all_is_no_success() -> None:
    assert verdict(observe(loss=0.0, active_triplets=0, valid_triplets=0)) is Reason.NO_ACTIVE_TRIPLETS


def test_no_active_triplet_and_a_loss_is_no_success() -> None:
    assert verdict(observe(loss=0.01, active_triplets=0, valid_triplets=9)) is Reason.NO_ACTIVE_TRIPLETS


def test_loss_without_triplets_has_no_active_ones_to_miss() -> None:
    assert verdict(observe(loss=0.0, validation_error=0.3), checks=50) is None


def test_error_says_what_was_seen_and_what_to_try() -> None:
    watching = detector(patience=1)
    with pytest.raises(CollapsedError) as caught:
        watching.require_alive(observe(step=40, loss=0.2004))
    assert str(caught.value) == (
        "training collapsed at step 40 (loss_stuck_at_margin): the loss is 0.2004, that of an encoder "
        "that maps everything to one point (0.2), for 1 checks; lower the learning rate, begin with "
        "semi-hard mining, not batch-hard, or normalise the embeddings"
    )
    assert caught.value.details() == {"reason": "loss_stuck_at_margin", "step": 40}


def test_resumed_detector_decides_as_an_unbroken_one() -> None:
    unbroken, first = detector(), detector()
    collapsed = observe(variance=0.0)
    for _ in range(2):
        unbroken.examine(collapsed)
        first.examine(collapsed)
    resumed = detector()
    resumed.restore(first.state())
    assert unbroken.examine(collapsed) is not None
    assert resumed.examine(collapsed) is not None


# --- real runs: an encoder of 64-64-32-16, 10 digits x 4 samples a batch, a check every 10 steps ---


def train(mining: str, rate: float, *, normalise: bool = True, steps: int = 60) -> CollapsedError | None:
    """Return what stopped the run, None when nothing did."""
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    encoder = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(16),
        ]
    )
    if normalise:
        encoder.add(keras.layers.UnitNormalization())
    optimizer, watching = keras.optimizers.Adam(rate), detector()

    @tf.function
    def update(batch: tf.Tensor, subjects: tf.Tensor) -> tuple[tf.Tensor, TripletCounts, tf.Tensor]:
        with tf.GradientTape() as tape:
            embeddings = encoder(batch, training=True)
            loss, counts = MINING[mining](embeddings, subjects, 0.2)
        weights = encoder.trainable_variables
        optimizer.apply(tape.gradient(loss, [weight.value for weight in weights]), weights)
        return loss, counts, embeddings

    generator = np.random.default_rng(0)
    for step in range(1, steps + 1):
        chosen = np.concatenate(
            [generator.choice(np.flatnonzero(labels == digit), 4, replace=False) for digit in range(10)]
        )
        loss, counts, embeddings = update(images[chosen], labels[chosen])
        if step % 10 == 0:
            variance = embedding_variance(embeddings.numpy())
            seen = observe(
                step,
                float(loss),
                variance,
                active_triplets=int(counts.active),
                valid_triplets=int(counts.valid),
            )
            if error := watching.examine(seen):
                return error
    return None


def test_healthy_run_is_not_stopped() -> None:
    assert train("semi_hard", 1e-3) is None


def test_batch_hard_run_that_is_slow_to_leave_the_margin_is_not_stopped() -> None:
    assert train("batch_hard", 1e-3) is None


def test_batch_hard_run_at_a_too_large_rate_is_stopped() -> None:
    stopped = train("batch_hard", 0.1)
    assert stopped is not None
    assert stopped.reason in {Reason.EMBEDDINGS_COLLAPSED, Reason.LOSS_STUCK_AT_MARGIN}


def test_run_whose_units_all_died_is_stopped_for_its_embeddings() -> None:
    stopped = train("batch_hard", 1.0, normalise=False)
    assert stopped is not None
    assert stopped.reason is Reason.EMBEDDINGS_COLLAPSED
