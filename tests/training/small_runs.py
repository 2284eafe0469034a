"""Runs of a few dozen steps on small drawings, each with much of what a run can have."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from app.encoding.manifest import InputSpec
from training.build import build_image_encoder, build_objective, labelled_sampler, pair_sampler
from training.config import PKBatches, RunConfig
from training.data.labelled import LabelledImages
from training.data.pipeline import labelled_batches, pair_batches
from training.data.smoke import drawn_characters
from training.learner import Learner
from training.train import Trained, train

SIDE = 12
STEPS, EPOCH = 30, 10

RESIDUAL: dict[str, Any] = {
    "name": "residual",
    "summary": "batch norm, dropout, augmentation, AdamW with a cosine",
    "data": {
        "source": "smoke-characters",
        "input": {"height": SIDE, "width": SIDE, "channels": 1},
    },
    "encoder": {"kind": "residual", "stem": 4, "widths": [8], "blocks": [1], "dimensions": 8, "dropout": 0.3},
    "objective": {"kind": "margin-softmax"},
    "batches": {"kind": "pk", "subjects": 4, "samples": 2},
    "augmentation": {"affine": {"rotation_deg": 20, "shift": 0.1}, "elastic": {}, "blur": 0.5, "fill": 255},
    "optimiser": {"kind": "adamw", "weight_decay": 0.02, "schedule": "cosine", "warmup_steps": 5},
    "loop": {"steps": STEPS, "epoch": EPOCH},
}

PAIRS: dict[str, Any] = {
    "name": "pairs",
    "summary": "dropout, pairs of a fixed array, gradient descent with rising momentum",
    "data": RESIDUAL["data"],
    "encoder": {"kind": "mlp", "widths": [16, 8], "dropout": 0.3},
    "objective": {"kind": "contrastive"},
    "batches": {"kind": "pairs", "size": 8, "array": 48},
    "augmentation": {"affine": {"zoom": 0.2, "each_with": 0.5}, "fill": 255},
    "optimiser": {"kind": "sgd", "learning_rate": 0.05, "schedule": "exponential", "decay_an_epoch": 0.5},
    "loop": {"steps": STEPS, "epoch": EPOCH},
}


@functools.cache
def drawings() -> LabelledImages:
    """Return 48 drawings of 8 characters."""
    return drawn_characters(8, 6, SIDE, seed=3)


def configured(tables: dict[str, Any], **loop: Any) -> RunConfig:
    """Return a configuration with changes of its loop."""
    return RunConfig.model_validate({**tables, "loop": {**tables["loop"], **loop}})


def new_learner(config: RunConfig) -> Learner:
    """Return an untrained learner, the same for the same configuration."""
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.loop.precision)
    try:
        encoder = build_image_encoder(config.encoder, InputSpec(height=SIDE, width=SIDE, channels=1))
        objective = build_objective(config.objective, subjects=8)
        objective.prepare(encoder)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return Learner(encoder, objective)


def batches_of(config: RunConfig, first_step: int) -> Any:
    """Return the batches from a step on."""
    data = drawings()
    common: dict[str, Any] = {"seed": config.seed, "first_step": first_step}
    if isinstance(config.batches, PKBatches):
        labelled = labelled_sampler(config.batches, data.labels, config.seed)
        return labelled_batches(data.images, data.labels, labelled, config.augmentation, **common)
    pairs = pair_sampler(config.batches, data.labels, config.seed)
    return pair_batches(data.images, data.images, pairs, config.augmentation, **common)


def embedded(learner: Learner) -> NDArray[np.float32]:
    """Return the embeddings of all drawings."""
    return np.asarray(learner.left(drawings().images, training=False), np.float32)


def run(config: RunConfig, folder: Path, **kwargs: Any) -> tuple[Learner, Trained]:
    """Train, or go on, in a folder."""
    learner = new_learner(config)
    return learner, train(learner, lambda step: batches_of(config, step), config, folder, **kwargs)


def signal_after(steps: int, number: signal.Signals) -> Callable[[int], None]:
    """Return a progress callback that sends this process a signal once so many steps are done."""
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        if before < steps <= done:
            os.kill(os.getpid(), number)

    return progress


def weights(learner: Learner) -> list[NDArray[Any]]:
    """Return the values of all variables."""
    return [variable.numpy() for variable in learner.variables]
