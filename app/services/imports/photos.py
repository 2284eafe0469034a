"""The photos of a folder, encoded as the service encodes a photo that is enrolled."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.encoding.bulk import Encoded, encode_files
from app.encoding.detection import FaceChoice
from app.encoding.intake import IMAGE_SUFFIXES
from app.encoding.model import Model
from app.encoding.quality import QualityFloor
from app.errors import ImageError, InvalidRequestError, QualityTooLowError
from app.services.catalogue import CollectionPolicy
from app.services.enrolment import floor_of
from app.services.images import Template
from app.services.imports.batch import Batch, Item, Reject, Sample
from app.services.names import identity_name
from app.services.portable.contract import refuse_source
from app.services.templates import kept_image, references_of_photo
from app.storage.bulk import BulkReference
from app.storage.records import Collection, to_bytes

IDENTITIES_OF_A_BATCH: Final = 64
"""Identities of one transaction: as many as are encoded in some seconds."""


class Photos:
    """A folder on its way into a collection.

    The first photo of an identity that is accepted becomes its reference, and more of them where the
    collection keeps several of one identity. Photos that are not needed are not encoded.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[tuple[str, Path]],
        collection: Collection,
        models: Sequence[Model],
        *,
        floor: QualityFloor,
        face: FaceChoice,
        enrolled: Callable[[Sequence[str]], set[str]],
    ) -> None:
        """Note what to read.

        Args:
            folder: Where the files are.
            files: As ``photos_of`` lists them.
            collection: Where to.
            models: Those that make its templates, its own first.
            floor: The service's, for photos that show a face.
            face: Which face counts when a photo has several.
            enrolled: Tells those of some names whose photos need not be looked at.
        """
        self._folder = folder
        self._files = files
        self._collection = collection
        self._policy = CollectionPolicy.model_validate(collection.policy)
        self._models = models
        self._floor = floor
        self._face: FaceChoice = face
        self._enrolled = enrolled
        self.models: tuple[str, ...] = tuple(model.digest for model in models)

    def read(self, start: int) -> Iterator[Batch]:
        """Yield the photos from a position on, some identities at a time."""
        groups = [
            (name, [row for row, _ in rows])
            for name, rows in itertools.groupby(enumerate(self._files), key=lambda entry: entry[1][0])
        ]
        left = [(name, rows) for name, rows in groups if rows[0] >= start]
        for number in range(0, len(left), IDENTITIES_OF_A_BATCH):
            yield self._batch(left[number : number + IDENTITIES_OF_A_BATCH])

    def image_of(self, row: int) -> str | None:
        """Return the photo's name in the folder."""
        return self._files[row][1].relative_to(self._folder).as_posix()

    def close(self) -> None:
        """Nothing is open."""

    def _batch(self, groups: Sequence[tuple[str, list[int]]]) -> Batch:
        batch = Batch(groups[0][1][0], groups[-1][1][-1] + 1)
        waiting: list[tuple[Item, list[int]]] = []
        for folder, rows in groups:
            try:
                item = Item(identity_name(folder))
            except InvalidRequestError as error:
                batch.rejects += [self._reject(row, None, error.code, str(error)) for row in rows]
            else:
                batch.items.append(item)
                waiting.append((item, rows))
        enrolled = self._enrolled([item.name for item in batch.items])
        for item, rows in waiting:
            if item.name in enrolled:
                item.unread = rows
        waiting = [(item, list(rows)) for item, rows in waiting if item.name not in enrolled]
        while waiting:  # the first photo of each before the second of any
            self._encode(batch, [(item, rows.pop(0)) for item, rows in waiting])
            for item, rows in waiting:
                if len(item.samples) >= self._policy.max_references:
                    batch.skipped += len(rows)
                    rows.clear()
            waiting = [(item, rows) for item, rows in waiting if rows]
        return batch

    def _encode(self, batch: Batch, turn: list[tuple[Item, int]]) -> None:
        """Encode one photo of each identity by each model; those that pass become samples."""
        templates: dict[int, list[Template]] = {row: [] for _, row in turn}
        for number, model in enumerate(self._models):
            left = [(item, row) for item, row in turn if row in templates]
            paths = [self._files[row][1] for _, row in left]
            for (item, row), outcome in zip(left, encode_files(model.images, paths, self._face), strict=True):
                template = self._accepted(outcome, model, judged=number == 0)
                if isinstance(template, ImageError):
                    del templates[row]
                    batch.rejects.append(self._reject(row, item.name, template.code, str(template)))
                else:
                    templates[row].append(template)
        now = datetime.now(UTC)
        for item, row in turn:
            if row not in templates:
                continue
            made = references_of_photo(templates[row])
            crop = None
            if self._policy.keep_images == "aligned":
                crop = kept_image(templates[row][0], self._models[0], made[0].id)
            references = tuple(
                BulkReference(
                    one.id,
                    one.model_digest,
                    to_bytes(one.embedding),
                    one.face,
                    one.quality,
                    now,
                    one.sample_id,
                )
                for one in made
            )
            item.samples.append(Sample(row, references, crop))

    def _accepted(
        self, outcome: Encoded | ImageError, model: Model, *, judged: bool
    ) -> Template | ImageError:
        if isinstance(outcome, ImageError):
            return outcome
        prepared = outcome.prepared
        if judged:
            floor = floor_of(self._collection, self._floor, faces=prepared.face is not None)
            shortfalls = floor.shortfalls(prepared.quality)
            if shortfalls:
                return QualityTooLowError(shortfalls)
        return Template(
            "image",
            outcome.embedding,
            model.digest,
            prepared.face,
            prepared.faces_found,
            prepared.quality,
            prepared.pixels,
        )

    def _reject(self, row: int, identity: str | None, code: str, detail: str) -> Reject:
        return Reject(row, identity, code, detail, self.image_of(row))


def photos_of(folder: Path) -> tuple[list[tuple[str, Path]], int]:
    """List the images of a folder as (identity, path), sorted, and count the other files.

    Args:
        folder: ``<identity>/<image>``, or ``<identity>.<suffix>`` without a folder of its own.

    Raises:
        InvalidRequestError: There is no image.
    """
    found: list[tuple[str, Path]] = []
    others = 0
    for path in itertools.chain(folder.glob("*"), folder.glob("*/*")):
        alone = path.parent == folder
        hidden = path.name.startswith(".") or (not alone and path.parent.name.startswith("."))
        if hidden or not path.is_file():
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.append((path.stem if alone else path.parent.name, path))
        else:
            others += 1
    if not found:
        refuse_source(f"{folder} holds no images as <identity>/<image> or <identity>.jpg")
    return sorted(found), others


def sha256_of_photos(folder: Path, files: Sequence[tuple[str, Path]]) -> str:
    """Return what a folder is known by: SHA-256 over its files' names, sizes and times of change."""
    digest = hashlib.sha256()
    for _, path in files:
        status = path.stat()
        facts = (path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns)
        digest.update(ascii(facts).encode() + b"\n")
    return digest.hexdigest()
