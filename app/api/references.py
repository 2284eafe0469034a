"""Routes over the references of one identity."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app import answers
from app.api.as_sent import BelowIdentity
from app.api.dependencies import CHANGING, READING, CollectionQuery, ContextDep, IdentityPath
from app.api.headers import AtLeastDep, UnchangedDep, etag
from app.api.once import OnceDep
from app.api.openapi import ETAG, WRITE_ERRORS, errors
from app.services.names import DEFAULT_COLLECTION
from app.storage.records import Answer

ReferencePath = Annotated[
    str, Path(pattern=r"^[0-9A-Za-z_-]{1,36}$", description="id of a reference, as the list has it")
]


router = APIRouter(tags=["identities"], route_class=BelowIdentity)


@router.get(
    "/identities/{identity}/references",
    dependencies=READING,
    responses={200: ETAG, **errors("collection_not_found", "identity_not_found", "revision_not_reached")},
)
async def list_references(
    response: Response,
    context: ContextDep,
    at_least: AtLeastDep,
    identity: IdentityPath,
    collection: CollectionQuery = DEFAULT_COLLECTION,
) -> answers.ReferenceList:
    """List an identity's references, oldest first; a slash in its name is sent as %2F here.

    During a change of model a photo has a template by each of two models, which share `photo`.
    """
    found = await context.catalogue.references(collection, identity, at_least=at_least)
    response.headers["ETag"] = etag(found.identity_revision)
    return answers.reference_list(found)


@router.delete(
    "/identities/{identity}/references/{reference_id}",
    status_code=204,
    dependencies=CHANGING,
    responses=errors(
        *WRITE_ERRORS,
        "collection_not_found",
        "identity_not_found",
        "reference_not_found",
        "last_reference",
        "precondition_failed",
    ),
)
async def delete_reference(
    context: ContextDep,
    once: OnceDep,
    unchanged: UnchangedDep,
    identity: IdentityPath,
    reference_id: ReferencePath,
    collection: CollectionQuery = DEFAULT_COLLECTION,
) -> Response:
    """Remove one reference, by every model; the last one goes with its identity only."""
    return await once.answer(
        None,
        lambda keep: context.catalogue.delete_reference(
            collection, identity, reference_id, unchanged=unchanged, keep=keep
        ),
        lambda _: Answer(204),
    )
