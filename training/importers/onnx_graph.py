"""Rewrite a published ONNX graph into the form the service loads, without changing what it computes.

Every function edits the model in place and is deterministic: the same input gives the same bytes.
The reasons for each rewrite are speed or start-up on onnxruntime's CPU provider, measured in
``docs/performance.md``; the tests compare the result with the original graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

IR_VERSION = 10
"""Oldest onnxruntime that reads it is 1.18; the operators below need nothing newer."""


def initializers(model: ModelProto) -> dict[str, NDArray[np.generic]]:
    """Return every constant of the graph by name."""
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def set_initializer(model: ModelProto, name: str, value: NDArray[np.generic]) -> None:
    """Add or replace one constant."""
    tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
    for item in model.graph.initializer:
        if item.name == name:
            item.CopyFrom(tensor)
            return
    model.graph.initializer.append(tensor)


def replace_nodes(model: ModelProto, nodes: Iterable[NodeProto]) -> None:
    """Replace the node list; the order must stay topological."""
    kept = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def fold_constants(model: ModelProto, op_types: frozenset[str]) -> None:
    """Compute every node of the given types whose inputs are all constants, and store the result.

    onnxruntime leaves DequantizeLinear in place, so block-quantised weights would be dequantised on
    every run (and with some block sizes do not load at all).
    """
    constants = initializers(model)
    kept = []
    for node in model.graph.node:
        if node.op_type in op_types and all(name in constants for name in node.input):
            names = list(node.input)
            graph = helper.make_graph(
                [node],
                "constant",
                [],
                [helper.make_empty_tensor_value_info(node.output[0])],
                [numpy_helper.from_array(constants[name], name) for name in names],
            )
            single = helper.make_model(graph, opset_imports=model.opset_import)
            (value,) = ReferenceEvaluator(single).run(None, {})
            constants[node.output[0]] = np.asarray(value)
            set_initializer(model, node.output[0], constants[node.output[0]])
        else:
            kept.append(node)
    replace_nodes(model, kept)


def drop_identity_dropout(model: ModelProto) -> None:
    """Remove Dropout nodes, which do nothing at inference."""
    renamed = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Dropout"}
    kept = [node for node in model.graph.node if node.op_type != "Dropout"]
    for node in kept:
        for index, name in enumerate(node.input):
            source = name
            while source in renamed:
                source = renamed[source]
            node.input[index] = source
    replace_nodes(model, kept)


def rewrite_prelu(model: ModelProto) -> None:
    """Write each per-channel PReLU as ``conv_a(x) + relu(conv_b(x))`` with depthwise 1 x 1 convolutions.

    onnxruntime's blocked CPU layout has no PRelu kernel, so each one costs two reorders and a slow
    loop; convolution, Relu and Add stay in the blocked layout (measured: about 1.9 times faster).
    For a slope ``s <= 1`` the identity is ``prelu(x) = s*x + relu((1-s)*x)``. For ``s > 1`` the sign of
    that channel is flipped before and after: with ``u = -x``, ``-prelu(x) = u + relu((s-1)*u)``.
    """
    constants = initializers(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "PRelu":
            nodes.append(node)
            continue
        source, output = node.input[0], node.output[0]
        slope = constants[node.input[1]].reshape(-1).astype(np.float64)
        steep = slope > 1.0
        if steep.any():
            if sum(source in other.input for other in model.graph.node) > 1:
                raise ValueError(f"{source!r} is read by more than its PReLU; its signs cannot be flipped")
            consumers = [other for other in model.graph.node if output in other.input]
            _flip_channels(model, producers[source], consumers, steep)
        linear = np.where(steep, 1.0, slope)
        rectified = np.where(steep, slope - 1.0, 1.0 - slope)
        for suffix, scale in (("linear", linear), ("rectified", rectified)):
            weight = scale.astype(np.float32).reshape(-1, 1, 1, 1)
            set_initializer(model, f"{output}_{suffix}_weight", weight)
            nodes.append(
                helper.make_node(
                    "Conv",
                    [source, f"{output}_{suffix}_weight"],
                    [f"{output}_{suffix}"],
                    name=f"{output}_{suffix}",
                    group=slope.size,
                    kernel_shape=[1, 1],
                )
            )
        nodes.append(helper.make_node("Relu", [f"{output}_rectified"], [f"{output}_relu"]))
        nodes.append(helper.make_node("Add", [f"{output}_linear", f"{output}_relu"], [output]))
    replace_nodes(model, nodes)


def _flip_channels(
    model: ModelProto, producer: NodeProto, consumers: list[NodeProto], flip: NDArray[np.bool_]
) -> None:
    """Negate channels between a BatchNormalization and the convolutions that read it."""
    constants = initializers(model)
    sign = np.where(flip, np.float32(-1), np.float32(1))
    convolved = bool(consumers) and all(node.op_type == "Conv" for node in consumers)
    if producer.op_type != "BatchNormalization" or not convolved:
        raise ValueError(f"cannot flip channels between {producer.name!r} and its consumers")
    for name in producer.input[1:3]:
        set_initializer(model, name, constants[name] * sign)
    for node in consumers:
        weight = constants[node.input[1]]
        depthwise = weight.shape[1] == 1
        shape = (-1, 1, 1, 1) if depthwise else (1, -1, 1, 1)
        set_initializer(model, node.input[1], weight * sign.reshape(shape))


def prune(model: ModelProto) -> None:
    """Drop nodes and constants that nothing reads, inputs that are constants, and stale shape notes."""
    read = {name for node in model.graph.node for name in node.input}
    read.update(item.name for item in model.graph.output)
    replace_nodes(model, [node for node in model.graph.node if read.intersection(node.output)])
    used = {name for node in model.graph.node for name in node.input}
    kept = sorted((item for item in model.graph.initializer if item.name in used), key=lambda item: item.name)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    names = {item.name for item in kept}
    inputs = [item for item in model.graph.input if item.name in used and item.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.ClearField("doc_string")


def accept_uint8_nhwc(model: ModelProto, *, height: int | str, width: int | str, bgr: bool) -> None:
    """Put ``images`` uint8[N, H, W, 3] (RGB) in front of a graph that reads float NCHW.

    Args:
        model: Its only input is float32[1, 3, H, W].
        height: Fixed size in pixels, or the name of a dynamic axis.
        width: The same.
        bgr: The original reads blue first. Its first convolution's weights are reversed along the
            channel axis, which costs nothing at run time.
    """
    (old,) = model.graph.input
    if bgr:
        constants = initializers(model)
        for node in model.graph.node:
            if old.name in node.input:
                if node.op_type != "Conv":
                    raise ValueError(f"{node.op_type} reads the input; only Conv can absorb BGR")
                set_initializer(model, node.input[1], constants[node.input[1]][:, ::-1])
    head = [
        helper.make_node("Transpose", ["images"], ["images_nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["images_nchw"], [old.name], to=onnx.TensorProto.FLOAT),
    ]
    replace_nodes(model, [*head, *model.graph.node])
    del model.graph.input[:]
    model.graph.input.append(
        helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", height, width, 3])
    )


def end_in_unit_embeddings(model: ModelProto, dimensions: int) -> None:
    """Rename the only output to ``embeddings`` float32[N, D] and L2-normalise it inside the graph."""
    (old,) = model.graph.output
    model.graph.node.append(helper.make_node("LpNormalization", [old.name], ["embeddings"], axis=1, p=2))
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, ["N", dimensions])
    )


def finish(model: ModelProto, *, name: str, producer: str) -> ModelProto:
    """Set the fields that would otherwise differ between tools, check, and return the model."""
    model.ir_version = IR_VERSION
    model.producer_name = producer
    model.producer_version = ""
    model.graph.name = name
    model.doc_string = ""
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    onnx.checker.check_model(model, full_check=True)
    return model


def serialise(model: ModelProto) -> bytes:
    """Return the same bytes for the same model, whatever the protobuf release."""
    return bytes(model.SerializeToString(deterministic=True))


def reference_outputs(model: ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Evaluate a graph of one output in float64 with ONNX's reference implementation.

    onnxruntime's float32 result depends on the processor's vector width in the last bits; this does not.
    """
    exact = onnx.ModelProto()
    exact.CopyFrom(model)
    for item in exact.graph.initializer:
        if item.data_type == onnx.TensorProto.FLOAT:
            value = numpy_helper.to_array(item).astype(np.float64)
            item.CopyFrom(numpy_helper.from_array(value, item.name))
    for node in exact.graph.node:
        for item in node.attribute:
            # A graph may also cast to integers, for shapes.
            if node.op_type == "Cast" and item.name == "to" and item.i == onnx.TensorProto.FLOAT:
                item.i = onnx.TensorProto.DOUBLE
    exact.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    outputs: Any = ReferenceEvaluator(exact).run(None, {"images": images})
    return np.asarray(outputs[0], np.float64)
