"""Runs on people: what learns, what the head sees, and that before and after are measured alike."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from app.encoding.manifest import InputSpec, WholeImage
from app.encoding.model import open_model
from app.encoding.onnx_session import Graph
from training.build import labelled_sampler
from training.config import (
    PairFeatures,
    PKBatches,
    RecipeError,
    Residual,
    RunConfig,
    SmallFace,
    load_recipe,
)
from training.data.labelled import LabelledImages
from training.data.parts import ImageParts, Part, load_image_parts
from training.data.smoke import drawn_faces
from training.data.splits import Split
from training.embedding import embed_images
from training.faces_bundle import faces_encoder
from training.learner import Learner
from training.objectives import with_features
from training.runs.image_run import published
from training.runs.images import build_learner, embed_with_keras, run_images


def drawn_parts(size: InputSpec) -> ImageParts:
    """Return 20 drawn people, two images each: 5 to train on, 9 for the thresholds, 6 to test."""
    people = drawn_faces(20, 2, seed=1, height=size.height, width=size.width)

    def part(first: int, after: int) -> LabelledImages:
        return people.of_subjects(range(first, after))

    return ImageParts(
        input=size,
        preprocess=WholeImage(mode="fit"),
        train=Part(part(0, 5)),
        validation=None,
        calibration=Part(part(5, 14)),
        test=Part(part(14, 20)),
        closed=False,
        split=Split(people.subjects[:5], people.subjects[5:14], people.subjects[14:], seed=1),
        datasets=({"name": "drawn faces", "licence": "made by the run"},),
        calibrated_on="drawn faces",
    )


def recipe(name: str, **changes: object) -> RunConfig:
    quick = {"loop.steps": 2, "loop.epoch": 2, "loop.best_by": "last", "batches.subjects": 4, **changes}
    return load_recipe(name, smoke=True, changes={key.replace("__", "."): v for key, v in quick.items()})


ALIGNED = InputSpec(height=112, width=112, channels=3)


@pytest.mark.model
def test_fine_tuning_moves_the_last_stages_alone_and_no_batch_norm() -> None:
    learner = build_learner(recipe("faces-finetune", encoder__trainable_stages=2), drawn_parts(ALIGNED))
    moved = {variable.path.partition("/")[0] for variable in learner.trainable_variables}
    assert "stage_5_conv_14" in moved
    assert "projection_dense" in moved
    assert all(name.startswith(("stage_5", "projection")) for name in moved)
    assert not any("norm" in name for name in moved)


@pytest.mark.model
def test_fine_tuning_starts_from_the_embeddings_of_the_faces_bundle() -> None:
    parts = drawn_parts(ALIGNED)
    learner = build_learner(recipe("faces-finetune"), parts)
    images = parts.test.images.images[:3]
    expected = embed_images(Graph(faces_encoder(), "cpu"), images)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(embed_with_keras(learner.left, images) - expected).max() < 1e-4


@pytest.mark.model
@pytest.mark.slow
def test_a_run_that_moves_nothing_measures_the_same_before_and_after(tmp_path: Path) -> None:
    config = recipe("faces-finetune", optimiser__learning_rate=1e-12, optimiser__warmup_steps=0)
    run_images(config, tmp_path, tmp_path / "run", parts=drawn_parts(ALIGNED))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    before, after = results["before"]["verification"], results["verification"]
    assert before["trials"] == after["trials"]
    assert before["eer"] == pytest.approx(after["eer"], abs=1e-3)
    assert before["fnmr_at_fmr"]["0.01"]["threshold"] == pytest.approx(
        after["fnmr_at_fmr"]["0.01"]["threshold"], abs=1e-4
    )


@pytest.mark.slow
def test_a_small_encoder_from_scratch_becomes_a_bundle_that_loads(tmp_path: Path) -> None:
    size = InputSpec(height=32, width=32, channels=3)
    config = recipe("faces-triplet", data__input=size.model_dump())
    run = run_images(config, tmp_path, tmp_path / "run", parts=drawn_parts(size))
    model = open_model(run.bundle, provider="cpu")
    assert model.manifest.dimensions == 128
    assert [point.name for point in model.manifest.operating_points] == ["fmr-1e-1"]
    assert "before" not in run.measured.values


# --- the pair-feature head
# ------------------------------------------------------------------------------------


def head_learner(subjects: int = 5) -> tuple[Learner, LabelledImages]:
    size = InputSpec(height=32, width=32, channels=3)
    parts = drawn_parts(size)
    config = recipe("faces-triplet", data__input=size.model_dump()).model_copy(
        update={"encoder": SmallFace(kind="small-face", width=0.25, dimensions=16)}
        | {"objective": PairFeatures(kind="pair-features", units=16, dropout=0.0)}
    )
    return build_learner(config, parts), parts.train.images.of_subjects(range(subjects))


def pairs_of(data: LabelledImages) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return every first image with the second of its own and of the next subject."""
    left, own = data.images[0::2], data.images[1::2]
    other = np.roll(own, 1, axis=0)
    same = np.arange(2 * len(left)) < len(left)
    return tf.constant(np.concatenate([left, left])), tf.constant(np.concatenate([own, other])), same


