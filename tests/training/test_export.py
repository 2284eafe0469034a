from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from app.encoding.onnx_session import Graph
from app.matching.distances import distances
from training import export
from training.embedding import embed_images
from training.encoders.koch import koch
from training.encoders.mlp import mlp
from training.encoders.residual import residual
from training.heads import WeightedL1
from training.objectives import WeightedL1Objective


def pixels(count: int, side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 1), np.uint8)


@keras.saving.register_keras_serializable("tests")
class Noise(keras.layers.Layer):
    """Adds another constant each time it is traced: what is exported is not what Keras computes."""

    added = 0.0

    def call(self, values: Any) -> Any:
        Noise.added += 2e-4
        return values + Noise.added

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def test_exported_graph_answers_as_the_model(tmp_path: Path) -> None:
    model = mlp(6, 6, 1, widths=(8, 4), dropout=0.5)
    difference = export.write_encoder(model, tmp_path, pixels(100, 6))
    assert difference < 1e-6
    found = embed_images(Graph(tmp_path / "encoder.onnx", "cpu"), pixels(100, 6))
    np.testing.assert_allclose(found, model(pixels(100, 6), training=False), atol=1e-6)


def test_graph_that_differs_by_more_than_a_ten_thousandth_is_refused_and_removed(tmp_path: Path) -> None:
    inputs = keras.Input((4, 4, 1), dtype="uint8", name="images")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, Noise()(x))
    with pytest.raises(export.ExportError, match=r"differ by .* on 10 inputs; at most 0\.0001 is allowed"):
        export.write_encoder(model, tmp_path, pixels(10, 4))
    assert list(tmp_path.iterdir()) == []


def test_model_of_weights_that_are_no_numbers_is_refused(tmp_path: Path) -> None:
    model = mlp(4, 4, 1, widths=(3,), last_linear=True)
    model.layers[-2].bias.assign([np.nan, 0, 0])
    with pytest.raises(export.ExportError, match="differ by nan"):
        export.write_encoder(model, tmp_path, pixels(10, 4))


def test_golden_embeddings_are_those_of_keras(tmp_path: Path) -> None:
    model = mlp(6, 6, 1, widths=(8, 4))
    images = export.write_golden(model, tmp_path)
    with np.load(tmp_path / "golden.npz") as golden:
        np.testing.assert_array_equal(golden["images"], images)
        np.testing.assert_allclose(golden["embeddings"], model(images), atol=1e-7)


def test_float32_copy_of_a_mixed_model_has_its_weights_and_computes_in_full() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        keras.utils.set_random_seed(1)
        mixed = residual(16, 16, 1, ink=True, stem=4, widths=(8,), blocks=(1,), dimensions=8, dropout=0.1)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    full = export.float32_copy(mixed)
    assert {layer.compute_dtype for layer in full.layers if layer.weights} == {"float32"}
    for one, other in zip(mixed.get_weights(), full.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    apart = np.abs(np.asarray(mixed(pixels(8, 16))) - np.asarray(full(pixels(8, 16))))
    assert 0 < apart.max() < 0.05


def test_float32_model_is_not_copied() -> None:
    model = mlp(4, 4, 1, widths=(3,))
    assert export.float32_copy(model) is model


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Logits of a weighted L1 head and L1 distances of exported embeddings, for all pairs of 30 images."""
    keras.utils.set_random_seed(4)
    encoder = koch(size=75, filters=(4, 8, 8, 8), units=40, initialisation="he")
    objective = WeightedL1Objective()
    objective.prepare(encoder)
    weights = np.random.default_rng(1).gamma(0.5, 1.0, 40).astype(np.float32)
    weights[:5] = 0
    objective.head.scale.assign(weights)
    model = export.with_folded_scale(encoder, objective.folded_scale())
    folder = tmp_path_factory.mktemp("koch")
    images = pixels(30, 75)
    images[::2] //= 8
    assert export.write_encoder(model, folder, images) < 1e-4
    left, right = np.triu_indices(30, k=1)
    plain = np.asarray(encoder(images))
    logits = np.asarray(objective.head(plain[left], plain[right]))
    exported = embed_images(Graph(folder / "encoder.onnx", "cpu"), images)
    return logits, distances(exported[left], exported[right], "l1")


def test_folded_l1_distance_is_the_heads_weighted_distance(
    folded: tuple[NDArray[np.float32], NDArray[np.float64]],
) -> None:
    logits, apart = folded
    bias = 2.0  # of the objective's head at its start
    np.testing.assert_allclose(bias - apart, logits, rtol=1e-4, atol=1e-4)


def test_folded_l1_distance_orders_pairs_as_the_head_does(
    folded: tuple[NDArray[np.float32], NDArray[np.float64]],
) -> None:
    logits, apart = folded
    order = np.argsort(apart)
    steps = np.diff(apart[order])
    # Pairs that rounding cannot tell apart may change places; there are few.
    told_apart = steps > 1e-5
    assert told_apart.mean() > 0.95
    assert (np.diff(logits[order].astype(np.float64))[told_apart] < 0).all()


def test_negative_weight_of_a_head_cannot_be_folded() -> None:
    head = WeightedL1()
    head.build((1, 3))
    head.scale.assign([1.0, -0.5, 2.0])
    with pytest.raises(ValueError, match="1 weights of the head are negative"):
        head.folded_scale()


def test_emptied_folder_holds_nothing_of_before(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "a"
    (folder / "old").mkdir(parents=True)
    assert list(export.emptied(folder).iterdir()) == []
