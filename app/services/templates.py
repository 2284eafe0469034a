"""From a template, as an image was encoded, to what is stored of it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict

from app.encoding.crops import to_png
from app.encoding.model import Model
from app.services.images import Template
from app.services.views import face_fields
from app.storage.records import KeptImage, NewReference


def references_of_photo(templates: Sequence[Template]) -> list[NewReference]:
    """Return what is stored of one photo's templates, each by another model: they share the sample."""
    sample = str(uuid.uuid4())
    return [
        reference_of(template, id=sample if number == 0 else str(uuid.uuid4()), sample=sample)
        for number, template in enumerate(templates)
    ]


def reference_of(template: Template, *, id: str, sample: str) -> NewReference:  # noqa: A002 - the record's field
    """Return what is stored of a template."""
    return NewReference(
        id=id,
        model_digest=template.model_digest,
        embedding=template.embedding,
        face=face_fields(template.face) if template.face else None,
        quality={k: v for k, v in asdict(template.quality).items() if v is not None},
        sample_id=None if sample == id else sample,
    )


def kept_image(template: Template, model: Model, sample: str) -> KeptImage:
    """Return the encoder's input that a template was made from, to be kept."""
    return KeptImage(sample, model.digest, to_png(template.pixels, model.images.encoding))
