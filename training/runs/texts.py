"""A run on pairs of texts: train, export, measure the exported graph beside TF-IDF, report.

The run's folder afterwards holds ``config.json``, ``log.csv``, ``checkpoint.npz``, ``tensorboard/``,
``encoder.onnx`` (``tokens`` int32[N, T] to ``embeddings`` float32[N, D]), ``vocabulary.json``, which turns a
text into tokens, ``head.npz`` where the objective has a head, ``results.json`` and ``report.html``. The
service takes images, so there is no bundle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime as ort
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray

from training import export
from training.build import build_objective, build_text_encoder, labelled_sampler
from training.config import AveragePooling, LstmMean, PKBatches, RunConfig, TextPairsData
from training.data.pipeline import labelled_batches, pair_batches
from training.data.text import TextPairs, Vocabulary
from training.data.text_parts import load_text_parts, mated_groups
from training.data.text_samplers import GivenPairs
from training.encoders.text import start_from_idf
from training.evaluation.tfidf import inverse_document_frequency
from training.heads import head_distance
from training.learner import Learner
from training.objectives import Objective, PairFeaturesObjective, with_features
from training.runs.environment import environment
from training.runs.finished import Finished
from training.runs.text_report import write_report
from training.runs.text_results import (
    PairDistances,
    embedding_distances,
    headline,
    measure_texts,
)
from training.runs.text_run import TextRun
from training.runs.validation import eer_of
from training.train import train

WATCHED = 256
"""Training texts whose embeddings are watched for a collapse."""

PARITY_TEXTS = 512

SHOWN = 12
"""Mated test pairs in the pictures of embeddings: as many as colours can tell apart."""

BATCH = 256


def run_texts(
    config: RunConfig,
    data_dir: Path,
    out: Path,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Finished:
    """Train, export, measure and report.

    Args:
        config: With pairs of texts as data.
        data_dir: Where public sets lie.
        out: Folder of the run.
        progress: Called with the number of steps done.

    Raises:
        DataError: The data are missing, damaged or too few.
        RunStoppedError: Interrupted; the same call goes on.
        CollapsedError: The run is dead.
        ExportError: Keras and ONNX Runtime differ.
    """
    assert isinstance(config.data, TextPairsData)  # noqa: S101 - the caller looked
    length = config.data.length
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
    parts = load_text_parts(config.data, data_dir, config.seed)
    known = [*parts.train.left, *parts.train.right]
    vocabulary = Vocabulary.of(known, config.data.tokens, config.data.vocabulary)
    (out / "vocabulary.json").write_text(vocabulary.as_json(), encoding="utf-8")
    encoded = vocabulary.encode(known, length)
    learner = build_learner(config, len(vocabulary), encoded)

    def embed_with_keras(texts: tuple[str, ...]) -> NDArray[np.float32]:
        return embedded(learner.left, vocabulary.encode(texts, length))

    shown = _shown(parts.test)
    shown_texts = tuple(side[row] for side in (parts.test.left, parts.test.right) for row in shown)
    before = embed_with_keras(shown_texts)
    while_training = embedding_distances(embed_with_keras, config.metric)
    watched = encoded[:: max(1, len(encoded) // WATCHED)][:WATCHED]
    trained = train(
        learner,
        lambda first_step: batches(config, parts.train, vocabulary, first_step),
        config,
        out,
        validate=lambda: {"eer": eer_of(while_training(parts.validation), parts.validation.same)},
        watched=lambda: embedded(learner.left, watched),
        progress=progress,
    )
    model = export.float32_copy(learner.left)
    samples = vocabulary.encode([*parts.test.left, *parts.test.right][:PARITY_TEXTS], length)
    parity = export.write_encoder(model, out, samples, input_name="tokens")
    session = ort.InferenceSession(out / "encoder.onnx", providers=["CPUExecutionProvider"])

    def embed(texts: tuple[str, ...]) -> NDArray[np.float32]:
        tokens = vocabulary.encode(texts, length)
        starts = range(0, len(tokens), BATCH)
        found = [session.run(None, {"tokens": tokens[start : start + BATCH]})[0] for start in starts]
        return np.concatenate(found)

    measured = measure_texts(
        parts,
        embedding_distances(embed, config.metric),
        head_distances(learner, vocabulary, length),
    )
    measured.values["parity"] = {"largest_difference": parity, "inputs": len(samples)}
    measured.values["training"] = {
        "steps": trained.step,
        "best_step": trained.best_step,
        "seconds": round(trained.seconds, 1),
    }
    (out / "results.json").write_text(json.dumps(measured.values, indent=1) + "\n", encoding="utf-8")
    write_head(learner.objective, out)
    run = TextRun(
        config,
        parts,
        vocabulary,
        trained,
        measured,
        shown,
        before,
        embed(shown_texts),
        (parity, len(samples)),
        environment(),
    )
    write_report(run, out)
    return Finished(out / "report.html", None, headline(measured.values))


def build_learner(config: RunConfig, vocabulary: int, encoded: NDArray[np.int32]) -> Learner:
    """Return the untrained learner of a run; seeds everything that is drawn from here on.

    Args:
        config: With pairs of texts as data.
        vocabulary: Number of tokens, padding included.
        encoded: int32[N, T], the training texts, which tell how rare each token is.
    """
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.loop.precision)
    try:
        encoder = build_text_encoder(config.encoder, vocabulary=vocabulary, length=encoded.shape[1])
        objective = build_objective(config.objective, subjects=0)
        objective.prepare(encoder)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    if isinstance(config.encoder, AveragePooling | LstmMean) and config.encoder.start == "idf":
        start_from_idf(encoder, inverse_document_frequency(encoded, vocabulary), config.seed)
    return Learner(encoder, objective)


def batches(config: RunConfig, train: TextPairs, vocabulary: Vocabulary, first_step: int) -> tf.data.Dataset:
    """Return the training batches from a step on.

    Batches of kind ``pk`` are of texts and the groups of mated texts that they belong to; a group's texts are
    one another's mates, those of all other groups their non-mates. Batches of kind ``pairs`` are of the
    labelled pairs, half mated and half not.
    """
    assert isinstance(config.data, TextPairsData)  # noqa: S101 - the caller looked
    length = config.data.length
    common: dict[str, Any] = {"seed": config.seed, "first_step": first_step}
    if isinstance(config.batches, PKBatches):
        texts, groups = mated_groups(train)
        labelled = labelled_sampler(config.batches, groups, config.seed)
        return labelled_batches(vocabulary.encode(texts, length), groups, labelled, None, **common)
    left, right = (vocabulary.encode(side, length) for side in (train.left, train.right))
    return pair_batches(left, right, GivenPairs(train.same, config.batches.size, config.seed), None, **common)


def embedded(model: keras.Model, samples: NDArray[Any]) -> NDArray[np.float32]:
    """Map samples [N, ...] to float32[N, D] with the model as it is."""
    return np.asarray(model.predict(samples, batch_size=BATCH, verbose=0), np.float32)


def head_distances(learner: Learner, vocabulary: Vocabulary, length: int) -> PairDistances | None:
    """Return what compares pairs by the learner's head, where it sees more than a distance."""
    objective = learner.objective
    if not isinstance(objective, PairFeaturesObjective):
        return None
    encoder = with_features(learner.left)

    def apart(pairs: TextPairs) -> NDArray[np.float64]:
        sides = [vocabulary.encode(texts, length) for texts in (pairs.left, pairs.right)]
        found = []
        for start in range(0, len(pairs), BATCH):
            left, right = (encoder(side[start : start + BATCH], training=False)[0] for side in sides)
            found.append(ops.convert_to_numpy(head_distance(objective.head(left, right, training=False))))
        return np.concatenate(found).astype(np.float64)

    return apart


def write_head(objective: Objective, out: Path) -> None:
    """Write the weights of an objective's head as ``head.npz``, by their paths; none where it has none."""
    weights: dict[str, Any] = {weight.path: weight.numpy() for weight in objective.weights}
    if weights:
        np.savez(out / "head.npz", **weights)


def _shown(test: TextPairs) -> NDArray[np.intp]:
    mated: NDArray[np.intp] = np.flatnonzero(test.same)
    return np.sort(np.random.default_rng(0).permutation(mated)[:SHOWN])
