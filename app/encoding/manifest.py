"""The manifest of a bundle: one model that training writes and the service reads.

A bundle is the folder ``models/<model_id>/``. Everything the two halves must agree on about a model is in
its ``manifest.json``; nothing else passes between them.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from app.matching.decision import OperatingPoint
from app.matching.distances import Metric

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _absent(value: object) -> bool:
    return value is None


class FileEntry(_Strict):
    """One file of the bundle."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class InputSpec(_Strict):
    """Shape of one encoder input: uint8[height, width, channels], RGB or grey."""

    height: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=4096)]
    channels: Literal[1, 3]


class FaceAlignment(_Strict):
    """Detect a face and align it by five landmarks."""

    mode: Literal["face-5pt"]


class WholeImage(_Strict):
    """Use the whole image.

    ``fit`` stretches it to the input size, ``pad`` keeps its proportions and fills the rest with
    ``background``, ``crop`` keeps its proportions and cuts the overhang off evenly.
    """

    mode: Literal["fit", "pad", "crop"]
    background: Annotated[int, Field(ge=0, le=255)] = 255


class SecondLook(_Strict):
    """A closer look at one face: cut out upright, at a size the detector knows well, and detected again.

    The turn is only as good as the landmarks it comes from, so where the crop shows the face still turned,
    the face is cut out again by what was just found.
    """

    canvas: Annotated[int, Field(ge=64, le=1024, multiple_of=32)]
    """Side of the square crop, in pixels."""
    face: Annotated[int, Field(ge=16)]
    """Pixels of the crop that the shorter side of the face's box takes."""
    turn: Annotated[float, Field(gt=0, le=180)]
    """Degrees by which the face may be turned in the crop; above it is looked at again."""
    looks: Annotated[int, Field(ge=1, le=8)]
    """How often at most."""

    @model_validator(mode="after")
    def _face_fits(self) -> Self:
        if self.face > self.canvas:
            raise ValueError(f"a face of {self.face} pixels does not fit a canvas of {self.canvas}")
        return self


class DetectorSpec(_Strict):
    """The face detector that belongs to the bundle."""

    file: str
    kind: Literal["yunet"]
    canvases: Annotated[tuple[Annotated[int, Field(ge=32, le=4096)], ...], Field(min_length=1)]
    """Longer side in pixels that the image is scaled to; the next is tried when one shows no face."""
    max_upscale: Annotated[float, Field(ge=1.0)] = 1.0
    """Largest factor by which a small image is enlarged when a first look at its own size shows no face."""
    score_threshold: Annotated[float, Field(gt=0, lt=1)]
    nms_iou: Annotated[float, Field(gt=0, lt=1)]
    second_look: Annotated[SecondLook | None, Field(exclude_if=_absent)] = None
    """How the landmarks of a face are refined; None leaves them as first detected. None is not written, so
    that the digest of a bundle made before this field existed stays the same."""


class EvidenceSummary(_Strict):
    """What ``evidence.npz`` was measured on."""

    file: str
    source: str
    """One line: data set and how the trials were formed."""
    subjects: Annotated[int, Field(ge=1)]
    images: Annotated[int, Field(ge=1)]
    failures_to_acquire: Annotated[int, Field(ge=0)]
    mated: Annotated[int, Field(ge=0)]
    nonmated: Annotated[int, Field(ge=0)]


class Weights(_Strict):
    """Where weights come from and on what terms."""

    file: str
    origin: str
    origin_sha256: Sha256
    licence: str
    trained_on: str
    changes: str


class Encoding(_Strict):
    """All that decides how an image becomes an embedding, beside the graphs themselves."""

    input: InputSpec
    preprocess: Annotated[FaceAlignment | WholeImage, Field(discriminator="mode")]
    detector: DetectorSpec | None = None
    dimensions: Annotated[int, Field(ge=1, le=65536)]
    metric: Metric

    @model_validator(mode="after")
    def _detector_fits(self) -> Self:
        needs_detector = self.preprocess.mode == "face-5pt"
        if needs_detector != (self.detector is not None):
            raise ValueError("a detector goes with preprocess mode face-5pt, and only with it")
        if needs_detector and self.input.channels != 3:
            raise ValueError("face-5pt needs an input of 3 channels")
        return self


class Manifest(Encoding):
    """Contents of ``manifest.json``."""

    schema_version: Literal[1]
    model_id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: str
    description: str
    files: dict[str, FileEntry]
    """Every file of the bundle but the manifest itself."""
    operating_points: Annotated[tuple[OperatingPoint, ...], Field(min_length=1)]
    default_operating_point: str
    evidence: EvidenceSummary
    recipe: dict[str, JsonValue]
    datasets: tuple[dict[str, JsonValue], ...]
    weights: tuple[Weights, ...]
    parity: dict[str, JsonValue]
    """Largest difference between the exported graph and what it was exported from, and how measured."""
    results: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [point.name for point in self.operating_points]
        if len(set(names)) != len(names):
            raise ValueError("operating_points: a name occurs twice")
        if not all(math.isfinite(point.threshold) for point in self.operating_points):
            raise ValueError("operating_points: a threshold is not a finite number")
        if self.default_operating_point not in names:
            raise ValueError(f"default_operating_point {self.default_operating_point!r} is not among {names}")
        required = {"encoder.onnx", "golden.npz", self.evidence.file}
        if self.detector is not None:
            required.add(self.detector.file)
        missing = sorted(required - set(self.files))
        if missing:
            raise ValueError(f"files: {', '.join(missing)} not listed")
        for name in self.files:
            if "/" in name or "\\" in name or name.startswith(".") or name == MANIFEST_NAME:
                raise ValueError(f"files: {name!r} is not a plain file name")
        return self

    @property
    def digest(self) -> str:
        """Hex SHA-256 of all that decides an embedding: graphs, preprocessing, metric.

        Two bundles with the same digest make comparable templates; thresholds and texts do not count.
        """
        graphs = ["encoder.onnx", *([self.detector.file] if self.detector else [])]
        contract = {
            "graphs": {name: self.files[name].sha256 for name in graphs},
            **self.model_dump(include=set(Encoding.model_fields), mode="json"),
        }
        canonical = json.dumps(contract, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def operating_point(self, name: str) -> OperatingPoint | None:
        """Return the operating point of that name, or None."""
        return next((point for point in self.operating_points if point.name == name), None)

    @property
    def default_point(self) -> OperatingPoint:
        """The operating point used when a request asks for none."""
        point = self.operating_point(self.default_operating_point)
        assert point is not None  # noqa: S101 - checked when the manifest was read
        return point
