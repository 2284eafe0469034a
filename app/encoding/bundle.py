"""Read a bundle from disk and refuse it unless every part is what its manifest says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from app.encoding.detection import STRIDES
from app.encoding.manifest import MANIFEST_NAME, Manifest
from app.encoding.onnx_session import Graph, Provider
from app.errors import BundleError, StartupError
from app.matching.evidence import Evidence, read_evidence

GOLDEN_TOLERANCE = 1e-3
"""Largest difference of one component of a golden embedding; providers differ in the fourth decimal."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle with its graphs loaded."""

    folder: Path
    manifest: Manifest
    encoder: Graph
    detector: Graph | None
    evidence: Evidence


def read_manifest(folder: Path) -> Manifest:
    """Read and validate ``manifest.json``.

    Raises:
        BundleError: The folder or the manifest is missing, or the manifest is invalid.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        known = sorted(p.parent.name for p in folder.parent.glob(f"*/{MANIFEST_NAME}"))
        raise BundleError(
            f"there is no bundle at {folder} ({MANIFEST_NAME} is missing); "
            f"{folder.parent} holds: {', '.join(known) or 'none'}"
        )
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        parts = (f"{folder.name}/{MANIFEST_NAME}", ".".join(str(p) for p in first["loc"]), first["msg"])
        raise BundleError(": ".join(part for part in parts if part)) from error
    if manifest.model_id != folder.name:
        raise BundleError(f"{folder.name}/{MANIFEST_NAME}: model_id is {manifest.model_id!r}")
    return manifest


@contextmanager
def _blaming(file: str) -> Iterator[None]:
    """Turn whatever reading or running a file raises into a ``BundleError`` that names it."""
    try:
        yield
    except StartupError:
        raise
    except Exception as error:  # numpy, zipfile and onnxruntime each have their own classes for damage
        raise BundleError(f"{file}: {error or type(error).__name__}") from error


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file with its digest.

    Raises:
        BundleError: A file is missing or altered; the message names it.
    """
    for name, entry in sorted(manifest.files.items()):
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{folder.name}/{name} is missing")
        with _blaming(f"{folder.name}/{name}"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != entry.sha256:
            raise BundleError(
                f"{folder.name}/{name} is altered: sha256 {digest}, the manifest says {entry.sha256}"
            )


def load_bundle(folder: Path, provider: Provider) -> Bundle:
    """Load a bundle and check digests, shapes, golden embeddings and evidence.

    Raises:
        BundleError: Something contradicts the manifest; the message names the file.
        StartupError: The provider asked for does not work.
    """
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    encoder = Graph(folder / "encoder.onnx", provider)
    _check_encoder(folder.name, manifest, encoder)
    with _blaming(f"{folder.name}/golden.npz"):
        _check_golden(folder, manifest, encoder)
    detector = None
    if manifest.detector is not None:
        detector = Graph(folder / manifest.detector.file, provider)
        with _blaming(f"{folder.name}/{manifest.detector.file}"):
            _check_detector(folder.name, manifest.detector.file, detector)
    with _blaming(f"{folder.name}/{manifest.evidence.file}"):
        evidence = _read_evidence(folder, manifest)
    return Bundle(folder, manifest, encoder, detector, evidence)


def _check_encoder(model_id: str, manifest: Manifest, encoder: Graph) -> None:
    spec = manifest.input
    wanted_in = ("tensor(uint8)", [spec.height, spec.width, spec.channels])
    kind, shape = encoder.inputs.get("images", ("absent", [None]))
    if (kind, shape[1:]) != wanted_in or isinstance(shape[0], int) or len(encoder.inputs) > 1:
        raise BundleError(
            f"{model_id}/encoder.onnx: input images is {kind} {shape} among {sorted(encoder.inputs)}, the "
            f"manifest says uint8 [N, {spec.height}, {spec.width}, {spec.channels}] alone"
        )
    kind, shape = encoder.outputs.get("embeddings", ("absent", [None]))
    if kind != "tensor(float)" or shape[1:] != [manifest.dimensions]:
        raise BundleError(
            f"{model_id}/encoder.onnx: output embeddings is {kind} {shape}, the manifest says float32 "
            f"[N, {manifest.dimensions}]"
        )


def _check_detector(model_id: str, name: str, detector: Graph) -> None:
    wanted = {f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in STRIDES}
    missing = sorted(wanted - set(detector.outputs))
    if missing or detector.inputs.get("images", ("",))[0] != "tensor(uint8)":
        raise BundleError(
            f"{model_id}/{name} is not a YuNet graph with uint8 input images and outputs "
            f"{', '.join(sorted(wanted))}"
        )
    # The first run of a graph is slow and shows whether it works at all; better now than in a request.
    found = detector(np.zeros((1, 64, 96, 3), np.uint8))
    for output in sorted(wanted):
        stride = int(output.rsplit("_", 1)[1])
        cells = (64 // stride) * (96 // stride)
        if found[output].shape[:2] != (1, cells):
            raise BundleError(
                f"{model_id}/{name}: output {output} is {found[output].shape}; [1, {cells}, k] is wanted "
                "for 64 x 96 pixels"
            )


def _check_golden(folder: Path, manifest: Manifest, encoder: Graph) -> None:
    name = f"{folder.name}/golden.npz"
    with (folder / "golden.npz").open("rb") as file, np.load(file, allow_pickle=False) as golden:
        if not {"images", "embeddings"} <= set(golden.files):
            raise BundleError(f"{name}: images and embeddings are wanted")
        images, expected = golden["images"], golden["embeddings"]
    spec = manifest.input
    if images.shape[1:] != (spec.height, spec.width, spec.channels) or images.dtype != np.uint8:
        raise BundleError(f"{name}: images are {images.dtype} {images.shape}")
    if expected.shape != (len(images), manifest.dimensions) or len(images) == 0:
        raise BundleError(f"{name}: embeddings are {expected.shape}")
    worst = float(np.abs(encoder(images)["embeddings"] - expected).max())
    if not worst <= GOLDEN_TOLERANCE:
        raise BundleError(
            f"{name}: the encoder's embeddings differ by {worst:.2g} (at most {GOLDEN_TOLERANCE:g} is "
            f"allowed) on provider {encoder.provider}"
        )


def _read_evidence(folder: Path, manifest: Manifest) -> Evidence:
    name = manifest.evidence.file
    evidence = read_evidence(folder / name)
    counts = (evidence.subjects, evidence.mated_total, evidence.nonmated_total)
    stated = (manifest.evidence.subjects, manifest.evidence.mated, manifest.evidence.nonmated)
    if counts != stated:
        raise BundleError(
            f"{folder.name}/{name} has subjects, mated, nonmated {counts}; the manifest says {stated}"
        )
    return evidence
