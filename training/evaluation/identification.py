"""How well a model identifies (1:N): closed set by rank, open set by FPIR and FNIR.

Subjects are split at random into enrolled and not enrolled. Each enrolled one gets a single reference image;
its other images are mated searches, all images of the others are non-mated searches. This is drawn several
times, and the rates are over the searches of all draws:

- identification rate at rank R: share of mated searches whose reference is among the R nearest;
- FPIR(N, t): share of non-mated searches that return any candidate at distance <= t;
- FNIR(N, R, t): share of mated searches whose reference is not among the R nearest at distance <= t.

N is the size of the gallery. Of references at equal distance the right subject's counts as the farthest. An
image that could not be embedded takes no part.

Intervals leave out one subject at a time, from the searches and from the gallery (the jackknife): one person
whom many resemble moves many searches. The variance says how many independent searches the searches are
worth, and Wilson's interval for that number is the answer. Thresholds are taken as given. The variance errs
on the large side: in simulations intervals of FPIR were up to 1.4 times as wide as they need to be, those of
FNIR were right.

Sources: ISO/IEC 19795-1 and Grother, Ngan, Hanaoka, "Face Recognition Vendor Test, Part 2: Identification",
NISTIR 8271, for the rates; Efron, Stein (1981), "The jackknife estimate of variance", Annals of Statistics 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidRequestError
from app.matching.distances import Metric, distances
from training.evaluation.intervals import Interval, jackknife_interval

DRAWS: Final = 10
RANKS: Final = (1, 5, 10)
"""Ranks whose identification rate is reported with an interval."""
TOP_RANK: Final = 20
"""Largest rank that can be asked for."""


class Gallery(NamedTuple):
    """One split of the subjects, as rows of the images.

    Attributes:
        references: intp[N], one image of each enrolled subject.
        mated: intp[M], the other images of enrolled subjects.
        nonmated: intp[K], the images of subjects not enrolled.
    """

    references: NDArray[np.intp]
    mated: NDArray[np.intp]
    nonmated: NDArray[np.intp]


@dataclass(frozen=True)
class Share:
    """A rate over searches with the ends of its two-sided 95 % interval."""

    rate: float
    lower95: float
    upper95: float


@dataclass(frozen=True)
class OpenSetRates:
    """FPIR(N, t) and FNIR(N, 1, t) at a threshold."""

    threshold: float
    fpir: Share
    fnir: Share

    def as_json(self) -> dict[str, float]:
        """Return the threshold and both rates."""
        return {
            "threshold": self.threshold,
            **_named("fpir", self.fpir),
            **_named("fnir", self.fnir),
        }


@dataclass(frozen=True, eq=False)
class OpenSetCurve:
    """Rates at every threshold at which FPIR or FNIR changes.

    Attributes:
        thresholds: float64[T], rising; the first is minus infinity.
        fpir: float64[T], rising from 0 to 1.
        fnir: float64[T], falling from 1 to the share of mated searches that rank 1 misses.
    """

    thresholds: NDArray[np.float64]
    fpir: NDArray[np.float64]
    fnir: NDArray[np.float64]


def draw_galleries(
    labels: NDArray[np.signedinteger],
    *,
    enrolled_share: float = 0.5,
    draws: int = DRAWS,
    seed: int = 0,
    ok: NDArray[np.bool_] | None = None,
) -> tuple[Gallery, ...]:
    """Split the subjects at random, several times.

    Args:
        labels: int[N], the subject of each image.
        enrolled_share: Of the subjects with two usable images, above 0 and below 1. A subject with one
            is never enrolled: it could not be searched for.
        draws: How many splits.
        seed: Same seed, same splits.
        ok: bool[N], which images could be embedded; all of them by default.

    Raises:
        InvalidRequestError: No subject has two images, or no subject would be left to be not enrolled.
    """
    usable = np.flatnonzero(np.ones(labels.size, np.bool_) if ok is None else ok)
    subjects, counts = np.unique(labels[usable], return_counts=True)
    able = subjects[counts > 1]
    enrolled = max(1, round(enrolled_share * able.size))
    if not able.size or enrolled == subjects.size:
        _refuse(
            f"of {subjects.size} subjects {able.size} have two usable images, and {enrolled} would be "
            "enrolled; someone must be enrolled and someone not"
        )
    rng = np.random.default_rng(seed)
    images = {int(subject): usable[labels[usable] == subject] for subject in able}
    galleries = []
    for _ in range(draws):
        chosen = np.sort(rng.choice(able, enrolled, replace=False))
        references = np.array([rng.choice(images[int(subject)]) for subject in chosen], np.intp)
        known = np.isin(labels[usable], chosen)
        mated = usable[known & ~np.isin(usable, references)]
        galleries.append(Gallery(references, mated, usable[~known]))
    return tuple(galleries)


def search(
    galleries: tuple[Gallery, ...],
    embeddings: NDArray[np.floating],
    labels: NDArray[np.signedinteger],
    metric: Metric,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Searches:
    """Run every search of every draw.

    Args:
        galleries: As drawn.
        embeddings: float[N, D].
        labels: int[N], 0 or more.
        metric: The model's.
        progress: Called with the number of searches done after each gallery.
    """
    subjects, numbers = np.unique(labels, return_inverse=True)
    parts = []
    for gallery in galleries:
        parts.append(_search_one(gallery, embeddings, numbers, metric))
        progress(gallery.mated.size + gallery.nonmated.size)
    mated, nonmated = ([part[kind] for part in parts] for kind in (0, 1))
    return Searches(
        gallery_size=galleries[0].references.size,
        subjects=subjects.size,
        mated_images=np.unique(np.concatenate([gallery.mated for gallery in galleries])).size,
        nonmated_images=np.unique(np.concatenate([gallery.nonmated for gallery in galleries])).size,
        mated=_Mated(*(np.concatenate(column) for column in zip(*mated, strict=True))),
        nonmated=_Nonmated(*(np.concatenate(column) for column in zip(*nonmated, strict=True))),
    )


class _Mated(NamedTuple):
    """Searches [M]: subject, distance of its reference, rank of it, and the TOP_RANK subjects nearest to the
    probe but for its own, int[M, TOP_RANK], -1 where there are fewer.
    """

    subject: NDArray[np.intp]
    distance: NDArray[np.float64]
    rank: NDArray[np.intp]
    nearest: NDArray[np.intp]


class _Nonmated(NamedTuple):
    """Searches [K]: subject, distance and subject of the nearest reference, distance of the second."""

    subject: NDArray[np.intp]
    distance: NDArray[np.float64]
    nearest: NDArray[np.intp]
    second: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Searches:
    """The searches of all draws.

    Attributes:
        gallery_size: N, the references in each gallery.
        subjects: How many subjects took part.
        mated_images: Different images that any mated search was for.
        nonmated_images: Likewise, non-mated.
    """

    gallery_size: int
    subjects: int
    mated_images: int
    nonmated_images: int
    mated: _Mated
    nonmated: _Nonmated

    def identification_rate(self, rank: int) -> Share:
        """Return the share of mated searches whose reference is among the ``rank`` nearest."""
        missed = self.fnir(math.inf, rank)
        return Share(1.0 - missed.rate, 1.0 - missed.upper95, 1.0 - missed.lower95)

    def cumulative_match(self) -> NDArray[np.float64]:
        """Return float64[R], the identification rate at ranks 1 to 20, or to the gallery's size (CMC)."""
        ranks = np.arange(1, min(TOP_RANK, self.gallery_size) + 1)
        return np.searchsorted(np.sort(self.mated.rank), ranks, side="right") / self.mated.rank.size

    def fpir(self, threshold: float) -> Share:
        """Return FPIR(N, t)."""
        found = self.nonmated
        wrong = found.distance <= threshold
        # Without the nearest reference's subject the search would have been right.
        spared = found.nearest[wrong & (found.second > threshold)]
        return self._share(wrong, found.subject, spared, self.nonmated_images)

    def fnir(self, threshold: float, rank: int = 1) -> Share:
        """Return FNIR(N, R, t).

        Raises:
            ValueError: The rank is not within 1..20.
        """
        if not 1 <= rank <= TOP_RANK:
            raise ValueError(f"rank is {rank}; it must be 1 to {TOP_RANK}")
        found = self.mated
        wrong = (found.rank > rank) | (found.distance > threshold)
        # One place short: without any of those ahead the search would have been right.
        short = (found.rank == rank + 1) & (found.distance <= threshold)
        spared = found.nearest[short][:, :rank].ravel()
        return self._share(wrong, found.subject, spared, self.mated_images)

    def at(self, threshold: float) -> OpenSetRates:
        """Return both rates at a threshold."""
        return OpenSetRates(threshold, self.fpir(threshold), self.fnir(threshold))

    def threshold_at_fpir(self, target: float) -> float | None:
        """Return the highest threshold whose FPIR is at most the target; None when too few can show it."""
        if self.nonmated_images * target < 1.0:
            return None
        ordered = np.sort(self.nonmated.distance)
        allowed = math.floor(ordered.size * target)
        return float(np.nextafter(ordered[allowed], -np.inf)) if allowed < ordered.size else math.inf

    def curve(self) -> OpenSetCurve:
        """Return FPIR and FNIR(N, 1, t) at every threshold."""
        found = np.sort(self.mated.distance[self.mated.rank == 1])
        nearest = np.sort(self.nonmated.distance)
        total = self.mated.rank.size
        thresholds = np.concatenate([[-np.inf], np.unique(np.concatenate([found, nearest]))])
        return OpenSetCurve(
            thresholds,
            np.searchsorted(nearest, thresholds, side="right") / nearest.size,
            (total - np.searchsorted(found, thresholds, side="right")) / total,
        )

    def _share(
        self, wrong: NDArray[np.bool_], subject: NDArray[np.intp], spared: NDArray[np.intp], images: int
    ) -> Share:
        def count(rows: NDArray[np.intp]) -> NDArray[np.int64]:
            return np.bincount(rows, minlength=self.subjects)

        interval: Interval = jackknife_interval(
            errors=int(wrong.sum()),
            trials=wrong.size,
            errors_without=wrong.sum() - count(subject[wrong]) - count(spared),
            trials_without=wrong.size - count(subject),
            worth_at_most=images,
            independent=np.unique(subject).size,
        )
        return Share(float(wrong.mean()), *interval)


