"""One source on its way into one collection: position, transactions, counts."""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from app.encoding.detection import FaceChoice
from app.encoding.model import Model
from app.encoding.quality import QualityFloor
from app.errors import (
    BusyError,
    CollectionExistsError,
    CollectionNotFoundError,
    ModelMismatchError,
    OutcomeUnknownError,
    VisavisError,
)
from app.services.catalogue import CollectionPolicy
from app.services.imports.batch import Batch, Batches, Item, Reject, Sample
from app.services.imports.embeddings import Embeddings, check_contract
from app.services.imports.photos import Photos, photos_of, sha256_of_photos
from app.services.imports.rejects import RejectsFile
from app.services.models import Models
from app.services.portable.contract import Source
from app.services.portable.files import open_source, sha256_of
from app.storage import bulk, collections, imports, kept_images
from app.storage.bulk import BulkIdentity
from app.storage.database import Database, DatabaseUnavailableError, Session
from app.storage.imports import ImportState
from app.storage.records import Collection, KeptImage

logger = logging.getLogger("visavis.imports")

OnDuplicate = Literal["reject", "skip", "replace", "fail"]
"""What becomes of a row whose identity is enrolled: it is rejected, passed over, or replaces what is there,
or the import stops."""

ATTEMPTS: Final = 6
"""How often a batch is tried while the store is locked or away."""
PAUSE_S: Final = 0.5
"""Pause before the second attempt; it doubles each time."""

_COUNTED: Final = ("imported", "replaced", "skipped", "rejected")


class ImportUnderWayError(BusyError):
    """Another run has moved the position of the same source; what it wrote is not written again."""


class DuplicateRowError(VisavisError):
    """An identity of the source is enrolled already, and the import is to stop at that."""

    code = "identity_exists"


@dataclass(frozen=True)
class ImportOptions:
    """How a source is imported.

    Attributes:
        model: Id of the model that the collection must have, or is created with; None for the one that the
            file names, or the default.
        model_digest: Of the model that made the embeddings, for a file that does not say.
        create: Make the collection if it is not there.
        on_duplicate: What becomes of identities that are enrolled.
        again: Begin anew where an earlier run has finished.
        floor: The service's floor for photos that show a face.
        face: Which face counts when a photo has several.
    """

    model: str | None = None
    model_digest: str | None = None
    create: bool = False
    on_duplicate: OnDuplicate = "reject"
    again: bool = False
    floor: QualityFloor = field(default_factory=QualityFloor)
    face: FaceChoice = "only"


@dataclass(frozen=True)
class Report:
    """What came of an import. Counts are of rows of the source, over all runs, and add up to ``rows`` once it
    is finished.
    """

    collection: str
    source: str
    source_sha256: str
    rows: int
    imported: int
    replaced: int
    skipped: int
    rejected: int
    resumed_at: int
    """Rows that earlier runs had done with."""
    rows_per_second: float | None
    """Of this run; None if nothing was left to do."""
    revision: int
    """The collection's after it."""


@dataclass(frozen=True)
class _Written:
    state: ImportState
    revision: int
    rejects: list[Reject] | None
    """None where they were known before."""


