"""Make the templates that a collection's new model lacks: from kept crops, or from a folder of photos.

Identities are gone through in pages, without a lock: a page is read, encoded on all cores, and stored in one
transaction that passes over whatever was changed or made meanwhile. So the work may be broken off and begun
again at any time, and runs beside services and beside itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from app.encoding.cores import available_cores
from app.encoding.crops import Fitted, fitted
from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.model import Model
from app.errors import (
    CollectionNotFoundError,
    ImageError,
    ImageUnreadableError,
    MigrationStateError,
    ModelNotServedError,
)
from app.matching.distances import distance
from app.services.images import template_of
from app.services.model_migration import old_and_new
from app.services.models import Models
from app.services.templates import reference_of
from app.storage import collections, model_migration
from app.storage.database import Database, Session
from app.storage.model_migration import Second, Unpaired
from app.storage.records import Collection, NewReference

PAGE: Final = 200
"""Identities whose templates are stored by one transaction."""
_CROPS_AT_ONCE: Final = 16
"""Crops of one batch of the encoder."""


@dataclass
class Filled:
    """What became of the templates that were missing.

    Attributes:
        from_crops: Made from kept crops.
        resized: Of those, crops that were not of the new model's input size.
        from_photos: Made from photos of the folder.
        overtaken: Made, but their reference was removed meanwhile or had one.
        unusable_crops: Kept crops that show another part of the photo than the new model takes.
        not_confirmed: Photos that the old model does not take for the identity they are said to show.
        failed: Photos that could not be used, with the reason.
    """

    from_crops: int = 0
    resized: int = 0
    from_photos: int = 0
    overtaken: int = 0
    unusable_crops: int = 0
    not_confirmed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pair:
    """A collection between two models."""

    collection: Collection
    old: Model
    new: Model


def fill(
    database: Database,
    models: Models,
    name: str,
    photos: Mapping[str, Sequence[Path]],
    *,
    face: FaceChoice = "largest",
    progress: Callable[[int], None] = lambda _: None,
) -> Filled:
    """Make every template by the new model that can be made.

    A photo of the folder is used only when the old model takes it for the identity; it stands beside the
    reference that it is nearest to.

    Args:
        database: Where it is stored.
        models: Both models must be among them.
        name: The collection.
        photos: By identity.
        face: Which face of a photo counts.
        progress: Called with the number of identities of each page.

    Raises:
        CollectionNotFoundError: There is none of that name.
        MigrationStateError: It is not changing its model, or no longer.
        ModelNotServedError: One of the two models is not loaded.
    """
    pair = _pair(database.read_now(collections.get, name), models)
    old, new = pair.old.digest, pair.new.digest
    filled, after = Filled(), 0
    with ThreadPoolExecutor(available_cores()) as pool:
        while True:
            missing, seen = database.read_now(
                model_migration.unpaired, pair.collection, made=old, wanted=new, after=after, limit=PAGE
            )
            if not seen:
                return filled
            seconds, rest = _from_crops(pool, pair.new, missing, filled)
            made = seconds + _from_photos(pool, pair, rest, photos, face, filled)
            if made:
                stored = database.write_now(_store, pair, made)
                filled.overtaken += len(made) - stored
            after = seen[-1]
            progress(len(seen))


def _pair(collection: Collection, models: Models) -> _Pair:
    found = []
    for digest in old_and_new(collection):
        model = models.of_digest(digest)
        if model is None:
            raise ModelNotServedError(collection=collection.name, model=str(collection.model_of(digest)))
        found.append(model)
    return _Pair(collection, *found)


def _store(session: Session, pair: _Pair, seconds: Sequence[Second]) -> int:
    collection = collections.hold(session, pair.collection.name)
    if collection.id != pair.collection.id:
        raise CollectionNotFoundError(collection.name)
    if set(collection.digests) != {pair.old.digest, pair.new.digest}:
        raise MigrationStateError(f"the change of collection {collection.name!r} was ended meanwhile")
    collection = collections.advance(session, collection)
    return model_migration.add_seconds(
        session, collection, made=pair.old.digest, wanted=pair.new.digest, seconds=seconds
    )


def _from_crops(
    pool: ThreadPoolExecutor, new: Model, missing: Sequence[Unpaired], filled: Filled
) -> tuple[list[Second], list[Unpaired]]:
    """Return templates made from kept crops, and what has no crop that can be used."""
    crops: list[tuple[Unpaired, Fitted]] = []
    rest = []
    for item in missing:
        crop = None if item.image is None else fitted(item.image, new.images.encoding)
        if crop is not None:
            crops.append((item, crop))
            continue
        filled.unusable_crops += item.image is not None
        rest.append(item)
    batches = [crops[start : start + _CROPS_AT_ONCE] for start in range(0, len(crops), _CROPS_AT_ONCE)]
    seconds = []
    for batch, references in zip(batches, pool.map(lambda b: _encoded(new, b), batches), strict=True):
        for (item, crop), reference in zip(batch, references, strict=True):
            if reference is None:
                rest.append(item)
                continue
            filled.from_crops += 1
            filled.resized += crop.resized_from is not None
            seconds.append(Second(item, reference))
    return seconds, rest


def _encoded(new: Model, batch: Sequence[tuple[Unpaired, Fitted]]) -> list[NewReference | None]:
    """Return a template of each crop; None where the model makes no usable one."""
    try:
        embeddings = new.images.encode_pixels(np.stack([crop.pixels for _, crop in batch]), Timings())
    except ImageUnreadableError:
        if len(batch) == 1:
            return [None]
        return [reference for one in batch for reference in _encoded(new, [one])]
    return [
        NewReference(
            id=str(uuid.uuid4()),
            model_digest=new.digest,
            embedding=embedding,
            face=item.face,
            # The measures are those of the photo's first template; what differs is said.
            quality={**item.quality, **({"resized_from": crop.resized_from} if crop.resized_from else {})},
            sample_id=item.sample,
        )
        for embedding, (item, crop) in zip(embeddings, batch, strict=True)
    ]


def _from_photos(
    pool: ThreadPoolExecutor,
    pair: _Pair,
    missing: Sequence[Unpaired],
    photos: Mapping[str, Sequence[Path]],
    face: FaceChoice,
    filled: Filled,
) -> list[Second]:
    by_identity: dict[str, list[Unpaired]] = {}
    for item in missing:
        if item.identity in photos:
            by_identity.setdefault(item.identity, []).append(item)
    outcomes = pool.map(
        lambda entry: _of_identity(pair, entry[1], photos[entry[0]], face), by_identity.items()
    )
    seconds: list[Second] = []
    for made, not_confirmed, failed in outcomes:
        seconds += made
        filled.from_photos += len(made)
        filled.not_confirmed += not_confirmed
        filled.failed.update(failed)
    return seconds


def _of_identity(
    pair: _Pair, missing: Sequence[Unpaired], paths: Sequence[Path], face: FaceChoice
) -> tuple[list[Second], list[str], dict[str, str]]:
    """Return templates of one identity's photos, the photos that do not show it, and those unusable."""
    metric, threshold = pair.old.manifest.metric, pair.old.manifest.default_point.threshold
    remaining = list(missing)
    made: list[Second] = []
    not_confirmed: list[str] = []
    failed: dict[str, str] = {}
    for path in paths:
        if not remaining:
            break
        try:
            image = ImageInput(path.read_bytes(), str(path))
            probe = template_of(pair.old, image, face)
            apart = [distance(probe.embedding, item.embedding, metric) for item in remaining]
            nearest = int(np.argmin(apart))
            if not apart[nearest] <= threshold:
                not_confirmed.append(str(path))
                continue
            template = template_of(pair.new, image, face)
        except OSError as error:
            failed[str(path)] = f"the file cannot be read: {error.strerror}"
            continue
        except ImageError as error:
            failed[str(path)] = f"{error.code}: {error}"
            continue
        beside = remaining.pop(nearest)
        made.append(Second(beside, reference_of(template, id=str(uuid.uuid4()), sample=beside.sample)))
    return made, not_confirmed, failed
