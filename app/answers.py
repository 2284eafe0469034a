"""What the service answers, over HTTP and on the command line, and how a result becomes an answer."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.encoding.detection import Face
from app.encoding.image_encoder import Timings
from app.encoding.model import Model
from app.encoding.quality import Quality
from app.matching.decision import OperatingPoint
from app.services import calibration, catalogue, enrolment
from app.services.decisions import Basis, bundle_basis
from app.services.identification import Identification
from app.services.images import Template
from app.services.model_migration import Finished, MigrationStatus
from app.services.verification import Verification
from app.services.views import face_fields
from app.storage.records import Identity

DEFAULT_PRIOR: Final = 0.5
"""Probability, before looking, that two images show one subject, or that a probe shows somebody enrolled."""


class Box(BaseModel):
    """Pixels of the upright image; x to the right, y down; may reach past the border."""

    x: float
    y: float
    width: float
    height: float


class Point(BaseModel):
    """Pixels of the upright image."""

    x: float
    y: float


class FaceView(BaseModel):
    """A detected face."""

    box: Box
    landmarks: Annotated[
        dict[str, Point],
        Field(description="right and left are the subject's: the right eye is at the image's left"),
    ]
    score: Annotated[float, Field(description="detection score, 0 to 1")]


class QualityView(BaseModel):
    """Simple measures; docs/quality.md explains each. Face measures are null for whole-image models."""

    sharpness: float
    brightness: float
    contrast: float
    face_size: float | None = None
    eye_distance: float | None = None
    yaw: float | None = None
    pitch: float | None = None
    roll: float | None = None


class ProbeView(BaseModel):
    """The face (if the model looks for one) and quality of one image of the request."""

    field: str
    face: FaceView | None
    faces_found: Annotated[
        int | None, Field(description="faces in the image; `face` is the one chosen among them")
    ]
    quality: QualityView


class TimingsView(BaseModel):
    """Milliseconds by stage; detect includes alignment."""

    decode: float
    detect: float
    encode: float
    search: float
    total: float


class EvidenceView(BaseModel):
    """The trials behind the rates."""

    source: Annotated[
        Literal["bundle", "deployment"],
        Field(description="whose trials: the model bundle's, or those of the collection's own people"),
    ]
    description: str
    subjects: int
    mated: int
    nonmated: int
    measured_at: Annotated[
        datetime | None, Field(description="when the collection was calibrated; null for the bundle's")
    ] = None
    revision: Annotated[
        int | None,
        Field(description="revision of the collection whose references were compared; null for the bundle's"),
    ] = None
    note: Annotated[
        str | None,
        Field(
            description="why the collection's own trials were not taken; null if they were, or there are none"
        ),
    ] = None


class _Grounds(BaseModel):
    """What every decision rests on."""

    threshold: float
    metric: Literal["euclidean", "cosine", "l1"]
    operating_point: OperatingPoint
    evidence: EvidenceView
    model: str
    model_digest: Annotated[str, Field(description="templates are comparable when this is equal")]
    timings_ms: TimingsView


FmrAtDistance = Annotated[
    float | None,
    Field(description="share of non-mated trials that were as close or closer; null where not measured"),
]
Probability = Annotated[
    float | None,
    Field(
        description="probability that both show one subject, from how often mated and non-mated trials are "
        "at such a distance and from the prior; null where no mated trials were measured"
    ),
]


class _PairDecision(BaseModel):
    match: Annotated[bool, Field(description="distance <= threshold")]
    distance: Annotated[float, Field(description="smaller is closer; unit of the metric")]
    fmr_at_distance: FmrAtDistance
    probability: Probability
    prior: Annotated[float, Field(description="probability before looking, as the request has it")]


class Verified(_Grounds, _PairDecision):
    """Answer of ``POST /verify``: the decision first, then what it rests on."""

    faces: Annotated[list[ProbeView], Field(description="what was compared, one entry an image sent")]
    learnt: Annotated[
        bool,
        Field(
            description="during a change of model, whether the photo became the identity's reference by the "
            "model that had none of it"
        ),
    ] = False
    revision: Annotated[
        int | None, Field(description="state of the collection that was read; null for two images")
    ] = None


class CandidateView(BaseModel):
    """One of the nearest identities."""

    rank: int
    identity: str
    distance: float
    match: bool
    fmr_at_distance: FmrAtDistance
    probability: Annotated[
        float | None,
        Field(description="as in a verification, with the prior shared out: prior / gallery_size"),
    ]
    metadata: dict[str, Any]


class _SearchDecision(BaseModel):
    match: Annotated[bool, Field(description="whether any candidate is a match")]
    candidates: Annotated[list[CandidateView], Field(description="the nearest identities, nearest first")]
    gallery_size: Annotated[int, Field(description="references searched")]
    predicted_fpir: Annotated[
        float | None,
        Field(
            description="share of searches by strangers that return a match, from searches measured in "
            "galleries of such a size; null above the largest threshold measured"
        ),
    ]
    predicted_fpir_upper95: Annotated[
        float | None, Field(description="95 % upper confidence bound of it; people count as independent")
    ]
    prior: Annotated[
        float, Field(description="probability, before looking, that the probe shows somebody enrolled")
    ]
    revision: Annotated[int, Field(description="state of the collection that was searched")]
    pending: Annotated[
        int,
        Field(
            description="during a change of model, identities that cannot be found because this model has no "
            "template of them yet"
        ),
    ] = 0
    exact: Annotated[
        bool,
        Field(description="whether the candidates are certainly the nearest; false in pgvector searches"),
    ]
    recall: Annotated[
        float | None,
        Field(
            description="share of the nearest that the index found when it was measured on this collection; "
            "null where it was not measured, and in exact searches"
        ),
    ]


class Identified(_Grounds, _SearchDecision):
    """Answer of ``POST /identify``: the candidates first, then what the decision rests on."""

    faces: list[ProbeView]


class Enrolled(BaseModel):
    """Answer of ``POST /enroll``: the reference is committed."""

    identity: str
    collection: str
    reference_id: str
    replaced: bool
    added: Annotated[
        bool, Field(description="whether it is one more reference of an identity enrolled before")
    ]
    references: Annotated[int, Field(description="references that the identity now has")]
    model: str
    model_digest: str
    face: FaceView | None
    quality: QualityView
    revision: int
    timings_ms: TimingsView


class ItemError(BaseModel):
    """Why one of many was refused: what the same request alone would be answered with."""

    model_config = ConfigDict(extra="allow")

    code: str
    detail: str


class EnrolledItem(BaseModel):
    """What became of one of many."""

    identity: str
    status: Literal["enrolled", "replaced", "added", "refused"]
    reference_id: str | None
    revision: int | None
    error: Annotated[ItemError | None, Field(description="null unless it was refused")]


class EnrolledBatch(BaseModel):
    """Answer of ``POST /enroll/batch``: what is not refused is committed."""

    collection: str
    model: str
    model_digest: str
    revision: Annotated[int, Field(description="the collection's, after all of them")]
    results: Annotated[list[EnrolledItem], Field(description="one for each photo, in their order")]
    timings_ms: TimingsView


class Embedded(BaseModel):
    """Answer of ``POST /embed``."""

    embedding: list[float]
    dimensions: int
    metric: str
    model: str
    model_digest: str
    face: FaceView | None
    quality: QualityView
    timings_ms: TimingsView


class DetectedFace(FaceView):
    """A detected face with its quality."""

    quality: QualityView


class Detected(BaseModel):
    """Answer of ``POST /detect``, best score first."""

    faces: list[DetectedFace]
    width: Annotated[int, Field(description="pixels of the upright image")]
    height: int
    model: str
    timings_ms: TimingsView


class IdentityView(BaseModel):
    """An enrolled identity."""

    identity: str
    collection: str
    metadata: dict[str, Any]
    references: int
    revision: Annotated[
        int, Field(description="the collection's revision at which the identity last changed; its ETag")
    ]
    created_at: datetime
    updated_at: datetime


class ReferenceView(BaseModel):
    """One reference of an identity."""

    id: str
    photo: Annotated[str, Field(description="equal for templates that two models made of one photo")]
    model: Annotated[str | None, Field(description="null where it is neither of the collection's models")]
    model_digest: str
    quality: Annotated[
        dict[str, Any], Field(description="of the photo, as the answer to its enrolment has it")
    ]
    created_at: datetime


class ReferenceList(BaseModel):
    """The references of an identity, oldest first."""

    identity: str
    collection: str
    references: list[ReferenceView]
    revision: Annotated[int, Field(description="the identity's")]


class IdentityPage(BaseModel):
    """Identities in order of enrolment."""

    identities: list[IdentityView]
    next_cursor: Annotated[str | None, Field(description="pass as cursor for the next page; null at the end")]
    revision: Annotated[int, Field(description="state of the collection that was read")]


class CollectionView(BaseModel):
    """A collection."""

    name: str
    model: str
    model_digest: str
    policy: catalogue.CollectionPolicy
    identities: int
    revision: int
    created_at: datetime


class PointInForce(BaseModel):
    """A threshold, and what two sets of trials say of it."""

    in_force: Annotated[OperatingPoint, Field(description="by the trials in force")]
    bundle: Annotated[OperatingPoint, Field(description="by the model bundle's, at the same threshold")]


class EvidenceInForce(BaseModel):
    """Whose trials a collection's rates come from, and the thresholds that they support."""

    collection: str
    model: str
    model_digest: str
    collection_revision: Annotated[int, Field(description="the collection's revision now")]
    evidence: EvidenceView
    smallest_fmr: Annotated[float, Field(description="smallest false match rate that the trials can show")]
    operating_points: list[PointInForce]


