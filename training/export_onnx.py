"""Write a Keras model as a small, plain ONNX file, and measure how far the two differ.

Keras hands the model to tf2onnx. What comes back computes the right thing, but carries tf2onnx's names, which
count everything the process ever traced, and its order of nodes. Here the graph is put into one order and
renamed after what it does, so that the same weights give the same bytes in every process. No operator is
added, and weights are initialisers.

The input keeps the model's dtype: uint8 images or int32 tokens. Its first axis is dynamic and called ``N``.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime as ort
import tensorflow as tf
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from app.encoding.onnx_session import Graph
from training.importers.onnx_graph import finish, serialise

OPSET = 18
"""The newest that tf2onnx 1.17 writes; onnxruntime reads all opsets back to 7."""

BATCH = 64
"""Samples that both sides compute at once when they are compared."""

AXES = {1: ("N",), 2: ("N", "T"), 3: ("N", "T", "D"), 4: ("N", "H", "W", "C")}
"""Names of dynamic axes by rank: images [N, H, W, C], tokens [N, T]."""


def export_onnx(
    model: keras.Model,
    path: Path,
    *,
    input_name: str | Sequence[str] = "images",
    output_name: str = "embeddings",
) -> None:
    """Write the model's inference as ONNX.

    Args:
        model: Functional or Sequential, built, of one output, computing in float32.
        path: File to write; an old one is replaced.
        input_name: Name of the input, or one name for each input in the model's order.
        output_name: Name of the output.

    Raises:
        ValueError: A layer computes in another precision, the model has several outputs, or the number of
            names is not that of the inputs.
    """
    names = [input_name] if isinstance(input_name, str) else list(input_name)
    if len(names) != len(model.inputs) or len(model.outputs) != 1:
        raise ValueError(
            f"{len(names)} input names and 1 output name for {len(model.inputs)} and {len(model.outputs)}"
        )
    for layer in model._flatten_layers():
        if layer.compute_dtype in {"float16", "bfloat16"}:
            raise ValueError(f"layer {layer.name!r} computes in {layer.compute_dtype}; export needs float32")
    exported = _converted(model, names)
    _bypass_identities(exported.graph, {})
    fixed = {item.name: name for item, name in zip(exported.graph.input, names, strict=True)}
    fixed[exported.graph.output[0].name] = output_name
    graph = _tidied(exported.graph, fixed)
    _describe(graph, model, names, output_name)
    tidy = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    path.write_bytes(serialise(finish(tidy, name="visavis", producer="visavis")))


def largest_difference(
    model: keras.Model, path: Path, inputs: NDArray[np.generic] | Sequence[NDArray[np.generic]]
) -> float:
    """Return the largest absolute difference between the model's output and the file's.

    Args:
        model: What was exported.
        path: Where to.
        inputs: An array [N, ...] of the input's dtype, or one array for each input.
    """
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    worst = 0.0
    run = _runner(path)
    for start in range(0, len(arrays[0]), BATCH):
        batch = [np.asarray(array[start : start + BATCH]) for array in arrays]
        wanted = np.asarray(model(batch if len(batch) > 1 else batch[0], training=False), np.float64)
        found = run(batch)
        if found.shape != wanted.shape:
            raise ValueError(f"the file answers {found.shape} where the model answers {wanted.shape}")
        # A NaN on either side must not read as agreement, and max() drops it.
        worst = float(np.maximum(worst, np.abs(found - wanted).max(initial=0.0)))
    return worst


def _runner(path: Path) -> Callable[[list[NDArray[Any]]], NDArray[np.float32]]:
    graph = Graph(path, "cpu")
    if list(graph.inputs) == ["images"]:
        return lambda batch: next(iter(graph(batch[0]).values()))
    # What the service loads has the one input `images`; text encoders and pair heads have others.
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, dict(zip(graph.inputs, batch, strict=True)))[0]


def _converted(model: keras.Model, names: list[str]) -> ModelProto:
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, names, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Keras looks whether numpy still has np.object before it patches tf2onnx.
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        target = Path(folder) / "model.onnx"
        signature = [specs] if len(specs) > 1 else specs
        model.export(target, format="onnx", verbose=False, input_signature=signature, opset_version=OPSET)
        return onnx.load(target)


def _describe(graph: GraphProto, model: keras.Model, names: list[str], output_name: str) -> None:
    """Replace the descriptions of inputs and output: shapes, with names for dynamic axes."""
    del graph.input[:], graph.output[:], graph.value_info[:]
    for tensor, name in zip(model.inputs, names, strict=True):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
        graph.input.append(helper.make_tensor_value_info(name, kind, _axes(tensor.shape)))
    shape = _axes(model.outputs[0].shape)
    graph.output.append(helper.make_tensor_value_info(output_name, TensorProto.FLOAT, shape))


def _axes(shape: Sequence[int | None]) -> list[int | str]:
    names = AXES[len(shape)]
    return [name if size is None else size for size, name in zip(shape, names, strict=True)]


def _bypass_identities(graph: GraphProto, outer: dict[str, str]) -> None:
    """Let every reader of a copy read the original; which of two equal outputs is the copy varies by run."""
    originals = dict(outer)
    own = {item.name for item in (*graph.input, *graph.initializer)}
    nodes = []
    for node in graph.node:
        node.input[:] = [originals.get(name, name) for name in node.input]
        if node.op_type == "Identity":
            originals[node.output[0]] = node.input[0]
            continue
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _bypass_identities(attribute.g, originals)
        own.update(node.output)
        nodes.append(node)
    given: set[str] = set()
    for slot, output in enumerate(graph.output):
        original = originals.get(output.name, output.name)
        if original in own - given:
            given.add(original)
            output.name = original
        else:  # given already, or from outside of this subgraph: only a copy can be an output
            output.name = f"{original}__copy_{slot}"
            nodes.append(helper.make_node("Identity", [original], [output.name]))
    del graph.node[:]
    graph.node.extend(nodes)


def _tidied(graph: GraphProto, names: dict[str, str], prefix: str = "") -> GraphProto:
    """Return a graph with nodes in the order of need and names after operators and positions.

    Args:
        graph: As tf2onnx wrote it.
        names: New names already settled: of inputs, outputs and what a subgraph reads from outside.
        prefix: Put before every new name; tells subgraphs apart.
    """
    names = dict(names)
    constants = {item.name: item for item in graph.initializer}
    kept: list[TensorProto] = []
    nodes: list[NodeProto] = []

    def rename_constant(old: str, new: str) -> None:
        item = TensorProto()
        item.CopyFrom(constants.pop(old))
        item.name = names.setdefault(old, new)
        item.ClearField("doc_string")
        kept.append(item)

    for index, node in enumerate(_in_order(graph)):
        stem = f"{prefix}{node.op_type}_{index}"
        for slot, old in enumerate(_read(node)):
            if old in constants:
                rename_constant(old, f"{stem}_c{slot}")
        renamed = NodeProto()
        renamed.CopyFrom(node)
        renamed.name = stem
        renamed.ClearField("doc_string")
        renamed.input[:] = [names[name] if name else "" for name in node.input]
        for slot, old in enumerate(node.output):
            names.setdefault(old, stem if slot == 0 else f"{stem}_{slot}")
        renamed.output[:] = [names[name] if name else "" for name in node.output]
        for attribute in renamed.attribute:
            attribute.ClearField("doc_string")
            if attribute.type == AttributeProto.GRAPH:
                inner = dict(names)
                for slot, item in enumerate(attribute.g.input):
                    inner[item.name] = f"{stem}_{attribute.name}_in{slot}"
                attribute.g.CopyFrom(_tidied(attribute.g, inner, f"{stem}_{attribute.name}_"))
        attributes = sorted(renamed.attribute, key=lambda item: item.name)
        del renamed.attribute[:]
        renamed.attribute.extend(attributes)
        nodes.append(renamed)
    for slot, output in enumerate(graph.output):
        if output.name in constants:
            rename_constant(output.name, f"{prefix}c{slot}")
    described = []
    for items in (graph.input, graph.output):
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        for copy in copies:
            copy.name = names[copy.name]
            for size in copy.type.tensor_type.shape.dim:
                size.ClearField("dim_param")
        described.append(copies)
    return helper.make_graph(nodes, prefix or "graph", described[0], described[1], kept)


def _in_order(graph: GraphProto) -> list[NodeProto]:
    """Return the nodes that the outputs need, each after what it reads; independent of the file's order."""
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    order: dict[int, NodeProto] = {}
    stack = [(item.name, False) for item in reversed(graph.output)]
    while stack:
        name, inputs_done = stack.pop()
        index = producers.get(name)
        if index is None or index in order:
            continue
        node = graph.node[index]
        if inputs_done:
            order[index] = node
        else:
            stack.append((name, True))
            stack.extend((read, False) for read in reversed(_read(node)))
    return list(order.values())


def _read(node: NodeProto) -> list[str]:
    """Return the names a node reads, with those that its subgraphs take from outside."""
    names = [name for name in node.input if name]
    for attribute in sorted(node.attribute, key=lambda item: item.name):
        if attribute.type == AttributeProto.GRAPH:
            inner = attribute.g
            own = {item.name for item in (*inner.input, *inner.initializer)}
            own.update(name for each in inner.node for name in each.output)
            for each in _in_order(inner):
                names.extend(name for name in _read(each) if name not in own)
            names.extend(item.name for item in inner.output if item.name not in own)
    return names