class Import:
    """One source on its way into one collection."""

    def __init__(
        self, database: Database, models: Models, source: Path, collection: str, options: ImportOptions
    ) -> None:
        """Open the source and find how far it has got.

        Args:
            database: The store.
            models: Those served here; the collection's must be among them.
            source: A folder of photos, ``<identity>/<image>`` or ``<identity>.<suffix>``, or a file of
                embeddings.
            collection: Where to.
            options: How.

        Raises:
            CollectionNotFoundError: There is none of that name.
            InvalidRequestError: The source cannot be read, or does not say which model made it.
            ModelMismatchError: Its embeddings are another model's.
        """
        self._database = database
        self._source = source
        self._options = options
        self.passed_over = 0
        """Files of a folder that are no images by their suffix."""
        opened: Source | None = None
        files: list[tuple[str, Path]] = []
        if source.is_dir():
            files, self.passed_over = photos_of(source)
            self.rows = len(files)
            self.source_sha256 = sha256_of_photos(source, files)
        else:
            self.source_sha256 = sha256_of(source)
            opened = open_source(source)
            self.rows = opened.rows
        try:
            self._collection, self._state = database.write_now(
                _begin, models, collection, opened, self.source_sha256, self.rows, options
            )
            served = [models.of_collection(self._collection)]
            if opened is None:
                served = models.of_enrolment(self._collection)
        except BaseException:
            if opened is not None:
                opened.close()
            raise
        self.resumed_at = self._state.position
        self._revision = self._collection.revision
        self._batches: Batches
        if opened is not None:
            self._batches = Embeddings(opened, served[0], self._state.run)
        else:
            self._batches = Photos(
                source,
                files,
                self._collection,
                served,
                floor=options.floor,
                face=options.face,
                enrolled=self._not_looked_at,
            )

    @property
    def position(self) -> int:
        """Rows that are done with."""
        return self._state.position

    @property
    def rejected(self) -> int:
        """Rows that were rejected so far, in all runs."""
        return self._state.counts.get("rejected", 0)

    def run(
        self,
        rejects: RejectsFile | None = None,
        *,
        progress: Callable[[int], None] = lambda _: None,
        rejected: Callable[[Reject], None] = lambda _: None,
    ) -> Report:
        """Import what is left.

        Args:
            rejects: Where rows that are not imported are written.
            progress: Called with the number of rows after each batch.
            rejected: Called with each row that is not imported, after its batch.

        Raises:
            DuplicateRowError: An identity is enrolled, and the import is to stop at that.
            ImportUnderWayError: Another run imports the same source.
            InvalidRequestError: The source is damaged further on.
            ModelMismatchError: The collection has got another model meanwhile.
            BusyError: The store stayed locked or away.
        """
        started = time.perf_counter()
        for batch in self._batches.read(self._state.position):
            for one in self._commit(batch, rejects):
                rejected(one)
            progress(batch.stop - batch.start)
        done = self._state.position - self.resumed_at
        return Report(
            collection=self._collection.name,
            source=str(self._source),
            source_sha256=self.source_sha256,
            rows=self.rows,
            **{name: self._state.counts.get(name, 0) for name in _COUNTED},
            resumed_at=self.resumed_at,
            rows_per_second=done / max(time.perf_counter() - started, 1e-9) if done else None,
            revision=self._revision,
        )

    def close(self) -> None:
        """Close the source."""
        self._batches.close()

    def _commit(self, batch: Batch, file: RejectsFile | None) -> list[Reject]:
        """Write a batch, also through a store that is locked or away for some seconds; return its rejects."""
        rejects: list[Reject] = []
        end = 0
        unknown = False

        def work(session: Session) -> _Written:
            nonlocal rejects, end
            written = self._write(session, batch, may_be_done=unknown)
            if written.rejects is not None:
                rejects = written.rejects
                end = 0 if file is None else file.put(rejects)
            return written

        for pause in itertools.count():
            try:
                written = self._database.write_now(work)
            except (DatabaseUnavailableError, OutcomeUnknownError) as error:
                if pause == ATTEMPTS - 1:
                    raise
                unknown = unknown or isinstance(error, OutcomeUnknownError)
                logger.warning("rows from %s on: %s", batch.start, error)
                time.sleep(PAUSE_S * 2**pause)
            else:
                break
        if file is not None:
            file.keep(end)
        self._state, self._revision = written.state, written.revision
        return rejects

    def _write(self, session: Session, batch: Batch, *, may_be_done: bool) -> _Written:
        """Write a batch and the position after it.

        Args:
            session: Of the transaction.
            batch: The rows.
            may_be_done: Whether an earlier attempt may have been committed although its answer was lost.
        """
        bulk.prepare(session)
        collection = collections.hold(session, self._collection.name)
        if collection.id != self._collection.id:
            raise CollectionNotFoundError(collection.name)  # deleted and made anew in between
        state = imports.find(session, collection, self.source_sha256)
        at = None if state is None or state.run != self._state.run else state.position
        if state is not None and at == batch.stop and may_be_done:
            return _Written(state, collection.revision, None)
        if state is None or at != batch.start:
            raise ImportUnderWayError(
                f"another import of {self._source.name} into {collection.name!r} is under way, or is done; "
                "what it did was not done again. If it was stopped, start this one again: it goes on there"
            )
        self._check_models(collection)
        fate = _Fate(collection, batch, self._options.on_duplicate, self._batches)
        fate.decide(bulk.ids_of(session, collection, [item.name for item in batch.items]))
        revision = collection.revision
        if fate.new or fate.known:
            revision = collections.next_revision(session, collection)
            bulk.replace_all(session, revision, fate.known)
            bulk.add_all(session, collection, revision, list(fate.new.values()))
            for name, sample in fate.crops:
                kept_images.add(session, collection, name, sample)
        counts = {name: state.counts.get(name, 0) + fate.counts[name] for name in _COUNTED}
        after = ImportState(state.run, batch.stop, counts)
        imports.advance(session, collection, self.source_sha256, after)
        return _Written(after, revision, fate.rejects)

    def _check_models(self, collection: Collection) -> None:
        """Refuse to go on where the collection's models are no longer those of the batch."""
        # During a change of model a photo has templates by both; identities of a file wait for the second.
        photos = isinstance(self._batches, Photos)
        wanted = collection.digests if photos else (collection.model_digest,)
        if set(wanted) != set(self._batches.models):
            raise ModelMismatchError(
                collection=collection.name,
                bound=collection.model_id,
                other="what was read before it changed its model",
                remedy="start the import again",
            )

    def _not_looked_at(self, names: Sequence[str]) -> set[str]:
        """Return those of some names that are enrolled, unless their photos shall replace what is there."""
        if self._options.on_duplicate == "replace":
            return set()
        return set(self._database.read_now(bulk.ids_of, self._collection, names))


