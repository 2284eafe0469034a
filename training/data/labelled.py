"""Images with a subject each: what every image data set becomes before it is split and sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images ready for an encoder, each with its subject.

    Attributes:
        images: uint8[N, H, W, C], as the encoder's input wants them.
        labels: int32[N], the subject of each image, 0..S-1 without gaps.
        subjects: S names, each once, such as ``Alphabet/character01``.
        groups: S names, the group each subject belongs to (its alphabet); None when there are none.

    Raises:
        ValueError: The arrays and names do not fit together.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    subjects: tuple[str, ...]
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images: uint8[N, H, W, C] wanted, not {self.images.dtype}{self.images.shape}")
        if self.labels.dtype != np.int32 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels: int32[{len(self.images)}] wanted, not {self.labels.dtype}")
        if len(set(self.subjects)) != len(self.subjects):
            raise ValueError("subjects: a name occurs twice")
        if not np.array_equal(np.unique(self.labels), np.arange(len(self.subjects))):
            raise ValueError(f"labels: 0..{len(self.subjects) - 1} wanted, each at least once")
        if self.groups is not None and len(self.groups) != len(self.subjects):
            raise ValueError(f"groups: {len(self.groups)} names for {len(self.subjects)} subjects")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64[S], how many images each subject has."""
        return np.bincount(self.labels, minlength=len(self.subjects))

    def of_subjects(self, keep: Sequence[int]) -> LabelledImages:
        """Return the images of some subjects, renumbered 0..len(keep)-1 in the order given.

        Images keep their order.

        Raises:
            ValueError: A subject is named twice.
        """
        renumbered = np.full(len(self.subjects), -1, np.int32)
        renumbered[list(keep)] = np.arange(len(keep), dtype=np.int32)
        if (renumbered >= 0).sum() != len(keep):
            raise ValueError("keep: a subject is named twice")
        labels = renumbered[self.labels]
        chosen = labels >= 0
        return LabelledImages(
            self.images[chosen],
            labels[chosen],
            tuple(self.subjects[index] for index in keep),
            None if self.groups is None else tuple(self.groups[index] for index in keep),
        )

    def named(self, names: Sequence[str]) -> LabelledImages:
        """Return the images of the subjects of these names, such as one part of a split.

        Raises:
            KeyError: No subject has that name.
        """
        numbers = {name: number for number, name in enumerate(self.subjects)}
        return self.of_subjects([numbers[name] for name in names])
