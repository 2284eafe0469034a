"""Measure a model on labelled images: the trials behind its thresholds, and what else a card should say.

The thresholds come from the trials with all labels as they are. Beside them stand the same figures without
the likely label errors (``training.label_errors``), the thresholds for searches of galleries, and how far
probabilities hold on people that they were not fitted on (``training.evaluation.calibration_error``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from app.errors import InsufficientEvidenceError
from app.matching.cohorts import CohortReport, cohort_report, count_tail, count_trials, labelled
from app.matching.decision import OperatingPoint
from app.matching.evidence import Evidence
from training.evaluation.calibration_error import SEEDS, HeldOutError, held_out_error
from training.label_errors import LabelErrors, find_label_errors
from training.measured_evidence import MeasuredEvidence, default_point, operating_points
from training.trial_sets import TrialSet

MAX_FPIR: Final = (0.1, 0.01)
GALLERIES: Final = (10, 100, 1000, 10_000)

STEPS: Final = 3 + 2 * len(SEEDS)
"""What ``progress`` adds up to, roughly: parts of the work."""

_RATES: Final = ("fmr", "fmr_upper95", "fnmr", "fnmr_lower95", "fnmr_upper95")


@dataclass(frozen=True, eq=False)
class Measurement:
    """Everything measured on a set of images.

    Attributes:
        measured: The evidence with its results as they go into the bundle.
        points: Its operating points, laxest first.
        default: The one to decide with by default.
        errors: Likely label errors; None where they were not looked for.
        corrected: The evidence without them; None where there are none.
        held_out: Calibration errors; None with too few subjects.
    """

    measured: MeasuredEvidence
    points: tuple[OperatingPoint, ...]
    default: OperatingPoint
    errors: LabelErrors | None
    corrected: Evidence | None
    held_out: HeldOutError | None


def measure(
    trials: TrialSet,
    source: str,
    *,
    look_for_label_errors: bool = True,
    cohorts: Mapping[str, str] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Measurement:
    """Measure a set of trials.

    Args:
        trials: The images and which of them are compared.
        source: One line for the manifest: which images, which trials.
        look_for_label_errors: False where subjects look alike by nature, as letters do. Never done where
            the subjects are all there are.
        cohorts: Cohort by subject's name, for rates by cohort; None leaves them out.
        progress: Called with 1 after each part of the work, ``STEPS`` at most.

    Raises:
        ValueError: There are no two subjects to compare, or the trials support no operating point.
    """
    evidence = trials.evidence()
    points, default = operating_points(evidence), default_point(evidence)
    progress(1)
    errors = None
    if look_for_label_errors and not trials.closed:
        errors = _label_errors(trials, evidence)
    progress(1)
    corrected = None
    if errors is not None and errors.any:
        corrected = trials.evidence(errors.labels)
    progress(1)
    held_out = held_out_error(trials.among, trials.units, progress=progress)
    results: dict[str, Any] = {
        "failures_to_acquire": dict(sorted(trials.photos.failures.items())),
        "operating_points": [_point(point, corrected) for point in points],
    }
    if errors is not None:
        results["label_errors"] = errors.counts()
    if corrected is not None:
        results["label_errors"]["subjects_without"] = corrected.subjects
    if not trials.closed:
        results["galleries"] = {
            f"{max_fpir:g}": {str(size): gallery_point(evidence, max_fpir, size) for size in GALLERIES}
            for max_fpir in MAX_FPIR
        }
    if held_out is not None:
        results["probability"] = held_out.as_json()
    if cohorts is not None:
        results["cohorts"] = _by_cohort(trials, evidence, default, cohorts).as_json()
    measured = MeasuredEvidence(
        evidence,
        source=source,
        images=trials.photos.listed,
        failures_to_acquire=trials.photos.listed - trials.photos.labels.size,
        results=results,
    )
    return Measurement(measured, points, default, errors, corrected, held_out)


def gallery_point(evidence: Evidence, max_fpir: float, size: int) -> dict[str, Any]:
    """Return the threshold that holds a false positive identification rate, or what can be held instead."""
    try:
        point = evidence.point_for_fpir(max_fpir, size)
    except InsufficientEvidenceError as error:
        return {"supported": False, "smallest_supported": error.details()["smallest_supported"]}
    rate = evidence.fpir(point.threshold, size)
    fpir, upper = (None, None) if rate is None else rate
    return {
        "supported": True,
        "threshold": point.threshold,
        "fpir": fpir,
        "fpir_upper95": upper,
        "fnmr": point.fnmr,
    }


def _label_errors(trials: TrialSet, evidence: Evidence) -> LabelErrors:
    """Look for label errors among all pairs of the images, whichever of them are trials."""
    photos = trials.photos
    if trials.pairs is not None:
        evidence = TrialSet(photos, trials.metric, seed=trials.seed).evidence()
    # However few subjects a list names, the images of all pairs support a point at least as strict.
    return find_label_errors(
        photos.embeddings,
        photos.labels,
        trials.metric,
        evidence,
        operating_points(evidence),
        default=default_point(evidence).name or "",
        digests=photos.digests,
    )


def _point(point: OperatingPoint, corrected: Evidence | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": point.name,
        "max_fmr": point.max_fmr,
        "threshold": point.threshold,
        **_rates(point),
    }
    if corrected is not None:
        without: dict[str, Any] = {"same_threshold": _rates(corrected.point_at(point.threshold))}
        try:
            own = corrected.point_for_fmr(point.max_fmr or 1.0)
            without |= {"threshold": own.threshold, **_rates(own)}
        except InsufficientEvidenceError:
            without["threshold"] = None
        found["without_label_errors"] = without
    return found


def _rates(point: OperatingPoint) -> dict[str, float | None]:
    return {name: getattr(point, name) for name in _RATES}


def _by_cohort(
    trials: TrialSet, evidence: Evidence, default: OperatingPoint, cohorts: Mapping[str, str]
) -> CohortReport:
    threshold = default.threshold
    photos = trials.photos
    if trials.pairs is None:
        counts = count_tail(
            mated_distance=evidence.mated_distance,
            mated_subject=evidence.mated_subject,
            closest_distance=evidence.nonmated_distance,
            closest_subjects=evidence.nonmated_subjects,
            images=trials.images_compared(),
            threshold=threshold,
        )
        names = photos.subjects
    else:
        counts = count_trials(
            mated_distance=evidence.mated_distance,
            mated_subject=evidence.mated_subject,
            nonmated_distance=evidence.nonmated_distance,
            nonmated_subjects=evidence.nonmated_subjects,
            subjects=evidence.subjects,
            threshold=threshold,
        )
        names = tuple(photos.subjects[label] for label in np.unique(photos.labels[trials.pairs]))
    return cohort_report(
        counts, labelled(names, cohorts), threshold=threshold, asked_fmr=default.max_fmr or 1.0
    )
