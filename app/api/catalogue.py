"""Routes over what is stored and served: identities, collections, models."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app import answers
from app.api import schemas
from app.api.as_sent import NotBelowIdentity
from app.api.body import read_fields, read_list_fields
from app.api.dependencies import (
    CHANGING,
    READING,
    CollectionPath,
    CollectionQuery,
    ContextDep,
    CursorQuery,
    IdentityPath,
    LimitQuery,
)
from app.api.headers import AtLeastDep, UnchangedDep, etag
from app.api.once import OnceDep, shown
from app.api.openapi import (
    BODY_ERRORS,
    COLLECTION_LINKS,
    ETAG,
    IDENTITY_LINKS,
    WRITE_ERRORS,
    errors,
    form_or_json,
    json_only,
)
from app.encoding.image_encoder import ImageInput
from app.services.calibration import LabelledImage
from app.services.names import DEFAULT_COLLECTION
from app.storage.records import Answer

router = APIRouter(route_class=NotBelowIdentity)


@router.get(
    "/identities",
    tags=["identities"],
    dependencies=READING,
    responses=errors("collection_not_found", "revision_not_reached"),
)
async def list_identities(
    context: ContextDep,
    at_least: AtLeastDep,
    collection: CollectionQuery = DEFAULT_COLLECTION,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> answers.IdentityPage:
    """List identities in order of enrolment; pages stay stable while others enrol."""
    page = await context.catalogue.identities(
        collection, after=int(cursor or 0), limit=limit, at_least=at_least
    )
    found = page.identities
    return answers.IdentityPage(
        identities=[answers.identity_view(identity, collection) for identity in found],
        next_cursor=str(found[-1].id) if len(found) == limit else None,
        revision=page.revision,
    )


@router.get(
    "/identities/{identity:path}",
    tags=["identities"],
    dependencies=READING,
    responses={200: ETAG, **errors("collection_not_found", "identity_not_found", "revision_not_reached")},
)
async def get_identity(
    response: Response,
    context: ContextDep,
    at_least: AtLeastDep,
    identity: IdentityPath,
    collection: CollectionQuery = DEFAULT_COLLECTION,
) -> answers.IdentityView:
    """Return one identity."""
    found = await context.catalogue.identity(collection, identity, at_least=at_least)
    response.headers["ETag"] = etag(found.revision)
    return answers.identity_view(found, collection)


@router.patch(
    "/identities/{identity:path}",
    tags=["identities"],
    response_model=answers.IdentityView,
    dependencies=CHANGING,
    responses={
        200: {**IDENTITY_LINKS, **ETAG},
        **errors(
            *BODY_ERRORS,
            *WRITE_ERRORS,
            "collection_not_found",
            "identity_not_found",
            "identity_exists",
            "precondition_failed",
        ),
    },
    openapi_extra=json_only(schemas.IdentityChange, {"metadata": {"team": "machines"}}),
)
async def change_identity(
    request: Request,
    context: ContextDep,
    once: OnceDep,
    unchanged: UnchangedDep,
    identity: IdentityPath,
    collection: CollectionQuery = DEFAULT_COLLECTION,
) -> Response:
    """Rename an identity, replace its metadata, or both."""
    fields = await read_fields(request, schemas.IdentityChange)
    return await once.answer(
        fields,
        lambda keep: context.catalogue.change_identity(
            collection,
            identity,
            new_name=fields.identity,
            metadata=fields.metadata,
            unchanged=unchanged,
            keep=keep,
        ),
        lambda changed: shown(200, answers.identity_view(changed, collection), etag=etag(changed.revision)),
    )


@router.delete(
    "/identities/{identity:path}",
    tags=["identities"],
    status_code=204,
    dependencies=CHANGING,
    responses=errors(*WRITE_ERRORS, "collection_not_found", "identity_not_found", "precondition_failed"),
)
async def delete_identity(
    context: ContextDep,
    once: OnceDep,
    unchanged: UnchangedDep,
    identity: IdentityPath,
    collection: CollectionQuery = DEFAULT_COLLECTION,
) -> Response:
    """Delete an identity and its templates; no search that begins after the 204 returns it."""
    return await once.answer(
        None,
        lambda keep: context.catalogue.delete_identity(collection, identity, unchanged=unchanged, keep=keep),
        lambda _: Answer(204),
    )


@router.get("/collections", tags=["collections"], dependencies=READING, responses=errors())
async def list_collections(
    context: ContextDep, limit: LimitQuery = 100, cursor: CursorQuery = None
) -> answers.CollectionPage:
    """List collections in order of creation."""
    found = await context.catalogue.collections(after=int(cursor or 0), limit=limit)
    return answers.CollectionPage(
        collections=[answers.collection_view(view) for view in found],
        next_cursor=str(found[-1].collection.id) if len(found) == limit else None,
    )


@router.post(
    "/collections",
    tags=["collections"],
    status_code=201,
    response_model=answers.CollectionView,
    dependencies=CHANGING,
    responses={
        201: COLLECTION_LINKS,
        **errors(*BODY_ERRORS, *WRITE_ERRORS, "collection_exists", "model_not_found"),
    },
    openapi_extra=json_only(schemas.CollectionFields, {"name": "visitors", "policy": {"min_face_size": 60}}),
)
async def create_collection(request: Request, context: ContextDep, once: OnceDep) -> Response:
    """Create a collection, bound to one model until a change of model."""
    fields = await read_fields(request, schemas.CollectionFields)
    return await once.answer(
        fields,
        lambda keep: context.catalogue.create_collection(fields.name, fields.model, fields.policy, keep=keep),
        lambda made: shown(201, answers.collection_view(made)),
    )


@router.get(
    "/collections/{name}",
    tags=["collections"],
    dependencies=READING,
    responses=errors("collection_not_found"),
)
async def get_collection(context: ContextDep, name: CollectionPath) -> answers.CollectionView:
    """Return one collection."""
    return answers.collection_view(await context.catalogue.collection(name))


@router.patch(
    "/collections/{name}",
    tags=["collections"],
    response_model=answers.CollectionView,
    dependencies=CHANGING,
    responses={200: COLLECTION_LINKS, **errors(*BODY_ERRORS, *WRITE_ERRORS, "collection_not_found")},
    openapi_extra=json_only(schemas.CollectionChange, {"policy": {"max_references": 3}}),
)
async def change_collection(
    request: Request, context: ContextDep, once: OnceDep, name: CollectionPath
) -> Response:
    """Replace a collection's policy. It counts for photos to come; crops it no longer keeps are deleted."""
    fields = await read_fields(request, schemas.CollectionChange)
    return await once.answer(
        fields,
        lambda keep: context.catalogue.change_policy(name, fields.policy, keep=keep),
        lambda changed: shown(200, answers.collection_view(changed)),
    )


