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
from numpy.typing import NDArray

from app.encoding.bulk import embed_files
from app.encoding.image_encoder import ImageEncoder
from app.encoding.intake import IMAGE_SUFFIXES
from app.encoding.manifest import EvidenceSummary
from app.matching.decision import OperatingPoint
from app.matching.distances import Metric, distances
from app.matching.evidence import Evidence, smallest_fmr

TAIL_SHARE = 0.012
"""Share of the non-mated trials that is kept: enough to read thresholds up to a false match rate of 1e-2."""

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


def all_trials(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int32],
    metric: Metric,
    *,
    closed: bool = False,
    tail_share: float = TAIL_SHARE,
) -> Evidence:
    """Compare every embedding with every later one.

    Args:
        embeddings: float32[N, D].
        labels: int32[N], the subject of each; numbered from 0 without gaps.
        metric: How they are compared.
        closed: The subjects are all there are, as the ten digits are, and no sample of more. Chance then lies
            in the images alone, so the evidence names images where it otherwise names subjects, and its
            bounds count those as independent.
        tail_share: Share of the non-mated trials that is kept.

    Returns:
        All mated trials and the closest ``tail_share`` of the non-mated ones.
    """
    counts = np.bincount(labels)
    total = (labels.size**2 - int(np.square(counts).sum())) // 2
    keep = max(1, int(total * tail_share))
    units = np.arange(labels.size, dtype=np.int32) if closed else labels
    mated, mated_subject = [], []
    tail = np.empty(0, np.float64)
    tail_subjects = np.empty((0, 2), np.int32)
    limit = np.inf
    for row in range(labels.size - 1):
        values = distances(embeddings[row], embeddings[row + 1 :], metric)
        others = labels[row + 1 :]
        same = others == labels[row]
        mated.append(values[same])
        mated_subject.append(np.full(int(same.sum()), units[row], np.int32))
        close = ~same & (values <= limit)
        tail = np.concatenate([tail, values[close]])
        mates = units[row + 1 :][close]
        pairs = np.stack([np.full(mates.size, units[row], np.int32), mates], axis=1)
        tail_subjects = np.concatenate([tail_subjects, pairs])
        if tail.size > 2 * keep:
            nearest = np.argpartition(tail, keep - 1)[:keep]
            tail, tail_subjects = tail[nearest], tail_subjects[nearest]
            limit = float(tail.max())
    nearest = np.argsort(tail, kind="stable")[:keep]
    return Evidence(
        mated_distance=np.concatenate(mated),
        mated_subject=np.concatenate(mated_subject),
        nonmated_distance=tail[nearest],
        nonmated_subjects=tail_subjects[nearest],
        nonmated_total=total,
        subjects=int(labels.size if closed else counts.size),
    )


def write_evidence(path: Path, measured: MeasuredEvidence) -> None:
    """Write ``evidence.npz`` with what the manifest says about it."""
    evidence = measured.evidence
    np.savez_compressed(
        path,
        mated_distance=evidence.mated_distance,
        mated_subject=evidence.mated_subject,
        mated_total=np.int64(evidence.mated_total),
        nonmated_distance=evidence.nonmated_distance,
        nonmated_subjects=evidence.nonmated_subjects,
        nonmated_total=np.int64(evidence.nonmated_total),
        subjects=np.int64(evidence.subjects),
        images=np.int64(measured.images),
        failures_to_acquire=np.int64(measured.failures_to_acquire),
        source=np.array(measured.source),
    )


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
