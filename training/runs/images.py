"""A run on labelled images: train, export a bundle, measure the exported graph, report.

The run's folder afterwards holds ``config.json``, ``split.json``, ``log.csv``, ``checkpoint.npz``,
``tensorboard/``, ``results.json``, ``embeddings.npz``, ``report.html``, ``plots/`` and the bundle as
``models/<name>/``.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from pydantic import JsonValue

from app import __version__
from app.encoding.manifest import Encoding
from app.encoding.onnx_session import Graph
from training import export
from training.build import build_image_encoder, build_objective, labelled_sampler, pair_sampler
from training.calibration import write_plots
from training.config import AlignedFacesData, FolderData, MobileFaceNet, PKBatches, RunConfig
from training.data.parts import ImageParts, load_image_parts
from training.data.pipeline import WHOLE, Share, labelled_batches, pair_batches
from training.distribute import Distribution
from training.embedding import Embed, embed_images
from training.encoders.views import averaged_over_views
from training.faces_bundle import faces_encoder
from training.learner import Learner
from training.measured_evidence import default_point
from training.measurement import Measurement, measure
from training.objectives import WeightedL1Objective
from training.pictures.progress import read_log
from training.runs.environment import environment
from training.runs.image_card import model_card
from training.runs.image_pictures import write_bundle_plots
from training.runs.image_report import write_report
from training.runs.image_results import measure_images
from training.runs.image_run import (
    CONFIG,
    LOG,
    PREPARED,
    RESULTS,
    SPLIT,
    ImageRun,
    published,
    write_embeddings,
)
from training.runs.validation import ImageValidation
from training.train import Trained, train
from training.trial_sets import Photos, TrialSet

WATCHED = 256
"""Training samples whose embeddings are watched for a collapse."""

PARITY_SAMPLES = 256
EVIDENCE_IMAGES = 4000
"""Most images whose pairs make the evidence: eight million trials."""

EVIDENCE_IMAGES_CLOSED = 2000
"""Likewise of a closed set, whose few subjects have very many mated pairs; all of those are kept."""

OF_EVIDENCE = ("reliability.png",)
"""Plots of the calibration part in the bundle; distances and DET are of the test part."""

SHOWN = 600
"""Test images drawn in the pictures of embeddings, before and after."""

logger = logging.getLogger("visavis.training")


def run_images(
    config: RunConfig,
    data_dir: Path,
    out: Path,
    *,
    progress: Callable[[int], None] = lambda _: None,
    parts: ImageParts | None = None,
    distribution: Distribution | None = None,
) -> ImageRun:
    """Train, export, measure and report.

    Args:
        config: With image data.
        data_dir: Where public sets lie.
        out: Folder of the run.
        progress: Called with the number of steps done.
        parts: The data, when the caller has read them already.
        distribution: Where several devices or workers share the work.

    Raises:
        DataError: The data are missing, damaged or too few.
        RunStoppedError: Interrupted; the same call goes on.
        CollapsedError: The run is dead.
        ExportError: Keras and ONNX Runtime differ.
        WorkerDoneError: This is a worker other than the chief, and training is over.
    """
    shared = distribution or Distribution()
    out.mkdir(parents=True, exist_ok=True)
    parts = parts or load_image_parts(config, data_dir, out / PREPARED)
    if shared.chief:
        (out / CONFIG).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
        if parts.split is not None:
            (out / SPLIT).write_text(parts.split.as_json(), encoding="utf-8")
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
        lambda first_step: shared.dataset(batches(config, parts, first_step, shared.share)),
        config,
        out,
        validate=validation,
        watched=lambda: embed_with_keras(learner.left, watched),
        progress=progress,
        distribution=shared,
    )
    shared.leave_unless_chief()
    bundle = export.emptied(out / "models" / config.name)
    model = exportable(learner, config.export.shifts)
    golden = export.write_golden(model, bundle)
    samples = np.concatenate([golden, parts.test.images.images[:PARITY_SAMPLES]])
    parity = export.write_encoder(model, bundle, samples)
    graph = Graph(bundle / "encoder.onnx", "cpu")

    def embed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return embed_images(graph, images)

    calibrated = measure_parts_evidence(config, parts, embed)
    evidence, default = calibrated.measured, calibrated.default
    encoding = Encoding(
        input=parts.input,
        preprocess=parts.preprocess,
        detector=None if parts.detector is None else parts.detector[0],
        dimensions=int(model.output_shape[-1]),
        metric=config.metric,
    )
    measured = measure_images(
        config,
        embed,
        parts.test,
        validation=parts.validation,
        train=parts.train,
        threshold=default.threshold,
        data_dir=data_dir,
    )
    if (start := starting_encoder(config)) is not None:
        measured.values["before"] = measure_start(config, start, parts, data_dir)
    (out / RESULTS).write_text(json.dumps(measured.values, indent=1) + "\n", encoding="utf-8")
    if parts.detector is not None:
        shutil.copyfile(parts.detector[1], bundle / parts.detector[0].file)
    write_embeddings(out, measured, shown, before)
    run = ImageRun(
        config=config,
        parts=parts,
        log=read_log(out / LOG),
        best_step=trained.best_step,
        measured=measured,
        shown=shown,
        before=before,
        bundle=bundle,
        points=calibrated.points,
        default=default,
        thresholds_from=evidence.source,
        parity={
            "against": "the Keras model it was exported from",
            "largest_difference": parity,
            "inputs": len(samples),
        },
        environment=environment(),
    )
    write_bundle_plots(run)
    write_plots(bundle, calibrated, config.name, config.metric, files=OF_EVIDENCE)
    drawn = [name for name in OF_EVIDENCE if (bundle / name).is_file()]
    (bundle / "MODEL_CARD.md").write_text(
        model_card(config, parts, trained, evidence, measured, plots=drawn), encoding="utf-8"
    )
    export.finish_bundle(
        bundle,
        encoding,
        evidence,
        bundle_text(run, trained),
        parity=dict(run.parity),
        results={**measured.values, "evidence": dict(evidence.results)},
        default_point=default.name or "",
    )
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


def batches(config: RunConfig, parts: ImageParts, first_step: int, share: Share = WHOLE) -> tf.data.Dataset:
    """Return the training batches from a step on, or a share of each."""
    data = parts.train.images
    common: dict[str, Any] = {"seed": config.seed, "first_step": first_step, "share": share}
    if isinstance(config.batches, PKBatches):
        labelled = labelled_sampler(config.batches, data.labels, config.seed)
        return labelled_batches(data.images, data.labels, labelled, config.augmentation, **common)
    pairs = pair_sampler(config.batches, data.labels, config.seed)
    return pair_batches(data.images, data.images, pairs, config.augmentation, **common)


def exportable(learner: Learner, shifts: Sequence[tuple[int, int]] = ()) -> keras.Model:
    """Return the encoder in float32, with the weights of a weighted L1 head folded in.

    Args:
        learner: Trained.
        shifts: Of the views whose embeddings are averaged; none for the image as it is.
    """
    model = export.float32_copy(learner.left)
    if shifts:
        model = averaged_over_views(model, shifts)
    if isinstance(learner.objective, WeightedL1Objective):
        model = export.with_folded_scale(model, learner.objective.folded_scale())
    return model


def embed_with_keras(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Map uint8[N, H, W, C] to float32[N, D] with the model as it is."""
    return np.asarray(model.predict(images, batch_size=128, verbose=0), np.float32)


