"""Which threshold a request is decided with, and whose trials say what it means.

A collection may have evidence of its own people (``services.calibration``). It counts where a request asks
for a rate that it supports, or gives a threshold; the model's named operating points and its default keep the
thresholds and rates that the bundle's own trials gave them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from app.encoding.model import Model
from app.errors import InsufficientEvidenceError, InvalidRequestError, OperatingPointNotFoundError
from app.matching.decision import OperatingPoint
from app.matching.evidence import Evidence
from app.services.own_evidence import OwnEvidence

_NAMED: Final = (
    "the collection has evidence of its own; named operating points and the default are the model's. Ask for "
    "a rate to decide with the collection's"
)


@dataclass(frozen=True, eq=False)
class Basis:
    """The trials that a decision's rates come from.

    Attributes:
        evidence: The trials.
        source: Whose: the model bundle's, or the collection's own.
        description: One line: data and how the trials were formed.
        subjects: How many people.
        mated: Mated trials.
        nonmated: Non-mated trials.
        measured_at: When; None for the bundle's.
        revision: The collection's, whose references were compared; None for the bundle's.
        note: Why the collection's own trials were not taken; None where there are none, or they were.
    """

    evidence: Evidence
    source: Literal["bundle", "deployment"]
    description: str
    subjects: int
    mated: int
    nonmated: int
    measured_at: datetime | None = None
    revision: int | None = None
    note: str | None = None


@dataclass(frozen=True, eq=False)
class Decision:
    """A threshold, its rates, and the trials they come from."""

    point: OperatingPoint
    basis: Basis


@dataclass(frozen=True)
class Criterion:
    """How the caller wants to decide; at most one field is set, and none means the model's default."""

    max_fmr: float | None = None
    max_fpir: float | None = None
    threshold: float | None = None
    operating_point: str | None = None

    def __post_init__(self) -> None:
        """Refuse two wishes at once."""
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) > 1:
            raise InvalidRequestError(
                [{"field": name, "problem": "give at most one of " + ", ".join(given)} for name in given]
            )

    def decide(self, model: Model, own: OwnEvidence | None = None, *, gallery_size: int = 1) -> Decision:
        """Return the threshold for a gallery of a size (1 for a verification).

        With a size of 1 it also refuses, before any work, what no evidence supports whatever the gallery.

        Args:
            model: What the embeddings are of.
            own: The collection's own evidence, if there is a collection and it has any.
            gallery_size: References that are searched.

        Raises:
            InsufficientEvidenceError: Neither evidence can show the rate; it names the smallest that one can.
            OperatingPointNotFoundError: The model has none of that name.
        """
        if self.max_fmr is None and self.max_fpir is None and self.threshold is None:
            has_own = own is not None and own.evidence is not None
            return Decision(self._named(model), bundle_basis(model, _NAMED if has_own else None))
        if own is None or own.evidence is None:
            note = None if own is None else f"the collection's own evidence cannot be used: {own.problem}"
            return Decision(self._asked(model.evidence, gallery_size), bundle_basis(model, note))
        try:
            return Decision(self._asked(own.evidence, gallery_size), own_basis(own, own.evidence))
        except InsufficientEvidenceError as error:
            refused = error
        try:
            point = self._asked(model.evidence, gallery_size)
        except InsufficientEvidenceError as error:
            raise min(refused, error, key=lambda one: one.smallest) from None
        return Decision(point, bundle_basis(model, f"the collection's own evidence: {refused}"))

    def _asked(self, evidence: Evidence, gallery_size: int) -> OperatingPoint:
        if self.max_fmr is not None:
            return evidence.point_for_fmr(self.max_fmr)
        if self.max_fpir is not None:
            return evidence.point_for_fpir(self.max_fpir, gallery_size)
        assert self.threshold is not None  # noqa: S101 - the caller looked
        return evidence.point_at(self.threshold)

    def _named(self, model: Model) -> OperatingPoint:
        if self.operating_point is None:
            return model.manifest.default_point
        point = model.manifest.operating_point(self.operating_point)
        if point is None:
            known = [str(p.name) for p in model.manifest.operating_points]
            raise OperatingPointNotFoundError(self.operating_point, known)
        return point


def bundle_basis(model: Model, note: str | None = None) -> Basis:
    """Return the trials of a model's bundle."""
    summary = model.manifest.evidence
    return Basis(
        evidence=model.evidence,
        source="bundle",
        description=summary.source,
        subjects=summary.subjects,
        mated=summary.mated,
        nonmated=summary.nonmated,
        note=note,
    )


def own_basis(own: OwnEvidence, trials: Evidence) -> Basis:
    """Return a collection's own trials."""
    return Basis(
        evidence=trials,
        source="deployment",
        description=own.description,
        subjects=trials.subjects,
        mated=trials.mated_total,
        nonmated=trials.nonmated_total,
        measured_at=own.measured_at,
        revision=own.revision,
    )