class _Fate:
    """What becomes of the rows of a batch, now that the store is known."""

    def __init__(
        self, collection: Collection, batch: Batch, on_duplicate: OnDuplicate, source: Batches
    ) -> None:
        self._collection = collection
        self._batch = batch
        self._on_duplicate = on_duplicate
        self._source = source
        self._most = CollectionPolicy.model_validate(collection.policy).max_references
        self.new: dict[str, BulkIdentity] = {}
        self.known: dict[int, BulkIdentity] = {}
        self.rejects = list(batch.rejects)
        self.counts = dict.fromkeys(_COUNTED, 0)
        self.counts["skipped"] = batch.skipped
        self._kept: dict[str, list[Sample]] = {}

    @property
    def crops(self) -> list[tuple[str, KeptImage]]:
        """Crops to keep, with their identities."""
        return [
            (name, sample.crop)
            for name, samples in self._kept.items()
            for sample in samples
            if sample.crop is not None
        ]

    def decide(self, numbers: dict[str, int]) -> None:
        """Sort the identities into new ones, known ones and rejects.

        Args:
            numbers: Ids of those that are enrolled.

        Raises:
            DuplicateRowError: One is enrolled, and the import is to stop at that.
        """
        for item in self._batch.items:
            if item.samples or item.unread:
                self._decide(item, numbers.get(item.name))
        self.rejects.sort(key=lambda reject: reject.row)
        self.counts["rejected"] = len(self.rejects)

    def _decide(self, item: Item, number: int | None) -> None:
        rows = [sample.row for sample in item.samples] + item.unread
        earlier = item.name in self.new
        if number is not None or earlier or item.unread:
            if self._on_duplicate == "fail":
                raise DuplicateRowError(
                    f"row {rows[0]}: {self._is_enrolled(item)}; nothing from row {self._batch.start} on was "
                    "imported. Import with --on-duplicate reject, skip or replace"
                )
            if self._on_duplicate == "skip":
                self.counts["skipped"] += len(rows)
                return
            if self._on_duplicate == "reject" or item.unread:
                self._refuse(item, rows, "identity_exists", self._is_enrolled(item))
                return
        kept, beyond = item.samples[: self._most], rows[self._most :]
        if self._on_duplicate == "skip":
            self.counts["skipped"] += len(beyond)
        elif beyond:
            why = f"the collection keeps {self._most} of one identity (max_references of its policy)"
            self._refuse(item, beyond, "too_many_references", why)
        references = [reference for sample in kept for reference in sample.references]
        identity = BulkIdentity(item.name, item.metadata, references)
        self._kept[item.name] = kept
        if number is not None:
            self.known[number] = _described(identity, self.known.get(number))
        else:
            self.new[item.name] = _described(identity, self.new.get(item.name))
        self.counts["replaced" if number is not None or earlier else "imported"] += len(kept)

    def _is_enrolled(self, item: Item) -> str:
        return f"identity {item.name!r} is in collection {self._collection.name!r} already"

    def _refuse(self, item: Item, rows: Sequence[int], code: str, detail: str) -> None:
        image_of = self._source.image_of
        self.rejects += [Reject(row, item.name, code, detail, image_of(row)) for row in rows]


def _described(identity: BulkIdentity, earlier: BulkIdentity | None) -> BulkIdentity:
    """Return an identity with the metadata of what it replaces in the batch, if it has none of its own."""
    if earlier is None or identity.metadata is not None:
        return identity
    return identity._replace(metadata=earlier.metadata)


def _begin(
    session: Session,
    models: Models,
    name: str,
    source: Source | None,
    sha256: str,
    rows: int,
    options: ImportOptions,
) -> tuple[Collection, ImportState]:
    """Find or make the collection, and find how far the source has got in it."""
    collection = _collection(session, models, name, source, options)
    model = models.of_collection(collection, options.model)
    if source is not None:
        check_contract(source, options.model_digest, collection, model)
    state = imports.find(session, collection, sha256)
    if state is None or (options.again and state.position >= rows):
        # With the twelve digits of a row's number it is a UUID (version 8, variant 1).
        digits = uuid.uuid4().hex
        run = f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{digits[16:20]}"
        state = imports.begin(session, collection, sha256, run)
    return collection, state


def _collection(
    session: Session, models: Models, name: str, source: Source | None, options: ImportOptions
) -> Collection:
    try:
        return collections.hold(session, name)
    except CollectionNotFoundError:
        if not options.create:
            raise
    try:
        model = _model_of(models, source, options)
        return collections.add(session, name, model.model_id, model.digest, {})
    except CollectionExistsError:  # another process was faster
        return collections.hold(session, name)


def _model_of(models: Models, source: Source | None, options: ImportOptions) -> Model:
    """Return the model that a new collection is bound to."""
    contract = None if source is None else source.contract
    if options.model is None and contract is not None:
        found = models.of_digest(contract.model_digest)
        if found is not None:
            return found
    return models.get(options.model)
