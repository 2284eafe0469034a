"""What can go wrong, in domain words.

Each error carries the facts a caller needs to act on; ``api/error_table.py`` maps the class to an HTTP
status and a stable code, and the command line prints the same message. No message holds image bytes,
templates or keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class VisavisError(Exception):
    """Base of everything the service refuses or fails at, on purpose."""

    code: ClassVar[str] = "internal_error"

    def details(self) -> dict[str, object]:
        """Return machine-readable facts that go beside the message in an answer."""
        return {}


class ImageError(VisavisError):
    """An image that was sent cannot be used. ``field`` is the request field it came in."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field

    def details(self) -> dict[str, object]:
        return {"field": self.field} if self.field else {}


class ImageUnreadableError(ImageError):
    """The bytes are no image in a supported format, or a damaged one."""

    code = "image_unreadable"


class ImageTooLargeError(ImageError):
    """More bytes or more pixels than the limit."""

    code = "image_too_large"


class UnsupportedMediaTypeError(ImageError):
    """A recognised kind of file, but not one the service decodes."""

    code = "unsupported_media_type"


class NoFaceError(ImageError):
    """The detector found no face."""

    code = "no_face"


class MultipleFacesError(ImageError):
    """The request wants exactly one face; the image has several."""

    code = "multiple_faces"

    def __init__(self, boxes: Sequence[dict[str, float]], *, field: str | None = None) -> None:
        super().__init__(
            f"the image has {len(boxes)} faces and exactly one is wanted; crop it, or choose with "
            "face=largest or face=central (--face on the command line)",
            field=field,
        )
        self.boxes = list(boxes)

    def details(self) -> dict[str, object]:
        return {**super().details(), "boxes": self.boxes}


class QualityTooLowError(ImageError):
    """The face is below the collection's floor for enrolment."""

    code = "quality_too_low"

    def __init__(self, shortfalls: Sequence[dict[str, object]], *, field: str | None = None) -> None:
        words = "; ".join(f"{s['measure']} is {s['value']:.3g}, {s['rule']}" for s in shortfalls)
        super().__init__(f"the image is below the quality floor for enrolment: {words}", field=field)
        self.shortfalls = list(shortfalls)

    def details(self) -> dict[str, object]:
        return {**super().details(), "shortfalls": self.shortfalls}


class NotFoundError(VisavisError):
    """Something named in the request does not exist."""

    kind: ClassVar[str]

    def __init__(self, name: str, remedy: str) -> None:
        super().__init__(f"there is no {self.kind} {name!r}; {remedy}")
        self.name = name


class IdentityNotFoundError(NotFoundError):
    """The identity is not enrolled in the collection."""

    code = "identity_not_found"
    kind = "identity"

    def __init__(self, name: str, collection: str) -> None:
        super().__init__(name, f"GET /identities?collection={collection} lists those enrolled")


class CollectionNotFoundError(NotFoundError):
    """The collection does not exist."""

    code = "collection_not_found"
    kind = "collection"

    def __init__(self, name: str) -> None:
        super().__init__(name, "create it with POST /collections; 'default' is made by the first enrolment")


class ModelNotFoundError(NotFoundError):
    """The model is not served by this process."""

    code = "model_not_found"
    kind = "model"

    def __init__(self, name: str, served: Sequence[str]) -> None:
        super().__init__(name, f"served here: {', '.join(served)} (setting VISAVIS_MODELS)")


class ReferenceNotFoundError(NotFoundError):
    """The identity has no such reference."""

    code = "reference_not_found"
    kind = "reference"

    def __init__(self, reference_id: str, identity: str) -> None:
        super().__init__(reference_id, f"GET /identities/{{identity}}/references lists those of {identity!r}")


class OperatingPointNotFoundError(VisavisError):
    """The model has no operating point of that name."""

    code = "invalid_request"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"operating_point {name!r} is unknown; this model has {', '.join(known)}")

    def details(self) -> dict[str, object]:
        return {"field": "operating_point"}


