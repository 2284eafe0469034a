"""A run with two different encoders: a picture of a digit on the left, a spelled digit name on the right.

Both end in one space, where a picture lies near the names of its digit in every language. The run's folder
afterwards holds ``config.json``, ``log.csv``, ``checkpoint.npz``, ``tensorboard/``, ``image_encoder.onnx``
(``images`` uint8[N, H, W, C]), ``text_encoder.onnx`` (``tokens`` int32[N, T]), ``head.npz`` where the
objective has a head, ``results.json`` and ``report.html``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime as ort
import tensorflow as tf
from numpy.typing import NDArray

from app.matching.distances import distances
from training import export
from training.build import build_image_encoder, build_objective, build_text_encoder
from training.config import DigitNamesData, PairBatches, RecipeError, RunConfig
from training.data.names import CHARACTERS
from training.data.parts import DIGIT_INPUT
from training.data.pipeline import pair_batches
from training.data.samplers import Pairs
from training.data.text_samplers import CrossPairSampler, balanced_cross_pairs
from training.data.two_kinds import TwoKinds, load_two_kinds
from training.evaluation.clustered_pairs import evaluate_pairs
from training.evaluation.neighbours import knn_accuracy
from training.evaluation.verification import best_threshold
from training.learner import Learner
from training.runs.environment import environment
from training.runs.finished import Finished
from training.runs.texts import embedded, write_head
from training.runs.two_tower_report import TwoTowerRun, write_report
from training.runs.validation import eer_of
from training.train import train

VALIDATION_PAIRS = 10_000
VALIDATION_SEED = 0
WATCHED = 256
PARITY_IMAGES = 256
SHOWN = 300
"""Test pictures in the map of embeddings."""

BATCH = 256


@dataclass(frozen=True, eq=False)
class Embedded:
    """Embeddings of pictures float32[N, D] and of all names float32[M, D]."""

    images: NDArray[np.float32]
    names: NDArray[np.float32]


def run_two_towers(
    config: RunConfig,
    data_dir: Path,
    out: Path,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Finished:
    """Train, export, measure and report.

    Args:
        config: With pictures of digits and digit names as data.
        data_dir: Where public sets lie.
        out: Folder of the run.
        progress: Called with the number of steps done.

    Raises:
        DataError: The data are missing or damaged.
        RunStoppedError: Interrupted; the same call goes on.
        CollapsedError: The run is dead.
        ExportError: Keras and ONNX Runtime differ.
    """
    spec = config.data
    assert isinstance(spec, DigitNamesData)  # noqa: S101 - the caller looked
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
    data = load_two_kinds(spec, data_dir, config.seed)
    learner = build_learner(config, data)
    shown = np.sort(np.random.default_rng(0).permutation(len(data.test))[:SHOWN])
    before = _with_keras(learner, data.test.images[shown], data.tokens)
    held = balanced_cross_pairs(data.validation.labels, data.meaning, VALIDATION_PAIRS, VALIDATION_SEED)

    def validate() -> dict[str, float]:
        found = _with_keras(learner, data.validation.images, data.tokens)
        return {"eer": eer_of(_apart(found, held, config), held.same)}

    trained = train(
        learner,
        lambda first_step: batches(config, data, first_step),
        config,
        out,
        validate=validate,
        watched=lambda: embedded(learner.left, data.train.images[:WATCHED]),
        progress=progress,
    )
    parity = {
        "images": export.write_encoder(
            export.float32_copy(learner.left),
            out,
            data.test.images[:PARITY_IMAGES],
            file="image_encoder.onnx",
        ),
        "names": export.write_encoder(
            export.float32_copy(learner.right),
            out,
            data.tokens,
            input_name="tokens",
            file="text_encoder.onnx",
        ),
    }
    images, tokens = (_session(out / name) for name in ("image_encoder.onnx", "text_encoder.onnx"))
    names = tokens(data.tokens)
    on_validation = Embedded(images(data.validation.images), names)
    on_test = Embedded(images(data.test.images), names)
    threshold = best_threshold(_apart(on_validation, held, config), held.same)
    pairs = balanced_cross_pairs(data.test.labels, data.meaning, spec.test_pairs, spec.pairs_seed)
    distance = _apart(on_test, pairs, config)
    values: dict[str, Any] = {
        "pairs": evaluate_pairs(
            distance, pairs.same, np.unique(pairs.left, return_inverse=True)[1], threshold
        ).as_json(),
        "naming_accuracy": knn_accuracy(
            names, data.meaning, on_test.images, data.test.labels, k=1, metric=config.metric
        ),
        "names": {"languages": list(spec.languages), "spellings": len(data.names)},
        "parity": parity,
        "training": {
            "steps": trained.step,
            "best_step": trained.best_step,
            "seconds": round(trained.seconds, 1),
        },
    }
    if config.fixed_threshold is not None:
        values["accuracy_at_fixed_threshold"] = float(
            np.mean((distance <= config.fixed_threshold) == pairs.same)
        )
    (out / "results.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    write_head(learner.objective, out)
    run = TwoTowerRun(
        config,
        data,
        trained,
        values,
        pairs,
        distance,
        shown,
        (before.images, before.names),
        (on_test.images[shown], names),
        environment(),
    )
    write_report(run, out)
    return Finished(out / "report.html", None, headline(values))


def build_learner(config: RunConfig, data: TwoKinds) -> Learner:
    """Return the untrained learner of a run; seeds everything that is drawn from here on.

    Raises:
        RecipeError: The two encoders end in embeddings of different sizes.
    """
    assert config.right_encoder is not None  # noqa: S101 - the configuration was checked
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.loop.precision)
    try:
        left = build_image_encoder(config.encoder, DIGIT_INPUT)
        right = build_text_encoder(config.right_encoder, vocabulary=CHARACTERS, length=data.tokens.shape[1])
        objective = build_objective(config.objective, subjects=0)
        objective.prepare(left)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    if left.output_shape != right.output_shape:
        raise RecipeError(
            f"the encoders end in {left.output_shape[-1]} and {right.output_shape[-1]} numbers; "
            "one space needs the same"
        )
    return Learner(left, objective, right=right)


def batches(config: RunConfig, data: TwoKinds, first_step: int) -> tf.data.Dataset:
    """Return the training batches from a step on: pictures, names, and whether they are mated."""
    assert isinstance(config.batches, PairBatches)  # noqa: S101 - the configuration was checked
    sampler = CrossPairSampler(data.train.labels, data.meaning, config.batches.size, config.seed)
    return pair_batches(
        data.train.images,
        data.tokens,
        sampler,
        config.augmentation,
        seed=config.seed,
        first_step=first_step,
    )


def headline(values: dict[str, Any]) -> str:
    """Return the main figures in one line."""
    pairs = values["pairs"]
    return (
        f"pair accuracy {pairs['accuracy']:.4f}, EER {pairs['eer']:.4f}, "
        f"nearest name right {values['naming_accuracy']:.4f}"
    )


def _apart(found: Embedded, pairs: Pairs, config: RunConfig) -> NDArray[np.float64]:
    return distances(found.images[pairs.left], found.names[pairs.right], config.metric)


def _with_keras(learner: Learner, images: NDArray[np.uint8], tokens: NDArray[np.int32]) -> Embedded:
    return Embedded(embedded(learner.left, images), embedded(learner.right, tokens))


def _session(path: Path) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """Return what maps samples [N, ...] to float32[N, D] with an exported encoder."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def embed(samples: NDArray[Any]) -> NDArray[np.float32]:
        starts = range(0, len(samples), BATCH)
        return np.concatenate(
            [session.run(None, {name: samples[start : start + BATCH]})[0] for start in starts]
        )

    return embed
