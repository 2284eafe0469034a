"""Labelled embeddings, and which pairs of them are trials: all pairs, or those that a list names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.matching.distances import Metric, distances
from app.matching.evidence import Evidence
from app.matching.trials import LARGEST_TOTAL, all_trials
from training.measured_evidence import tail_share_for


@dataclass(frozen=True, eq=False)
class Photos:
    """Images that could be embedded, with whom they show.

    Attributes:
        embeddings: float32[N, D].
        labels: int32[N], the subject of each; numbered from 0 without gaps.
        subjects: Their names, by label.
        names: N names of images.
        digests: N digests of the files' bytes; empty where the images are no files.
        failures: Images that could not be embedded, by the code of the reason.
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int32]
    subjects: tuple[str, ...]
    names: tuple[str, ...]
    digests: tuple[str, ...] = ()
    failures: Mapping[str, int] = field(default_factory=dict)

    @property
    def listed(self) -> int:
        """How many images there were, failures to acquire included."""
        return self.labels.size + sum(self.failures.values())


@dataclass(frozen=True, eq=False)
class TrialSet:
    """Photos and the pairs of them that are compared.

    Attributes:
        photos: The images.
        metric: How they are compared.
        pairs: intp[P, 2], rows of the photos; None compares every image with every other.
        closed: The subjects are all there are; see ``app.matching.trials.all_trials``.
        seed: Of the draw of images where all would be too many.
    """

    photos: Photos
    metric: Metric
    pairs: NDArray[np.intp] | None = None
    closed: bool = False
    seed: int = 0

    @property
    def units(self) -> int:
        """What counts as independent: subjects, or images where the subjects are all there are."""
        return self.photos.labels.size if self.closed else len(self.photos.subjects)

    def evidence(self, labels: NDArray[np.int32] | None = None) -> Evidence:
        """Return the trials.

        Args:
            labels: int32[N], the subject of each image, any numbers, negative for an image that takes no
                part; None takes the photos' own.

        Raises:
            ValueError: No two images of two subjects are compared.
        """
        labels = self.photos.labels if labels is None else labels
        rows = np.flatnonzero(labels >= 0)
        if self.pairs is not None:
            return self._of_listed(self.pairs[(labels[self.pairs] >= 0).all(axis=1)], labels)
        if np.unique(labels[rows]).size < 2:
            raise ValueError("images of two subjects are needed")
        numbered = np.unique(labels[rows], return_inverse=True)[1].astype(np.int32)
        independent = numbered.size if self.closed else int(numbered.max()) + 1
        return all_trials(
            self.photos.embeddings[rows],
            numbered,
            self.metric,
            closed=self.closed,
            tail_share=tail_share_for(independent),
            seed=self.seed,
        )

    def among(self, units: NDArray[np.intp]) -> Evidence:
        """Return the trials among some subjects, or images where the subjects are all there are.

        Raises:
            ValueError: No two images of two subjects are compared.
        """
        mine = np.isin(np.arange(self.units) if self.closed else self.photos.labels, units)
        return self.evidence(np.where(mine, self.photos.labels, -1).astype(np.int32))

    def images_compared(self) -> NDArray[np.int64]:
        """Return int64[S], how many images of each subject take part in non-mated trials of all pairs."""
        images = np.bincount(self.photos.labels).astype(np.int64)
        most = int(images.max())
        while most > 1 and _between(np.minimum(images, most)) > LARGEST_TOTAL:
            most -= 1
        return np.minimum(images, most)

    def _of_listed(self, pairs: NDArray[np.intp], labels: NDArray[np.int32]) -> Evidence:
        subjects = labels[pairs]
        mated = subjects[:, 0] == subjects[:, 1]
        if not pairs.size or mated.all():
            raise ValueError("a trial of two subjects is needed")
        # Whoever takes part in no trial tells nothing and is not counted.
        numbered = np.unique(subjects, return_inverse=True)[1].reshape(subjects.shape).astype(np.int32)
        embeddings = self.photos.embeddings
        apart = distances(embeddings[pairs[:, 0]], embeddings[pairs[:, 1]], self.metric)
        return Evidence(
            mated_distance=apart[mated],
            mated_subject=numbered[mated, 0],
            nonmated_distance=apart[~mated],
            nonmated_subjects=numbered[~mated],
            nonmated_total=int((~mated).sum()),
            subjects=int(numbered.max()) + 1,
        )


def _between(images: NDArray[np.int64]) -> int:
    return (int(images.sum()) ** 2 - int(np.square(images).sum())) // 2