class IdentityExistsError(VisavisError):
    """The identity is already enrolled and the request did not ask to replace it."""

    code = "identity_exists"

    def __init__(self, identity: str, collection: str) -> None:
        super().__init__(
            f"identity {identity!r} is in collection {collection!r} already; choose another name, or enrol "
            "with replace=true (--replace on the command line) to replace its photo, or add=true "
            "(--add) to add one"
        )


class TooManyReferencesError(VisavisError):
    """The identity has as many references as the collection's policy allows."""

    code = "too_many_references"

    def __init__(self, identity: str, collection: str, most: int) -> None:
        super().__init__(
            f"identity {identity!r} has {most} reference{'s' if most > 1 else ''}, the most that collection "
            f"{collection!r} allows; remove one, send replace=true in place of add=true, or raise "
            "max_references in the collection's policy"
        )
        self.most = most

    def details(self) -> dict[str, object]:
        return {"max_references": self.most}


class LastReferenceError(VisavisError):
    """The only reference of an identity cannot be removed by itself."""

    code = "last_reference"

    def __init__(self, identity: str, collection: str) -> None:
        super().__init__(
            f"it is the only reference of identity {identity!r} in collection {collection!r}; delete the "
            "identity, or enrol with replace=true"
        )


class CollectionExistsError(VisavisError):
    """A collection of that name exists."""

    code = "collection_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"collection {name!r} exists already; choose another name or delete it first")


class ModelMismatchError(VisavisError):
    """The collection's templates were made by a model other than the one asked for or served."""

    code = "model_mismatch"

    def __init__(
        self,
        *,
        collection: str,
        bound: str,
        other: str,
        remedy: str = "leave `model` out, or serve the model that made the collection",
    ) -> None:
        super().__init__(
            f"collection {collection!r} holds templates of model {bound}, which cannot be compared with "
            f"{other}; {remedy}"
        )


class ModelNotServedError(VisavisError):
    """The collection keeps templates of a second model that this service cannot make."""

    code = "model_not_served"

    def __init__(self, *, collection: str, model: str) -> None:
        super().__init__(
            f"collection {collection!r} is changing between two models, and {model} is needed for this and "
            "not served here; add it to VISAVIS_MODELS and restart, or send the request to a service that "
            "has both"
        )


class MigrationStateError(VisavisError):
    """A change of model is not where this step of it begins."""

    code = "migration_state"


class IdentitiesPendingError(VisavisError):
    """Some identities have no template of the model that is to stay alone."""

    code = "identities_pending"

    def __init__(self, *, collection: str, pending: int, some: Sequence[str]) -> None:
        names = ", ".join(repr(name) for name in some)
        super().__init__(
            f"{pending} identities of collection {collection!r} have no template of its model yet, such as "
            f"{names}; fill them from photos, or drop them with drop_pending=true (--drop-pending on the "
            "command line)"
        )
        self.pending = pending

    def details(self) -> dict[str, object]:
        return {"pending": self.pending}


class InsufficientEvidenceError(VisavisError):
    """The trials behind the model cannot support the error rate asked for."""

    code = "insufficient_evidence"

    def __init__(self, *, field: str, asked: float, smallest: float, reason: str) -> None:
        super().__init__(
            f"{field}={asked:g} is not supported by the evidence: {reason}; "
            f"the smallest supported is {smallest:.3g}"
        )
        self.field = field
        self.smallest = smallest

    def details(self) -> dict[str, object]:
        return {"field": self.field, "smallest_supported": self.smallest}


class TooFewIdentitiesError(VisavisError):
    """A collection has too few identities to be calibrated on."""

    code = "too_few_identities"

    def __init__(self, *, collection: str, identities: int, needed: int, rate: float) -> None:
        super().__init__(
            f"collection {collection!r} has {identities} identities; to show a false match rate of {rate:g} "
            f"takes {needed}. Enrol more people, or keep to the model's own evidence"
        )
        self.identities = identities
        self.needed = needed

    def details(self) -> dict[str, object]:
        return {"identities": self.identities, "needed": self.needed}