class ClosePairView(BaseModel):
    """Two identities of a collection and their distance."""

    identities: list[str]
    distance: float


class DuplicatesView(BaseModel):
    """Pairs of identities so close to each other that few are expected there."""

    threshold: float
    seen: int
    expected_at_most: Annotated[
        float, Field(description="pairs of different people expected there, by the rate's 95 % upper bound")
    ]
    suspected: Annotated[bool, Field(description="more than chance explains; the caller accepted them")]
    closest: list[ClosePairView]


class ProbeFailure(BaseModel):
    """A probe photo that could not be used."""

    identity: str
    image: Annotated[str, Field(description="field of the request, or file")]
    code: str


class CalibrationProbes(BaseModel):
    """What became of the labelled photos."""

    used: int
    failures_to_acquire: list[ProbeFailure]


class EvidenceMeasured(EvidenceInForce):
    """Answer of ``POST /collections/{name}/evidence``: the evidence is stored and in force."""

    duplicates: DuplicatesView
    probes: CalibrationProbes


class CollectionPage(BaseModel):
    """Collections in order of creation."""

    collections: list[CollectionView]
    next_cursor: str | None


class MigrationView(BaseModel):
    """Where a collection's change of model is."""

    collection: str
    state: Annotated[
        Literal["none", "filling", "switched", "finishing"],
        Field(
            description="none under way; before the switch; after it; over but for templates to be removed"
        ),
    ]
    model: Annotated[str, Field(description="the model in force")]
    model_digest: str
    old_model: str | None
    new_model: str | None
    identities: int
    without_old: Annotated[
        int, Field(description="identities without a template by the old model, as imports leave them")
    ]
    pending: Annotated[int, Field(description="identities without a template by the new model")]
    pending_identities: Annotated[list[str], Field(description="a page of them")]
    next_cursor: Annotated[str | None, Field(description="pass as cursor for the next page; null at the end")]
    revision: int


