"""Each rewrite of a graph on a small graph of its own: the numbers stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from training.importers import onnx_graph as graph

FLOAT = onnx.TensorProto.FLOAT


def model_of(
    nodes: list[NodeProto],
    constants: dict[str, NDArray[Any]],
    *,
    shape: tuple[int | str, ...],
    output: str = "y",
    output_shape: tuple[int | str, ...] | None = None,
) -> ModelProto:
    """Return a graph from float ``x`` to float ``output``."""
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info(output, FLOAT, output_shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=graph.IR_VERSION)


def run(model: ModelProto, x: NDArray[Any], name: str = "x") -> NDArray[Any]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {name: x})[0])


def op_types(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def prelu_graph(slopes: NDArray[np.float32], *, depthwise: bool = False) -> ModelProto:
    """Return BatchNormalization -> PReLU -> a convolution that changes nothing."""
    channels = slopes.size
    eye = np.ones((channels, 1, 1, 1)) if depthwise else np.eye(channels).reshape(channels, channels, 1, 1)
    rng = np.random.default_rng(3)
    constants = {
        "scale": rng.uniform(0.5, 2, channels).astype(np.float32),
        "bias": rng.normal(size=channels).astype(np.float32),
        "mean": rng.normal(size=channels).astype(np.float32),
        "variance": rng.uniform(0.5, 2, channels).astype(np.float32),
        "slope": slopes.reshape(-1, 1, 1),
        "eye": eye.astype(np.float32),
    }
    nodes = [
        helper.make_node(
            "BatchNormalization", ["x", "scale", "bias", "mean", "variance"], ["normal"], epsilon=0.0
        ),
        helper.make_node("PRelu", ["normal", "slope"], ["bent"]),
        helper.make_node("Conv", ["bent", "eye"], ["y"], group=channels if depthwise else 1),
    ]
    return model_of(nodes, constants, shape=("N", channels, 5, 5))


def numpy_prelu(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float64]:
    c = {name: value.astype(np.float64) for name, value in graph.initializers(model).items()}
    columns = {name: c[name].reshape(-1, 1, 1) for name in ("scale", "bias", "mean", "variance", "slope")}
    normal = (x - columns["mean"]) / np.sqrt(columns["variance"]) * columns["scale"] + columns["bias"]
    return np.asarray(np.where(normal < 0, columns["slope"] * normal, normal))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(
    "slopes",
    [
        pytest.param([-2.0, -0.5, -1.0], id="below 0"),
        pytest.param([0.0, 0.25, 1.0], id="0 to 1"),
        pytest.param([1.001, 1.5, 4.0], id="above 1"),
        pytest.param([-0.5, 0.25, 3.0], id="mixed"),
    ],
)
def test_rewritten_prelu_is_a_prelu(slopes: list[float], depthwise: bool) -> None:
    model = prelu_graph(np.array(slopes, np.float32), depthwise=depthwise)
    x = np.random.default_rng(8).normal(size=(4, 3, 5, 5)).astype(np.float32)
    expected = numpy_prelu(model, x)
    graph.rewrite_prelu(model)
    assert "PRelu" not in op_types(model)
    assert np.abs(run(model, x) - expected).max() < 2e-6


def test_prelus_one_after_the_other_are_all_rewritten() -> None:
    slopes = np.array([0.3, 1.7, -0.4], np.float32)
    model = prelu_graph(slopes)
    second = [
        helper.make_node(
            "BatchNormalization", ["y", "scale", "bias", "mean", "variance"], ["n2"], epsilon=0.0
        ),
        helper.make_node("PRelu", ["n2", "slope"], ["b2"]),
        helper.make_node("Conv", ["b2", "other eye"], ["z"]),
    ]
    # Its own constants: the first rewrite flips some of them in place.
    for node in second:
        for index, name in enumerate(node.input):
            if name in {"scale", "bias"}:
                node.input[index] = f"{name} 2"
    constants = graph.initializers(model)
    graph.set_initializer(model, "scale 2", constants["scale"])
    graph.set_initializer(model, "bias 2", constants["bias"])
    graph.set_initializer(model, "other eye", constants["eye"])
    model.graph.node.extend(second)
    model.graph.output[0].name = "z"
    x = np.random.default_rng(8).normal(size=(2, 3, 5, 5)).astype(np.float32)
    expected = numpy_prelu(model, numpy_prelu(model, x).astype(np.float32))
    graph.rewrite_prelu(model)
    assert np.abs(run(model, x) - expected).max() < 1e-5


def test_steep_prelu_that_ends_the_graph_is_refused() -> None:
    model = prelu_graph(np.array([2.0], np.float32))
    del model.graph.node[-1]
    model.graph.output[0].name = "bent"
    with pytest.raises(ValueError, match="cannot flip channels"):
        graph.rewrite_prelu(model)


def test_steep_prelu_before_anything_but_a_convolution_is_refused() -> None:
    model = prelu_graph(np.array([2.0], np.float32))
    model.graph.node[-1].CopyFrom(helper.make_node("Relu", ["bent"], ["y"]))
    with pytest.raises(ValueError, match="cannot flip channels"):
        graph.rewrite_prelu(model)


def test_steep_prelu_behind_anything_but_a_normalisation_is_refused() -> None:
    model = prelu_graph(np.array([2.0], np.float32))
    model.graph.node[0].CopyFrom(helper.make_node("Relu", ["x"], ["normal"]))
    with pytest.raises(ValueError, match="cannot flip channels"):
        graph.rewrite_prelu(model)


def test_steep_prelu_whose_input_is_read_elsewhere_is_refused() -> None:
    model = prelu_graph(np.array([2.0], np.float32))
    model.graph.node.append(helper.make_node("Add", ["normal", "y"], ["sum"]))
    with pytest.raises(ValueError, match="read by more than its PReLU"):
        graph.rewrite_prelu(model)


def test_block_quantised_weights_become_floats() -> None:
    quantised = np.array([[-128, 127, 5, 6], [1, 2, 3, -4]], np.int8)
    constants: dict[str, NDArray[Any]] = {
        "q": quantised,
        "scales": np.array([[0.5, 0.25], [2.0, 1.0]], np.float32),
        "zeros": np.array([[127, -1], [0, 3]], np.int8),
        "shape": np.array([4, 2], np.int64),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scales", "zeros"], ["w"], axis=1, block_size=2),
        helper.make_node("Reshape", ["w", "shape"], ["weights"]),
        helper.make_node("MatMul", ["x", "weights"], ["y"]),
    ]
    model = model_of(nodes, constants, shape=("N", 4))
    graph.fold_constants(model, frozenset({"DequantizeLinear", "Reshape"}))
    # (-128 - 127) * 0.5, (127 - 127) * 0.5, (5 + 1) * 0.25, (6 + 1) * 0.25; then blocks of the second row.
    expected = [[-127.5, 0.0], [1.5, 1.75], [2.0, 4.0], [0.0, -7.0]]
    assert graph.initializers(model)["weights"].tolist() == expected
    assert op_types(model) == ["MatMul"]
    graph.prune(model)
    assert list(graph.initializers(model)) == ["weights"]


def test_node_that_reads_the_input_is_not_folded() -> None:
    model = model_of(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        {"shape": np.array([-1, 2], np.int64)},
        shape=("N", 4),
    )
    graph.fold_constants(model, frozenset({"Reshape"}))
    assert op_types(model) == ["Reshape"]


def test_dropouts_in_a_row_are_taken_out() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Dropout", ["a"], ["b"]),
        helper.make_node("Dropout", ["b"], ["c"]),
        helper.make_node("Neg", ["c"], ["y"]),
    ]
    model = model_of(nodes, {}, shape=(1, 3))
    graph.drop_identity_dropout(model)
    assert op_types(model) == ["Relu", "Neg"]
    assert run(model, np.array([[-1.0, 2.0, 3.0]], np.float32)).tolist() == [[0.0, -2.0, -3.0]]


def test_pruning_takes_what_nothing_reads_and_keeps_the_answer() -> None:
    nodes = [
        helper.make_node("Add", ["x", "one"], ["y"], doc_string="from a trainer"),
        helper.make_node("Mul", ["x", "two"], ["unread"]),
    ]
    constants = {
        "one": np.ones(1, np.float32),
        "two": np.full(1, 2, np.float32),
        "three": np.ones(3, np.float32),
    }
    model = model_of(nodes, constants, shape=(1, 2))
    model.graph.input.append(helper.make_tensor_value_info("one", FLOAT, [1]))
    graph.prune(model)
    assert op_types(model) == ["Add"]
    assert list(graph.initializers(model)) == ["one"]
    assert [item.name for item in model.graph.input] == ["x"]
    assert model.graph.node[0].doc_string == ""
    assert run(model, np.array([[1.0, 2.0]], np.float32)).tolist() == [[2.0, 3.0]]


def first_convolution(rng: np.random.Generator) -> ModelProto:
    weights = rng.normal(size=(2, 3, 2, 2)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    return model_of(nodes, {"w": weights}, shape=(1, 3, 4, 5), output_shape=("N", 2, "H", "W"))


@pytest.mark.parametrize("bgr", [False, True])
def test_bytes_in_rgb_give_what_floats_in_the_old_order_gave(bgr: bool) -> None:
    rng = np.random.default_rng(1)
    model = first_convolution(rng)
    images = rng.integers(0, 256, (1, 4, 5, 3), np.uint8)
    ordered = images[..., ::-1] if bgr else images
    expected = run(model, ordered.transpose(0, 3, 1, 2).astype(np.float32))
    graph.accept_uint8_nhwc(model, height=4, width=5, bgr=bgr)
    assert run(model, images, "images") == pytest.approx(expected, rel=1e-5, abs=1e-3)


def test_any_number_of_images_of_any_size_is_accepted() -> None:
    model = first_convolution(np.random.default_rng(1))
    graph.accept_uint8_nhwc(model, height="H", width="W", bgr=False)
    assert run(model, np.zeros((7, 9, 8, 3), np.uint8), "images").shape == (7, 2, 8, 7)


def test_colour_order_can_only_be_taken_into_a_convolution() -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {}, shape=(1, 3, 4, 4))
    with pytest.raises(ValueError, match="only Conv can absorb BGR"):
        graph.accept_uint8_nhwc(model, height=4, width=4, bgr=True)


def test_output_becomes_a_unit_vector_called_embeddings() -> None:
    model = model_of([helper.make_node("Identity", ["x"], ["y"])], {}, shape=("N", 2))
    graph.end_in_unit_embeddings(model, 2)
    assert [item.name for item in model.graph.output] == ["embeddings"]
    assert run(model, np.array([[3.0, 4.0], [0.0, -7.0]], np.float32)) == pytest.approx(
        np.array([[0.6, 0.8], [0.0, -1.0]])
    )


def test_same_graph_gives_the_same_bytes_whoever_made_it() -> None:
    made = []
    for producer in ("one", "another"):
        model = first_convolution(np.random.default_rng(1))
        model.producer_name, model.producer_version, model.doc_string = producer, "1.2", "by hand"
        model.graph.node[0].name = producer
        made.append(graph.serialise(graph.finish(model, name="small", producer="visavis")))
    assert made[0] == made[1]
    assert onnx.load_from_string(made[0]).graph.node[0].name == "Conv_0"


def test_graph_that_is_invalid_is_not_finished() -> None:
    model = model_of([helper.make_node("Relu", ["nowhere"], ["y"])], {}, shape=(1, 3))
    with pytest.raises(onnx.checker.ValidationError):
        graph.finish(model, name="broken", producer="visavis")


def test_reference_outputs_are_the_graph_in_double_precision() -> None:
    model = first_convolution(np.random.default_rng(1))
    weights = graph.initializers(model)["w"].astype(np.float64)
    graph.accept_uint8_nhwc(model, height=4, width=5, bgr=False)
    images = np.random.default_rng(2).integers(0, 256, (1, 4, 5, 3), np.uint8)
    found = graph.reference_outputs(model, images)
    x = images[0].astype(np.float64).transpose(2, 0, 1)
    corner = (weights[0] * x[:, :2, :2]).sum()
    assert found.dtype == np.float64
    assert found[0, 0, 0, 0] == pytest.approx(corner, rel=1e-14)
    assert found == pytest.approx(run(model, images, "images"), rel=1e-4, abs=1e-2)