def _search_one(
    gallery: Gallery, embeddings: NDArray[np.floating], subject_of: NDArray[np.intp], metric: Metric
) -> tuple[_Mated, _Nonmated]:
    references = np.ascontiguousarray(embeddings[gallery.references], np.float64)
    enrolled = subject_of[gallery.references]
    own_row = np.full(int(subject_of.max()) + 1, -1)
    own_row[enrolled] = np.arange(enrolled.size)
    top = min(TOP_RANK, enrolled.size - 1)
    own, rank = np.empty(gallery.mated.size, np.float64), np.empty(gallery.mated.size, np.intp)
    ahead = np.full((gallery.mated.size, TOP_RANK), -1, np.intp)
    for row, image in enumerate(gallery.mated):
        measured = distances(embeddings[image], references, metric)
        right = own_row[subject_of[image]]
        own[row] = measured[right]
        measured[right] = np.inf
        rank[row] = 1 + np.count_nonzero(measured <= own[row])
        ahead[row, :top] = enrolled[np.argsort(measured, kind="stable")[:top]]
    nearest = np.empty(gallery.nonmated.size, np.intp)
    two = np.full((gallery.nonmated.size, 2), np.inf)
    for row, image in enumerate(gallery.nonmated):
        measured = distances(embeddings[image], references, metric)
        nearest[row] = enrolled[measured.argmin()]
        closest = np.sort(measured)[:2]
        two[row, : closest.size] = closest
    return (
        _Mated(subject_of[gallery.mated], own, rank, ahead),
        _Nonmated(subject_of[gallery.nonmated], two[:, 0], nearest, two[:, 1]),
    )


def _named(name: str, share: Share) -> dict[str, float]:
    return {name: share.rate, f"{name}_lower95": share.lower95, f"{name}_upper95": share.upper95}


def _refuse(problem: str) -> NoReturn:
    raise InvalidRequestError([{"field": "images", "problem": problem}])
