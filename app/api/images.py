"""Routes that take images: enroll, verify, identify, embed, detect."""

from __future__ import annotations

import time
from typing import TypeVar

from fastapi import APIRouter, Request, Response

from app import answers
from app.api import schemas
from app.api.body import read_fields, read_list_fields
from app.api.dependencies import CHANGING, READING, ContextDep
from app.api.headers import AtLeastDep, UnchangedDep, etag
from app.api.observability import DECISIONS, STAGES, WAITING
from app.api.once import OnceDep, shown
from app.api.openapi import (
    BODY_ERRORS,
    ETAG,
    IDENTITY_LINKS,
    IMAGE_ERRORS,
    WRITE_ERRORS,
    errors,
    form_or_json,
)
from app.context import Context
from app.encoding.image_encoder import ImageInput, Timings
from app.errors import InvalidRequestError
from app.services.decisions import Criterion
from app.services.enrolment import Enrolee, Enrolled, EnrolledAll
from app.services.idempotency import Keep
from app.services.names import DEFAULT_COLLECTION
from app.storage.records import Answer

router = APIRouter(tags=["images"])

A = TypeVar("A", answers.Verified, answers.Identified, answers.Embedded, answers.Detected)

_PHOTO = "<base64 of a JPEG>"


@router.post(
    "/enroll",
    status_code=201,
    response_model=answers.Enrolled,
    dependencies=CHANGING,
    responses={
        200: {"model": answers.Enrolled, "description": "replaced", **IDENTITY_LINKS, **ETAG},
        201: {**IDENTITY_LINKS, **ETAG},
        **errors(
            *IMAGE_ERRORS,
            *WRITE_ERRORS,
            "quality_too_low",
            "identity_exists",
            "too_many_references",
            "precondition_failed",
            "model_not_served",
            "model_mismatch",
            "collection_not_found",
        ),
    },
    openapi_extra=form_or_json(
        schemas.EnrollFields, {"identity": "ada", "image": _PHOTO, "metadata": {"team": "analysis"}}
    ),
)
async def enroll(request: Request, context: ContextDep, once: OnceDep, unchanged: UnchangedDep) -> Response:
    """Enrol one reference photo for an identity.

    The photo is not kept, only its template. Answered with 201 when the identity is new and 200 when its
    photo was replaced; either way the change is committed and visible to every later search. With `add` the
    photo is one more reference of the identity (201), and the nearest one counts.
    """
    started = time.perf_counter()
    fields = await read_fields(request, schemas.EnrollFields)
    if unchanged is not None and not fields.replace and not fields.add:
        raise InvalidRequestError([{"field": "If-Match", "problem": "goes with replace=true or add=true"}])

    async def write(keep: Keep[Enrolled]) -> Enrolled:
        result = await context.enrolment.enrol(
            fields.identity,
            ImageInput(fields.image, "image"),
            collection=fields.collection,
            metadata=fields.metadata,
            replace=fields.replace,
            add=fields.add,
            face=fields.face,
            unchanged=unchanged,
            keep=keep,
        )
        _observe(context, answers.timings_view(result.timings, started))
        return result

    def answer(result: Enrolled) -> Answer:
        view = answers.enrolled(result, started)
        return shown(200 if result.replaced else 201, view, etag=etag(result.revision))

    return await once.answer(fields, write, answer)


@router.post(
    "/enroll/batch",
    response_model=answers.EnrolledBatch,
    dependencies=CHANGING,
    responses=errors(
        *BODY_ERRORS,
        *WRITE_ERRORS,
        "image_unreadable",
        "model_not_served",
        "model_mismatch",
        "collection_not_found",
    ),
    openapi_extra=form_or_json(
        schemas.BatchFields,
        {"items": [{"identity": "ada", "image": _PHOTO}, {"identity": "bob", "image": _PHOTO}]},
        form=schemas.BatchForm,
    ),
)
async def enroll_batch(request: Request, context: ContextDep, once: OnceDep) -> Response:
    """Enrol up to 100 photos, each for an identity of its own.

    A photo that cannot be used, or an identity that is enrolled, is refused by itself: `results` says what
    became of each, in their order. All others are committed together when the answer comes, as if they had
    been enrolled one after the other. A request that is malformed is refused as a whole.
    """
    started = time.perf_counter()
    fields = await read_list_fields(
        request, schemas.BatchForm, schemas.BatchFields, most=3 * schemas.MAX_BATCH
    )
    field_of = "image.{}" if isinstance(fields, schemas.BatchForm) else "items.{}.image"

    async def write(keep: Keep[EnrolledAll]) -> EnrolledAll:
        result = await context.enrolment.enrol_all(
            [
                Enrolee(
                    item.identity,
                    ImageInput(item.image, field_of.format(number)),
                    item.metadata,
                    item.replace,
                    item.add,
                )
                for number, item in enumerate(fields.items)
            ],
            collection=fields.collection,
            face=fields.face,
            keep=keep,
        )
        _observe(context, answers.timings_view(result.timings, started))
        return result

    return await once.answer(
        fields, write, lambda result: shown(200, answers.enrolled_batch(result, started))
    )


