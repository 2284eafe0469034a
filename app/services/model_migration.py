"""Change a collection's model beside running services: begin, fill, switch, roll back, finish.

From the beginning to the end a collection has two models, and each enrolment makes templates by both in one
transaction. ``services.filling`` makes the second templates of those who are enrolled already; who is left is
*pending* until ``services.confirmation`` sees them again. The switch exchanges the two models in the row of
the collection and touches no template, so that going back is the same exchange and changes no decision.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.encoding.model import Model
from app.errors import IdentitiesPendingError, MigrationStateError
from app.services.catalogue import CollectionPolicy
from app.services.models import Models
from app.storage import collections, identities, kept_images, model_migration
from app.storage.database import Database, Session
from app.storage.records import Collection

DROPPED_AT_ONCE: Final = 200
"""Pending identities that one transaction deletes."""
_NAMED: Final = 3
"""Pending identities that a refusal names."""


@dataclass(frozen=True)
class MigrationStatus:
    """Where a change of model is.

    Attributes:
        collection: As it is.
        identities: How many there are.
        old: Digest of the model before the change; None without a change.
        new: Digest of the model after it; likewise.
        without_old: Identities without a template by the old model: rolled back, no search finds them.
        pending: Identities without one by the new model: switched, no search finds them.
        page: Some of the pending, as id and name, in order of id.
    """

    collection: Collection
    identities: int
    old: str | None = None
    new: str | None = None
    without_old: int = 0
    pending: int = 0
    page: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True)
class Finished:
    """A change of model that is over, and the pending identities that were deleted."""

    collection: Collection
    dropped: Sequence[str]


class ModelMigration:
    """The use cases behind ``/collections/{name}/migration``."""

    def __init__(self, database: Database, models: Models) -> None:
        self._database = database
        self._models = models

    async def status(self, name: str, *, after: int = 0, limit: int = 100) -> MigrationStatus:
        """Return where a collection's change of model is, with a page of the pending.

        Raises:
            CollectionNotFoundError: There is none of that name.
        """
        return await self._database.read(_status, name, after, limit)

    async def begin(self, name: str, model_id: str) -> MigrationStatus:
        """Name the model to change to; from now on enrolments make templates by both.

        Nothing happens where this change is under way already.

        Raises:
            CollectionNotFoundError: There is none of that name.
            ModelNotFoundError: The model is not served here.
            ModelMismatchError: The collection's own is not.
            MigrationStateError: Another change is under way, or the models make the same templates.
        """
        target = self._models.get(model_id)
        self._models.of_collection(await self._database.read(collections.get, name))
        await self._database.write(_begin, name, target)
        return await self.status(name)

    async def switch(self, name: str) -> MigrationStatus:
        """Decide by the new model from now on; nothing happens where that is so already.

        The collection's own evidence on the old model's templates goes out of force, and is kept.

        Raises:
            CollectionNotFoundError: There is none of that name.
            MigrationStateError: No change is under way, or it is being finished.
        """
        await self._database.write(_swap, name, "filling", "switched")
        return await self.status(name)

    async def rollback(self, name: str) -> MigrationStatus:
        """Decide by the old model again, as before the switch; nothing happens where that is so.

        Raises:
            CollectionNotFoundError: There is none of that name.
            MigrationStateError: No change is under way, or it is being finished.
        """
        await self._database.write(_swap, name, "switched", "filling")
        return await self.status(name)

    async def finish(self, name: str, *, drop_pending: bool = False, abandon: bool = False) -> Finished:
        """Remove the templates of the model that is not in force, and end the change.

        It may be called again where it was broken off.

        Args:
            name: The collection.
            drop_pending: Delete the identities that would be left without a template.
            abandon: End it although the switch was not made, or was taken back: the old model stays.

        Raises:
            CollectionNotFoundError: There is none of that name.
            MigrationStateError: No change is under way, or the switch was not made and ``abandon`` is false.
            IdentitiesPendingError: There are pending identities and ``drop_pending`` is false.
        """
        dropped: list[str] = []
        while drop_pending:
            names = await self._database.write(_drop_pending, name, abandon)
            if not names:
                break
            dropped += names
        await self._database.write(_finishing, name, abandon)
        after: int | None = 0
        while after is not None:
            after = await self._database.write(_drop_templates, name, after)
        return Finished(await self._database.write(_end, name), dropped)


class PendingCounts:
    """How many identities of a collection no search finds, because its model has no template of them yet.

    To count takes a look at every identity, so a count is remembered while nothing changes, and none is for
    as long as the step of the change lasts: every enrolment makes a template by the collection's model.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[int | None, int, int]] = {}

    def of(self, session: Session, collection: Collection) -> int:
        """Return the count for a collection as the session sees it."""
        if len(collection.digests) == 1:
            return 0
        with self._lock:
            step, revision, count = self._kept.get(collection.id, (None, -1, -1))
        if step == collection.migration_revision and (count == 0 or revision == collection.revision):
            return count
        count = model_migration.count_pending(session, collection, collection.model_digest)
        with self._lock:
            self._kept[collection.id] = (collection.migration_revision, collection.revision, count)
        return count


