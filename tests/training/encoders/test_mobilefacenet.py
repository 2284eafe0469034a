"""The Keras face encoder is the bundle's to the last digits, in ONNX too; the small one has its shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from app.encoding.model import open_model
from app.encoding.onnx_session import Graph
from training.data.preparing import aligned_faces, prepare_files
from training.encoders.mobilefacenet import (
    FEATURES,
    STAGES,
    ChannelPReLU,
    feature_model,
    load_bundle_weights,
    mobilefacenet,
    small_face_encoder,
    trainable_stages,
)
from training.export_onnx import export_onnx, largest_difference
from training.importers.onnx_graph import initializers, set_initializer

FACES = Path(__file__).parents[3] / "models" / "faces"
ENCODER = FACES / "encoder.onnx"

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def faces() -> keras.Model:
    """The bundle's encoder in Keras; tests must not change its weights."""
    model = mobilefacenet()
    load_bundle_weights(model, ENCODER)
    return model


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    with np.load(FACES / "golden.npz") as stored:
        return dict(stored)


@pytest.fixture
def tuned() -> keras.Model:
    """A copy to train."""
    model = mobilefacenet()
    load_bundle_weights(model, ENCODER)
    return model


def embed(model: keras.Model, images: NDArray[np.uint8], *, training: bool = False) -> NDArray[np.float32]:
    return np.asarray(model(images, training=training))


def test_golden_embeddings_are_the_bundles(faces: keras.Model, golden: dict[str, NDArray[Any]]) -> None:
    assert np.abs(embed(faces, golden["images"]) - golden["embeddings"]).max() < 1e-5


def test_embeddings_of_real_faces_are_the_bundles(faces: keras.Model, data_dir: Path) -> None:
    photos = sorted((data_dir / "faces" / "celeba_wild").glob("*/*.jpg"))[::120][:48]
    if not photos:
        pytest.skip(f"no celeba_wild in {data_dir}")
    crops, _ = prepare_files(photos, aligned_faces(open_model(FACES, provider="cpu")))
    assert len(crops) > 40
    assert np.abs(embed(faces, crops) - Graph(ENCODER, "cpu")(crops)["embeddings"]).max() < 1e-5


def test_black_grey_and_white_are_the_bundles(faces: keras.Model) -> None:
    images = np.stack([np.full((112, 112, 3), value, np.uint8) for value in (0, 128, 255)])
    assert np.abs(embed(faces, images) - Graph(ENCODER, "cpu")(images)["embeddings"]).max() < 1e-5


def test_slopes_above_one_come_back(faces: keras.Model) -> None:
    slopes = faces.get_layer("stage_1_conv_1_prelu").get_weights()[0]
    assert (slopes > 1).sum() == 2  # the file has these two channels negated
    assert slopes.max() == pytest.approx(1.1206756, abs=1e-6)


