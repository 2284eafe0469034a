"""Read a bundle from disk and refuse it unless every part is what its seal and its manifest say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from app.encoding.detection import STRIDES
from app.encoding.golden import GOLDEN_NAME, GoldenCheck, check_golden
from app.encoding.manifest import MANIFEST_NAME, Manifest
from app.encoding.onnx_session import Graph, Provider
from app.encoding.seal import Seal, check_files, read_seal
from app.encoding.signature import Signature, TrustedKeys, check_signature
from app.errors import BundleError, StartupError
from app.matching.evidence import Evidence, read_evidence


@dataclass(frozen=True)
class Bundle:
    """A verified bundle with its graphs loaded."""

    folder: Path
    manifest: Manifest
    encoder: Graph
    detector: Graph | None
    evidence: Evidence
    signature: Signature | None
    golden: GoldenCheck


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


def verify_files(folder: Path, trusted: TrustedKeys | None = None) -> tuple[Manifest, Signature | None]:
    """Check seal and signature, every file against the seal, and the manifest against both.

    Args:
        folder: Of the bundle.
        trusted: Keys of which one must have signed it; None asks for no signature.

    Returns:
        The manifest, and the signature if there is one.

    Raises:
        BundleError: A file is missing, altered, not listed or not signed; the message names it.
    """
    if not (folder / MANIFEST_NAME).is_file():
        read_manifest(folder)  # says which bundles there are
    seal = read_seal(folder)
    signature = check_signature(folder, seal, trusted)
    check_files(folder, seal)
    manifest = read_manifest(folder)
    _check_listing(folder.name, manifest, seal)
    return manifest, signature


def load_bundle(folder: Path, provider: Provider, trusted: TrustedKeys | None = None) -> Bundle:
    """Load a bundle and check seal, signature, shapes, golden embeddings and decisions, and evidence.

    Raises:
        BundleError: Something contradicts the seal or the manifest; the message names the file.
        StartupError: The provider asked for does not work.
    """
    manifest, signature = verify_files(folder, trusted)
    encoder = Graph(folder / "encoder.onnx", provider)
    _check_encoder(folder.name, manifest, encoder)
    with _blaming(f"{folder.name}/{GOLDEN_NAME}"):
        golden = check_golden(folder, manifest, encoder)
    detector = None
    if manifest.detector is not None:
        detector = Graph(folder / manifest.detector.file, provider)
        with _blaming(f"{folder.name}/{manifest.detector.file}"):
            _check_detector(folder.name, manifest.detector.file, detector)
    with _blaming(f"{folder.name}/{manifest.evidence.file}"):
        evidence = _read_evidence(folder, manifest)
    return Bundle(folder, manifest, encoder, detector, evidence, signature, golden)


def _check_listing(model_id: str, manifest: Manifest, seal: Seal) -> None:
    sealed = {name: digest for name, digest in seal.digests.items() if name != MANIFEST_NAME}
    stated = {name: entry.sha256 for name, entry in manifest.files.items()}
    for name in sorted(sealed.keys() | stated.keys()):
        if name not in sealed:
            raise BundleError(f"{model_id}/{name} is listed in {MANIFEST_NAME} but not sealed")
        if name not in stated:
            raise BundleError(f"{model_id}/{name} is sealed but not listed in {MANIFEST_NAME}")
        if sealed[name] != stated[name]:
            raise BundleError(
                f"{model_id}/{MANIFEST_NAME} says that {name} has sha256 {stated[name]}; file and seal have "
                f"{sealed[name]}"
            )


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
