"""Which threshold a request is decided with."""

from __future__ import annotations

from dataclasses import dataclass

from app.encoding.model import Model
from app.errors import InvalidRequestError, OperatingPointNotFoundError
from app.matching.decision import OperatingPoint


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

    def check(self, model: Model) -> None:
        """Refuse, before any work, what the model's evidence cannot support whatever the gallery.

        Raises:
            InsufficientEvidenceError: The rate is below what the trials can show.
            OperatingPointNotFoundError: The model has none of that name.
        """
        self.point(model, gallery_size=1)

    def point(self, model: Model, *, gallery_size: int) -> OperatingPoint:
        """Return the operating point for a gallery of a size (1 for a verification).

        Raises:
            InsufficientEvidenceError: The rate is below what the trials can show.
            OperatingPointNotFoundError: The model has none of that name.
        """
        if self.max_fmr is not None:
            return model.evidence.point_for_fmr(self.max_fmr)
        if self.max_fpir is not None:
            return model.evidence.point_for_fpir(self.max_fpir, gallery_size)
        if self.threshold is not None:
            return model.evidence.point_at(self.threshold)
        if self.operating_point is not None:
            point = model.manifest.operating_point(self.operating_point)
            if point is None:
                known = [str(p.name) for p in model.manifest.operating_points]
                raise OperatingPointNotFoundError(self.operating_point, known)
            return point
        return model.manifest.default_point