class DuplicatesSuspectedError(VisavisError):
    """Too many identities of a collection are close to each other to be different people.

    ``closest`` names pairs of identities with their distance, nearest first.
    """

    code = "duplicates_suspected"

    def __init__(
        self,
        *,
        collection: str,
        seen: int,
        expected: float,
        threshold: float,
        closest: Sequence[tuple[str, str, float]],
    ) -> None:
        pairs = ", ".join(f"{one!r} and {other!r}" for one, other, _ in closest[:3])
        super().__init__(
            f"{seen} pairs of identities in collection {collection!r} are within {threshold:.4g}, where at "
            f"most {expected:.3g} pairs of different people are expected; some are probably one person, such "
            f"as {pairs}. Look with 'visavis audit --collection {collection}' and delete what is double, or "
            "calibrate with accept_duplicates=true (--accept-duplicates on the command line) if they are not"
        )
        self.seen = seen
        self.expected = expected
        self.threshold = threshold
        self.closest = list(closest)

    def details(self) -> dict[str, object]:
        return {
            "seen": self.seen,
            "expected_at_most": self.expected,
            "threshold": self.threshold,
            "closest": [
                {"identities": [one, other], "distance": distance} for one, other, distance in self.closest
            ],
        }


class InvalidRequestError(VisavisError):
    """A field is missing, malformed, out of range, unknown or given twice."""

    code = "invalid_request"

    def __init__(self, problems: Sequence[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{p['field']}: {p['problem']}" for p in problems))
        self.problems = list(problems)

    def details(self) -> dict[str, object]:
        return {"errors": self.problems}


class IdempotencyKeyReusedError(VisavisError):
    """The Idempotency-Key came with another request before."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "Idempotency-Key: another request was answered under this key; send each request under a key of "
            "its own, and the same one only to repeat it unchanged"
        )

    def details(self) -> dict[str, object]:
        return {"field": "Idempotency-Key"}


class PreconditionFailedError(VisavisError):
    """The identity is not at the revision that the request is meant for.

    ``expected`` is None where any would do; ``found`` is None where the identity is not enrolled.
    """

    code = "precondition_failed"

    def __init__(self, *, identity: str, expected: int | None, found: int | None) -> None:
        wanted = "an enrolled identity" if expected is None else f"revision {expected}"
        state = "is not enrolled" if found is None else f"is at revision {found}"
        super().__init__(
            f"If-Match asks for {wanted}, and identity {identity!r} {state}; read it again, decide anew, and "
            "send the ETag that it has then, or leave If-Match out"
        )
        self.expected = expected
        self.found = found

    def details(self) -> dict[str, object]:
        return {"expected_revision": self.expected, "revision": self.found}


class RevisionNotReachedError(VisavisError):
    """The store that was read is behind the revision that the request asks for."""

    code = "revision_not_reached"

    def __init__(self, *, collection: str, wanted: int, seen: int) -> None:
        super().__init__(
            f"If-Revision asks for revision {wanted} of collection {collection!r}, and this reader has seen "
            f"{seen}; try again, or leave If-Revision out to read the state as it is here"
        )
        self.wanted = wanted
        self.seen = seen

    def details(self) -> dict[str, object]:
        return {"wanted_revision": self.wanted, "revision": self.seen}


class BusyError(VisavisError):
    """Too much is waiting; nothing of this request was done."""

    code = "busy"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OutcomeUnknownError(VisavisError):
    """The connection to the database broke during the commit: the change was made, or it was not."""

    code = "outcome_unknown"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelsChangedError(BusyError):
    """The collection changed its model while a photo was encoded, more than once; nothing was stored."""

    def __init__(self, collection: str) -> None:
        super().__init__(f"collection {collection!r} is changing its model at this moment; try again")


class UnauthorizedError(VisavisError):
    """No API key, or one that is unknown or revoked."""

    code = "unauthorized"


class ForbiddenError(VisavisError):
    """The API key is valid but its role does not allow this."""

    code = "forbidden"


class StartupError(VisavisError):
    """The service cannot start; the message says what to change."""


class BundleError(StartupError):
    """A model bundle is incomplete, altered or contradicts its manifest."""