class MigrationFinished(BaseModel):
    """A change of model is over."""

    collection: str
    model: str
    model_digest: str
    dropped: Annotated[list[str], Field(description="pending identities that were deleted")]
    revision: int


class ModelView(BaseModel):
    """A served model in short."""

    id: str
    version: str
    description: str
    default: bool
    digest: str
    provider: Literal["cpu", "cuda"]
    dimensions: int
    metric: str
    operating_points: list[OperatingPoint]
    default_operating_point: str
    evidence: EvidenceView


class ModelList(BaseModel):
    """All served models, default first."""

    models: list[ModelView]


class ModelDetail(ModelView):
    """A served model with its whole manifest."""

    manifest: dict[str, Any]


class Ready(BaseModel):
    """Answer of ``GET /readyz``."""

    status: Literal["ready"]
    models: Annotated[dict[str, str], Field(description="provider in use, by model")]
    database: Literal["ok"]
    schema_revision: str


class Alive(BaseModel):
    """Answer of ``GET /healthz``."""

    status: Literal["ok"]


def face_view(face: Face | None) -> FaceView | None:
    """Return a face, or None for whole-image models."""
    return None if face is None else FaceView.model_validate(face_fields(face))


def quality_view(quality: Quality) -> QualityView:
    """Return the measures of an image."""
    return QualityView(**asdict(quality))


