"""The ``faces`` bundle as a start for training: its detector and alignment, its encoder."""

from __future__ import annotations

from pathlib import Path

from app.encoding.manifest import DetectorSpec
from app.encoding.model import Model, open_model
from app.resources import resource_dir
from training.data.preparing import LIMITS


def faces_folder() -> Path:
    """Return the folder of the bundle that comes with Visavis."""
    return resource_dir("models") / "faces"


def open_faces() -> Model:
    """Return the bundle, on the CPU, patient enough that a busy machine loses no file."""
    return open_model(faces_folder(), provider="cpu", limits=LIMITS)


def faces_detector(model: Model) -> tuple[DetectorSpec, Path]:
    """Return the detector with its file, for a bundle that finds faces as ``faces`` does."""
    spec = model.manifest.detector
    if spec is None:
        raise ValueError(f"bundle {model.model_id} has no detector")
    return spec, faces_folder() / spec.file


def faces_encoder() -> Path:
    """Return the file of the encoder."""
    return faces_folder() / "encoder.onnx"