def old_and_new(collection: Collection) -> tuple[str, str]:
    """Return the digests of the models before and after a change that is under way.

    Raises:
        MigrationStateError: None is, or it is being finished.
    """
    if len(collection.digests) == 1:
        raise MigrationStateError(
            f"the change of collection {collection.name!r} to model {collection.model_id} is being finished; "
            "finish it again if that was broken off"
            if collection.migration == "finishing"
            else f"collection {collection.name!r} is not changing its model; begin with POST /collections/"
            f"{collection.name}/migration (visavis collections migrate NAME --to MODEL)"
        )
    first, second = collection.digests
    return (second, first) if collection.migration == "switched" else (first, second)


def _status(session: Session, name: str, after: int, limit: int) -> MigrationStatus:
    collection = collections.get(session, name)
    count = collections.count_identities(session, collection.id)
    if len(collection.digests) == 1:
        return MigrationStatus(collection, count)
    old, new = old_and_new(collection)
    return MigrationStatus(
        collection,
        count,
        old,
        new,
        model_migration.count_pending(session, collection, old),
        model_migration.count_pending(session, collection, new),
        model_migration.pending(session, collection, new, after=after, limit=limit),
    )


def _begin(session: Session, name: str, target: Model) -> None:
    collection = collections.hold(session, name)
    if collection.migration is not None:
        if len(collection.digests) == 2 and old_and_new(collection)[1] == target.digest:
            return
        raise MigrationStateError(
            f"collection {name!r} is changing between {collection.model_id} and {collection.other_model_id} "
            "already; finish that first"
        )
    if collection.model_digest == target.digest:
        raise MigrationStateError(
            f"collection {name!r} has templates of {target.model_id} already; there is nothing to change"
        )
    model_migration.begin(session, collections.advance(session, collection), target.model_id, target.digest)


def _swap(session: Session, name: str, before: str, after: str) -> None:
    collection = collections.hold(session, name)
    old_and_new(collection)
    if collection.migration == before:
        model_migration.swap(session, collections.advance(session, collection), after)


def _drop_pending(session: Session, name: str, abandon: bool) -> list[str]:
    collection = collections.hold(session, name)
    _may_finish(collection, abandon)
    page = model_migration.pending(
        session, collection, collection.model_digest, after=0, limit=DROPPED_AT_ONCE
    )
    for _, identity in page:
        revision = collections.next_revision(session, collection)
        identities.remove(session, collection, revision, identity)
    return [identity for _, identity in page]


def _finishing(session: Session, name: str, abandon: bool) -> None:
    collection = collections.hold(session, name)
    _may_finish(collection, abandon)
    if collection.migration == "finishing":
        return
    digest = collection.model_digest
    some = model_migration.pending(session, collection, digest, after=0, limit=_NAMED)
    if some:
        raise IdentitiesPendingError(
            collection=name,
            pending=model_migration.count_pending(session, collection, digest),
            some=[identity for _, identity in some],
        )
    model_migration.finishing(session, collections.advance(session, collection))


def _may_finish(collection: Collection, abandon: bool) -> None:
    if collection.migration != "finishing":
        old_and_new(collection)
    if collection.migration == "filling" and not abandon:
        raise MigrationStateError(
            f"collection {collection.name!r} is decided by {collection.model_id}, the model before the "
            f"change; switch first, or give {collection.other_model_id} up with abandon=true (--abandon on "
            "the command line)"
        )


def _drop_templates(session: Session, name: str, after: int) -> int | None:
    collection = collections.hold(session, name)
    if collection.migration != "finishing":
        return None  # another has finished it
    collection = collections.advance(session, collection)
    return model_migration.drop_templates(session, collection, but=collection.model_digest, after=after)


def _end(session: Session, name: str) -> Collection:
    collection = collections.hold(session, name)
    if collection.migration != "finishing":
        return collection
    if CollectionPolicy.model_validate(collection.policy).keep_images == "none":
        kept_images.remove_all(session, collection)
    return model_migration.end(session, collections.advance(session, collection))
