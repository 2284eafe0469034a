"""``visavis db vectors``: what searches by pgvector rest on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click

from app.cli.common import (
    as_json_option,
    database_option,
    given,
    models_dir_option,
    print_json,
    progress_bar,
)
from app.context import Context, open_context, opened_database
from app.encoding.model import Model
from app.services.names import collection_name
from app.services.pgvector_search import PgvectorSearch
from app.settings import load_settings
from app.storage import collections, migrate
from app.storage import vectors as storage
from app.storage.records import Collection


@click.group()
def vectors() -> None:
    """Fill in, measure and drop the vectors of VISAVIS_SEARCH=pgvector (PostgreSQL only)."""


@vectors.command("build")
@click.option("--collection", help="Collection to fill in.  [default: all]")
@click.option(
    "--memory",
    type=click.IntRange(1, 1_000_000),
    default=512,
    show_default=True,
    help="MiB that PostgreSQL may take for an index.",
)
@database_option
@models_dir_option
def build(collection: str | None, memory: int, **store: Any) -> None:  # noqa: ANN401
    """Add the vectors that are missing, and index them while others read and write.

    The tables are made if they are not there. An interrupted run goes on where it stopped.
    """
    with _opened(store, install=True) as (context, search):
        names = [collection_name(collection)] if collection else None
        for found in _collections(context, names):
            for model in _models(context, found):
                _build(search, found, model, memory)
        dropped = context.database.write_now(storage.drop_partitions_without_collection)
    if dropped:
        click.echo(f"dropped what was left of {dropped} deleted collections")


@vectors.command("recall")
@click.option("--collection", default="default", show_default=True, help="Collection to measure.")
@click.option(
    "--probes", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Searches to compare."
)
@click.option(
    "--top-k",
    type=click.IntRange(1, 100),
    default=5,
    show_default=True,
    help="Nearest identities compared in each.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draw of probes.")
@database_option
@models_dir_option
@as_json_option
def recall(collection: str, probes: int, top_k: int, seed: int, as_json: bool, **store: Any) -> None:  # noqa: ANN401
    """Measure how many of the nearest the index finds, and have answers quote it.

    Each probe is searched by the index and by a full scan. Probes are stored references, moved as far as two
    images of one subject are apart in the model's own trials.
    """
    with _opened(store) as (context, search):
        name = collection_name(collection)
        found = context.database.read_now(collections.get, name)
        model = context.models.of_collection(found)
        with progress_bar(probes, "probes") as advance:
            measured = search.measure_recall_now(
                name, model, probes=probes, top_k=top_k, seed=seed, progress=advance
            )
    if as_json:
        print_json({**asdict(measured), "measured_at": measured.measured_at.isoformat()})
        return
    click.echo(
        f"recall {measured.recall:.4f} of the {top_k} nearest in {measured.probes} searches of "
        f"{measured.identities} identities, at ef_search {measured.ef_search}, revision {measured.revision}"
    )


@vectors.command("drop")
@click.confirmation_option(prompt="Drop all vectors? Services that search by pgvector must be stopped.")
@database_option
def drop(database_url: str | None) -> None:
    """Drop all vectors with their tables; references stay. Then set VISAVIS_SEARCH to exact."""
    settings = load_settings(**given(database_url=database_url))
    with opened_database(settings, existing=True) as database, migrate.explained(database):
        storage.uninstall(database)
    click.echo("dropped")


@contextmanager
def _opened(store: dict[str, Any], *, install: bool = False) -> Iterator[tuple[Context, PgvectorSearch]]:
    settings = load_settings(**given(**store))
    with opened_database(settings, existing=True) as database, migrate.explained(database):
        (storage.install if install else storage.require)(database)
    with open_context(settings, existing=True) as context:
        search = PgvectorSearch(context.database, 1, ef_search=settings.pgvector_ef_search)
        try:
            yield context, search
        finally:
            search.close()


def _collections(context: Context, names: list[str] | None) -> list[Collection]:
    if names is not None:
        return [context.database.read_now(collections.get, name) for name in names]
    return [found for found, _ in context.database.read_now(collections.page, after=0, limit=100_000)]


def _models(context: Context, collection: Collection) -> list[Model]:
    """Return the served ones among a collection's model and the second one that it may have."""
    wanted = {collection.model_digest, collection.other_model_digest}
    served = [model for model in context.models.every() if model.digest in wanted]
    if not any(model.digest == collection.model_digest for model in served):
        click.echo(
            f"{collection.name}: left out, its model {collection.model_id} is not served here", err=True
        )
    return served


def _build(search: PgvectorSearch, collection: Collection, model: Model, memory: int) -> None:
    missing = search.missing_now(collection.name, model)
    with progress_bar(missing, f"{collection.name} by {model.model_id}") as advance:
        added = search.build_now(collection.name, model, progress=advance, memory_mb=memory)
    click.echo(f"{collection.name}: {added} vectors added, by model {model.model_id}")
