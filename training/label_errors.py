"""Find photos and subjects of a data set that are likely labelled wrongly.

The rule is that of the gallery audit (``app.matching.audit``), on the set's own trials: two subject numbers
are one person, or an image is another subject's, when their typical distance is smaller than chance makes it
between different people in a set of this size. It looks at medians of many image pairs and at how fast the
closest distances thin out, not at the error rates that leaving the findings out will change. Beside it stand
photos under two subject numbers that are the same file, or nearly: those as close as only one in a thousand
pairs of one subject's photos is, where chance would not make one such pair in twenty sets.

An image that is merely far from its own subject's others is listed but is no error here: it may be somebody
else or a hard photo of the right person, and leaving it out would take errors of the model for errors of
the labels. For the same reason the rule is for photos of people, or of other things that do not look alike by
nature: two letters of two alphabets may well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.matching.audit import Audit, AuditResult
from app.matching.decision import OperatingPoint
from app.matching.distances import Metric, distances
from app.matching.evidence import Evidence

_COPY_QUANTILE: Final = 1e-3
"""Share of the mated trials that are as close as a near copy."""
_CHANCE_COPIES: Final = 0.05
"""Pairs of images of two subjects expected so close by chance."""


@dataclass(frozen=True)
class Copy:
    """One photo under two subject numbers.

    Attributes:
        first: Its row.
        second: The other's, larger.
        distance: Between their embeddings.
        same_bytes: Whether the files are equal, or only the photos nearly.
    """

    first: int
    second: int
    distance: float
    same_bytes: bool


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """Likely label errors.

    Attributes:
        audit: Subjects that are one person (``groups``) and images of somebody else (``swapped``).
        copies: Photos under two subjects that are not one person by the audit.
        kept: bool[N], images that are not likely labelled wrongly.
        labels: int32[N], subjects with those that are one person taken as one, numbered from 0 without gaps
            among the images kept; -1 for images left out.
        repeated: Files that occur more than once under one subject. No label errors: they are counted only.
    """

    audit: AuditResult
    copies: tuple[Copy, ...]
    kept: NDArray[np.bool_]
    labels: NDArray[np.int32]
    repeated: int

    @property
    def any(self) -> bool:
        """Whether something was found."""
        return bool(self.audit.groups) or not bool(self.kept.all())

    def counts(self) -> dict[str, int]:
        """Return how many of each kind there are."""
        return {
            "subjects_taken_as_one": sum(len(group) for group in self.audit.groups),
            "images_of_another_subject": len(self.audit.swapped),
            "copies_under_two_subjects": len(self.copies),
            "images_left_out": int((~self.kept).sum()),
        }

    def as_json(self, images: Sequence[str], subjects: Sequence[str]) -> dict[str, Any]:
        """Return every finding by name.

        Args:
            images: N names.
            subjects: By label.
        """
        likely = [pair for pair in self.audit.duplicates if pair.likely]
        return {
            **self.counts(),
            "repeated_under_one_subject": self.repeated,
            "left_out": [images[row] for row in np.flatnonzero(~self.kept).tolist()],
            "one_subject": [
                {
                    "subjects": [subjects[pair.first], subjects[pair.second]],
                    "distance": pair.distance,
                    "expected_by_chance": pair.expected,
                }
                for pair in likely
            ],
            "another_subject": [
                {
                    "image": images[one.image],
                    "looks_like": subjects[one.nearest],
                    "distance_to_own": one.own_distance,
                    "distance": one.distance,
                    "chance": one.chance,
                }
                for one in self.audit.swapped
            ],
            "copies": [
                {
                    "images": [images[copy.first], images[copy.second]],
                    "distance": copy.distance,
                    "same_bytes": copy.same_bytes,
                }
                for copy in self.copies
            ],
            "far_from_their_own_and_not_left_out": [
                {"image": images[one.image], "distance_to_own": one.own_distance}
                for one in self.audit.strangers
            ],
        }


def find_label_errors(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int32],
    metric: Metric,
    evidence: Evidence,
    points: Sequence[OperatingPoint],
    *,
    default: str,
    digests: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> LabelErrors:
    """Find subjects that are one person, images of somebody else, and photos under two subjects.

    Args:
        embeddings: float32[N, D].
        labels: int32[N], the subject of each; numbered from 0 without gaps.
        metric: How they are compared.
        evidence: All trials of these images.
        points: Its operating points.
        default: Name of the one above which an image does not match its own subject.
        digests: N digests of the files' bytes; empty where there are no files.
        progress: Called with 1 when the audit is done, and again when all is.
    """
    audit = Audit(embeddings, labels, metric, evidence, points, default=default).run()
    progress(1)
    person = np.arange(int(labels.max()) + 1)
    for group in audit.groups:
        person[list(group)] = group[0]
    merged = person[labels]
    same = _same_bytes(digests)
    copies = {
        (first, second): Copy(first, second, distance, same_bytes)
        for first, second, distance, same_bytes in _near_copies(
            embeddings, labels, metric, evidence, audit, same
        )
        if merged[first] != merged[second]
    }
    # Of a photo under two subjects, whichever does not match its own others goes; else nobody can say.
    threshold = next(point.threshold for point in points if point.name == default)
    kept = np.ones(labels.size, np.bool_)
    kept[[one.image for one in audit.swapped]] = False
    for first, second in copies:
        foreign = [row for row in (first, second) if _own(embeddings, labels, metric, row) > threshold]
        kept[foreign or [first, second]] = False
    numbered = np.full(labels.size, -1, np.int32)
    numbered[kept] = np.unique(merged[kept], return_inverse=True)[1]
    progress(1)
    return LabelErrors(
        audit,
        tuple(copies[pair] for pair in sorted(copies)),
        kept,
        numbered,
        repeated=sum(int(labels[first] == labels[second]) for first, second in same),
    )


def _same_bytes(digests: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of rows of equal files."""
    rows = defaultdict(list)
    for row, digest in enumerate(digests):
        if digest:
            rows[digest].append(row)
    return [
        (first, second)
        for equal in rows.values()
        for place, first in enumerate(equal)
        for second in equal[place + 1 :]
    ]


