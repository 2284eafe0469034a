"""Schedules, as numbers and in the graph."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from training import schedules
from training.schedules import (
    CosineWithWarmUp,
    ExponentialPerEpoch,
    LinearPerEpoch,
    ScheduledSGD,
    constant,
    cosine_with_warm_up,
    exponential_per_epoch,
    linear_per_epoch,
)


def test_examples_in_the_documentation_hold() -> None:
    results = doctest.testmod(schedules)
    assert results.attempted >= 3
    assert results.failed == 0


def test_constant_ignores_the_step() -> None:
    assert [constant(step, value=0.1) for step in (0, 10**6)] == [0.1, 0.1]


def test_warm_up_never_makes_a_step_with_rate_zero() -> None:
    rates = [cosine_with_warm_up(s, peak=0.4, total_steps=100, warm_up_steps=4) for s in range(4)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_cosine_is_halfway_in_the_middle_and_stays_at_the_final_value() -> None:
    def rate(step: int) -> float:
        return cosine_with_warm_up(step, peak=1.0, total_steps=110, warm_up_steps=10, final=0.2)

    assert rate(60) == pytest.approx(0.6)
    assert rate(35) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert rate(110) == rate(10**6) == pytest.approx(0.2)


def test_kochs_rate_falls_by_one_percent_an_epoch() -> None:
    rates = [exponential_per_epoch(s, initial=1.0, steps_per_epoch=5) for s in (0, 4, 5, 10, 500)]
    assert rates == pytest.approx([1.0, 1.0, 0.99, 0.9801, 0.99**100])


def test_kochs_momentum_rises_by_equal_steps_and_stays() -> None:
    momenta = [linear_per_epoch(s, final=0.9, steps_per_epoch=3, epochs=4) for s in (0, 2, 3, 6, 9, 12, 99)]
    assert momenta == pytest.approx([0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9])


def test_momentum_of_no_rising_epochs_is_final_at_once() -> None:
    assert linear_per_epoch(0, final=0.9, steps_per_epoch=3, epochs=0) == 0.9


IN_THE_GRAPH = {
    "cosine": (
        CosineWithWarmUp(0.4, total_steps=50, warm_up_steps=7, final=0.01),
        lambda s: cosine_with_warm_up(s, peak=0.4, total_steps=50, warm_up_steps=7, final=0.01),
    ),
    "cosine without warm-up": (
        CosineWithWarmUp(0.4, total_steps=50),
        lambda s: cosine_with_warm_up(s, peak=0.4, total_steps=50),
    ),
    "exponential": (
        ExponentialPerEpoch(0.1, steps_per_epoch=8),
        lambda s: exponential_per_epoch(s, initial=0.1, steps_per_epoch=8),
    ),
    "linear": (
        LinearPerEpoch(0.9, steps_per_epoch=8, epochs=5),
        lambda s: linear_per_epoch(s, final=0.9, steps_per_epoch=8, epochs=5),
    ),
    "linear at once": (
        LinearPerEpoch(0.9, steps_per_epoch=8, epochs=0),
        lambda s: linear_per_epoch(s, final=0.9, steps_per_epoch=8, epochs=0),
    ),
}


@pytest.mark.parametrize(("schedule", "function"), IN_THE_GRAPH.values(), ids=IN_THE_GRAPH.keys())
def test_in_the_graph_it_is_the_function(schedule: Any, function: Callable[[int], float]) -> None:
    compiled = tf.function(schedule)
    for step in range(60):
        value = compiled(tf.constant(step, tf.int64)).numpy()
        assert value == pytest.approx(function(step), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(
    "schedule", [schedule for schedule, _ in IN_THE_GRAPH.values()], ids=IN_THE_GRAPH.keys()
)
def test_configuration_survives_serialisation(schedule: Any) -> None:
    saved = keras.optimizers.schedules.serialize(schedule)
    again = keras.optimizers.schedules.deserialize(saved)
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()


def momentum_sgd() -> ScheduledSGD:
    return ScheduledSGD(
        ExponentialPerEpoch(0.1, steps_per_epoch=2, factor=0.5),
        LinearPerEpoch(0.9, steps_per_epoch=1, epochs=4),
    )


def test_compiled_steps_follow_both_schedules() -> None:
    weight, optimizer = keras.Variable(np.zeros(2, np.float32)), momentum_sgd()
    optimizer.build([weight])
    compiled = tf.function(lambda gradient: optimizer.apply([gradient], [weight]))
    expected, velocity = np.zeros(2), np.zeros(2)
    for step, gradient in enumerate(np.random.default_rng(0).normal(size=(8, 2))):
        compiled(tf.constant(gradient, tf.float32))
        momentum = linear_per_epoch(step, final=0.9, steps_per_epoch=1, epochs=4)
        rate = exponential_per_epoch(step, initial=0.1, steps_per_epoch=2, factor=0.5)
        velocity = momentum * velocity - rate * gradient
        expected = expected + velocity
        assert weight.value.numpy() == pytest.approx(expected, rel=1e-5)


def test_constant_momentum_is_that_of_keras() -> None:
    scheduled, plain = keras.Variable(1.0), keras.Variable(1.0)
    ours = ScheduledSGD(0.1, LinearPerEpoch(0.8, steps_per_epoch=1, epochs=0))
    keras_own = keras.optimizers.SGD(0.1, momentum=0.8)
    for gradient in (1.0, -2.0, 0.5):
        ours.apply([tf.constant(gradient)], [scheduled])
        keras_own.apply([tf.constant(gradient)], [plain])
    assert float(scheduled) == pytest.approx(float(plain))


def test_optimizer_survives_serialisation() -> None:
    again = keras.optimizers.deserialize(keras.optimizers.serialize(momentum_sgd()))
    assert isinstance(again, ScheduledSGD)
    assert again.momentum_schedule.get_config() == momentum_sgd().momentum_schedule.get_config()
