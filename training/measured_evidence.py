"""Measure the trials behind a model's thresholds and write ``evidence.npz``.

All images of all subjects are compared with one another: pairs of one subject are mated trials, pairs of
two subjects non-mated ones. The images pass through the service's own intake, detection and encoder.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.encoding.bulk import embed_files
from app.encoding.image_encoder import ImageEncoder
from app.encoding.intake import IMAGE_SUFFIXES
from app.encoding.manifest import EvidenceSummary
from app.matching.decision import OperatingPoint
from app.matching.evidence import Evidence, evidence_arrays, smallest_fmr
from app.matching.trials import TAIL_SHARE, all_trials

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


def measure_evidence(
    encoder: ImageEncoder, folder: Path, *, progress: Callable[[int], None] = lambda _: None
) -> MeasuredEvidence:
    """Embed every image under a folder and compare all with all.

    Raises:
        ValueError: Fewer than two subjects have an image that can be embedded.
    """
    listed = subject_images(folder)
    embedded = embed_files(encoder, [path for _, path in listed], "central", progress=progress)
    # A subject without a single usable image took part in no trial and is not counted.
    names = np.array([subject for subject, _ in listed])[embedded.ok]
    subjects, numbers = np.unique(names, return_inverse=True)
    if subjects.size < 2:
        raise ValueError(f"only {names.size} images of {subjects.size} subjects in {folder} can be embedded")
    labels = numbers.astype(np.int32)
    evidence = all_trials(embedded.embeddings[embedded.ok], labels, encoder.encoding.metric)
    return MeasuredEvidence(
        evidence,
        source=f"all pairs of {len(labels)} images in {folder.name}",
        images=len(listed),
        failures_to_acquire=int((~embedded.ok).sum()),
    )


def write_evidence(path: Path, measured: MeasuredEvidence) -> None:
    """Write ``evidence.npz`` with what the manifest says about it."""
    arrays = {
        **evidence_arrays(measured.evidence),
        "images": np.array(measured.images, np.int64),
        "failures_to_acquire": np.array(measured.failures_to_acquire, np.int64),
        "source": np.array(measured.source),
    }
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


def subjects_for(fmr: float) -> int:
    """Return how many subjects it takes to support a false match rate.

    >>> subjects_for(1e-1), subjects_for(1e-2), subjects_for(1e-3)
    (9, 25, 78)
    """
    return next(count for count in itertools.count(2) if smallest_fmr(count) <= fmr)


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