def test_the_head_sees_the_last_map_and_the_encoders_own_embeddings() -> None:
    learner, data = head_learner()
    maps, embeddings = with_features(learner.left)(data.images, training=False)
    assert maps.shape == (10, 2, 2, 64)
    assert np.array_equal(embeddings, learner.left(data.images, training=False))


def test_the_pair_feature_head_and_its_encoder_learn_together() -> None:
    learner, data = head_learner()
    batch = pairs_of(data)
    weights = learner.trainable_variables
    optimiser = keras.optimizers.Adam(1e-2)
    optimiser.build(weights)
    started = [np.asarray(weight).copy() for weight in weights]
    losses = []
    for _ in range(25):
        with tf.GradientTape() as tape:
            metrics = learner.metrics(batch)
        optimiser.apply(tape.gradient(metrics["loss"], weights), weights)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    still = [
        w.path for w, before in zip(weights, started, strict=True) if np.array_equal(np.asarray(w), before)
    ]
    assert still == []
    assert {"contrastive", "accuracy_mated", "accuracy_nonmated"} < set(metrics)


def test_a_head_on_feature_maps_is_no_part_of_the_exported_encoder() -> None:
    learner, _ = head_learner()
    assert [tuple(output.shape) for output in learner.left.outputs] == [(None, 16)]
    assert len(learner.variables) > len(learner.left.variables)


def test_an_encoder_without_feature_maps_is_refused() -> None:
    size = InputSpec(height=32, width=32, channels=3)
    config = recipe("faces-triplet", data__input=size.model_dump()).model_copy(
        update={"encoder": Residual(kind="residual", stem=4, widths=(4,), blocks=(1,), dimensions=4)}
        | {"objective": PairFeatures(kind="pair-features")}
    )
    with pytest.raises(RecipeError, match="encoder residual has no feature maps"):
        build_learner(config, drawn_parts(size))


# --- smoke runs
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["images", "faces-finetune", "faces-triplet"])
def test_batches_of_a_smoke_run_fit_the_subjects_it_draws(name: str, tmp_path: Path) -> None:
    config = load_recipe(name, smoke=True)
    parts = load_image_parts(config, tmp_path)
    assert isinstance(config.batches, PKBatches)
    chosen = labelled_sampler(config.batches, parts.train.images.labels, config.seed)(0)
    assert len(set(parts.train.images.labels[chosen])) == config.batches.subjects
    assert len(parts.calibration.images.subjects) >= 25  # enough for fmr-1e-2


# --- what a bundle tells
# --------------------------------------------------------------------------------------


def test_a_bundle_names_a_folder_without_saying_where_it_lies() -> None:
    config = load_recipe("images", changes={"data.path": "/home/ada/pictures"})
    assert published(config)["data"]["path"] == "pictures"  # type: ignore[index, call-overload]
    public = load_recipe("faces-finetune")
    assert published(public)["data"]["path"] == "faces/celeba_wild"  # type: ignore[index, call-overload]
