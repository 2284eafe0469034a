"""What lives as long as the process: settings, models, database, threads, and the services over them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from app.encoding.intake import IntakeLimits
from app.encoding.model import Model, open_model
from app.encoding.pixel_gate import PixelGate
from app.encoding.quality import QualityFloor
from app.encoding.workers import Workers
from app.services.access import Access, Guard
from app.services.calibration import Calibration
from app.services.catalogue import Catalogue, ensure_default_collection
from app.services.confirmation import Confirmation
from app.services.enrolment import Enrolment
from app.services.galleries import Galleries
from app.services.gallery_snapshots import Snapshots
from app.services.idempotency import Idempotency
from app.services.identification import IdentificationService
from app.services.images import Images
from app.services.model_migration import ModelMigration
from app.services.models import Models
from app.services.own_evidence import OwnEvidences
from app.services.pgvector_search import PgvectorSearch, require_dimensions
from app.services.verification import VerificationService
from app.settings import PREFIX, Settings
from app.storage import migrate, vectors
from app.storage.database import Database

logger = logging.getLogger("visavis.start")


@dataclass(frozen=True)
class Context:
    """One process's services. Built by ``open_context``."""

    settings: Settings
    database: Database
    searches: Database
    """What searches and lists are read from: a replica, or ``database`` itself."""
    workers: Workers
    models: Models
    images: Images
    access: Access
    catalogue: Catalogue
    enrolment: Enrolment
    verification: VerificationService
    identification: IdentificationService
    calibration: Calibration
    model_migration: ModelMigration
    idempotency: Idempotency


def open_database(settings: Settings) -> Database:
    """Return the store that the settings name; nothing is read yet."""
    return _database(settings, "database_url")


def _database(settings: Settings, field: str) -> Database:
    return Database(
        getattr(settings, field),
        timeout_s=settings.database_timeout_s,
        pool_size=settings.database_pool_size,
        idle_timeout_s=settings.database_idle_timeout_s,
        setting=PREFIX + field.upper(),
    )


@contextmanager
def opened_database(settings: Settings, *, existing: bool = False) -> Iterator[Database]:
    """Open the store, with a current schema, and close it at the end.

    A SQLite store is brought to the current schema, and made if it is not there, unless ``existing`` says
    that it must be; any other must be there already.

    Raises:
        StartupError: The store cannot be used, or its schema is not current.
    """
    database = open_database(settings)
    try:
        if existing:
            database.require_file()
        else:
            database.make_file()
        migrate.prepare(database)
        yield database
    finally:
        database.close()


@contextmanager
def opened_searches(settings: Settings, database: Database) -> Iterator[Database]:
    """Open the replica that searches are read from, and close it at the end; without one, yield the store.

    Raises:
        StartupError: The replica cannot be used, or has not replayed the current schema yet.
    """
    if not settings.search_database_url:
        yield database
        return
    with closing(_database(settings, "search_database_url")) as replica:
        migrate.require_current(replica)
        logger.info("searches read %s", replica.name)
        yield replica


def load_models(settings: Settings) -> list[Model]:
    """Load every bundle that the settings name.

    Raises:
        StartupError: A bundle is missing, altered, not signed as asked, or cannot run on the provider.
    """
    limits = IntakeLimits(settings.max_image_bytes, settings.max_image_pixels, settings.decode_timeout_s)
    gate = PixelGate(settings.max_pixels_at_once)
    return [
        open_model(
            settings.models_dir / name,
            provider=settings.provider,
            limits=limits,
            gate=gate,
            trusted_keys=settings.trusted_keys,
        )
        for name in settings.models
    ]


def quality_floor(settings: Settings) -> QualityFloor:
    """Return the service's floor for photos that show a face."""
    return QualityFloor(
        min_face_size=settings.min_face_size,
        min_sharpness=settings.min_sharpness,
        min_brightness=settings.min_brightness,
        max_brightness=settings.max_brightness,
        max_yaw=settings.max_yaw,
    )


@contextmanager
def open_context(settings: Settings, *, existing: bool = False) -> Iterator[Context]:
    """Build all services over a store (see ``opened_database``), and close them in order at the end.

    Raises:
        StartupError: A bundle or the database is not as it must be.
    """
    with (
        opened_database(settings, existing=existing) as database,
        opened_searches(settings, database) as searches,
        closing(_workers(settings)) as workers,
        closing(_gallery_search(settings, database, searches, workers)) as galleries,
    ):
        models = Models(load_models(settings))
        if settings.search == "pgvector":
            require_dimensions(models.every())
        with migrate.explained(database):
            database.write_now(ensure_default_collection, models.default)
            idempotency = Idempotency(database, settings.idempotency_hours)
            idempotency.prune_now()
        images = Images(workers)
        floor = quality_floor(settings)
        own = OwnEvidences()
        guard = Guard(required=not settings.loopback, disabled=settings.insecure)
        _announce(settings, database, models)
        with closing(Calibration(database, models, images, own)) as calibration:
            yield Context(
                settings=settings,
                database=database,
                searches=searches,
                workers=workers,
                models=models,
                images=images,
                access=Access(database, guard),
                catalogue=Catalogue(database, models, searches),
                enrolment=Enrolment(database, models, images, floor),
                verification=VerificationService(
                    searches, models, images, own, Confirmation(database, models, images, floor)
                ),
                identification=IdentificationService(searches, models, images, galleries, own),
                calibration=calibration,
                model_migration=ModelMigration(database, models),
                idempotency=idempotency,
            )


def _announce(settings: Settings, database: Database, models: Models) -> None:
    logger.info("store %s", database.name)
    for model in models.every():
        logger.info("model %s runs on %s", model.model_id, model.images.provider)
    if settings.insecure:
        logger.warning("no API key is asked for, on %s:%s (insecure)", settings.host, settings.port)
    elif not settings.loopback:
        logger.info("every request needs an API key; make one with: visavis keys create NAME")


def _gallery_search(
    settings: Settings, database: Database, searches: Database, workers: Workers
) -> Galleries | PgvectorSearch:
    if settings.search == "exact":
        return Galleries(searches, workers.threads, snapshots=_snapshots(settings, database))
    with migrate.explained(database):
        vectors.require(database)
    vectors.keep(database)
    # They wait for PostgreSQL, not for a core, and must leave connections for writes.
    threads = max(1, settings.database_pool_size // 2)
    return PgvectorSearch(searches, threads, ef_search=settings.pgvector_ef_search, store=database)


def _snapshots(settings: Settings, database: Database) -> Snapshots | None:
    """Return where galleries are kept between starts: the settings' folder, or one beside a SQLite file."""
    folder = settings.snapshot_dir
    if folder is None and database.file is not None:
        folder = database.file.with_name(f"{database.file.name}.galleries")
    return None if folder is None else Snapshots(folder, database)


def _workers(settings: Settings) -> Workers:
    return Workers(settings.encoder_threads, settings.encoder_queue_limit)
