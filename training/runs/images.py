"""A run on labelled images: train, export a bundle, measure the exported graph, report.

The run's folder afterwards holds ``config.json``, ``split.json``, ``log.csv``, ``checkpoint.npz``,
``tensorboard/``, ``results.json``, ``report.html``, ``plots/`` and the bundle as ``models/<name>/``.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from pydantic import JsonValue

from app import __version__
from app.encoding.manifest import Encoding, Manifest
from app.encoding.onnx_session import Graph
from training import export
from training.build import build_image_encoder, build_objective, labelled_sampler, pair_sampler
from training.config import PKBatches, RunConfig
from training.data.parts import ImageParts, load_image_parts
from training.data.pipeline import labelled_batches, pair_batches
from training.embedding import Embed, embed_images
from training.learner import Learner
from training.measured_evidence import MeasuredEvidence, all_trials
from training.objectives import WeightedL1Objective
from training.runs.finished import Finished
from training.runs.image_card import model_card
from training.runs.image_report import write_report
from training.runs.image_results import Measured, measure_images
from training.runs.validation import ImageValidation
from training.train import Trained, train

WATCHED = 256
"""Training samples whose embeddings are watched for a collapse."""

PARITY_SAMPLES = 256
EVIDENCE_IMAGES = 4000
"""Most images whose pairs make the evidence: eight million trials."""

SHOWN = 600
"""Test images drawn in the pictures of embeddings, before and after."""

logger = logging.getLogger("visavis.training")


@dataclass(frozen=True, eq=False)
class ImageRun:
    """A finished run.

    Attributes:
        config: What was asked for.
        parts: The data.
        trained: What the loop left.
        bundle: Folder of the bundle.
        manifest: Of the bundle.
        measured: On the test part, with the exported graph.
        shown: intp[S], rows of the test part in the pictures of embeddings.
        before: float32[S, D], their embeddings before training.
        parity: Largest difference between Keras and ONNX Runtime.
    """

    config: RunConfig
    parts: ImageParts
    trained: Trained
    bundle: Path
    manifest: Manifest
    measured: Measured
    shown: NDArray[np.intp]
    before: NDArray[np.float32]
    parity: float

    def finished(self, out: Path) -> Finished:
        """Return what the command line says of the run."""
        return Finished(out / "report.html", self.bundle, headline(self.measured.values))


def run_images(
    config: RunConfig,
    data_dir: Path,
    out: Path,
    *,
    progress: Callable[[int], None] = lambda _: None,
    parts: ImageParts | None = None,
) -> ImageRun:
    """Train, export and measure.

    Args:
        config: With image data.
        data_dir: Where public sets lie.
        out: Folder of the run.
        progress: Called with the number of steps done.
        parts: The data, when the caller has read them already.

    Raises:
        DataError: The data are missing, damaged or too few.
        RunStoppedError: Interrupted; the same call goes on.
        CollapsedError: The run is dead.
        ExportError: Keras and ONNX Runtime differ.
    """
    out.mkdir(parents=True, exist_ok=True)
    parts = parts or load_image_parts(config, data_dir)
    (out / "config.json").write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if parts.split is not None:
        (out / "split.json").write_text(parts.split.as_json(), encoding="utf-8")
    learner = build_learner(config, parts)
    shown = _shown(parts.test.images.labels)
    before = embed_with_keras(learner.left, parts.test.images.images[shown])
    validation = None
    if parts.validation is not None:
        validation = ImageValidation(
            lambda images: embed_with_keras(learner.left, images), parts.validation.images, config.metric
        )
    train_images = parts.train.images.images
    watched = train_images[:: max(1, len(train_images) // WATCHED)][:WATCHED]
    trained = train(
        learner,
        lambda first_step: batches(config, parts, first_step),
        config,
        out,
        validate=validation,
        watched=lambda: embed_with_keras(learner.left, watched),
        progress=progress,
    )
    bundle = export.emptied(out / "models" / config.name)
    model = exportable(learner)
    golden = export.write_golden(model, bundle)
    samples = np.concatenate([golden, parts.test.images.images[:PARITY_SAMPLES]])
    parity = export.write_encoder(model, bundle, samples)
    graph = Graph(bundle / "encoder.onnx", "cpu")

    def embed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return embed_images(graph, images)

    evidence = measure_parts_evidence(config, parts, embed)
    encoding = Encoding(
        input=parts.input,
        preprocess=parts.preprocess,
        detector=None if parts.detector is None else parts.detector[0],
        dimensions=int(model.output_shape[-1]),
        metric=config.metric,
    )
    default = export.default_point(evidence.evidence)
    measured = measure_images(
        config,
        embed,
        parts.test,
        validation=parts.validation,
        train=parts.train,
        threshold=default.threshold,
        data_dir=data_dir,
    )
    (out / "results.json").write_text(json.dumps(measured.values, indent=1) + "\n", encoding="utf-8")
    if parts.detector is not None:
        shutil.copyfile(parts.detector[1], bundle / parts.detector[0].file)
    (bundle / "MODEL_CARD.md").write_text(
        model_card(config, parts, trained, evidence, measured), encoding="utf-8"
    )
    manifest = export.finish_bundle(
        bundle,
        encoding,
        evidence,
        bundle_text(config, parts, trained),
        parity={
            "against": "the Keras model it was exported from",
            "largest_difference": parity,
            "inputs": len(samples),
        },
        results=measured.values,
        default_point=default.name or "",
    )
    run = ImageRun(config, parts, trained, bundle, manifest, measured, shown, before, parity)
    write_report(run, out)
    return run


def build_learner(config: RunConfig, parts: ImageParts) -> Learner:
    """Return the untrained learner of a run; seeds everything that is drawn from here on."""
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.loop.precision)
    try:
        encoder = build_image_encoder(config.encoder, parts.input)
        objective = build_objective(config.objective, subjects=len(parts.train.images.subjects))
        objective.prepare(encoder)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return Learner(encoder, objective)


def batches(config: RunConfig, parts: ImageParts, first_step: int) -> tf.data.Dataset:
    """Return the training batches from a step on."""
    data = parts.train.images
    common = {"seed": config.seed, "first_step": first_step}
    if isinstance(config.batches, PKBatches):
        labelled = labelled_sampler(config.batches, data.labels, config.seed)
        return labelled_batches(data.images, data.labels, labelled, config.augmentation, **common)
    pairs = pair_sampler(config.batches, data.labels, config.seed)
    return pair_batches(data.images, data.images, pairs, config.augmentation, **common)


def exportable(learner: Learner) -> keras.Model:
    """Return the encoder in float32, with the weights of a weighted L1 head folded in."""
    model = export.float32_copy(learner.left)
    if isinstance(learner.objective, WeightedL1Objective):
        model = export.with_folded_scale(model, learner.objective.folded_scale())
    return model


def embed_with_keras(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Map uint8[N, H, W, C] to float32[N, D] with the model as it is."""
    return np.asarray(model.predict(images, batch_size=128, verbose=0), np.float32)