@router.delete(
    "/collections/{name}",
    tags=["collections"],
    status_code=204,
    dependencies=CHANGING,
    responses=errors(*WRITE_ERRORS, "collection_not_found"),
)
async def delete_collection(context: ContextDep, once: OnceDep, name: CollectionPath) -> Response:
    """Delete a collection with every identity and template in it."""
    return await once.answer(
        None, lambda keep: context.catalogue.delete_collection(name, keep=keep), lambda _: Answer(204)
    )


@router.post(
    "/collections/{name}/evidence",
    tags=["collections"],
    status_code=201,
    response_model=answers.EvidenceMeasured,
    dependencies=CHANGING,
    responses=errors(
        *BODY_ERRORS,
        *WRITE_ERRORS,
        "image_unreadable",
        "collection_not_found",
        "model_mismatch",
        "too_few_identities",
        "duplicates_suspected",
    ),
    openapi_extra=form_or_json(
        schemas.CalibrationFields,
        {"probes": [{"identity": "ada", "image": "<base64 of a JPEG>"}]},
        form=schemas.CalibrationForm,
        required=False,
    ),
)
async def measure_evidence(
    request: Request, context: ContextDep, once: OnceDep, name: CollectionPath
) -> Response:
    """Measure a collection's error rates on its own people, and decide by them from now on.

    The references of different identities are compared with one another. Labelled photos, if any are sent,
    are compared with their identity's reference: without them there is no FNMR. None of them is kept. Counts
    where a request asks for a rate or gives a threshold; named operating points stay the model's.
    """
    fields = await read_list_fields(
        request,
        schemas.CalibrationForm,
        schemas.CalibrationFields,
        most=schemas.MAX_PROBES,
        optional=True,
    )
    as_form = isinstance(fields, schemas.CalibrationForm)
    probes = [
        LabelledImage(
            probe.identity,
            ImageInput(probe.image, f"image.{number}" if as_form else f"probes.{number}.image"),
        )
        for number, probe in enumerate(fields.probes)
    ]
    return await once.answer(
        fields,
        lambda keep: context.calibration.calibrate(
            name, probes, face=fields.face, accept_duplicates=fields.accept_duplicates, keep=keep
        ),
        lambda result: shown(201, answers.evidence_measured(result)),
    )


@router.get(
    "/collections/{name}/evidence",
    tags=["collections"],
    dependencies=READING,
    responses=errors("collection_not_found", "model_mismatch"),
)
async def get_evidence(context: ContextDep, name: CollectionPath) -> answers.EvidenceInForce:
    """Return whose trials a collection's rates come from, and the thresholds that they support."""
    return answers.evidence_in_force(await context.calibration.in_force(name))


@router.delete(
    "/collections/{name}/evidence",
    tags=["collections"],
    status_code=204,
    dependencies=CHANGING,
    responses=errors(*WRITE_ERRORS, "collection_not_found"),
)
async def delete_evidence(context: ContextDep, once: OnceDep, name: CollectionPath) -> Response:
    """Go back to the model's evidence; also answered with 204 where it is in force already."""
    return await once.answer(
        None, lambda keep: context.calibration.remove(name, keep=keep), lambda _: Answer(204)
    )


@router.get("/models", tags=["models"], dependencies=READING, responses=errors())
async def list_models(context: ContextDep) -> answers.ModelList:
    """List the models served here, default first."""
    return answers.ModelList(
        models=[answers.model_view(m, default=m is context.models.default) for m in context.models.every()]
    )


@router.get("/models/{model_id}", tags=["models"], dependencies=READING, responses=errors("model_not_found"))
async def get_model(context: ContextDep, model_id: str) -> answers.ModelDetail:
    """Return a model's operating points, evidence and whole manifest."""
    model = context.models.get(model_id)
    view = answers.model_view(model, default=model is context.models.default)
    return answers.ModelDetail(**vars(view), manifest=model.manifest.model_dump(mode="json"))
