"""``visavis collections migrate``: change a collection's model beside running services."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from app import answers
from app.cli.common import (
    as_json_option,
    database_option,
    face_option,
    given,
    models_dir_option,
    print_json,
    progress_bar,
    run,
)
from app.context import Context, open_context, opened_database
from app.encoding.detection import FaceChoice
from app.services import audit as auditing
from app.services.filling import Filled, fill
from app.services.model_migration import MigrationStatus
from app.services.names import collection_name, identity_name
from app.settings import load_settings
from app.storage import collections as stored_collections

_NAMES: Final = 20
"""Pending identities, or photos, shown one by one; --json has all."""
_PAGE: Final = 10_000
_STEPS: Final = ("status", "switch", "rollback", "finish")


@click.command("migrate")
@click.argument("name")
@click.option("--to", "target", metavar="MODEL", help="Begin to change to this model, or go on, and fill.")
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="With --to: folder of photos <identity>/<image> for those whose crops are not kept.",
)
@face_option("largest")
@click.option("--status", "step", flag_value="status", help="Show how far it is and who is pending.")
@click.option("--switch", "step", flag_value="switch", help="Decide by the new model from now on.")
@click.option("--rollback", "step", flag_value="rollback", help="Decide by the old model again.")
@click.option("--finish", "step", flag_value="finish", help="Remove the templates of the model not in force.")
@click.option("--drop-pending", is_flag=True, help="With --finish: delete the pending identities.")
@click.option("--abandon", is_flag=True, help="With --finish: give the new model up before the switch.")
@database_option
@models_dir_option
@as_json_option
def migrate_collection(
    name: str,
    target: str | None,
    images: Path | None,
    face: FaceChoice,
    step: str | None,
    drop_pending: bool,
    abandon: bool,
    as_json: bool,
    **store: Any,  # noqa: ANN401 - database_url and models_dir
) -> None:
    """Change the model of collection NAME, beside running services.

    First --to MODEL: enrolments then make templates by both models, and those missing are made from kept
    crops and from --images. Then --switch, which --rollback takes back, and at last --finish. Every service
    that enrols must serve both models before it begins.
    """
    if (target is None) == (step is None):
        raise click.UsageError(f"give --to MODEL, or one of {', '.join(f'--{step}' for step in _STEPS)}")
    if target is None and images is not None:
        raise click.UsageError("--images goes with --to")
    if step != "finish" and (drop_pending or abandon):
        raise click.UsageError("--drop-pending and --abandon go with --finish")
    collection = collection_name(name)
    if target is not None:
        with _opened(collection, store, target) as context:
            _fill(context, collection, target, images, face, as_json=as_json)
        return
    with _opened(collection, store) as context:
        if step == "finish":
            _finish(context, collection, drop_pending, abandon, as_json=as_json)
            return
        steps = context.model_migration
        if step != "status":
            run(steps.switch(collection) if step == "switch" else steps.rollback(collection))
        _show(_status(context, collection), as_json=as_json)


@contextmanager
def _opened(name: str, store: Mapping[str, Any], *more: str) -> Iterator[Context]:
    """Open the services with every model that the collection has, and more."""
    settings = load_settings(**given(**store))
    with opened_database(settings, existing=True) as database:
        found = database.read_now(stored_collections.get, name)
    wanted = [*settings.models, found.model_id, *([found.other_model_id] if found.other_model_id else [])]
    models = tuple(dict.fromkeys([*wanted, *more]))
    with open_context(load_settings(**given(**store), models=models), existing=True) as context:
        yield context


def _fill(
    context: Context, name: str, target: str, images: Path | None, face: FaceChoice, *, as_json: bool
) -> None:
    photos: dict[str, list[Path]] = {}
    if images is not None:
        for identity, path in auditing.labelled_files(images, field="images"):
            photos.setdefault(identity_name(identity, field="images"), []).append(path)
    begun = run(context.model_migration.begin(name, target))
    with progress_bar(begun.identities, "filling") as progress:
        filled = fill(context.database, context.models, name, photos, face=face, progress=progress)
    status = _status(context, name)
    if as_json:
        print_json({**_view(status), "filled": asdict(filled)})
        return
    for line in _filled(filled):
        click.echo(line)
    _show(status, as_json=False)


def _finish(context: Context, name: str, drop_pending: bool, abandon: bool, *, as_json: bool) -> None:
    finished = run(context.model_migration.finish(name, drop_pending=drop_pending, abandon=abandon))
    answer = answers.migration_finished(finished)
    if as_json:
        print_json(answer.model_dump(mode="json"))
        return
    for identity in answer.dropped:
        click.echo(f"dropped {identity}")
    click.echo(f"finished: {name} has templates of {answer.model} alone")


def _status(context: Context, name: str) -> MigrationStatus:
    """Return the status with every pending identity."""
    status = run(context.model_migration.status(name, limit=_PAGE))
    pages, page = list(status.page), status.page
    while len(page) == _PAGE:
        page = run(context.model_migration.status(name, after=page[-1][0], limit=_PAGE)).page
        pages += page
    return MigrationStatus(**{**vars(status), "page": pages})


def _view(status: MigrationStatus) -> dict[str, Any]:
    return answers.migration_view(status, len(status.page) + 1).model_dump(mode="json")


def _show(status: MigrationStatus, *, as_json: bool) -> None:
    if as_json:
        print_json(_view(status))
        return
    answer = answers.migration_view(status)
    if answer.state in {"none", "finishing"}:
        click.echo(f"{answer.collection} is of {answer.model}; change of model: {answer.state}")
        return
    click.echo(
        f"state       {answer.state}: {answer.model} decides ({answer.old_model} -> {answer.new_model})"
    )
    known = answer.identities - answer.pending
    click.echo(f"identities  {answer.identities}, {known} known to {answer.new_model}")
    if answer.without_old:
        click.echo(f"            {answer.without_old} not known to {answer.old_model}")
    click.echo(
        f"pending     {answer.pending}"
        + (f", which no search by {answer.new_model} finds" if answer.pending else "")
    )
    for identity in answer.pending_identities[:_NAMES]:
        click.echo(f"            {identity}")
    if answer.pending > _NAMES:
        click.echo(f"            and {answer.pending - _NAMES} more; --json has them")


def _filled(filled: Filled) -> Iterator[str]:
    resized = f", {filled.resized} of them resized" if filled.resized else ""
    yield f"made        {filled.from_crops} templates from kept crops{resized}"
    yield f"            {filled.from_photos} templates from photos"
    if filled.overtaken:
        yield f"            {filled.overtaken} were not needed any more"
    if filled.unusable_crops:
        yield f"not used    {filled.unusable_crops} kept crops, which the new model would cut otherwise"
    for path in filled.not_confirmed[:_NAMES]:
        yield f"not used    {path}: the old model does not take it for that identity"
    for path, reason in list(filled.failed.items())[:_NAMES]:
        yield f"not used    {path}: {reason}"
    hidden = max(0, len(filled.not_confirmed) - _NAMES) + max(0, len(filled.failed) - _NAMES)
    if hidden:
        yield f"not used    {hidden} more photos; --json has them"