def measure_parts_evidence(config: RunConfig, parts: ImageParts, embed: Embed) -> MeasuredEvidence:
    """Compare all images of the calibration part, or a seeded choice of ``EVIDENCE_IMAGES`` of them."""
    data = parts.calibration.images
    rows = np.arange(len(data))
    if len(data) > EVIDENCE_IMAGES:
        rows = np.sort(np.random.default_rng(config.seed).permutation(len(data))[:EVIDENCE_IMAGES])
    _, labels = np.unique(data.labels[rows], return_inverse=True)
    evidence = all_trials(
        embed(data.images[rows]), labels.astype(np.int32), config.metric, closed=parts.closed
    )
    unit = "; bounds count images, for the subjects are all there are" if parts.closed else ""
    return MeasuredEvidence(
        evidence,
        source=f"all pairs of {rows.size} images of {labels.max() + 1} subjects: {parts.calibrated_on}{unit}",
        images=int(rows.size),
        failures_to_acquire=0,
    )


def bundle_text(config: RunConfig, parts: ImageParts, trained: Trained) -> export.BundleText:
    """Return what the manifest says of origin."""
    recipe: dict[str, JsonValue] = {
        "name": config.name,
        "config": config.model_dump(mode="json"),
        "steps": trained.step,
        "best_step": trained.best_step,
        "seconds": round(trained.seconds),
    }
    weights: dict[str, Any] = {
        "file": "encoder.onnx",
        "origin": f"trained by visavis {__version__}, recipe {config.name}, seed {config.seed}",
        "origin_sha256": config.digest,
        "licence": parts.weights_licence,
        "trained_on": ", ".join(str(item["name"]) for item in parts.datasets),
        "changes": "none: origin_sha256 is that of the recipe's configuration",
    }
    return export.BundleText(config.name, "1.0.0", config.summary, recipe, parts.datasets, (weights,))


def _shown(labels: NDArray[np.int32]) -> NDArray[np.intp]:
    """Return test rows for the pictures of embeddings: of ten subjects at most, so that colours tell them
    apart.
    """
    rng = np.random.default_rng(0)
    subjects = rng.permutation(int(labels.max()) + 1)[:10]
    rows = np.flatnonzero(np.isin(labels, subjects))
    return np.sort(rng.permutation(rows)[:SHOWN])


def headline(values: dict[str, Any]) -> str:
    """Return the main figures in one line."""
    figures = [f"EER {values['verification']['eer']:.4f}"]
    for name in ("accuracy", "accuracy_at_fixed_threshold"):
        if name in values.get("pairs", {}):
            figures.append(f"pair {name.replace('_', ' ')} {values['pairs'][name]:.4f}")
    if "knn" in values:
        figures.append(f"kNN accuracy {values['knn']['accuracy_k5']:.4f}")
    for name, curve in values.get("oneshot", {}).items():
        who, _, where = name.partition(", ")
        if who == "model":
            last = curve[-1]
            figures.append(f"{last['ways']}-way one-shot error {where} {last['error_rate']:.4f}")
    if "official_runs" in values:
        figures.append(f"official runs error {values['official_runs']['error_rate']:.4f}")
    return "; ".join(figures)
