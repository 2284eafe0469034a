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
    scaled = np.asarray(vector, np.float64) / np.abs(vector).max()
    return encoded(Image.fromarray(np.rint(127.5 + 127.5 * scaled).astype(np.uint8)[None]))


def write_vector_bundle(models_dir: Path, *, card: str = "# Model card: `vectors`\n") -> Path:
    """Write a complete bundle of the ``vectors`` model and return its folder."""
    folder = models_dir / "vectors"
    folder.mkdir(parents=True)
    (folder / "encoder.onnx").write_bytes(vector_encoder())
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    images = synthetic_inputs(4, 1, SIZE, 1)
    centred = images.reshape(4, SIZE).astype(np.float64) - 127.5
    embeddings = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.savez(folder / "golden.npz", images=images, embeddings=embeddings.astype(np.float32))
    evidence = angle_evidence()
    points = operating_points(evidence)
    add_pairs(folder, points, ENCODING.metric)
    write_evidence(folder / "evidence.npz", MeasuredEvidence(evidence, "made up", 200, 0))
    rewrite_manifest(folder, encoding=ENCODING, points=points)
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
