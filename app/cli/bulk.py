"""``visavis identities import | export``: thousands of identities at once."""

from __future__ import annotations

import gc
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from app.cli.common import (
    as_json_option,
    collection_option,
    database_option,
    face_option,
    given,
    models_dir_option,
    print_json,
    progress_bar,
)
from app.context import open_context, quality_floor
from app.encoding.detection import FaceChoice
from app.errors import InvalidRequestError
from app.services.exports import export
from app.services.imports.batch import Reject
from app.services.imports.rejects import RejectsFile
from app.services.imports.run import Import, ImportOptions, OnDuplicate, Report
from app.services.names import collection_name
from app.settings import load_settings

_SHOWN: Final = 20
"""Rejects that are shown; the file has them all."""


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--collection", required=True, help="Collection to import into.")
@click.option("--create", is_flag=True, help="Make the collection if it is not there.")
@click.option("--model", help="Model that the collection must have, or is made with.")
@click.option("--model-digest", metavar="HEX", help="Digest of the model, for a file that does not name it.")
@click.option(
    "--on-duplicate",
    type=click.Choice(["reject", "skip", "replace", "fail"]),
    default="reject",
    show_default=True,
    help="What becomes of identities that are enrolled; fail stops at the first.",
)
@click.option(
    "--rejects",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for the rows that are not imported, as JSON lines.",
)
@click.option("--again", is_flag=True, help="Import a source that was imported before.")
@face_option("only")
@database_option
@models_dir_option
@as_json_option
def import_identities(
    source: Path,
    collection: str,
    create: bool,
    model: str | None,
    model_digest: str | None,
    on_duplicate: OnDuplicate,
    rejects: Path | None,
    again: bool,
    face: FaceChoice,
    as_json: bool,
    **store: Any,  # noqa: ANN401 - database_url and models_dir
) -> None:
    """Enrol every identity of SOURCE, each row exactly once.

    SOURCE is a folder of photos, <identity>/<image> or <identity>.jpg, or embeddings as .jsonl, .npz or
    .parquet. Broken off, at whatever point, the same command goes on where it was.
    """
    if rejects is not None and not rejects.absolute().parent.is_dir():
        raise InvalidRequestError([{"field": "rejects", "problem": f"there is no folder {rejects.parent}"}])
    settings = load_settings(**given(**store))
    with open_context(settings, existing=not create) as context:
        options = ImportOptions(
            model=model,
            model_digest=model_digest,
            create=create,
            on_duplicate=on_duplicate,
            again=again,
            floor=quality_floor(settings),
            face=face,
        )
        name = collection_name(collection)
        with closing(Import(context.database, context.models, source, name, options)) as work:
            if work.passed_over:
                click.echo(f"{work.passed_over} files are no images by their name; passed over", err=True)
            if 0 < work.position < work.rows:
                click.echo(f"going on at row {work.position} of {work.rows}", err=True)
            file = None
            if rejects is not None:
                file = RejectsFile(
                    rejects,
                    collection=name,
                    source_sha256=work.source_sha256,
                    position=work.position,
                )
            with nullcontext() if file is None else closing(file):
                report = _run(work, file)
    _show(report, as_json=as_json)


def _run(work: Import, file: RejectsFile | None) -> Report:
    if file is not None and file.rows < work.rejected:
        missing = work.rejected - file.rows
        click.echo(f"{missing} rows that an earlier run rejected are not in {file.path}", err=True)
    # What is loaded by now stays to the end; looking at it again and again takes a sixth of the time.
    gc.freeze()
    first: list[Reject] = []
    count = 0

    def rejected(reject: Reject) -> None:
        nonlocal count
        count += 1
        if len(first) < _SHOWN:
            first.append(reject)

    try:
        with progress_bar(work.rows, "importing") as progress:
            progress(work.position)
            report = work.run(file, progress=progress, rejected=rejected)
    except KeyboardInterrupt:
        click.echo(f"\nstopped at row {work.position}; the same command goes on there", err=True)
        raise
    finally:
        gc.unfreeze()
    for one in first:
        click.echo(f"row {one.row}, {one.image or one.identity}: {one.code}: {one.detail}", err=True)
    if count > len(first):
        where = "--rejects FILE keeps them all" if file is None else f"{file.path} has them all"
        click.echo(f"and {count - len(first)} more rows were rejected; {where}", err=True)
    return report


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(report))
        return
    counts = (
        f"{report.imported:,} imported, {report.replaced:,} replaced, {report.skipped:,} skipped, "
        f"{report.rejected:,} rejected"
    )
    if report.rows_per_second is None:
        click.echo(
            f"{report.source} was imported into {report.collection} before, nothing is changed "
            f"({counts}); --again imports it again"
        )
        return
    click.echo(
        f"{counts}; {report.rows_per_second:,.0f} rows a second; {report.collection} is at revision "
        f"{report.revision}"
    )


@click.command("export")
@collection_option
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write: .jsonl, .npz or .parquet.",
)
@database_option
@models_dir_option
@as_json_option
def export_identities(collection: str, out: Path, as_json: bool, **store: Any) -> None:  # noqa: ANN401
    """Write every reference of a collection, as of one revision, for an import elsewhere.

    The file holds templates of people: it is readable to its owner only.
    """
    settings = load_settings(**given(**store))
    with open_context(settings, existing=True) as context:
        made = export(
            context.database,
            context.models,
            collection_name(collection),
            out,
            progress=lambda rows: progress_bar(rows, "exporting"),
        )
    if made.pending:
        click.echo(
            f"{made.pending} identities have no reference by {made.contract.model_id} yet; they are left out",
            err=True,
        )
    if as_json:
        contract = made.contract.model_dump(mode="json")
        print_json({"out": str(out), "references": made.references, "pending": made.pending, **contract})
        return
    click.echo(f"{out}: {made.references:,} references, revision {made.contract.revision}")