def probe_view(template: Template) -> ProbeView:
    """Return what was compared of one image."""
    return ProbeView(
        field=template.field,
        face=face_view(template.face),
        faces_found=template.faces_found,
        quality=quality_view(template.quality),
    )


def evidence_view(basis: Basis) -> EvidenceView:
    """Return the trials behind a decision's rates."""
    return EvidenceView(
        source=basis.source,
        description=basis.description,
        subjects=basis.subjects,
        mated=basis.mated,
        nonmated=basis.nonmated,
        measured_at=basis.measured_at,
        revision=basis.revision,
        note=basis.note,
    )


def timings_view(timings: Timings, started: float, search_ms: float = 0.0) -> TimingsView:
    """Return stage times rounded to a hundredth of a millisecond.

    Args:
        timings: Stages of the images.
        started: ``time.perf_counter()`` when the request began.
        search_ms: Milliseconds in the gallery or database.
    """
    return TimingsView(
        decode=round(timings.decode, 2),
        detect=round(timings.detect, 2),
        encode=round(timings.encode, 2),
        search=round(search_ms, 2),
        total=round((time.perf_counter() - started) * 1e3, 2),
    )


def enrolled(result: enrolment.Enrolled, started: float) -> Enrolled:
    """Return the answer to an enrolment."""
    return Enrolled(
        identity=result.identity,
        collection=result.collection,
        reference_id=result.reference_id,
        replaced=result.replaced,
        added=result.added,
        references=result.references,
        model=result.model.model_id,
        model_digest=result.model.digest,
        face=face_view(result.template.face),
        quality=quality_view(result.template.quality),
        revision=result.revision,
        timings_ms=timings_view(result.timings, started),
    )


def enrolled_batch(result: enrolment.EnrolledAll, started: float) -> EnrolledBatch:
    """Return the answer to a batch of enrolments."""
    return EnrolledBatch(
        collection=result.collection,
        model=result.model.model_id,
        model_digest=result.model.digest,
        revision=result.revision,
        results=[_enrolled_item(one) for one in result.results],
        timings_ms=timings_view(result.timings, started),
    )


def _enrolled_item(one: enrolment.EnrolledOne | enrolment.Refused) -> EnrolledItem:
    if isinstance(one, enrolment.Refused):
        error = ItemError(code=one.error.code, detail=str(one.error), **one.error.details())
        return EnrolledItem(
            identity=one.identity, status="refused", reference_id=None, revision=None, error=error
        )
    return EnrolledItem(
        identity=one.identity,
        status="replaced" if one.replaced else "added" if one.added else "enrolled",
        reference_id=one.reference_id,
        revision=one.revision,
        error=None,
    )


