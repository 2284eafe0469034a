"""SQL of the aligned crops that a collection's policy keeps for a change of model."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.storage.records import Collection, KeptImage
from app.storage.schema import IdentityRow, KeptImageRow


def add(session: Session, collection: Collection, identity: str, kept: KeptImage) -> None:
    """Keep the crop of a photo of an identity that is enrolled."""
    number = session.scalars(
        select(IdentityRow.id).where(IdentityRow.collection_id == collection.id, IdentityRow.name == identity)
    ).one()
    session.add(
        KeptImageRow(
            sample_id=kept.sample, identity_id=number, model_digest=kept.model_digest, image=kept.image
        )
    )


def remove_all(session: Session, collection: Collection) -> None:
    """Delete every crop of a collection."""
    members = select(IdentityRow.id).where(IdentityRow.collection_id == collection.id)
    session.execute(delete(KeptImageRow).where(KeptImageRow.identity_id.in_(members)))
