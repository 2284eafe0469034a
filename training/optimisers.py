"""Optimisers with the schedules of a recipe. All of them count their own steps, so a resumed run is where
it was.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from training.config import Loop, Optimiser
from training.schedules import ExponentialPerEpoch, LinearPerEpoch, ScheduledSGD


def build_optimiser(spec: Optimiser, loop: Loop) -> keras.optimizers.Optimizer:
    """Return the optimiser of a recipe, with loss scaling where the precision needs it."""
    rate = _learning_rate(spec, loop)
    common = {"clipnorm": spec.clip_norm, "weight_decay": spec.weight_decay or None}
    if spec.kind == "sgd":
        first, last = spec.momentum
        epochs = math.ceil(loop.steps / loop.epoch) - 1
        momentum = LinearPerEpoch(last, loop.epoch, epochs, initial=first)
        built = ScheduledSGD(rate, momentum, **common)
    elif spec.kind == "adamw":
        built = keras.optimizers.AdamW(rate, **{**common, "weight_decay": spec.weight_decay})
        # Decay of a bias or of a batch norm's scale only costs accuracy.
        built.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    else:
        built = keras.optimizers.Adam(rate, **common)
    return keras.optimizers.LossScaleOptimizer(built) if loop.precision == "mixed_float16" else built


def _learning_rate(spec: Optimiser, loop: Loop) -> tf.Tensor:
    if spec.schedule == "cosine":
        if not spec.warmup_steps:
            return keras.optimizers.schedules.CosineDecay(spec.learning_rate, loop.steps)
        return keras.optimizers.schedules.CosineDecay(
            0.0,
            max(1, loop.steps - spec.warmup_steps),
            warmup_target=spec.learning_rate,
            warmup_steps=spec.warmup_steps,
        )
    if spec.schedule == "exponential":
        return ExponentialPerEpoch(spec.learning_rate, loop.epoch, spec.decay_an_epoch)
    return spec.learning_rate
