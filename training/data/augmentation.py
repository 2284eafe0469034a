"""What can happen to a training image: plain values, read from a recipe; ``augment`` does it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Affine(_Spec):
    """Rotation, zoom, shear and shift about the centre, each drawn evenly from -range..range."""

    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 0.0
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """0.2 scales each axis by 0.8 to 1.2, on its own."""
    shear: Annotated[float, Field(ge=0, le=2)] = 0.0
    shift: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the image's side."""
    each_with: Share = 1.0
    """Probability with which each of the four takes part; Koch has 0.5."""


class Elastic(_Spec):
    """Smooth random displacement (Simard, Steinkraus, Platt, 2003), from a coarse grid of random vectors."""

    amplitude: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Largest displacement as a share of the image's side."""
    grid: Annotated[int, Field(ge=2, le=32)] = 4
    """Vectors a side; more bends finer."""


class Augmentation(_Spec):
    """What happens to a training image; validation and service see none of it."""

    affine: Affine | None = None
    elastic: Elastic | None = None
    flip: bool = False
    """Left to right for every second image."""
    crop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """A window smaller by up to this share of the side is cut out and enlarged again."""
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """1 can take all colour away; needs three channels."""
    blur: Share = 0.0
    """Probability of a 3 x 3 binomial blur."""
    fill: Annotated[int, Field(ge=0, le=255)] = 0
    """Grey value of what comes into view from beyond the image."""
