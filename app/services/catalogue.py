"""List, change and delete what is stored: collections and identities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.encoding.model import Model
from app.encoding.quality import QualityFloor
from app.errors import CollectionExistsError
from app.services.idempotency import Keep, keep_nothing, kept
from app.services.models import Models
from app.services.names import DEFAULT_COLLECTION
from app.services.preconditions import ANY_STATE, AtLeast, Unchanged
from app.storage import collections, identities, kept_images
from app.storage.database import Database, Session
from app.storage.records import Collection, Identity, Reference


def _whole(value: object) -> object:
    """Return 3 for 3.0, which in JSON is the same number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class CollectionPolicy(BaseModel):
    """What a collection asks of a reference photo, and what it keeps of it.

    A floor or ceiling left out takes the service's setting.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_face_size: Annotated[
        float | None, Field(ge=0, le=1e6, description="pixels: shorter side of the face box")
    ] = None
    min_sharpness: Annotated[float | None, Field(ge=0, le=1e6, description="floor of quality.sharpness")] = (
        None
    )
    min_brightness: Annotated[float | None, Field(ge=0, le=1, description="floor of quality.brightness")] = (
        None
    )
    max_brightness: Annotated[
        float | None, Field(ge=0, le=1, description="ceiling of quality.brightness")
    ] = None
    max_yaw: Annotated[float | None, Field(ge=0, le=100, description="ceiling of |quality.yaw|")] = None
    max_references: Annotated[
        int,
        # The bounds stand first, or the description would not have them.
        Field(ge=1, le=64, description="most references of one identity; the nearest counts"),
        BeforeValidator(_whole),
    ] = 1
    keep_images: Annotated[
        Literal["none", "aligned"],
        Field(
            description="what is kept of a photo beside its template: nothing, or the aligned crop that the "
            "encoder took, for a change of model; it is deleted with the reference"
        ),
    ] = "none"
    migrate_on_verify: Annotated[
        bool,
        Field(
            description="during a change of model, whether a photo that verifies at 1e-4, or the strictest "
            "rate that the evidence supports, becomes the missing reference by the second model"
        ),
    ] = True

    def stored(self) -> dict[str, Any]:
        """Return what of it is not left to the service."""
        return self.model_dump(exclude_defaults=True)

    def floor(self, default: QualityFloor) -> QualityFloor:
        """Return the floor in force."""
        own = self.model_dump(exclude_none=True, include=set(vars(default)))
        return QualityFloor(**{**vars(default), **own})


@dataclass(frozen=True)
class CollectionView:
    """A collection and how many identities it holds."""

    collection: Collection
    identities: int


@dataclass(frozen=True)
class ReferenceList:
    """The references of an identity, and the collection, in one state of the store."""

    collection: Collection
    identity: str
    identity_revision: int
    references: list[Reference]


@dataclass(frozen=True)
class IdentityPage:
    """Some identities of a collection, and its revision when they were read."""

    identities: list[Identity]
    revision: int


def ensure_default_collection(session: Session, model: Model) -> Collection:
    """Return the collection ``default``, creating it for a model if it is not there."""
    found = collections.find(session, DEFAULT_COLLECTION)
    if found is not None:
        return found
    try:
        return collections.add(session, DEFAULT_COLLECTION, model.model_id, model.digest, {})
    except CollectionExistsError:  # another process was faster
        return collections.get(session, DEFAULT_COLLECTION)


class Catalogue:
    """The use cases behind ``/collections`` and ``/identities``."""

    def __init__(self, database: Database, models: Models, searches: Database | None = None) -> None:
        """Lists are read from ``searches``, a replica perhaps; None is the store itself."""
        self._database = database
        self._models = models
        self._searches = searches or database

    async def create_collection(
        self,
        name: str,
        model_id: str | None,
        policy: CollectionPolicy,
        *,
        keep: Keep[CollectionView] = keep_nothing,
    ) -> CollectionView:
        """Create a collection bound to a model.

        Raises:
            CollectionExistsError: The name is taken.
            ModelNotFoundError: The model is not served here.
        """
        model = self._models.get(model_id)
        return await self._database.write(kept(_create, keep), name, model, policy)

    async def change_policy(
        self, name: str, policy: CollectionPolicy, *, keep: Keep[CollectionView] = keep_nothing
    ) -> CollectionView:
        """Replace a collection's policy; crops that it no longer keeps are deleted.

        Raises:
            CollectionNotFoundError: There is none of that name.
        """
        return await self._database.write(kept(_change_policy, keep), name, policy)

    async def collection(self, name: str) -> CollectionView:
        """Return one collection.

        Raises:
            CollectionNotFoundError: There is none of that name.
        """
        return await self._database.read(_view, name)

    async def collections(self, *, after: int, limit: int) -> list[CollectionView]:
        """Return a page of collections in order of creation."""
        page = await self._searches.read(collections.page, after=after, limit=limit)
        return [CollectionView(collection, count) for collection, count in page]

    async def delete_collection(self, name: str, *, keep: Keep[None] = keep_nothing) -> None:
        """Delete a collection and every template in it.

        Raises:
            CollectionNotFoundError: There is none of that name.
        """
        await self._database.write(kept(collections.remove, keep), name)

    async def identity(self, collection: str, name: str, *, at_least: AtLeast = ANY_STATE) -> Identity:
        """Return one identity.

        Raises:
            CollectionNotFoundError, IdentityNotFoundError: There is none of that name.
            RevisionNotReachedError: The store is behind.
        """
        return await at_least.wait(lambda: self._database.read(_identity, collection, name, at_least))

    async def identities(
        self, collection: str, *, after: int, limit: int, at_least: AtLeast = ANY_STATE
    ) -> IdentityPage:
        """Return a page of identities in order of enrolment.

        Raises:
            CollectionNotFoundError: There is none of that name.
            RevisionNotReachedError: The store is behind.
        """
        return await at_least.wait(
            lambda: self._searches.read(_identities, collection, after, limit, at_least)
        )

    async def change_identity(
        self,
        collection: str,
        name: str,
        *,
        new_name: str | None,
        metadata: dict[str, Any] | None,
        unchanged: Unchanged | None = None,
        keep: Keep[Identity] = keep_nothing,
    ) -> Identity:
        """Rename an identity or replace its metadata.

        Raises:
            CollectionNotFoundError, IdentityNotFoundError: There is none of that name.
            PreconditionFailedError: It is no longer what the change is meant for.
            IdentityExistsError: The new name is taken.
        """
        return await self._database.write(
            kept(_change, keep), collection, name, new_name, metadata, unchanged
        )

    async def delete_identity(
        self,
        collection: str,
        name: str,
        *,
        unchanged: Unchanged | None = None,
        keep: Keep[None] = keep_nothing,
    ) -> None:
        """Delete an identity and its templates; no search that begins after this returns it.

        Raises:
            CollectionNotFoundError, IdentityNotFoundError: There is none of that name.
            PreconditionFailedError: It is no longer what the deletion is meant for.
        """
        await self._database.write(kept(_delete, keep), collection, name, unchanged)

    async def references(self, collection: str, name: str, *, at_least: AtLeast = ANY_STATE) -> ReferenceList:
        """Return an identity's references, oldest first.

        Raises:
            CollectionNotFoundError, IdentityNotFoundError: There is none of that name.
            RevisionNotReachedError: The store is behind.
        """
        return await at_least.wait(lambda: self._searches.read(_references, collection, name, at_least))

    async def delete_reference(
        self,
        collection: str,
        name: str,
        reference_id: str,
        *,
        unchanged: Unchanged | None = None,
        keep: Keep[None] = keep_nothing,
    ) -> None:
        """Remove one reference of an identity, by every model; no later search compares with it.

        Raises:
            CollectionNotFoundError, IdentityNotFoundError, ReferenceNotFoundError: There is none such.
            LastReferenceError: The identity has no other.
            PreconditionFailedError: It is no longer what the removal is meant for.
        """
        await self._database.write(kept(_delete_reference, keep), collection, name, reference_id, unchanged)


def _create(session: Session, name: str, model: Model, policy: CollectionPolicy) -> CollectionView:
    return CollectionView(collections.add(session, name, model.model_id, model.digest, policy.stored()), 0)


def _change_policy(session: Session, name: str, policy: CollectionPolicy) -> CollectionView:
    collection = collections.hold(session, name)
    collections.set_policy(session, collection, policy.stored())
    if policy.keep_images == "none":
        kept_images.remove_all(session, collection)
    changed = replace(collection, policy=policy.stored())
    return CollectionView(changed, collections.count_identities(session, collection.id))


def _references(session: Session, collection: str, name: str, at_least: AtLeast) -> ReferenceList:
    found = collections.get(session, collection)
    at_least.check(collection, found.revision)
    references = identities.references_of(session, found, name)
    return ReferenceList(found, name, identities.get(session, found, name).revision, references)


def _delete_reference(
    session: Session, collection: str, name: str, reference_id: str, unchanged: Unchanged | None
) -> None:
    found = collections.get(session, collection)
    found = collections.advance(session, found)
    _expect(session, found, name, unchanged)
    identities.remove_reference(session, found, found.revision, name, reference_id)


def _view(session: Session, name: str) -> CollectionView:
    collection = collections.get(session, name)
    return CollectionView(collection, collections.count_identities(session, collection.id))


def _identity(session: Session, collection: str, name: str, at_least: AtLeast) -> Identity:
    found = collections.get(session, collection)
    at_least.check(collection, found.revision)
    return identities.get(session, found, name)


def _identities(session: Session, collection: str, after: int, limit: int, at_least: AtLeast) -> IdentityPage:
    found = collections.get(session, collection)
    at_least.check(collection, found.revision)
    return IdentityPage(identities.page(session, found, after=after, limit=limit), found.revision)


def _change(
    session: Session,
    collection: str,
    name: str,
    new_name: str | None,
    metadata: dict[str, Any] | None,
    unchanged: Unchanged | None,
) -> Identity:
    found = collections.get(session, collection)
    revision = collections.next_revision(session, found)
    _expect(session, found, name, unchanged)
    identities.change(session, found, revision, name, new_name=new_name, metadata=metadata)
    return identities.get(session, found, new_name or name)


def _delete(session: Session, collection: str, name: str, unchanged: Unchanged | None) -> None:
    found = collections.get(session, collection)
    revision = collections.next_revision(session, found)
    _expect(session, found, name, unchanged)
    identities.remove(session, found, revision, name)


def _expect(session: Session, collection: Collection, name: str, unchanged: Unchanged | None) -> None:
    if unchanged is not None:
        unchanged.check(name, identities.get(session, collection, name).revision)
