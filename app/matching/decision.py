"""The one decision rule, and the named thresholds it is applied with."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class OperatingPoint(BaseModel):
    """A threshold with the error rate it stands for and what was measured there.

    Rates are proportions. ``fmr_upper95`` is a 95 % upper confidence bound that treats subjects, not
    pairs, as the independent units (see ``matching.bounds``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None
    """None when the caller gave a threshold or a rate of its own."""
    threshold: float
    """In the unit of the model's metric."""
    max_fmr: Annotated[float | None, Field(gt=0, lt=1)] = None
    """False match rate asked for."""
    max_fpir: Annotated[float | None, Field(gt=0, lt=1)] = None
    """False positive identification rate asked for, in a search of the gallery as it is."""
    fmr: Annotated[float | None, Field(ge=0, le=1)] = None
    """Share of non-mated trials at or below the threshold; None where the evidence does not reach."""
    fmr_upper95: Annotated[float | None, Field(ge=0, le=1)] = None
    fnmr: Annotated[float | None, Field(ge=0, le=1)] = None
    """Share of mated trials above the threshold."""
    fnmr_lower95: Annotated[float | None, Field(ge=0, le=1)] = None
    """Ends of a two-sided 95 % interval of it, over subjects."""
    fnmr_upper95: Annotated[float | None, Field(ge=0, le=1)] = None


def is_match(distance: float, threshold: float) -> bool:
    """Return the decision: a match when the distance is at most the threshold, everywhere."""
    return distance <= threshold
