"""Learning rate and momentum as functions of the step.

Steps count from 0, and the value of step s is what update number s + 1 uses. Each schedule is a plain
function of floats, and a Keras schedule that computes the same in the graph from the optimizer's own step
counter, which is in its checkpoint: a resumed run goes on where it was.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from training.losses.base import serialisable


def constant(step: float, *, value: float) -> float:  # noqa: ARG001 - every schedule takes a step
    """Return the value, whatever the step."""
    return value


def cosine_with_warm_up(
    step: float, *, peak: float, total_steps: int, warm_up_steps: int = 0, final: float = 0.0
) -> float:
    """Return a rate that rises linearly to the peak and falls to the final value along half a cosine.

    Args:
        step: From 0; from ``total_steps`` on the value stays at ``final``.
        peak: Reached at step ``warm_up_steps - 1``, so that no step is made with rate 0.
        total_steps: Steps of the whole run.
        warm_up_steps: Steps that rise; 0 begins at the peak.
        final: Value at ``total_steps``.

    Source: Loshchilov and Hutter, "SGDR", 2017, equation 5 without restarts; linear warm-up as in Goyal et
    al., 2017.

    >>> [cosine_with_warm_up(s, peak=1.0, total_steps=6, warm_up_steps=2) for s in (0, 1, 2, 4, 6)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warm_up_steps:
        return peak * (step + 1) / warm_up_steps
    done = min((step - warm_up_steps) / max(total_steps - warm_up_steps, 1), 1.0)
    return final + (peak - final) * (0.5 + 0.5 * math.cos(math.pi * done))


def exponential_per_epoch(
    step: float, *, initial: float, steps_per_epoch: int, factor: float = 0.99
) -> float:
    """Return a rate that is multiplied by the factor after each epoch, and constant within it.

    Source: Koch et al. 2015, section 3.2: the learning rate decays by 1 percent per epoch.

    >>> exponential_per_epoch(250, initial=1.0, steps_per_epoch=100, factor=0.5)
    0.25
    """
    return initial * math.pow(factor, step // steps_per_epoch)


def linear_per_epoch(
    step: float, *, initial: float = 0.5, final: float, steps_per_epoch: int, epochs: int
) -> float:
    """Return a value that moves linearly, epoch by epoch, and then stays.

    Args:
        step: From 0.
        initial: Value of the first epoch.
        final: Value of epoch number ``epochs`` (from 0) and after.
        steps_per_epoch: Steps during which the value is constant.
        epochs: Epochs until the final value; 0 begins with it.

    Source: Koch et al. 2015, section 3.2: momentum starts at 0.5 and increases linearly each epoch until its
    final value.

    >>> [linear_per_epoch(s, final=0.9, steps_per_epoch=10, epochs=4) for s in (0, 9, 20, 40, 99)]
    [0.5, 0.5, 0.7, 0.9, 0.9]
    """
    done = min((step // steps_per_epoch) / epochs, 1.0) if epochs else 1.0
    return initial + (final - initial) * done


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule whose configuration is the keyword arguments of its function."""

    def __init__(self, **config: float) -> None:
        super().__init__()
        self.config = config

    def get_config(self) -> dict[str, Any]:
        return dict(self.config)


@serialisable
class CosineWithWarmUp(_Schedule):
    """``cosine_with_warm_up`` in the graph."""

    def __init__(self, peak: float, total_steps: int, warm_up_steps: int = 0, final: float = 0.0) -> None:
        super().__init__(peak=peak, total_steps=total_steps, warm_up_steps=warm_up_steps, final=final)
        self.peak, self.total, self.warm_up, self.final = peak, total_steps, warm_up_steps, final

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Return the value at a step, as a float32 scalar."""
        step = tf.cast(step, tf.float32)
        done = tf.minimum((step - self.warm_up) / max(self.total - self.warm_up, 1), 1.0)
        falling = self.final + (self.peak - self.final) * (0.5 + 0.5 * tf.cos(math.pi * done))
        rising = self.peak * (step + 1.0) / max(self.warm_up, 1)
        return tf.where(step < self.warm_up, rising, falling)


@serialisable
class ExponentialPerEpoch(_Schedule):
    """``exponential_per_epoch`` in the graph."""

    def __init__(self, initial: float, steps_per_epoch: int, factor: float = 0.99) -> None:
        super().__init__(initial=initial, steps_per_epoch=steps_per_epoch, factor=factor)
        self.initial, self.steps_per_epoch, self.factor = initial, steps_per_epoch, factor

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Return the value at a step, as a float32 scalar."""
        epoch = tf.cast(tf.cast(step, tf.int64) // self.steps_per_epoch, tf.float32)
        return self.initial * tf.pow(tf.constant(self.factor, tf.float32), epoch)


@serialisable
class LinearPerEpoch(_Schedule):
    """``linear_per_epoch`` in the graph."""

    def __init__(self, final: float, steps_per_epoch: int, epochs: int, initial: float = 0.5) -> None:
        super().__init__(final=final, steps_per_epoch=steps_per_epoch, epochs=epochs, initial=initial)
        self.initial, self.final = initial, final
        self.steps_per_epoch, self.epochs = steps_per_epoch, epochs

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Return the value at a step, as a float32 scalar."""
        epoch = tf.cast(tf.cast(step, tf.int64) // self.steps_per_epoch, tf.float32)
        done = tf.minimum(epoch / self.epochs, 1.0) if self.epochs else tf.constant(1.0)
        return self.initial + (self.final - self.initial) * done


@serialisable
class ScheduledSGD(keras.optimizers.SGD):
    """Stochastic gradient descent whose momentum follows a schedule, as Koch trains.

    Keras schedules the learning rate only: its momentum is a number that a compiled step has read once.

    Args:
        learning_rate: A number or a schedule.
        momentum: A schedule from 0 to 1, of the optimizer's own steps.
        **kwargs: Of ``keras.optimizers.SGD``, except ``nesterov``.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        momentum: keras.optimizers.schedules.LearningRateSchedule,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        kwargs.pop("nesterov", None)
        super().__init__(learning_rate=learning_rate, momentum=1.0, **kwargs)
        if isinstance(momentum, dict):
            momentum = keras.optimizers.schedules.deserialize(momentum)
        self.momentum_schedule = momentum

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable: ``velocity = momentum * velocity - rate * gradient``, added to it."""
        velocity = self.momentums[self._get_variable_index(variable)]
        momentum = tf.cast(self.momentum_schedule(self.iterations), variable.dtype)
        step = tf.cast(learning_rate, variable.dtype) * tf.cast(gradient, variable.dtype)
        self.assign(velocity, velocity * momentum - step)
        self.assign_add(variable, velocity)

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` needs."""
        config = super().get_config()
        config.pop("nesterov")
        return {**config, "momentum": keras.optimizers.schedules.serialize(self.momentum_schedule)}
