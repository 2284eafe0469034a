"""What was measured for a bundle's thresholds: written to ``evidence.npz``, summed up for the manifest.

The file holds the trials (``app.matching.evidence``) and, as JSON text, the results that were measured with
them (``training.measurement``), so that manifest and card follow from it alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from app.encoding.intake import IMAGE_SUFFIXES
from app.encoding.manifest import EvidenceSummary
from app.matching.decision import OperatingPoint
from app.matching.evidence import Evidence, evidence_arrays, smallest_fmr
from app.matching.trials import TAIL_SHARE

TARGETS = {"fmr-1e-2": 1e-2, "fmr-1e-3": 1e-3, "fmr-1e-4": 1e-4}
"""Operating points that every bundle gets where its evidence supports them."""

FALLBACK = {"fmr-1e-1": 1e-1}
"""What a bundle gets whose evidence supports none of them: a few dozen subjects of one's own are enough to
try things out, and the name says how little is promised."""

FALLBACK_TAIL_SHARE = 0.12


@dataclass(frozen=True)
class MeasuredEvidence:
    """Evidence with where it came from."""

    evidence: Evidence
    source: str
    images: int
    failures_to_acquire: int
    results: Mapping[str, JsonValue] = field(default_factory=dict)
    """What else was measured on the same images; see ``training.measurement``."""


def subject_images(folder: Path) -> list[tuple[str, Path]]:
    """List ``<subject>/<image>`` files as (subject, path), sorted.

    Raises:
        ValueError: Fewer than two subjects have images.
    """
    found = [
        (path.parent.name, path)
        for path in sorted(folder.glob("*/*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if len({subject for subject, _ in found}) < 2:
        raise ValueError(f"{folder} does not hold images of two subjects as <subject>/<image>")
    return found


def write_evidence(path: Path, measured: MeasuredEvidence) -> None:
    """Write ``evidence.npz`` with what the manifest says about it."""
    arrays = {
        **evidence_arrays(measured.evidence),
        "images": np.array(measured.images, np.int64),
        "failures_to_acquire": np.array(measured.failures_to_acquire, np.int64),
        "source": np.array(measured.source),
    }
    if measured.results:
        arrays["results"] = np.array(json.dumps(measured.results))
    np.savez_compressed(path, allow_pickle=False, **arrays)


def evidence_summary(path: Path) -> EvidenceSummary:
    """Return the manifest's section about an evidence file."""
    with np.load(path, allow_pickle=False) as arrays:
        return EvidenceSummary(
            file=path.name,
            source=str(arrays["source"]),
            subjects=int(arrays["subjects"]),
            images=int(arrays["images"]),
            failures_to_acquire=int(arrays["failures_to_acquire"]),
            mated=int(arrays["mated_total"]),
            nonmated=int(arrays["nonmated_total"]),
        )


def summary_of(measured: MeasuredEvidence, file: str = "evidence.npz") -> EvidenceSummary:
    """Return the manifest's section about evidence that is not written yet."""
    return EvidenceSummary(
        file=file,
        source=measured.source,
        subjects=measured.evidence.subjects,
        images=measured.images,
        failures_to_acquire=measured.failures_to_acquire,
        mated=measured.evidence.mated_total,
        nonmated=measured.evidence.nonmated_total,
    )


def evidence_results(path: Path) -> dict[str, JsonValue]:
    """Return the results that an evidence file holds; none where it was written without."""
    with np.load(path, allow_pickle=False) as arrays:
        results = json.loads(str(arrays["results"])) if "results" in arrays else {}
    assert isinstance(results, dict)  # noqa: S101 - as written above
    return results


def tail_share_for(subjects: int) -> float:
    """Return the share of the non-mated trials to keep for the operating points so many subjects get."""
    return TAIL_SHARE if smallest_fmr(subjects) <= max(TARGETS.values()) else FALLBACK_TAIL_SHARE


def operating_points(evidence: Evidence) -> tuple[OperatingPoint, ...]:
    """Return the named operating points that the evidence supports, laxest first.

    Raises:
        ValueError: It supports none, not even the fallback.
    """

    def supported(targets: Mapping[str, float]) -> tuple[OperatingPoint, ...]:
        return tuple(
            evidence.point_for_fmr(target, name=name)
            for name, target in targets.items()
            if target >= evidence.smallest_fmr
        )

    points = supported(TARGETS) or supported(FALLBACK)
    if not points:
        raise ValueError(
            f"the evidence supports no rate below {evidence.smallest_fmr:.3g}: measure more subjects"
        )
    return points


def default_point(evidence: Evidence) -> OperatingPoint:
    """Return the operating point a bundle decides with by default: ``fmr-1e-3``, or the strictest laxer
    one.

    Raises:
        ValueError: The evidence supports none.
    """
    points = operating_points(evidence)
    return next((point for point in points if point.name == "fmr-1e-3"), points[-1])
