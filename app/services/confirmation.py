"""Learn a pending identity's missing template from a photo that has just been verified as theirs."""

from __future__ import annotations

import logging
from collections.abc import Collection as Digests
from typing import Final

from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.model import Model
from app.encoding.quality import QualityFloor
from app.errors import BusyError, ImageError, OutcomeUnknownError
from app.services.catalogue import CollectionPolicy
from app.services.enrolment import floor_of
from app.services.images import Images
from app.services.models import Models
from app.services.templates import references_of_photo
from app.storage import collections, identities
from app.storage.database import Database, Session
from app.storage.records import Collection, NewReference

logger = logging.getLogger("visavis.migration")

STRICTEST_FMR: Final = 1e-4
"""False match rate at which a photo must verify, or the smallest that the model's evidence supports."""


class Confirmation:
    """Stores the second template of whoever is seen during a change of model."""

    def __init__(self, database: Database, models: Models, images: Images, floor: QualityFloor) -> None:
        self._database = database
        self._models = models
        self._images = images
        self._floor = floor

    async def confirm(
        self,
        image: ImageInput,
        face: FaceChoice,
        identity: str,
        *,
        collection: Collection,
        revision: int | None,
        known_by: Digests[str],
        model: Model,
        distance: float,
    ) -> bool:
        """Store what a verified photo adds, if anything, and return whether it was stored.

        The verification stands whatever becomes of this, so nothing that happens here is its error.

        Args:
            image: The photo.
            face: Which face was compared.
            identity: Whom it was verified as.
            collection: As the verification saw it.
            revision: The identity's, likewise.
            known_by: Digests of the models that have made templates of the identity.
            model: The model that decided.
            distance: What it found.
        """
        wanted = [digest for digest in collection.digests if digest not in known_by]
        second = self._models.of_digest(wanted[0]) if wanted else None
        policy = CollectionPolicy.model_validate(collection.policy)
        strictest = model.evidence.threshold_for(max(STRICTEST_FMR, model.evidence.smallest_fmr))
        if second is None or not policy.migrate_on_verify or not distance <= strictest:
            return False
        try:
            (template,) = await self._images.encode(second, [image], face, Timings())
            floor = floor_of(collection, self._floor, faces=template.face is not None)
            if floor.shortfalls(template.quality):
                return False
            (reference,) = references_of_photo([template])
            return await self._database.write(_add, collection, identity, revision, reference)
        except ImageError:
            return False
        except (BusyError, OutcomeUnknownError) as error:
            logger.warning("a second template was not stored: %s", error)
            return False


def _add(
    session: Session, seen: Collection, identity: str, revision: int | None, reference: NewReference
) -> bool:
    collection = collections.hold(session, seen.name)
    same = collection.id == seen.id and reference.model_digest in collection.digests
    # An identity that was changed since might be somebody else by now, or has what it lacked.
    if not same or identities.revision_of(session, collection, identity) != revision:
        return False
    collection = collections.advance(session, collection)
    identities.extend(session, collection, collection.revision, identity, None, reference)
    return True
