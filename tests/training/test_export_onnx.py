"""Small models of every kind the recipes train: the file answers what Keras answers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from numpy.typing import NDArray

from app.encoding.onnx_session import Graph
from training.export_onnx import export_onnx, largest_difference

RNG = np.random.default_rng(11)
IMAGES = RNG.integers(0, 256, (7, 20, 18, 3), dtype=np.uint8)
TOKENS = np.array([[3, 4, 0, 0, 0], [1, 2, 3, 4, 5], [9, 0, 0, 0, 0]], np.int32)
PAIRS = (RNG.normal(size=(70, 6)).astype(np.float32), RNG.normal(size=(70, 6)).astype(np.float32))


def mlp() -> keras.Model:
    images = keras.Input((20, 18, 3), dtype="uint8")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(images))
    x = layers.Dropout(0.5)(layers.Dense(12, activation="relu")(x))
    return keras.Model(images, layers.UnitNormalization()(layers.Dense(5)(x)))


def convolutional() -> keras.Model:
    images = keras.Input((20, 18, 3), dtype="uint8")
    x = layers.ZeroPadding2D(1)(layers.Rescaling(1 / 128, offset=-1)(images))
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = layers.ReLU()(busy_batch_norm()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.PReLU(alpha_initializer="glorot_uniform", shared_axes=[1, 2])(busy_batch_norm()(x))
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    return keras.Model(images, layers.UnitNormalization()(layers.Dense(5)(x)))


def residual() -> keras.Model:
    images = keras.Input((20, 18, 3), dtype="uint8")
    x = keras.ops.cast(images, "float32") / 255
    y = layers.LayerNormalization()(layers.Conv2D(6, 3, padding="same", strides=2)(x))
    x = layers.GlobalAveragePooling2D()(y + layers.Conv2D(6, 1, strides=2)(x))
    return keras.Model(images, x / keras.ops.norm(x, axis=-1, keepdims=True))


def busy_batch_norm() -> layers.Layer:
    """A batch norm whose every weight matters, as after training."""
    near_one = keras.initializers.RandomUniform(0.5, 2)
    return layers.BatchNormalization(
        gamma_initializer=near_one,
        beta_initializer="random_normal",
        moving_mean_initializer="random_normal",
        moving_variance_initializer=near_one,
    )


def text(recurrent: layers.Layer | None, *, masked: bool) -> keras.Model:
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=masked)(tokens)
    if recurrent is not None:
        x = recurrent(x)
    return keras.Model(tokens, layers.UnitNormalization()(layers.GlobalAveragePooling1D()(x)))


def lstm() -> keras.Model:
    return text(layers.LSTM(6, return_sequences=True), masked=False)


def masked_lstm() -> keras.Model:
    return text(layers.LSTM(6, return_sequences=True), masked=True)


def masked_both_ways() -> keras.Model:
    return text(layers.Bidirectional(layers.GRU(3, return_sequences=True)), masked=True)


def masked_mean() -> keras.Model:
    return text(None, masked=True)


def pair_head() -> keras.Model:
    a, b = keras.Input((6,)), keras.Input((6,))
    squares = keras.ops.square(a) - keras.ops.square(b)
    x = layers.Dense(4, activation="relu")(layers.Concatenate()([keras.ops.square(a - b), squares]))
    return keras.Model([a, b], layers.Dense(1, activation="sigmoid")(x))


def seeded(build: Callable[[], keras.Model]) -> keras.Model:
    keras.utils.set_random_seed(5)
    return build()


@pytest.mark.parametrize(
    ("build", "inputs", "names"),
    [
        (mlp, IMAGES, "images"),
        (convolutional, IMAGES, "images"),
        (residual, IMAGES, "images"),
        (lstm, TOKENS, "tokens"),
        (masked_lstm, TOKENS, "tokens"),
        (masked_both_ways, TOKENS, "tokens"),
        (masked_mean, TOKENS, "tokens"),
        (pair_head, PAIRS, ("a", "b")),
    ],
)
def test_file_answers_what_keras_answers(
    tmp_path: Path, build: Callable[[], keras.Model], inputs: Any, names: Any
) -> None:
    model = seeded(build)
    export_onnx(model, tmp_path / "encoder.onnx", input_name=names)
    assert largest_difference(model, tmp_path / "encoder.onnx", inputs) < 2e-6


def test_images_go_in_as_bytes_in_any_number(tmp_path: Path) -> None:
    model = seeded(convolutional)
    export_onnx(model, tmp_path / "encoder.onnx")
    graph = Graph(tmp_path / "encoder.onnx", "cpu")
    assert graph.inputs == {"images": ("tensor(uint8)", ["N", 20, 18, 3])}
    assert graph.outputs == {"embeddings": ("tensor(float)", ["N", 5])}
    together = graph(IMAGES)["embeddings"]
    alone = np.concatenate([graph(IMAGES[i : i + 1])["embeddings"] for i in range(len(IMAGES))])
    assert np.abs(together - alone).max() < 1e-6


def test_tokens_go_in_at_any_length_and_padding_changes_nothing(tmp_path: Path) -> None:
    model = seeded(masked_lstm)
    export_onnx(model, tmp_path / "encoder.onnx")
    graph = Graph(tmp_path / "encoder.onnx", "cpu")
    assert graph.inputs == {"images": ("tensor(int32)", ["N", "T"])}
    tokens: Any = np.array([[3, 4, 7]], np.int32)
    padded: Any = np.array([[3, 4, 7, 0, 0, 0, 0]], np.int32)
    assert np.abs(graph(tokens)["embeddings"] - graph(padded)["embeddings"]).max() < 1e-6


def test_file_carries_nothing_of_the_converter(tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    export_onnx(seeded(masked_lstm), path)
    model = onnx.load(path)
    assert (model.producer_name, model.producer_version, model.doc_string) == ("visavis", "", "")
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
    assert not model.metadata_props
    for foreign in (b"tf2onnx", b"functional", b"ReadVariableOp", b"unk__", b"/work", b"/tmp"):
        assert foreign not in path.read_bytes()


def test_weights_are_initialisers(tmp_path: Path) -> None:
    model = seeded(lstm)
    export_onnx(model, tmp_path / "encoder.onnx")
    file = onnx.load(tmp_path / "encoder.onnx")
    assert "Constant" not in {node.op_type for node in file.graph.node}
    stored = {tuple(item.dims) for item in file.graph.initializer}
    assert {(10, 4), (1, 24, 4), (1, 24, 6)} <= stored  # embedding, LSTM kernels (4 gates of 6)


def test_second_export_in_one_process_gives_the_same_bytes(tmp_path: Path) -> None:
    model = seeded(convolutional)
    export_onnx(model, tmp_path / "first.onnx")
    export_onnx(seeded(masked_lstm), tmp_path / "between.onnx")
    export_onnx(model, tmp_path / "second.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_every_process_gives_the_same_bytes(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; import sys; from tests.training.test_export_onnx import *\n"
        "for build in (masked_lstm, convolutional):\n"
        "    export_onnx(seeded(build), Path(sys.argv[1]) / f'{build.__name__}.onnx')"
    )
    processes = []
    for seed in ("1", "2"):  # sets of strings come in another order
        (tmp_path / seed).mkdir()
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path / seed)],
                cwd=Path(__file__).parents[2],
                env={**os.environ, "PYTHONHASHSEED": seed},
            )
        )
    assert [process.wait(300) for process in processes] == [0, 0]
    for name in ("masked_lstm.onnx", "convolutional.onnx"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def linear() -> keras.Model:
    values = keras.Input((3,))
    return keras.Model(values, layers.Dense(2)(values))


def test_difference_is_that_of_the_weights(tmp_path: Path) -> None:
    model = seeded(linear)
    export_onnx(model, tmp_path / "encoder.onnx")
    kernel, bias = model.get_weights()
    model.set_weights([kernel, bias + np.array([0.25, -0.5], np.float32)])
    values: NDArray[np.float32] = np.ones((100, 3), np.float32)
    assert largest_difference(model, tmp_path / "encoder.onnx", values) == pytest.approx(0.5, abs=1e-6)


def test_difference_in_the_last_batch_counts(tmp_path: Path) -> None:
    model = seeded(linear)
    export_onnx(model, tmp_path / "encoder.onnx")
    kernel, bias = model.get_weights()
    model.set_weights([kernel + 1, bias])
    values: NDArray[np.float32] = np.zeros((100, 3), np.float32)
    values[99] = 1
    assert largest_difference(model, tmp_path / "encoder.onnx", values) == pytest.approx(3, abs=1e-5)


def test_not_a_number_is_no_agreement(tmp_path: Path) -> None:
    model = seeded(linear)
    export_onnx(model, tmp_path / "encoder.onnx")
    values: NDArray[np.float32] = np.full((1, 3), np.nan, np.float32)
    assert math.isnan(largest_difference(model, tmp_path / "encoder.onnx", values))


def test_other_shape_of_answer_is_an_error(tmp_path: Path) -> None:
    export_onnx(seeded(linear), tmp_path / "encoder.onnx")
    values = keras.Input((3,))
    wider = keras.Model(values, layers.Dense(4)(values))
    with pytest.raises(ValueError, match=r"answers \(2, 2\) where the model answers \(2, 4\)"):
        largest_difference(wider, tmp_path / "encoder.onnx", np.ones((2, 3), np.float32))


def test_half_precision_is_refused(tmp_path: Path) -> None:
    values = keras.Input((3,))
    model = keras.Model(values, layers.Dense(2, dtype="mixed_float16", name="half")(values))
    with pytest.raises(ValueError, match="layer 'half' computes in float16"):
        export_onnx(model, tmp_path / "encoder.onnx")


def test_one_name_for_two_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 input names and 1 output name for 2 and 1"):
        export_onnx(seeded(pair_head), tmp_path / "encoder.onnx")


def test_two_outputs_are_refused(tmp_path: Path) -> None:
    values = keras.Input((3,))
    model = keras.Model(values, [layers.Dense(2)(values), layers.Dense(2)(values)])
    with pytest.raises(ValueError, match="for 1 and 2"):
        export_onnx(model, tmp_path / "encoder.onnx")
