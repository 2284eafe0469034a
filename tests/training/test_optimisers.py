from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from training.config import Loop, Optimiser
from training.optimisers import build_optimiser

GRADIENTS = np.random.default_rng(0).normal(0, 1, (12, 3)).astype(np.float32)


def built(steps: int = 12, epoch: int = 4, precision: str = "float32", **spec: Any) -> Any:
    loop = Loop.model_validate({"steps": steps, "epoch": epoch, "precision": precision})
    return build_optimiser(Optimiser.model_validate(spec), loop)


def moved(optimiser: Any, gradients: NDArray[np.float32], start: float = 1.0) -> NDArray[np.float32]:
    """Return where a weight is after each gradient, in a graph as in training."""
    weight = keras.Variable(np.full(gradients.shape[1], start, np.float32), name="kernel")
    optimiser.build([weight])

    @tf.function
    def step(gradient: tf.Tensor) -> None:
        optimiser.apply([gradient], [weight])

    path = []
    for gradient in gradients:
        step(tf.constant(gradient))
        path.append(weight.numpy())
    return np.stack(path)


def rates(optimiser: Any, steps: int) -> list[float]:
    found = []
    for step in range(steps):
        optimiser.iterations.assign(step)
        found.append(float(optimiser.learning_rate))
    return found


def test_momentum_rises_by_the_epoch_as_in_a_plain_loop() -> None:
    optimiser = built(kind="sgd", learning_rate=0.1, momentum=(0.5, 0.9))
    expected, weight, velocity = [], np.ones(3), np.zeros(3)
    for step, gradient in enumerate(GRADIENTS):
        momentum = (0.5, 0.7, 0.9)[step // 4]
        velocity = momentum * velocity - 0.1 * gradient
        weight = weight + velocity
        expected.append(weight)
    np.testing.assert_allclose(moved(optimiser, GRADIENTS), expected, rtol=1e-5)


def test_run_of_one_epoch_has_the_last_momentum_throughout() -> None:
    optimiser = built(steps=4, kind="sgd", learning_rate=0.1, momentum=(0.0, 0.9))
    expected, weight, velocity = [], np.ones(3), np.zeros(3)
    for gradient in GRADIENTS[:4]:
        velocity = 0.9 * velocity - 0.1 * gradient
        weight = weight + velocity
        expected.append(weight)
    np.testing.assert_allclose(moved(optimiser, GRADIENTS[:4]), expected, rtol=1e-5)


def test_rate_falls_by_one_percent_an_epoch() -> None:
    optimiser = built(kind="sgd", schedule="exponential", learning_rate=1.0)
    assert rates(optimiser, 12) == pytest.approx([1.0] * 4 + [0.99] * 4 + [0.99**2] * 4)


def test_cosine_begins_at_the_rate_and_ends_at_zero() -> None:
    optimiser = built(kind="adam", schedule="cosine", learning_rate=2.0)
    expected = [1 + math.cos(math.pi * step / 12) for step in range(13)]
    assert rates(optimiser, 13) == pytest.approx(expected, abs=1e-6)


def test_cosine_after_a_linear_warm_up() -> None:
    optimiser = built(kind="adam", schedule="cosine", learning_rate=2.0, warmup_steps=4)
    expected = [0.0, 0.5, 1.0, 1.5] + [1 + math.cos(math.pi * step / 8) for step in range(9)]
    assert rates(optimiser, 13) == pytest.approx(expected, abs=1e-6)


def test_adamw_decays_kernels_but_neither_biases_nor_scales() -> None:
    optimiser = built(kind="adamw", learning_rate=0.1, weight_decay=0.5)
    names = ("kernel", "bias", "gamma", "beta")
    weights = [keras.Variable(np.ones(2, np.float32), name=name) for name in names]
    optimiser.build(weights)
    optimiser.apply([tf.zeros(2) for _ in weights], weights)
    values = {name: float(weight.numpy()[0]) for name, weight in zip(names, weights, strict=True)}
    assert values == pytest.approx({"kernel": 0.95, "bias": 1, "gamma": 1, "beta": 1})


def test_gradient_longer_than_the_clip_norm_is_shortened_to_it() -> None:
    optimiser = built(kind="sgd", learning_rate=1.0, momentum=(0, 0), clip_norm=1.0)
    path = moved(optimiser, np.array([[3.0, 4.0], [0.3, 0.4]], np.float32), start=0.0)
    np.testing.assert_allclose(path, [[-0.6, -0.8], [-0.9, -1.2]], rtol=1e-5)


def test_only_float16_scales_its_loss() -> None:
    scaled = built(precision="mixed_float16", kind="adam")
    scaled.build([keras.Variable(np.ones(2, np.float32))])
    assert float(scaled.scale_loss(tf.constant(1.0))) == 2.0**15
    for precision in ("float32", "mixed_bfloat16"):
        assert float(built(precision=precision, kind="adam").scale_loss(tf.constant(1.0))) == 1.0
