"""From the images of a request to templates: bounded, off the event loop, one batch a request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as attribute

import numpy as np
from numpy.typing import NDArray

from app.encoding.detection import Face, FaceChoice
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.model import Model
from app.encoding.preprocess import Prepared
from app.encoding.quality import Quality
from app.encoding.workers import Workers


@dataclass(frozen=True)
class Template:
    """An embedding ready to compare, with what it was made from.

    Attributes:
        field: Request field of the image.
        embedding: float32[D].
        model_digest: Templates of equal digest may be compared.
        face: The face it was made from; None for whole-image models.
        faces_found: How many faces the image has; None likewise.
        quality: Measures of the encoder's input.
        pixels: That input, uint8[H, W, C].
    """

    field: str
    embedding: NDArray[np.float32]
    model_digest: str
    face: Face | None
    faces_found: int | None
    quality: Quality
    pixels: NDArray[np.uint8] = attribute(repr=False)


class Images:
    """Encodes and detects for every service."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    @property
    def threads(self) -> int:
        """Images that are worked on at once."""
        return self._workers.threads

    async def encode(
        self, model: Model, images: Sequence[ImageInput], choice: FaceChoice, timings: Timings
    ) -> list[Template]:
        """Prepare the images side by side, then encode them as one batch.

        Raises:
            ImageError: The first image, in their order, that cannot be used.
            BusyError: Too much is waiting.
        """
        with self._workers.admit(len(images)):
            spent = [Timings() for _ in images]
            outcomes = await asyncio.gather(
                *(
                    self._workers.run(model.images.prepare, image, choice, spent[i])
                    for i, image in enumerate(images)
                ),
                return_exceptions=True,
            )
            for stage in spent:
                timings.add(stage)
            prepared: list[Prepared] = []
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
                prepared.append(outcome)
            embeddings = await self._workers.run(model.images.encode, prepared, timings)
        return [
            _template(model, image, item, embedding)
            for image, embedding, item in zip(images, embeddings, prepared, strict=True)
        ]

    async def detect(
        self, model: Model, image: ImageInput, timings: Timings
    ) -> tuple[list[tuple[Face, Quality]], tuple[int, int]]:
        """Return every face of an image with its quality, and the image's width and height.

        Raises:
            ImageError: The image cannot be decoded.
            InvalidRequestError: The model finds no faces.
            BusyError: Too much is waiting.
        """
        with self._workers.admit(1):
            return await self._workers.run(model.images.detect, image, timings)


def template_of(model: Model, image: ImageInput, choice: FaceChoice) -> Template:
    """Return the template of one image, made on this thread: for the command line.

    Raises:
        ImageError: It cannot be used.
    """
    timings = Timings()
    prepared = model.images.prepare(image, choice, timings)
    return _template(model, image, prepared, model.images.encode([prepared], timings)[0])


def _template(model: Model, image: ImageInput, made: Prepared, embedding: NDArray[np.float32]) -> Template:
    return Template(
        field=image.field or "image",
        embedding=embedding,
        model_digest=model.digest,
        face=made.face,
        faces_found=made.faces_found,
        quality=made.quality,
        pixels=made.pixels,
    )
