"""Routes of a collection's change of model."""

from __future__ import annotations

from fastapi import APIRouter, Request

from app import answers
from app.api import schemas
from app.api.body import read_fields
from app.api.dependencies import CHANGING, READING, CollectionPath, ContextDep, CursorQuery, LimitQuery
from app.api.openapi import BODY_ERRORS, errors, json_only

router = APIRouter(prefix="/collections/{name}/migration", tags=["change of model"])

_STEP_ERRORS = ("outcome_unknown", "collection_not_found", "migration_state")


@router.get("", dependencies=READING, responses=errors("collection_not_found"))
async def get_migration(
    context: ContextDep, name: CollectionPath, limit: LimitQuery = 100, cursor: CursorQuery = None
) -> answers.MigrationView:
    """Return where the change is, and the identities that the new model does not know yet, in pages."""
    status = await context.model_migration.status(name, after=int(cursor or 0), limit=limit)
    return answers.migration_view(status, limit)


@router.post(
    "",
    dependencies=CHANGING,
    responses=errors(*BODY_ERRORS, *_STEP_ERRORS, "model_not_found", "model_mismatch"),
    openapi_extra=json_only(schemas.MigrationFields, {"model": "faces-2"}),
)
async def begin_migration(
    request: Request, context: ContextDep, name: CollectionPath
) -> answers.MigrationView:
    """Begin to change to another model: from now on each enrolment makes templates by both.

    Every service that enrols must serve both models; one that does not refuses to enrol meanwhile. The
    missing templates are made by `visavis collections migrate`, and by photos that verify.
    """
    fields = await read_fields(request, schemas.MigrationFields)
    return answers.migration_view(await context.model_migration.begin(name, fields.model))


@router.post("/switch", dependencies=CHANGING, responses=errors(*_STEP_ERRORS))
async def switch_migration(context: ContextDep, name: CollectionPath) -> answers.MigrationView:
    """Decide by the new model from now on. No template is touched, and `rollback` takes it back."""
    return answers.migration_view(await context.model_migration.switch(name))


@router.post("/rollback", dependencies=CHANGING, responses=errors(*_STEP_ERRORS))
async def roll_back_migration(context: ContextDep, name: CollectionPath) -> answers.MigrationView:
    """Decide by the old model again, exactly as before the switch."""
    return answers.migration_view(await context.model_migration.rollback(name))


@router.post(
    "/finish",
    dependencies=CHANGING,
    responses=errors(*BODY_ERRORS, *_STEP_ERRORS, "identities_pending"),
    openapi_extra=json_only(schemas.FinishFields, {"drop_pending": False}),
)
async def finish_migration(
    request: Request, context: ContextDep, name: CollectionPath
) -> answers.MigrationFinished:
    """Remove the templates of the model that is not in force, and end the change; may be called again."""
    fields = await read_fields(request, schemas.FinishFields)
    finished = await context.model_migration.finish(
        name, drop_pending=fields.drop_pending, abandon=fields.abandon
    )
    return answers.migration_finished(finished)
