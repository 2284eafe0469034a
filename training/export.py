"""From trained weights to a bundle that the service loads.

The exported graph, not the Keras model, is what every figure of a bundle is measured on. The export stops
when the two differ, so that what was trained is what is served.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from app.encoding.manifest import SCHEMA_VERSION, Encoding, Manifest
from app.errors import VisavisError
from training.bundle_files import file_entries, synthetic_inputs, write_manifest
from training.encoders.layers import ScaleEach
from training.export_onnx import export_onnx, largest_difference
from training.golden import add_pairs
from training.measured_evidence import MeasuredEvidence, evidence_summary, operating_points, write_evidence

LARGEST_DIFFERENCE = 1e-4
"""Of one component of an embedding, between Keras and ONNX Runtime."""

GOLDEN_INPUTS = 4


class ExportError(VisavisError):
    """What was exported does not do what was trained."""

    code = "export_differs"


def float32_copy(model: keras.Model) -> keras.Model:
    """Return the model computing in float32, with the same weights.

    Mixed precision is for training; the service runs float32, and one that was trained in float32 comes back
    as it is.
    """
    if all(layer.compute_dtype == "float32" or not layer.weights for layer in model.layers) and (
        keras.mixed_precision.dtype_policy().compute_dtype == "float32"
    ):
        return model

    def in_float32(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = "float32"
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=in_float32)
    copy.set_weights(model.get_weights())
    return copy


def with_folded_scale(model: keras.Model, scale: NDArray[np.float32]) -> keras.Model:
    """Return the model with each component of its embedding multiplied by a weight of at least 0.

    With the weights of a weighted L1 head folded in, the plain ``l1`` distance of two embeddings is the
    head's weighted one, so that a gallery search and the head agree exactly.
    """
    scaled = ScaleEach(scale.tolist(), name="scaled")(model.outputs[0])
    # The input itself, not a list of one: such a model warns of every array it is called with.
    return keras.Model(model.inputs[0], scaled, name=model.name)


def write_encoder(
    model: keras.Model,
    folder: Path,
    samples: NDArray[Any],
    *,
    input_name: str = "images",
    file: str = "encoder.onnx",
) -> float:
    """Write ``encoder.onnx`` and return the largest difference between Keras and ONNX Runtime.

    Args:
        model: In float32.
        folder: Takes the file.
        samples: Inputs to compare on.
        input_name: ``images`` or ``tokens``.
        file: Its name, where a folder has several encoders.

    Raises:
        ExportError: They differ by more than ``LARGEST_DIFFERENCE``; the file is removed again.
    """
    path = folder / file
    export_onnx(model, path, input_name=input_name)
    difference = largest_difference(model, path, samples)
    if not difference <= LARGEST_DIFFERENCE:
        path.unlink()
        raise ExportError(
            f"Keras and ONNX Runtime differ by {difference:.3g} on {len(samples)} inputs; "
            f"at most {LARGEST_DIFFERENCE:g} is allowed"
        )
    return difference


def write_golden(model: keras.Model, folder: Path) -> NDArray[np.uint8]:
    """Write ``golden.npz`` with Keras's own embeddings of synthetic images, and return the images.

    Golden pairs are added by ``finish_bundle``, when the thresholds are known.
    """
    images = synthetic_inputs(GOLDEN_INPUTS, *model.inputs[0].shape[1:])
    embeddings = np.asarray(model(images, training=False), np.float32)
    np.savez(folder / "golden.npz", images=images, embeddings=embeddings)
    return images


@dataclass(frozen=True)
class BundleText:
    """What the manifest says of a model that no measurement tells."""

    model_id: str
    version: str
    description: str
    recipe: dict[str, JsonValue]
    datasets: tuple[dict[str, JsonValue], ...]
    weights: tuple[dict[str, JsonValue], ...]


def finish_bundle(
    folder: Path,
    encoding: Encoding,
    measured: MeasuredEvidence,
    text: BundleText,
    *,
    parity: dict[str, JsonValue],
    results: dict[str, JsonValue],
    default_point: str,
) -> Manifest:
    """Write evidence, golden pairs, manifest and seal beside what lies in the folder: graph, golden
    embeddings, card and plots.

    Args:
        folder: ``models/<model_id>``.
        encoding: Shape, preprocessing, metric.
        measured: Trials of the exported graph.
        text: Names, sources and licences.
        parity: Largest difference between Keras and ONNX Runtime, and how measured.
        results: Figures of the test part.
        default_point: Name of the default operating point.
    """
    write_evidence(folder / "evidence.npz", measured)
    points = operating_points(measured.evidence)
    add_pairs(folder, points, encoding.metric)
    manifest = Manifest.model_validate(
        {
            "schema_version": SCHEMA_VERSION,
            "model_id": text.model_id,
            "version": text.version,
            "description": text.description,
            "files": file_entries(folder),
            **encoding.model_dump(),
            "operating_points": points,
            "default_operating_point": default_point,
            "evidence": evidence_summary(folder / "evidence.npz"),
            "recipe": text.recipe,
            "datasets": text.datasets,
            "weights": text.weights,
            "parity": parity,
            "results": results,
        }
    )
    write_manifest(folder, manifest)
    return manifest


def emptied(folder: Path) -> Path:
    """Return the folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
