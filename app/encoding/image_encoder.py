"""Image bytes in, embeddings out, for one bundle. Synchronous and thread-safe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.encoding.alignment import align_face
from app.encoding.detection import Face, FaceChoice, FaceDetector
from app.encoding.intake import IntakeLimits, decode_image
from app.encoding.manifest import Encoding
from app.encoding.onnx_session import Graph
from app.encoding.pixel_gate import PixelGate
from app.encoding.preprocess import Prepared, prepare_face, prepare_whole
from app.encoding.quality import Quality, measure_quality
from app.encoding.second_look import look_again
from app.errors import ImageUnreadableError, InvalidRequestError


@dataclass(frozen=True)
class ImageInput:
    """An image as received, and the request field it came in (None outside a request)."""

    data: bytes
    field: str | None = None


@dataclass
class Timings:
    """Milliseconds spent in each stage, added up over the images of a request."""

    decode: float = 0.0
    detect: float = 0.0
    encode: float = 0.0

    def add(self, other: Timings) -> None:
        """Add the stages of another image."""
        self.decode += other.decode
        self.detect += other.detect
        self.encode += other.encode


class ImageEncoder:
    """The three verbs of a model: prepare an image, encode a batch, detect faces."""

    def __init__(
        self,
        encoding: Encoding,
        encoder: Graph,
        detector: Graph | None,
        limits: IntakeLimits,
        gate: PixelGate | None = None,
    ) -> None:
        self.encoding = encoding
        self.provider = encoder.provider
        self._encoder = encoder
        self._limits = limits
        self._gate = gate or PixelGate(2 * limits.max_pixels)
        self._detector: FaceDetector | None = None
        if encoding.detector is not None and detector is not None:
            self._detector = FaceDetector(detector, encoding.detector)

    def prepare(self, image: ImageInput, choice: FaceChoice, timings: Timings) -> Prepared:
        """Decode one image and bring it to the encoder's input.

        Raises:
            ImageError: It cannot be decoded, or has no usable face; the field is named.
        """
        with self._gate.reservation() as reserve:
            started = time.perf_counter()
            decoded = decode_image(image.data, self._limits, field=image.field, reserve=reserve)
            decoded_at = time.perf_counter()
            spec, how = self.encoding.input, self.encoding.preprocess
            if how.mode == "face-5pt":
                assert self._detector is not None  # noqa: S101 - the manifest demands it
                prepared = prepare_face(decoded, self._detector, spec, choice, field=image.field)
            else:
                prepared = prepare_whole(decoded, how, spec)
        timings.decode += (decoded_at - started) * 1e3
        timings.detect += (time.perf_counter() - decoded_at) * 1e3
        return prepared

    def encode(self, prepared: Sequence[Prepared], timings: Timings) -> NDArray[np.float32]:
        """Encode N prepared images as one batch; returns float32[N, D].

        Raises:
            ImageUnreadableError: An embedding is not finite, or has no direction to compare.
        """
        return self.encode_pixels(np.stack([item.pixels for item in prepared]), timings)

    def encode_pixels(self, pixels: NDArray[np.uint8], timings: Timings) -> NDArray[np.float32]:
        """Encode uint8[N, H, W, C] of the input's size as one batch; returns float32[N, D].

        Raises:
            ImageUnreadableError: An embedding is not finite, or has no direction to compare.
        """
        started = time.perf_counter()
        embeddings = self._encoder(pixels)["embeddings"]
        timings.encode += (time.perf_counter() - started) * 1e3
        usable = np.isfinite(embeddings).all()
        if self.encoding.metric != "l1":
            # The zero vector is at distance 1 from every unit vector, which many thresholds call a match.
            usable = usable and embeddings.any(axis=1).all()
        if not usable:
            raise ImageUnreadableError("the model makes no usable embedding of this image")
        return embeddings

    def detect(
        self, image: ImageInput, timings: Timings
    ) -> tuple[list[tuple[Face, Quality]], tuple[int, int]]:
        """Return every face with its quality, and the width and height of the upright image.

        Raises:
            ImageError: The image cannot be decoded.
            InvalidRequestError: The model takes whole images and finds no faces.
        """
        if self._detector is None:
            raise InvalidRequestError(
                [{"field": "model", "problem": "this model takes whole images and detects no faces"}]
            )
        with self._gate.reservation() as reserve:
            started = time.perf_counter()
            decoded = decode_image(image.data, self._limits, field=image.field, reserve=reserve)
            decoded_at = time.perf_counter()
            size = (self.encoding.input.height, self.encoding.input.width)
            # A second look at each, so that a face has the same landmarks here as where it is encoded.
            faces = [look_again(decoded, face, self._detector) for face in self._detector.detect(decoded)]
            found = [
                (face, measure_quality(align_face(decoded, face.landmarks, size), face)) for face in faces
            ]
        timings.decode += (decoded_at - started) * 1e3
        timings.detect += (time.perf_counter() - decoded_at) * 1e3
        return found, decoded.size
