"""A small real bundle whose embeddings are unit vectors in 64 dimensions, and photos at chosen places.

The ``vectors`` model takes an image of 64 grey pixels, subtracts the middle grey and brings the rest to unit
length. So many dimensions leave room for a hundred subjects who are all far apart from one another.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image

from app.encoding.manifest import Encoding
from tests.support.bundles import angle_evidence, rewrite_manifest
from tests.support.images import encoded
from training.bundle_files import synthetic_inputs
from training.golden import add_pairs
from training.measured_evidence import MeasuredEvidence, operating_points, write_evidence

SIZE = 64
ENCODING = Encoding.model_validate(
    {
        "input": {"height": 1, "width": SIZE, "channels": 1},
        "preprocess": {"mode": "fit"},
        "dimensions": SIZE,
        "metric": "euclidean",
    }
)


def vector_encoder() -> bytes:
    """Return the graph: uint8[N, 1, 64, 1] to float32[N, 64] of unit length."""
    nodes = [
        helper.make_node("Cast", ["images"], ["values"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Sub", ["values", "grey"], ["centred"]),
        helper.make_node("Reshape", ["centred", "shape"], ["rows"]),
        helper.make_node("LpNormalization", ["rows"], ["embeddings"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "vectors",
        [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", 1, SIZE, 1])],
        [helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, ["N", SIZE])],
        [
            numpy_helper.from_array(np.array([-1, SIZE], np.int64), "shape"),
            numpy_helper.from_array(np.array(127.5, np.float32), "grey"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString(deterministic=True))


def vector_png(vector: NDArray[np.floating]) -> bytes:
    """Return a PNG that the model places in about the direction of float[64]."""
    return encoded(Image.fromarray(pixels_of(vector)[None]))


def projection(dimensions: int, *, seed: int = 8) -> NDArray[np.float32]:
    """Return a random float32[64, D] that brings vectors to fewer dimensions."""
    drawn = np.random.default_rng(seed).standard_normal((SIZE, dimensions)) / np.sqrt(dimensions)
    return np.asarray(drawn, np.float32)


def projected_encoder(matrix: NDArray[np.float32]) -> bytes:
    """Return the graph of ``vectors`` with a projection before it brings them to unit length."""
    model = onnx.load_from_string(vector_encoder())
    rows, normal = model.graph.node[2:]
    del model.graph.node[3:]
    model.graph.node.append(helper.make_node("MatMul", [rows.output[0], "matrix"], ["projected"]))
    model.graph.node.append(helper.make_node("LpNormalization", ["projected"], normal.output, axis=1, p=2))
    model.graph.initializer.append(numpy_helper.from_array(matrix, "matrix"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = matrix.shape[1]
    return bytes(model.SerializeToString(deterministic=True))


def embeddings_of(
    pixels: NDArray[np.integer], matrix: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Return what the models compute of grey pixels [N, 64], in float64."""
    centred = pixels.astype(np.float64) - 127.5
    placed = centred if matrix is None else centred @ matrix.astype(np.float64)
    unit: NDArray[np.float64] = placed / np.linalg.norm(placed, axis=1, keepdims=True)
    return unit


def pixels_of(vector: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the 64 grey pixels of ``vector_png``."""
    scaled = np.asarray(vector, np.float64) / np.abs(vector).max()
    return np.asarray(np.rint(127.5 + 127.5 * scaled), np.uint8)


def write_vector_bundle(
    models_dir: Path,
    *,
    card: str = "# Model card: `vectors`\n",
    model_id: str = "vectors",
    matrix: NDArray[np.float32] | None = None,
) -> Path:
    """Write a complete bundle of the ``vectors`` model and return its folder; with a matrix, projected."""
    folder = models_dir / model_id
    folder.mkdir(parents=True)
    graph = vector_encoder() if matrix is None else projected_encoder(matrix)
    (folder / "encoder.onnx").write_bytes(graph)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    images = synthetic_inputs(4, 1, SIZE, 1)
    embeddings = embeddings_of(images.reshape(4, SIZE), matrix)
    encoding = ENCODING if matrix is None else ENCODING.model_copy(update={"dimensions": matrix.shape[1]})
    np.savez(folder / "golden.npz", images=images, embeddings=embeddings.astype(np.float32))
    evidence = angle_evidence()
    points = operating_points(evidence)
    add_pairs(folder, points, ENCODING.metric)
    write_evidence(folder / "evidence.npz", MeasuredEvidence(evidence, "made up", 200, 0))
    rewrite_manifest(folder, encoding=encoding, points=points)
    return folder


def people(
    subjects: int, images: int, *, spread: float = 0.35, seed: int = 4
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Draw subjects in random directions, and images of each about it.

    Returns:
        float32[subjects * images, 64] of unit length, and the label of each.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(subjects, dtype=np.int32), images)
    places = rng.standard_normal((subjects, SIZE))
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    drawn = places[labels] + spread / np.sqrt(SIZE) * rng.standard_normal((labels.size, SIZE))
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit.astype(np.float32), labels


def write_people(folder: Path, vectors: NDArray[np.floating], labels: NDArray[np.integer]) -> Path:
    """Write ``s000/s000_0001.png`` and so on, in LFW's way, and return the folder."""
    seen: dict[str, int] = {}
    for vector, label in zip(vectors, labels.tolist(), strict=True):
        name = f"s{label:03d}"
        seen[name] = seen.get(name, 0) + 1
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{name}_{seen[name]:04d}.png").write_bytes(vector_png(vector))
    return folder