def measure_parts_evidence(config: RunConfig, parts: ImageParts, embed: Embed) -> Measurement:
    """Compare all images of the calibration part, or a seeded choice of them where there are too many."""
    trials = calibration_trials(config, parts, embed)
    photos = trials.photos
    unit = "; bounds count images, for the subjects are all there are" if parts.closed else ""
    return measure(
        trials,
        f"all pairs of {photos.labels.size} images of {len(photos.subjects)} subjects: "
        f"{parts.calibrated_on}{unit}",
        # Letters of two alphabets look alike by nature.
        look_for_label_errors=isinstance(config.data, FolderData | AlignedFacesData),
    )


def calibration_trials(config: RunConfig, parts: ImageParts, embed: Embed) -> TrialSet:
    """Return the trials that thresholds come from."""
    data = parts.calibration.images
    rows = np.arange(len(data))
    most = EVIDENCE_IMAGES_CLOSED if parts.closed else EVIDENCE_IMAGES
    if len(data) > most:
        rows = np.sort(np.random.default_rng(config.seed).permutation(len(data))[:most])
    subjects, labels = np.unique(data.labels[rows], return_inverse=True)
    photos = Photos(
        embeddings=embed(data.images[rows]),
        labels=labels.astype(np.int32),
        subjects=tuple(data.subjects[subject] for subject in subjects.tolist()),
        names=tuple(str(row) for row in rows.tolist()),
    )
    return TrialSet(photos, config.metric, closed=parts.closed)


def starting_encoder(config: RunConfig) -> Path | None:
    """Return the file of the encoder that a run starts from; None where weights are drawn."""
    if isinstance(config.encoder, MobileFaceNet) and config.encoder.start == "faces":
        return faces_encoder()
    return None


def measure_start(config: RunConfig, start: Path, parts: ImageParts, data_dir: Path) -> dict[str, Any]:
    """Measure the encoder a run starts from on the test trials, its threshold from the same calibration."""
    graph = Graph(start, "cpu")

    def embed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return embed_images(graph, images)

    threshold = default_point(calibration_trials(config, parts, embed).evidence()).threshold
    return measure_images(
        config,
        embed,
        parts.test,
        validation=None,
        train=parts.train,
        threshold=threshold,
        data_dir=data_dir,
    ).values


def bundle_text(run: ImageRun, trained: Trained) -> export.BundleText:
    """Return what the manifest says of origin."""
    config, parts = run.config, run.parts
    recipe: dict[str, JsonValue] = {
        "name": config.name,
        "config": published(config),
        "steps": trained.step,
        "best_step": trained.best_step,
        "seconds": round(trained.seconds),
        "environment": dict(run.environment),
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