def verified(result: Verification, started: float, *, prior: float = DEFAULT_PRIOR) -> Verified:
    """Return the answer to a verification; the prior is between 0 and 1."""
    return Verified(
        match=result.match,
        distance=result.distance,
        fmr_at_distance=result.decision.basis.evidence.fmr(result.distance),
        probability=_probability(result.decision.basis, result.model, result.distance, prior),
        prior=prior,
        threshold=result.decision.point.threshold,
        metric=result.model.manifest.metric,
        operating_point=result.decision.point,
        evidence=evidence_view(result.decision.basis),
        model=result.model.model_id,
        model_digest=result.model.digest,
        faces=[probe_view(template) for template in result.templates],
        learnt=result.learnt,
        revision=result.revision,
        timings_ms=timings_view(result.timings, started, result.search_ms),
    )


def identified(result: Identification, started: float, *, prior: float = DEFAULT_PRIOR) -> Identified:
    """Return the answer to an identification; the prior is between 0 and 1."""
    basis, size = result.decision.basis, result.gallery_size
    # Nobody is found in an empty gallery.
    predicted = basis.evidence.fpir(result.decision.point.threshold, size) if size else (0.0, 0.0)
    return Identified(
        match=result.match,
        candidates=[
            CandidateView(
                rank=rank,
                identity=candidate.identity,
                distance=candidate.distance,
                match=matched,
                fmr_at_distance=basis.evidence.fmr(candidate.distance),
                probability=_probability(basis, result.model, candidate.distance, prior / size),
                metadata=candidate.metadata,
            )
            for rank, (candidate, matched) in enumerate(result.candidates, start=1)
        ],
        threshold=result.decision.point.threshold,
        metric=result.model.manifest.metric,
        gallery_size=result.gallery_size,
        predicted_fpir=predicted[0] if predicted else None,
        predicted_fpir_upper95=predicted[1] if predicted else None,
        prior=prior,
        operating_point=result.decision.point,
        evidence=evidence_view(basis),
        model=result.model.model_id,
        model_digest=result.model.digest,
        revision=result.revision,
        exact=result.exact,
        recall=result.recall,
        pending=result.pending,
        faces=[probe_view(result.template)],
        timings_ms=timings_view(result.timings, started, result.search_ms),
    )


def _probability(basis: Basis, model: Model, distance: float, prior: float) -> float | None:
    """Return the probability from the decision's trials; from the bundle's where those have no mated ones."""
    ratio = basis.evidence.likelihood_ratio or model.evidence.likelihood_ratio
    return None if ratio is None else ratio.probability(distance, prior)


def embedded(model: Model, template: Template, timings: Timings, started: float) -> Embedded:
    """Return the answer to a request for an embedding."""
    return Embedded(
        embedding=template.embedding.tolist(),
        dimensions=template.embedding.size,
        metric=model.manifest.metric,
        model=model.model_id,
        model_digest=model.digest,
        face=face_view(template.face),
        quality=quality_view(template.quality),
        timings_ms=timings_view(timings, started),
    )


def detected(
    model: Model, found: list[tuple[Face, Quality]], size: tuple[int, int], timings: Timings, started: float
) -> Detected:
    """Return the answer to a detection."""
    return Detected(
        faces=[
            DetectedFace.model_validate({**face_fields(face), "quality": asdict(quality)})
            for face, quality in found
        ],
        width=size[0],
        height=size[1],
        model=model.model_id,
        timings_ms=timings_view(timings, started),
    )


def identity_view(identity: Identity, collection: str) -> IdentityView:
    """Return a stored identity."""
    return IdentityView(
        identity=identity.name,
        collection=collection,
        metadata=identity.metadata,
        references=identity.references,
        revision=identity.revision,
        created_at=identity.created_at,
        updated_at=identity.updated_at,
    )