@router.post(
    "/verify",
    dependencies=READING,
    responses=errors(
        *IMAGE_ERRORS,
        "insufficient_evidence",
        "identity_not_found",
        "collection_not_found",
        "model_not_found",
        "model_mismatch",
        "revision_not_reached",
    ),
    openapi_extra=form_or_json(
        schemas.VerifyFields, {"image_a": _PHOTO, "image_b": _PHOTO, "max_fmr": 0.001}
    ),
)
async def verify(request: Request, context: ContextDep, at_least: AtLeastDep) -> answers.Verified:
    """Decide whether two images, or an image and an enrolled identity, show the same subject.

    Ask for an error rate with `max_fmr`, name an `operating_point`, or give a `threshold`; at most one.
    """
    started = time.perf_counter()
    fields = await read_fields(request, schemas.VerifyFields)
    criterion = Criterion(
        max_fmr=fields.max_fmr, threshold=fields.threshold, operating_point=fields.operating_point
    )
    if fields.image is not None and fields.identity is not None:
        result = await context.verification.compare_with_identity(
            ImageInput(fields.image, "image"),
            fields.identity,
            collection=fields.collection or DEFAULT_COLLECTION,
            model=fields.model,
            criterion=criterion,
            face=fields.face,
            at_least=at_least,
        )
    else:
        pair = [ImageInput(fields.image_a or b"", "image_a"), ImageInput(fields.image_b or b"", "image_b")]
        result = await context.verification.compare_images(
            pair, model=fields.model, criterion=criterion, face=fields.face
        )
    DECISIONS.labels("verify", result.model.model_id, result.match).inc()
    return _observed(context, answers.verified(result, started, prior=fields.prior))


@router.post(
    "/identify",
    dependencies=READING,
    responses=errors(
        *IMAGE_ERRORS,
        "insufficient_evidence",
        "collection_not_found",
        "model_mismatch",
        "revision_not_reached",
    ),
    openapi_extra=form_or_json(schemas.IdentifyFields, {"image": _PHOTO, "top_k": 3}),
)
async def identify(request: Request, context: ContextDep, at_least: AtLeastDep) -> answers.Identified:
    """Find who of those enrolled an image shows: the nearest identities, and whether each is a match.

    Ask with `max_fpir` for the share of strangers that may be taken for someone enrolled: the threshold then
    follows the gallery's size at the revision that was searched.
    """
    started = time.perf_counter()
    fields = await read_fields(request, schemas.IdentifyFields)
    result = await context.identification.identify(
        ImageInput(fields.image, "image"),
        collection=fields.collection,
        top_k=fields.top_k,
        where=fields.filter,
        criterion=Criterion(
            max_fpir=fields.max_fpir, threshold=fields.threshold, operating_point=fields.operating_point
        ),
        face=fields.face,
        at_least=at_least,
    )
    DECISIONS.labels("identify", result.model.model_id, result.match).inc()
    return _observed(context, answers.identified(result, started, prior=fields.prior))


@router.post(
    "/embed",
    dependencies=READING,
    responses=errors(*IMAGE_ERRORS, "model_not_found"),
    openapi_extra=form_or_json(schemas.EmbedFields, {"image": _PHOTO}),
)
async def embed(request: Request, context: ContextDep) -> answers.Embedded:
    """Return the embedding of an image. Nothing is stored."""
    started = time.perf_counter()
    fields = await read_fields(request, schemas.EmbedFields)
    model = context.models.get(fields.model)
    timings = Timings()
    (template,) = await context.images.encode(
        model, [ImageInput(fields.image, "image")], fields.face, timings
    )
    return _observed(context, answers.embedded(model, template, timings, started))


@router.post(
    "/detect",
    dependencies=READING,
    responses=errors(*IMAGE_ERRORS, "model_not_found"),
    openapi_extra=form_or_json(schemas.DetectFields, {"image": _PHOTO}),
)
async def detect(request: Request, context: ContextDep) -> answers.Detected:
    """Return every face of an image with box, five landmarks, score and quality. Nothing is stored."""
    started = time.perf_counter()
    fields = await read_fields(request, schemas.DetectFields)
    model = context.models.get(fields.model)
    timings = Timings()
    found, size = await context.images.detect(model, ImageInput(fields.image, "image"), timings)
    return _observed(context, answers.detected(model, found, size, timings, started))


def _observed(context: Context, answer: A) -> A:
    """Count the answer's stages before it is sent."""
    _observe(context, answer.timings_ms)
    return answer


def _observe(context: Context, timings: answers.TimingsView) -> None:
    for stage in ("decode", "detect", "encode", "search"):
        STAGES.labels(stage).observe(getattr(timings, stage) / 1e3)
    WAITING.set(context.workers.admitted)
