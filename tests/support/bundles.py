"""Build small real bundles, so that tests of everything above the encoder need no large model.

The ``angles`` model takes an image of two grey pixels and returns them as a unit vector in the plane:
pixels (255, 0) point along x, (0, 255) along y. So a test places templates at chosen angles, and every
distance is known by hand: two templates ``d`` degrees apart are ``2 sin(d/2)`` apart.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from app.encoding.manifest import Encoding, Manifest
from app.matching.decision import OperatingPoint
from app.matching.evidence import Evidence
from training.bundle_files import file_entries, write_manifest
from training.golden import save_golden, with_pairs
from training.measured_evidence import (
    MeasuredEvidence,
    evidence_summary,
    operating_points,
    write_evidence,
)

ENCODING = {
    "input": {"height": 1, "width": 2, "channels": 1},
    "preprocess": {"mode": "fit"},
    "dimensions": 2,
    "metric": "euclidean",
}


def angle_encoder() -> bytes:
    """Return the graph: uint8[N, 1, 2, 1] to float32[N, 2] of unit length."""
    nodes = [
        helper.make_node("Cast", ["images"], ["values"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Reshape", ["values", "shape"], ["rows"]),
        helper.make_node("LpNormalization", ["rows"], ["embeddings"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "angles",
        [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", 1, 2, 1])],
        [helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.array([-1, 2], np.int64), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString(deterministic=True))


def angle_embeddings(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what the graph computes, in float64; black has no angle and stays 0."""
    vectors = images.reshape(len(images), 2).astype(np.float64)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def angle_evidence(subjects: int = 100) -> Evidence:
    """Return made-up trials: each pair of subjects once, non-mated distances spread evenly over 0.5..2,
    mated ones (two a subject) over 0..0.6.
    """
    first, second = np.triu_indices(subjects, 1)
    pairs = np.stack([first, second], axis=1).astype(np.int32)
    order = np.random.default_rng(7).permutation(len(pairs))
    return Evidence(
        mated_distance=np.linspace(0.0, 0.6, 2 * subjects),
        mated_subject=np.arange(2 * subjects, dtype=np.int32) % subjects,
        nonmated_distance=np.linspace(0.5, 2.0, len(pairs)),
        nonmated_subjects=pairs[order],
        nonmated_total=len(pairs),
        subjects=subjects,
    )


def write_angle_bundle(
    models_dir: Path,
    model_id: str = "angles",
    *,
    metric: str = "euclidean",
    evidence: Evidence | None = None,
) -> Path:
    """Write a complete bundle of the ``angles`` model and return its folder."""
    folder = models_dir / model_id
    folder.mkdir(parents=True)
    (folder / "encoder.onnx").write_bytes(angle_encoder())
    images = np.array([[[[255], [0]]], [[[0], [255]]], [[[200], [200]]]], np.uint8)
    evidence = evidence or angle_evidence()
    points = operating_points(evidence)
    encoding = Encoding.model_validate({**ENCODING, "metric": metric})
    golden = with_pairs(
        images,
        angle_embeddings(images).astype(np.float32),
        thresholds=[point.threshold for point in points],
        metric=encoding.metric,
        quick=angle_embeddings,
        exact=angle_embeddings,
    )
    save_golden(folder, golden)
    write_evidence(folder / "evidence.npz", MeasuredEvidence(evidence, "made up", 200, 0))
    rewrite_manifest(folder, encoding=encoding, points=points)
    return folder


def rewrite_manifest(folder: Path, *, encoding: Encoding, points: tuple[OperatingPoint, ...]) -> None:
    """Write a manifest that describes what lies in the folder now, and seal it."""
    manifest = Manifest.model_validate(
        {
            **encoding.model_dump(),
            "schema_version": 1,
            "model_id": folder.name,
            "version": "1",
            "description": "two grey pixels as an angle",
            "files": file_entries(folder),
            "operating_points": points,
            "default_operating_point": "fmr-1e-2",
            "evidence": evidence_summary(folder / "evidence.npz"),
            "recipe": {},
            "datasets": [],
            "weights": [],
            "parity": {},
        }
    )
    write_manifest(folder, manifest)