def test_exported_encoder_gives_the_golden_embeddings(
    faces: keras.Model, golden: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    path = tmp_path / "encoder.onnx"
    export_onnx(faces, path)
    graph = Graph(path, "cpu")
    assert graph.inputs == {"images": ("tensor(uint8)", ["N", 112, 112, 3])}
    assert graph.outputs == {"embeddings": ("tensor(float)", ["N", 128])}
    assert np.abs(graph(golden["images"])["embeddings"] - golden["embeddings"]).max() < 1e-5
    assert largest_difference(faces, path, golden["images"]) < 1e-5
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {"PRelu", "BatchNormalization"}  # slow, and folded


def test_prelu_is_one_for_every_slope() -> None:
    layer = ChannelPReLU()
    layer.build((None, 5))
    slopes = np.array([-0.5, 0, 0.25, 1, 1.5], np.float32)
    layer.set_weights([slopes])
    x = np.array([[-2] * 5, [0] * 5, [3] * 5], np.float32)
    expected = [[1, 0, -0.5, -2, -3], [0] * 5, [3] * 5]
    assert np.asarray(layer(x)).tolist() == expected


def test_prelu_survives_a_config() -> None:
    layer = ChannelPReLU(name="bent", dtype="mixed_float16")
    again = ChannelPReLU.from_config(layer.get_config())
    assert (again.name, again.compute_dtype) == ("bent", "float16")


@pytest.mark.parametrize(
    ("last", "weights"),
    [
        # 49 places x 1024 channels x 128, and the bias
        (1, 49 * 1024 * 128 + 128),
        # and two blocks: depthwise 3 x 3, 1 x 1, and a slope for each channel of both
        (2, 49 * 1024 * 128 + 128 + 512 * (9 + 1 + 1024) + 1024 + 1024 * (9 + 1 + 1024) + 1024),
    ],
)
def test_last_stages_train_and_nothing_else(faces: keras.Model, last: int, weights: int) -> None:
    trainable_stages(faces, last)
    assert sum(int(np.prod(weight.shape)) for weight in faces.trainable_weights) == weights
    assert {layer.name[: len("stage_5")] for layer in faces.layers if layer.trainable and layer.weights} == {
        stage[: len("stage_5")] for stage in STAGES[-last:]
    }


def test_all_stages_train_all_but_batch_norms(faces: keras.Model) -> None:
    trainable_stages(faces, 6)
    held = [layer for layer in faces.layers if layer.weights and not layer.trainable]
    assert len(held) == 29  # one after each of 27 convolutions, and two in the head
    assert all(isinstance(layer, keras.layers.BatchNormalization) for layer in held)


@pytest.mark.parametrize("last", [0, 7])
def test_other_numbers_of_stages_are_refused(faces: keras.Model, last: int) -> None:
    with pytest.raises(ValueError, match=f"{last} stages cannot train: the net has 6"):
        trainable_stages(faces, last)


def test_what_is_fine_tuned_is_what_is_served(faces: keras.Model, golden: dict[str, NDArray[Any]]) -> None:
    trainable_stages(faces, 2)
    in_training = embed(faces, golden["images"], training=True)
    assert np.abs(in_training - golden["embeddings"]).max() < 1e-5


def test_step_of_fine_tuning_changes_the_last_stages_only(
    tuned: keras.Model, golden: dict[str, NDArray[Any]]
) -> None:
    trainable_stages(tuned, 2)
    before = {layer.name: layer.get_weights() for layer in tuned.layers if layer.weights}
    tuned.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
    tuned.train_on_batch(golden["images"], golden["embeddings"][::-1])
    changed = {
        name
        for name, weights in before.items()
        if any(
            (old != new).any() for old, new in zip(weights, tuned.get_layer(name).get_weights(), strict=True)
        )
    }
    blocks = {f"stage_5_conv_{number}{part}" for number in (13, 14) for part in ("", "_dw")}
    assert changed == {"projection_dense"} | blocks | {f"{block}_prelu" for block in blocks}


def test_features_are_the_last_map_before_the_projection(
    faces: keras.Model, golden: dict[str, NDArray[Any]]
) -> None:
    features = feature_model(faces)
    maps = np.asarray(features(golden["images"], training=False), np.float64)
    count = len(golden["images"])
    assert maps.shape == (count, 7, 7, 1024)
    kernel, bias = faces.get_layer("projection_dense").get_weights()
    gamma, beta, mean, variance = faces.get_layer("projection_norm").get_weights()
    x = (maps.reshape(count, -1) @ kernel + bias - mean) / np.sqrt(variance + 2e-5) * gamma + beta
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert np.abs(x - golden["embeddings"]).max() < 1e-5


def test_features_share_the_encoders_weights(faces: keras.Model) -> None:
    shared = {id(weight) for weight in faces.weights}
    assert all(id(weight) in shared for weight in feature_model(faces).weights)


def test_dropout_acts_in_training_only(golden: dict[str, NDArray[Any]]) -> None:
    keras.utils.set_random_seed(1)
    model = mobilefacenet(dropout=0.5)
    load_bundle_weights(model, ENCODER)
    trainable_stages(model, 1)
    assert np.abs(embed(model, golden["images"]) - golden["embeddings"]).max() < 1e-5
    assert np.abs(embed(model, golden["images"], training=True) - golden["embeddings"]).max() > 0.01


def drop_bias(model: onnx.ModelProto) -> None:
    kept = [item for item in model.graph.initializer if item.name != "pre_fc1_bias_dequantized"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def add_constant(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv_15_batchnorm_gamma", np.ones(3, np.float32))


def scale_otherwise(model: onnx.ModelProto) -> None:
    set_initializer(model, "scalar_op2", np.array([1 / 255], np.float32))


def cut_kernel(model: onnx.ModelProto) -> None:
    name = "conv_5_conv2d_weight_reshaped"
    set_initializer(model, name, initializers(model)[name][:-1])


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (drop_bias, "the file has no constant 'pre_fc1_bias_dequantized'"),
        (add_constant, "this net has no place for: conv_15_batchnorm_gamma"),
        (scale_otherwise, "the file scales pixels p by"),
        (cut_kernel, "layer 'stage_3_conv_5' does not take the file's weights"),
    ],
)
def test_file_of_another_net_is_refused(
    tmp_path: Path, damage: Callable[[onnx.ModelProto], None], complaint: str
) -> None:
    model = onnx.load(ENCODER)
    damage(model)
    onnx.save(model, tmp_path / "encoder.onnx")
    with pytest.raises(ValueError, match=complaint):
        load_bundle_weights(mobilefacenet(), tmp_path / "encoder.onnx")


@pytest.mark.parametrize(
    ("shape", "last_map"),
    [((64, 64, 3), (4, 4)), ((112, 112, 3), (7, 7)), ((109, 89, 3), (7, 6)), ((16, 16, 1), (1, 1))],
)
def test_small_encoder_takes_any_size(shape: tuple[int, int, int], last_map: tuple[int, int]) -> None:
    model = small_face_encoder(*shape, dimensions=32)
    images = np.random.default_rng(1).integers(0, 256, (3, *shape), dtype=np.uint8)
    assert model.get_layer(FEATURES).output.shape == (None, *last_map, 256)
    embeddings = embed(model, images)
    assert embeddings.shape == (3, 32)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_small_encoder_is_small() -> None:
    full = small_face_encoder(64, 64, 3).count_params()
    half = small_face_encoder(64, 64, 3, multiplier=0.5).count_params()
    assert full < 250_000
    assert half < full / 3


def test_every_weight_of_the_small_encoder_learns() -> None:
    keras.utils.set_random_seed(2)
    model = small_face_encoder(32, 32, 3)
    images = np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    wanted = tf.math.l2_normalize(tf.random.normal((8, 128)), axis=1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(images, training=True) - wanted))
    gradients = tape.gradient(loss, model.trainable_weights)
    still = [
        weight.path
        for weight, gradient in zip(model.trainable_weights, gradients, strict=True)
        if gradient is None or not np.asarray(gradient).any()
    ]
    assert still == []


def test_small_encoder_exports(tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    model = small_face_encoder(33, 30, 3)
    images = np.random.default_rng(1).integers(0, 256, (9, 33, 30, 3), dtype=np.uint8)
    model(images, training=True)  # moves the statistics of the batch norms
    export_onnx(model, tmp_path / "encoder.onnx")
    assert largest_difference(model, tmp_path / "encoder.onnx", images) < 1e-5
