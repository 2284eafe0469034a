"""Fields of requests. OpenAPI is made from these and from ``app.answers``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    model_validator,
)

from app.answers import DEFAULT_PRIOR
from app.encoding.detection import FaceChoice
from app.errors import InvalidRequestError
from app.services.catalogue import CollectionPolicy
from app.services.names import (
    COLLECTION_PATTERN,
    DEFAULT_COLLECTION,
    FILTER_KEY_PATTERN,
    IDENTITY_MAX,
    IDENTITY_PATTERN,
    MAX_METADATA_BYTES,
    identity_name,
    metadata_object,
)


def _checked_name(text: str) -> str:
    try:
        return identity_name(text)
    except InvalidRequestError as error:
        raise ValueError(error.problems[0]["problem"]) from None


def _checked_metadata(value: dict[str, Any]) -> dict[str, Any]:
    try:
        return metadata_object(value)
    except InvalidRequestError as error:
        raise ValueError(error.problems[0]["problem"]) from None


IdentityName = Annotated[
    str,
    AfterValidator(_checked_name),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "maxLength": IDENTITY_MAX,
            "pattern": IDENTITY_PATTERN,
        }
    ),
    Field(
        description=f"the caller's name for the subject: 1 to {IDENTITY_MAX} characters of any script; kept "
        "in Unicode's composed form"
    ),
]
CollectionName = Annotated[
    str, Field(pattern=COLLECTION_PATTERN, description="1 to 64 letters, digits, '.', '_' or '-'")
]
ModelId = Annotated[str, Field(min_length=1, max_length=64, description="id of a served model")]
Image = Annotated[
    bytes,
    WithJsonSchema({"type": "string", "format": "byte", "contentEncoding": "base64"}),
    Field(description="JPEG, PNG, WebP, GIF, TIFF or BMP"),
]
Metadata = Annotated[
    dict[str, JsonValue],
    AfterValidator(_checked_metadata),
    Field(description=f"any JSON object up to {MAX_METADATA_BYTES} bytes"),
]
FilterKey = Annotated[str, Field(min_length=1, max_length=64, pattern=FILTER_KEY_PATTERN)]


def _without_zero(value: dict[str, Any]) -> dict[str, Any]:
    if any("\x00" in item for item in value.values() if isinstance(item, str)):
        raise ValueError("a zero character cannot be searched for")
    return value


MetadataFilter = Annotated[
    dict[FilterKey, StrictBool | StrictStr | StrictInt | StrictFloat],
    Field(min_length=1, max_length=16),
    AfterValidator(_checked_metadata),
    AfterValidator(_without_zero),
]
Rate = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Threshold = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]

_FACE = "which face counts when there are several: only (an error), largest, or central"


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EnrollFields(_Fields):
    """Fields of ``POST /enroll``."""

    identity: IdentityName
    image: Image
    collection: CollectionName = DEFAULT_COLLECTION
    metadata: Metadata | None = None
    replace: Annotated[bool, Field(description="replace every photo of an identity that is enrolled")] = False
    add: Annotated[
        bool, Field(description="add a photo to those of an identity that is enrolled, as the policy allows")
    ] = False
    face: Annotated[FaceChoice, Field(description=_FACE)] = "only"

    @model_validator(mode="after")
    def _one_wish(self) -> EnrollFields:
        if self.replace and self.add:
            raise ValueError("send replace or add, not both")
        return self


MAX_BATCH: Final = 100
"""Photos of one batch; their bytes have the limit of every request."""


class BatchItem(_Fields):
    """One photo of ``POST /enroll/batch``."""

    identity: IdentityName
    image: Image
    metadata: Metadata | None = None
    replace: Annotated[bool, Field(description="replace every photo of an identity that is enrolled")] = False
    add: Annotated[
        bool, Field(description="add a photo to those of an identity that is enrolled, as the policy allows")
    ] = False

    @model_validator(mode="after")
    def _one_wish(self) -> BatchItem:
        if self.replace and self.add:
            raise ValueError("send replace or add, not both")
        return self


class _BatchFields(_Fields):
    collection: CollectionName = DEFAULT_COLLECTION
    face: Annotated[FaceChoice, Field(description=_FACE)] = "only"


class BatchFields(_BatchFields):
    """Fields of ``POST /enroll/batch`` in JSON."""

    items: Annotated[
        list[BatchItem], Field(min_length=1, max_length=MAX_BATCH, description="photos to enrol, in order")
    ]


class BatchForm(_BatchFields):
    """The same as a form: the first identity goes with the first image, and so on."""

    identity: Annotated[
        list[IdentityName],
        Field(min_length=1, max_length=MAX_BATCH, description="whom each image shows, in their order"),
    ]
    image: Annotated[
        list[Image], Field(min_length=1, max_length=MAX_BATCH, description="photos to enrol, in order")
    ]
    metadata: Annotated[
        list[Metadata], Field(max_length=MAX_BATCH, description="of each, or left out for all")
    ] = []
    replace: Annotated[bool, Field(description="replace every photo of those that are enrolled")] = False
    add: Annotated[bool, Field(description="add to the photos of those that are enrolled")] = False

    @model_validator(mode="after")
    def _in_step(self) -> BatchForm:
        if len(self.identity) != len(self.image):
            raise ValueError(
                f"identity and image go in pairs, in the same order; got {len(self.identity)} and "
                f"{len(self.image)}"
            )
        if len(self.metadata) not in {0, len(self.image)}:
            raise ValueError(
                f"send metadata for every image or for none; got {len(self.metadata)} for {len(self.image)}"
            )
        if self.replace and self.add:
            raise ValueError("send replace or add, not both")
        return self

    @property
    def items(self) -> list[BatchItem]:
        """What goes together."""
        metadata: Sequence[dict[str, Any] | None] = self.metadata or [None] * len(self.image)
        together = zip(self.identity, self.image, metadata, strict=True)
        return [
            BatchItem(identity=name, image=image, metadata=details, replace=self.replace, add=self.add)
            for name, image, details in together
        ]


class _Criterion(_Fields):
    threshold: Annotated[Threshold | None, Field(description="distance at or below which it is a match")] = (
        None
    )
    operating_point: Annotated[
        Annotated[str, Field(min_length=1, max_length=64)] | None,
        Field(description="name of one of the model's operating points"),
    ] = None

    prior: Annotated[
        Rate,
        Field(
            description="probability, before looking, that the two images show one subject (in a search: "
            "that the image shows somebody enrolled); changes `probability` alone, never the decision"
        ),
    ] = DEFAULT_PRIOR


class VerifyFields(_Criterion):
    """Fields of ``POST /verify``: two images, or one image and an enrolled identity."""

    image_a: Image | None = None
    image_b: Image | None = None
    image: Image | None = None
    identity: IdentityName | None = None
    collection: CollectionName | None = None
    model: ModelId | None = None
    max_fmr: Annotated[Rate | None, Field(description="false match rate that the decision must hold")] = None
    face: Annotated[FaceChoice, Field(description=_FACE)] = "largest"

    @model_validator(mode="after")
    def _two_sides(self) -> VerifyFields:
        given = {n for n in ("image_a", "image_b", "image", "identity") if getattr(self, n) is not None}
        if given not in ({"image_a", "image_b"}, {"image", "identity"}):
            have = ", ".join(sorted(given)) or "none of them"
            raise ValueError(f"send image_a and image_b, or image and identity; got {have}")
        if self.collection is not None and "identity" not in given:
            raise ValueError("collection goes with image and identity")
        return self


class IdentifyFields(_Criterion):
    """Fields of ``POST /identify``."""

    image: Image
    collection: CollectionName = DEFAULT_COLLECTION
    filter: Annotated[
        MetadataFilter | None,
        Field(description="search only identities whose metadata has these values, at its top level"),
    ] = None
    top_k: Annotated[int, Field(ge=1, le=100, description="how many candidates to return")] = 5
    max_fpir: Annotated[
        Rate | None,
        Field(description="false positive identification rate to hold for the gallery as it is"),
    ] = None
    face: Annotated[FaceChoice, Field(description=_FACE)] = "largest"


class EmbedFields(_Fields):
    """Fields of ``POST /embed``."""

    image: Image
    model: ModelId | None = None
    face: Annotated[FaceChoice, Field(description=_FACE)] = "central"


class DetectFields(_Fields):
    """Fields of ``POST /detect``."""

    image: Image
    model: ModelId | None = None


MAX_PROBES: Final = 1000
"""Photos of one calibration; their bytes have the limit of every request."""


class _CalibrationFields(_Fields):
    accept_duplicates: Annotated[
        bool, Field(description="go on although some identities are probably one person")
    ] = False
    face: Annotated[FaceChoice, Field(description=_FACE)] = "largest"


class ProbeFields(_Fields):
    """A photo of an enrolled identity."""

    identity: IdentityName
    image: Image


class CalibrationFields(_CalibrationFields):
    """Fields of ``POST /collections/{name}/evidence`` in JSON."""

    probes: Annotated[
        list[ProbeFields], Field(max_length=MAX_PROBES, description="photos of enrolled identities")
    ] = []


class CalibrationForm(_CalibrationFields):
    """The same as a form: the first identity goes with the first image, and so on."""

    identity: Annotated[
        list[IdentityName], Field(max_length=MAX_PROBES, description="whom each image shows, in their order")
    ] = []
    image: Annotated[
        list[Image], Field(max_length=MAX_PROBES, description="photos of enrolled identities")
    ] = []

    @model_validator(mode="after")
    def _pairs(self) -> CalibrationForm:
        if len(self.identity) != len(self.image):
            raise ValueError(
                f"identity and image go in pairs, in the same order; got {len(self.identity)} and "
                f"{len(self.image)}"
            )
        return self

    @property
    def probes(self) -> list[ProbeFields]:
        """The pairs."""
        pairs = zip(self.identity, self.image, strict=True)
        return [ProbeFields(identity=identity, image=image) for identity, image in pairs]


class CollectionFields(_Fields):
    """Fields of ``POST /collections``."""

    name: CollectionName
    model: ModelId | None = None
    policy: CollectionPolicy = CollectionPolicy()


class CollectionChange(_Fields):
    """Fields of ``PATCH /collections/{name}``."""

    policy: Annotated[CollectionPolicy, Field(description="replaces the policy as a whole")]


class MigrationFields(_Fields):
    """Fields of ``POST /collections/{name}/migration``."""

    model: ModelId


class FinishFields(_Fields):
    """Fields of ``POST /collections/{name}/migration/finish``."""

    drop_pending: Annotated[
        bool, Field(description="delete the identities that would be left without a template")
    ] = False
    abandon: Annotated[bool, Field(description="end it before the switch: the model to come is given up")] = (
        False
    )


class IdentityChange(_Fields):
    """Fields of ``PATCH /identities/{identity}``; at least one."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    identity: Annotated[IdentityName | None, Field(description="new name")] = None
    metadata: Annotated[Metadata | None, Field(description="replaces the metadata as a whole")] = None

    @model_validator(mode="after")
    def _something(self) -> IdentityChange:
        if not self.model_fields_set:
            raise ValueError("give identity, metadata or both")
        return self