def reference_list(found: catalogue.ReferenceList) -> ReferenceList:
    """Return the references of an identity."""
    return ReferenceList(
        identity=found.identity,
        collection=found.collection.name,
        references=[
            ReferenceView(
                id=one.id,
                photo=one.sample,
                model=found.collection.model_of(one.model_digest),
                model_digest=one.model_digest,
                quality=one.quality,
                created_at=one.created_at,
            )
            for one in found.references
        ],
        revision=found.identity_revision,
    )


def migration_view(status: MigrationStatus, limit: int = 100) -> MigrationView:
    """Return where a change of model is; a page of pending identities is full at the limit."""
    collection = status.collection
    return MigrationView(
        collection=collection.name,
        state=collection.migration or "none",
        model=collection.model_id,
        model_digest=collection.model_digest,
        old_model=None if status.old is None else collection.model_of(status.old),
        new_model=None if status.new is None else collection.model_of(status.new),
        identities=status.identities,
        without_old=status.without_old,
        pending=status.pending,
        pending_identities=[name for _, name in status.page],
        next_cursor=str(status.page[-1][0]) if len(status.page) == limit else None,
        revision=collection.revision,
    )


def migration_finished(finished: Finished) -> MigrationFinished:
    """Return that a change of model is over."""
    collection = finished.collection
    return MigrationFinished(
        collection=collection.name,
        model=collection.model_id,
        model_digest=collection.model_digest,
        dropped=list(finished.dropped),
        revision=collection.revision,
    )


def collection_view(view: catalogue.CollectionView) -> CollectionView:
    """Return a collection."""
    collection = view.collection
    return CollectionView(
        name=collection.name,
        model=collection.model_id,
        model_digest=collection.model_digest,
        policy=catalogue.CollectionPolicy.model_validate(collection.policy),
        identities=view.identities,
        revision=collection.revision,
        created_at=collection.created_at,
    )


def evidence_in_force(result: calibration.InForce) -> EvidenceInForce:
    """Return whose trials count in a collection."""
    collection, basis, bundle = result.collection, result.basis, result.model.evidence
    points = [basis.evidence.point_for_fmr(rate) for rate in calibration.rates(basis.evidence)]
    return EvidenceInForce(
        collection=collection.name,
        model=collection.model_id,
        model_digest=collection.model_digest,
        collection_revision=collection.revision,
        evidence=evidence_view(basis),
        smallest_fmr=basis.evidence.smallest_fmr,
        operating_points=[
            PointInForce(in_force=point, bundle=bundle.point_at(point.threshold)) for point in points
        ],
    )


def evidence_measured(result: calibration.Calibrated) -> EvidenceMeasured:
    """Return the answer to a calibration."""
    close, probes = result.measured.close_pairs, result.measured.probes
    return EvidenceMeasured(
        **vars(evidence_in_force(result.in_force)),
        duplicates=DuplicatesView(
            threshold=close.threshold,
            seen=close.seen,
            expected_at_most=close.expected,
            suspected=close.suspicious,
            closest=[
                ClosePairView(identities=[one, other], distance=distance)
                for one, other, distance in close.closest
            ],
        ),
        probes=CalibrationProbes(
            used=len(probes.names),
            failures_to_acquire=[ProbeFailure(**vars(failure)) for failure in probes.failures],
        ),
    )


def model_view(model: Model, *, default: bool) -> ModelView:
    """Return a served model in short."""
    manifest = model.manifest
    return ModelView(
        id=model.model_id,
        version=manifest.version,
        description=manifest.description,
        default=default,
        digest=model.digest,
        provider=model.images.provider,
        dimensions=manifest.dimensions,
        metric=manifest.metric,
        operating_points=list(manifest.operating_points),
        default_operating_point=manifest.default_operating_point,
        evidence=evidence_view(bundle_basis(model)),
    )
