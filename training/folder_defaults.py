"""Settings for somebody's own ``<subject>/<image>`` folder, chosen by a look at what it holds.

A look is cheap: names are counted, and a few files are opened. What it decides is written into the run's
configuration, so the run is as reproducible as one of a recipe that says all of it. ``--set`` changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.encoding.intake import decode_image
from app.errors import ImageError
from app.matching.evidence import subjects_for
from training.config import FolderData, PKBatches, Residual, RunConfig
from training.data.errors import DataError
from training.data.folders import files_by_subject
from training.data.parts import (
    LEAST_CALIBRATED,
    LEAST_SUBJECTS,
    LEAST_TESTED,
    LEAST_VALIDATION,
    WHY_SO_MANY,
)
from training.data.preparing import LIMITS
from training.measured_evidence import TARGETS

OPENED: Final = 120
"""Files that are opened, evenly spread over the folder."""

SIDE, DRAWING_SIDE, LEAST_SIDE = 64, 48, 24
"""Longer side of the input in pixels: of photos, of drawings, of tiny images at least."""

BATCH: Final = 64
VIEWS: Final = 40
"""How often each training image is seen; small folders see theirs more often, up to ``LEAST_STEPS``."""
LEAST_STEPS, MOST_STEPS = 600, 6000
EPOCHS: Final = 8
"""Validations a run."""


@dataclass(frozen=True)
class Survey:
    """What a folder holds, as far as names and a few opened files tell.

    Attributes:
        subjects: With two image files or more.
        images: Of those subjects.
        width: Median, in pixels.
        height: Median, in pixels.
        same_shape: All opened images have about the same proportions.
        colour: More than a few of the opened images have colour.
        drawing: Nearly all are strokes on an even ground, black or white.
        ground: Grey value at the borders, median.
    """

    subjects: int
    images: int
    width: int
    height: int
    same_shape: bool
    colour: bool
    drawing: bool
    ground: int


def survey(folder: Path, *, leave_out: Sequence[str] = ()) -> Survey:
    """Look at a folder.

    Raises:
        MissingDataError: It is not there.
        DataError: It is laid out otherwise, has too few subjects, or none of the opened files is an image.
    """
    by_subject = {
        subject: files for subject, files in files_by_subject(folder).items() if subject not in leave_out
    }
    several = [files for files in by_subject.values() if len(files) > 1]
    if len(several) < LEAST_SUBJECTS:
        raise DataError(
            f"{folder} has {len(several)} subjects with two images or more; at least {LEAST_SUBJECTS} are "
            f"needed: {WHY_SO_MANY}"
        )
    files = [name for names in several for name in names]
    opened, reasons = [], []
    for name in files[:: -(-len(files) // OPENED)]:
        try:
            opened.append(_look(np.asarray(decode_image((folder / name).read_bytes(), LIMITS), np.int16)))
        except (ImageError, OSError) as error:
            reasons.append(f"{name}: {error}")
    if not opened:
        raise DataError(f"{folder}: none of {len(reasons)} files tried can be read: {'; '.join(reasons[:5])}")
    proportions = np.array([look.width / look.height for look in opened])
    drawings = np.mean([look.drawing for look in opened])
    colour = bool(np.mean([look.colour for look in opened]) > 0.05)
    return Survey(
        subjects=len(several),
        images=len(files),
        width=int(np.median([look.width for look in opened])),
        height=int(np.median([look.height for look in opened])),
        same_shape=bool(np.abs(proportions / np.median(proportions) - 1.0).max() < 0.05),
        colour=colour,
        drawing=bool(drawings > 0.9) and not colour,
        ground=int(np.median([look.ground for look in opened])),
    )


def folder_defaults(found: Survey) -> dict[str, Any]:
    """Return settings by dotted name, for ``load_recipe``."""
    validation, calibration, test = part_sizes(found.subjects)
    trained = found.subjects - validation - calibration - test
    each = found.images / found.subjects
    # Fewer than there are: some may turn out to be unusable once every file is opened.
    subjects = min(9 * trained // 10, BATCH)
    steps = int(np.clip(VIEWS * trained * each / BATCH, LEAST_STEPS, MOST_STEPS))
    steps = 100 * round(steps / 100)
    height, width = input_size(found)
    if found.same_shape:
        how: dict[str, Any] = {"mode": "fit"}
    else:
        how = {"mode": "pad", "background": found.ground}
    return {
        "data.input": {"height": height, "width": width, "channels": 3 if found.colour else 1},
        "data.preprocess": how,
        "data.validation": validation / found.subjects,
        "data.calibration": calibration / found.subjects,
        "data.test": test / found.subjects,
        "encoder.ink": found.drawing,
        "batches.subjects": subjects,
        "batches.samples": max(1, round(BATCH / subjects)),
        "augmentation": augmentation(found),
        "loop.steps": steps,
        "loop.epoch": max(1, steps // EPOCHS),
        "optimiser.warmup_steps": steps // 20,
    }


def in_words(config: RunConfig) -> str:
    """Return the main choices of a run in one line."""
    assert isinstance(config.data, FolderData)  # noqa: S101 - the caller looked
    size, batch = config.data.input, config.batches
    drawing = isinstance(config.encoder, Residual) and config.encoder.ink
    parts = "batches of pairs"
    if isinstance(batch, PKBatches):
        parts = f"batches of {batch.subjects} subjects x {batch.samples}"
    return (
        f"input {size.width} x {size.height} {'colour' if size.channels > 1 else 'grey'}"
        f"{', drawings' if drawing else ''}; {parts}; {config.loop.steps} steps"
    )


def part_sizes(subjects: int) -> tuple[int, int, int]:
    """Return how many subjects validate, calibrate and test; the rest, at least two in five, is trained on.

    The thresholds get as many as the next stricter operating point takes, where that leaves enough to train
    on: half of what a fifth of the subjects would not reach is no use to them.
    """
    calibration = max(LEAST_CALIBRATED, subjects // 5)
    for needed in sorted(subjects_for(target) for target in TARGETS.values()):
        if calibration < needed <= subjects // 4:
            calibration = needed
    return max(LEAST_VALIDATION, subjects // 10), calibration, max(LEAST_TESTED, subjects // 5)


def input_size(found: Survey) -> tuple[int, int]:
    """Return height and width in the folder's proportions, multiples of 8; tiny images are not enlarged."""
    longer, proportion = max(found.width, found.height), found.width / found.height
    side = min(DRAWING_SIDE if found.drawing else SIDE, max(LEAST_SIDE, 8 * -(-longer // 8)))
    sides = (side / max(1.0, proportion), side * min(1.0, proportion))
    height, width = (max(LEAST_SIDE, 8 * round(value / 8)) for value in sides)
    return height, width


def augmentation(found: Survey) -> dict[str, Any]:
    """Return what may happen to such images without making others of them: never a mirror image."""
    if found.drawing:
        return {
            "fill": found.ground,
            "affine": {"rotation_deg": 12, "zoom": 0.15, "shear": 0.2, "shift": 0.06},
            "elastic": {"amplitude": 0.03, "grid": 4},
        }
    return {
        "fill": found.ground,
        "affine": {"rotation_deg": 8, "zoom": 0.1, "shift": 0.06},
        "brightness": 0.15,
        "contrast": 0.2,
    }


@dataclass(frozen=True)
class _Look:
    width: int
    height: int
    colour: bool
    drawing: bool
    ground: int


def _look(pixels: NDArray[np.int16]) -> _Look:
    """Return what int16[H, W, 3] of one image tells."""
    grey = pixels.mean(axis=2)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = float(np.median(border))
    even = float(np.mean(np.abs(grey - ground) < 40))
    spread = float((pixels.max(axis=2) - pixels.min(axis=2)).mean())
    return _Look(
        width=pixels.shape[1],
        height=pixels.shape[0],
        colour=spread > 8,
        drawing=even > 0.5 and not 40 <= ground <= 215,
        ground=round(ground),
    )