def _near_copies(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int32],
    metric: Metric,
    evidence: Evidence,
    audit: AuditResult,
    same: list[tuple[int, int]],
) -> list[tuple[int, int, float, bool]]:
    """Return rows, distance, and whether the bytes are equal, of one photo under two labels."""
    found = {(a, b): True for a, b in same if labels[a] != labels[b]}
    near = 0.0
    if evidence.mated_total:
        place = int(evidence.mated_total * _COPY_QUANTILE)
        near = float(evidence.mated_distance[place])
    near = min(near, audit.chance.distance_for(_CHANCE_COPIES / max(1, audit.compared)))
    # The tail names subjects only, so the images of a close trial are looked up among theirs.
    close = evidence.nonmated_subjects[: int(np.searchsorted(evidence.nonmated_distance, near, "right"))]
    for one, other in np.unique(np.sort(close, axis=1), axis=0).tolist():
        theirs = np.flatnonzero(labels == other)
        for row in np.flatnonzero(labels == one).tolist():
            apart = distances(embeddings[row], embeddings[theirs], metric)
            for match in theirs[apart <= near].tolist():
                found.setdefault((min(row, match), max(row, match)), False)
    return [
        (a, b, float(distances(embeddings[a], embeddings[b : b + 1], metric)[0]), same_bytes)
        for (a, b), same_bytes in found.items()
    ]


def _own(embeddings: NDArray[np.float32], labels: NDArray[np.int32], metric: Metric, row: int) -> float:
    """Return the typical distance of an image to its subject's others; -inf where there is none."""
    others = np.flatnonzero(labels == labels[row])
    others = others[others != row]
    if not others.size:
        return -np.inf
    return float(np.median(distances(embeddings[row], embeddings[others], metric)))
