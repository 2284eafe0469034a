"""Audit a gallery: identities that are one person, images under a wrong name, and look-alikes.

Everything rests on one question: how often would two *different* subjects come this close by chance
(``chance``), in a gallery with this many pairs. Three rules answer it, each with the false discovery rate and
its local form (``many_tests``), because a large gallery has close pairs by chance and a small one has not.

**Duplicates.** The test of a pair of identities is its typical distance: the r-th smallest of the m x n
distances between their images, r the smaller half. Of two different subjects the expected share of such
distances at or below d is FMR(d), so by Markov's inequality at least r of m x n are so close with a
probability of at most FMR(d) * m * n / r, however the images depend on one another. With one image each
this is FMR(d) itself.

**Mislabels.** An image that does not match its own identity's others, and is nearer to another identity than
chance allows, is *swapped*. Only images that fail with their own are tested: that choice does not look at
what is tested (independent filtering: Bourgon, Gentleman and Huber, 2010, PNAS 107). An image that is as far
from its own identity as a stranger would be is a *stranger*. How far strangers are is measured in the gallery
itself, between identities; the share of strangers follows from how many images lie in the farther half of
that (Storey, Taylor and Siegmund, 2004), and the probability for one image by Bayes' rule with the falling
density of its rank. With one image an identity neither can be said.

**Look-alikes.** The "wolves" and "lambs" of Doddington and others (1998): identities close to far more others
than the false match rate lets expect, duplicates not counted. With several images the number is the sum, over
other identities, of the share of image pairs that match. Such a sum of parts is tested as a Poisson number of
equal parts with the same mean and variance: parts of a whole where each identity has one image, smaller ones
where a match of two images does not make all match (moment matching, as for a compound Poisson sum).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.matching.chance import Chance, chance_of
from app.matching.decision import OperatingPoint
from app.matching.distances import Metric, distances
from app.matching.evidence import Evidence
from app.matching.many_tests import (
    falling_density,
    false_discovery_rates,
    local_rates,
    poisson_tail,
)
from app.matching.pair_scan import PAIRS_KEPT, PairScan

MAX_FALSE_SHARE: Final = 0.1
"""Expected share of chance among the findings of a kind."""
MOST_LIKELY_CHANCE: Final = 0.5
"""A finding is more probably right than chance."""
LOOK_ALIKE_RATE: Final = 0.05
"""False discovery rate among the look-alikes."""
_TESTED_PAIRS: Final = 200_000
_OTHERS_SHOWN: Final = 20
"""Closest pairs that are reported beside the likely ones, for comparison."""
_STRANGER_SAMPLE: Final = 20_000
_STRANGER_IMAGES: Final = 32
"""Images of another identity that a sampled distance is the median of, at most."""
_LEAST_IMAGES: Final = 3
"""Images of an identity before one of them can be told to be the odd one out."""


@dataclass(frozen=True)
class DuplicatePair:
    """Two identities and how likely they are one person.

    Attributes:
        first: Label.
        second: Label, larger than the first.
        distance: Typical distance of their images.
        fmr: Chance that two images of different subjects are so close.
        expected: Pairs of identities expected so close or closer by chance in this gallery.
        expected_upper95: With the 95 % upper bound of the rate.
        found: Pairs of identities found so close or closer.
        false_share: Expected share of chance among those.
        chance: Probability that this very pair is chance.
        likely: Whether it is reported as one person.
    """

    first: int
    second: int
    distance: float
    fmr: float
    expected: float
    expected_upper95: float
    found: int
    false_share: float
    chance: float
    likely: bool


@dataclass(frozen=True)
class Swapped:
    """An image that is another identity's.

    Attributes:
        image: Its row.
        label: Whose it is said to be.
        nearest: Whose it probably is.
        own_distance: Typical distance to its identity's other images.
        distance: Typical distance to those of ``nearest``.
        expected: Images expected to be so near to another identity by chance, among those tested.
        false_share: Expected share of chance among those so near or nearer.
        chance: Probability that this very one is chance.
    """

    image: int
    label: int
    nearest: int
    own_distance: float
    distance: float
    expected: float
    false_share: float
    chance: float


@dataclass(frozen=True)
class Stranger:
    """An image as far from its own identity as somebody else's would be, and near to nobody.

    Attributes:
        image: Its row.
        label: Whose it is said to be.
        own_distance: Typical distance to its identity's other images.
        probability: That it is somebody else's, or shows nobody who can be recognised.
    """

    image: int
    label: int
    own_distance: float
    probability: float


@dataclass(frozen=True)
class Mixed:
    """An identity whose images mostly do not match one another.

    Attributes:
        label: Which.
        images: How many it has.
        distance: Typical distance between two of them.
    """

    label: int
    images: int
    distance: float


@dataclass(frozen=True)
class LookAlike:
    """An identity close to more others than chance lets expect.

    Attributes:
        label: Which.
        matches: Other identities that match it at the operating point, duplicates not counted; with several
            images the sum of the shares of image pairs that match.
        expected: By the false match rate of the operating point.
        p: Chance of so many where everybody has as many as the average here.
        false_share: Expected share of chance among the identities with as many or more.
    """

    label: int
    matches: float
    expected: float
    p: float
    false_share: float


@dataclass(frozen=True)
class PointTotal:
    """What an operating point promises of the gallery's comparisons, and what was seen.

    Attributes:
        point: The operating point.
        expected: Comparisons of different subjects expected to match by chance; None beyond the evidence.
        expected_upper95: With the 95 % upper bound of the rate.
        seen: Comparisons of different identities that match.
    """

    point: OperatingPoint
    expected: float | None
    expected_upper95: float | None
    seen: int


@dataclass(frozen=True, eq=False)
class AuditResult:
    """What an audit found. Labels and rows are those that were given.

    Attributes:
        identities: How many.
        images: How many.
        pairs: Pairs of identities.
        compared: Pairs of images of different identities.
        totals: By operating point.
        chance: The rate that was used.
        duplicates: Likely pairs first, then the closest others, each in order of chance.
        groups: Labels that are one person, for every group of likely duplicates.
        judged_images: Images with another one of their identity; 0 means that mislabels cannot be found.
        swapped: In order of their chance.
        strangers: The most probable first.
        mixed: The farthest apart first.
        look_alikes: Those with the most matches first.
        look_alike_point: The operating point at which they were counted.
    """

    identities: int
    images: int
    pairs: int
    compared: int
    totals: tuple[PointTotal, ...]
    chance: Chance
    duplicates: tuple[DuplicatePair, ...]
    groups: tuple[tuple[int, ...], ...]
    judged_images: int
    swapped: tuple[Swapped, ...]
    strangers: tuple[Stranger, ...]
    mixed: tuple[Mixed, ...]
    look_alikes: tuple[LookAlike, ...]
    look_alike_point: OperatingPoint


class Audit:
    """An audit in steps: call ``step`` until ``done``, then ``result``."""

    def __init__(
        self,
        embeddings: NDArray[np.float32],
        labels: NDArray[np.int32],
        metric: Metric,
        evidence: Evidence,
        points: Sequence[OperatingPoint],
        *,
        default: str,
        most_kept: int = PAIRS_KEPT,
    ) -> None:
        """Prepare an audit.

        Args:
            embeddings: float32[N, D].
            labels: int32[N], the identity of each, numbered from 0 without gaps.
            metric: How they are compared.
            evidence: The model's.
            points: The model's operating points, at least one.
            default: Name of the one that decides whether two images match.
            most_kept: Close pairs of images to remember, at most.

        Raises:
            ValueError: The shapes contradict one another, a number is not finite, or there is no such point.
        """
        chosen = [point for point in points if point.name == default]
        if not chosen:
            raise ValueError(f"there is no operating point {default!r}")
        self._embeddings = np.ascontiguousarray(embeddings, np.float32)
        self._labels = np.asarray(labels, np.int32)
        self._metric, self._evidence = metric, evidence
        self._points, self._point = tuple(points), chosen[0]
        self._chance = chance_of(evidence)
        self._thresholds = np.unique(
            [self._chance.low, self._chance.high, *(point.threshold for point in points)]
        )
        counts = np.bincount(self._labels)
        compared = (self._labels.size**2 - int(np.square(counts).sum())) // 2
        # About as many chance hits as fit, and no further than the rate is known.
        keep = self._chance.distance_for(most_kept / 4.0 / max(1, compared))
        self.scan = PairScan(
            self._embeddings,
            self._labels,
            metric,
            thresholds=self._thresholds,
            load_threshold=self._point.threshold,
            keep=keep,
            most_kept=most_kept,
        )

    @property
    def done(self) -> bool:
        """Whether everything was compared."""
        return self.scan.done

    @property
    def steps(self) -> int:
        """The sum of what ``step`` will return from the beginning to the end."""
        return self.scan.steps

    @property
    def steps_done(self) -> int:
        """How much of that is done."""
        return self.scan.steps_done

    def step(self) -> int:
        """Compare one more block; returns how many pairs that was."""
        return self.scan.step()

    def run(self, progress: Callable[[int], None] = lambda _: None) -> AuditResult:
        """Compare what is left and return the result; ``progress`` gets what each step returns."""
        while not self.done:
            progress(self.step())
        return self.result()

    def result(self) -> AuditResult:
        """Return the findings.

        Raises:
            RuntimeError: Not everything was compared yet.
        """
        if not self.done:
            raise RuntimeError("the audit is not finished")
        scan, counts = self.scan, self.scan.counts
        identities, compared = counts.size, scan.compared
        pairs = identities * (identities - 1) // 2
        seen = dict(zip(self._thresholds.tolist(), scan.seen.tolist(), strict=True))
        chance = self._chance
        if compared:
            chance = chance.corrected(pairs, seen[chance.high] / compared, seen[chance.low] / compared)
        if identities == self._labels.size:
            chance = chance.followed(scan.distance, compared, identities)
        near = _Near(self._labels, counts, scan)
        duplicates = _duplicates(near, chance, pairs)
        groups = _groups([(pair.first, pair.second) for pair in duplicates if pair.likely])
        rows = [np.flatnonzero(self._labels == label) for label in range(identities)] if near.several else []
        own = self._own_distances(rows)
        swapped = _swapped(near, own, self._labels, chance, self._point.threshold, identities)
        return AuditResult(
            identities=int(identities),
            images=int(self._labels.size),
            pairs=int(pairs),
            compared=compared,
            totals=tuple(self._total(point, compared, seen[point.threshold]) for point in self._points),
            chance=chance,
            duplicates=duplicates,
            groups=groups,
            judged_images=int(np.isfinite(own.image).sum()),
            swapped=swapped,
            strangers=self._strangers(rows, own, {one.image for one in swapped}),
            mixed=tuple(
                Mixed(label, int(counts[label]), float(own.identity[label]))
                for label in np.argsort(-own.identity, kind="stable").tolist()
                if counts[label] >= _LEAST_IMAGES and own.identity[label] > self._point.threshold
            ),
            look_alikes=self._look_alikes(groups, identities),
            look_alike_point=self._point,
        )

    def _total(self, point: OperatingPoint, compared: int, seen: int) -> PointTotal:
        fmr, upper = self._evidence.fmr(point.threshold), self._evidence.fmr_upper95(point.threshold)
        return PointTotal(
            point,
            None if fmr is None else fmr * compared,
            None if upper is None else upper * compared,
            seen,
        )

    def _own_distances(self, rows: list[NDArray[np.intp]]) -> _Own:
        """Measure every image against its identity's others."""
        image = np.full(self._labels.size, -np.inf)
        core = np.full(self._labels.size, np.inf)
        identity = np.full(len(rows), -np.inf)
        for label, mine in enumerate(rows):
            if mine.size < 2:
                continue
            # An identity of thousands is measured on those that are evenly spread over it.
            against = mine[np.unique(np.linspace(0, mine.size - 1, min(mine.size, 512)).astype(np.int64))]
            apart = np.array(
                [distances(self._embeddings[one], self._embeddings[against], self._metric) for one in mine]
            )
            apart[mine[:, None] == against[None, :]] = np.nan
            image[mine] = _lower_median(apart)
            identity[label] = _lower_median(apart.reshape(1, -1))[0]
            if mine.size >= _LEAST_IMAGES:
                core[mine] = _without_each(apart, mine, against)
        return _Own(image, core, identity)

    def _strangers(self, rows: list[NDArray[np.intp]], own: _Own, swapped: set[int]) -> tuple[Stranger, ...]:
        several = [mine.size >= _LEAST_IMAGES for mine in rows]
        judged = np.array(
            [
                image
                for image in range(self._labels.size)
                if rows
                and several[self._labels[image]]
                and own.core[image] <= self._point.threshold
                and image not in swapped
            ],
            np.int64,
        )
        if judged.size == 0 or len(rows) < 2:
            return ()
        apart = self._distances_of_strangers(rows)
        rank = np.searchsorted(apart, own.image[judged], side="right") / apart.size
        share = min(1.0, 2.0 * float((rank >= 0.5).sum() + 1) / judged.size)
        # A stranger's rank is even over 0..1, that of others close to 0: the density falls towards share.
        density = falling_density(rank, judged.size)
        probability = np.minimum(1.0, share / np.maximum(density, 1e-300))
        found = [
            Stranger(int(image), int(self._labels[image]), float(own.image[image]), float(probable))
            for image, probable in zip(judged.tolist(), probability.tolist(), strict=True)
            if probable > 1.0 - MOST_LIKELY_CHANCE and own.image[image] > self._point.threshold
        ]
        return tuple(sorted(found, key=lambda one: (-one.probability, -one.own_distance, one.image)))

    def _distances_of_strangers(self, rows: list[NDArray[np.intp]]) -> NDArray[np.float64]:
        """Return typical distances of images to identities that are not theirs, sorted; a fixed sample."""
        draw = np.random.default_rng(0)
        images = draw.integers(0, self._labels.size, _STRANGER_SAMPLE)
        others = draw.integers(0, len(rows) - 1, _STRANGER_SAMPLE)
        others += others >= self._labels[images]
        apart = np.empty(_STRANGER_SAMPLE)
        for number, (image, other) in enumerate(zip(images.tolist(), others.tolist(), strict=True)):
            against = rows[other]
            if against.size > _STRANGER_IMAGES:
                against = draw.choice(against, _STRANGER_IMAGES, replace=False)
            measured = distances(self._embeddings[image], self._embeddings[against], self._metric)
            apart[number] = _lower_median(measured[None, :])[0]
        return np.sort(apart)

    def _look_alikes(self, groups: tuple[tuple[int, ...], ...], identities: int) -> tuple[LookAlike, ...]:
        if identities < 2:
            return ()
        load = self.scan.load.copy()
        for group in groups:
            for place, first in enumerate(group):
                for second in group[place + 1 :]:
                    share = self._share_matching(first, second)
                    load[[first, second]] -= share
        load = np.maximum(load, 0.0)
        fmr = self._evidence.fmr(self._point.threshold)
        expected = (identities - 1) * (self._point.max_fmr or 1.0 if fmr is None else fmr)
        usual = max(expected, float(load.mean()))
        part = self._parts(groups, identities)
        whole = np.floor(load / part + 1e-9).astype(np.int64)
        p = np.array(
            [
                poisson_tail(count, usual / size)
                for count, size in zip(whole.tolist(), part.tolist(), strict=True)
            ]
        )
        rates = false_discovery_rates(p, identities)
        found = [
            LookAlike(label, float(load[label]), expected, float(p[label]), float(rates[label]))
            for label in np.flatnonzero(rates <= LOOK_ALIKE_RATE).tolist()
            if load[label] > usual
        ]
        return tuple(sorted(found, key=lambda one: (-one.matches, one.label)))

    def _parts(self, groups: tuple[tuple[int, ...], ...], identities: int) -> NDArray[np.float64]:
        """Return the size of the equal parts that each identity's number of matches is made of, at most 1."""
        scan = self.scan
        if int(scan.counts.max()) == 1 or scan.keep < self._point.threshold:
            return np.ones(identities)
        matching = scan.distance <= self._point.threshold
        one, other = (self._labels[side[matching]].astype(np.int64) for side in (scan.first, scan.second))
        group = np.arange(identities) + len(groups)
        for number, members in enumerate(groups):
            group[list(members)] = number
        pair, matches = np.unique(
            np.minimum(one, other) * identities + np.maximum(one, other), return_counts=True
        )
        first, second = np.divmod(pair, identities)
        share = matches / (scan.counts[first] * scan.counts[second])
        first, second, share = (side[group[first] != group[second]] for side in (first, second, share))
        if share.size == 0:
            return np.ones(identities)
        sums = np.bincount(first, share, identities) + np.bincount(second, share, identities)
        squares = np.bincount(first, share**2, identities) + np.bincount(second, share**2, identities)
        return np.asarray(np.maximum(squares.sum() / sums.sum(), squares / np.maximum(sums, 1e-300)))

    def _share_matching(self, first: int, second: int) -> float:
        one, other = (np.flatnonzero(self._labels == label) for label in (first, second))
        theirs = self._embeddings[other]
        apart = [distances(self._embeddings[image], theirs, self._metric) for image in one]
        return float((np.array(apart) <= self._point.threshold).mean())


@dataclass(frozen=True, eq=False)
class _Own:
    """Typical distances within identities: of each image to the others (-inf where there is none), of the
    others to one another (inf where there are not two), and of each identity (-inf with one image).
    """

    image: NDArray[np.float64]
    core: NDArray[np.float64]
    identity: NDArray[np.float64]


class _Near:
    """Typical distances of identities, and of images to other identities, from the pairs that were kept."""

    def __init__(self, labels: NDArray[np.int32], counts: NDArray[np.int64], scan: PairScan) -> None:
        self.several = bool((counts > 1).any())
        one, other = labels[scan.first].astype(np.int64), labels[scan.second].astype(np.int64)
        pair = np.minimum(one, other) * counts.size + np.maximum(one, other)
        size = counts[one] * counts[other]
        at, need = _ranked(pair, scan.distance, size)
        self.first, self.second = np.divmod(pair[at], max(1, counts.size))
        self.distance, self.factor = scan.distance[at], size[at] / need
        if not self.several:
            self.image = self.nearest = np.zeros(0, np.int64)
            self.image_distance = self.image_factor = np.zeros(0)
            return
        image = np.concatenate([scan.first, scan.second]).astype(np.int64)
        identity = np.concatenate([other, one])
        both = np.concatenate([scan.distance, scan.distance])
        at, need = _ranked(image * counts.size + identity, both, counts[identity])
        self.image, self.nearest = image[at], identity[at]
        self.image_distance, self.image_factor = both[at], counts[identity[at]] / need


def _ranked(
    key: NDArray[np.int64], distance: NDArray[np.float64], size: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for every key that has enough distances, where its r-th smallest is, and r: half its size."""
    order = np.lexsort([distance, key])
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    have = np.diff(np.append(starts, order.size))
    need = (size[order[starts]] + 1) // 2
    enough = have >= need
    return order[(starts + need - 1)[enough]], need[enough]


def _duplicates(near: _Near, chance: Chance, pairs: int) -> tuple[DuplicatePair, ...]:
    if near.distance.size == 0:
        return ()
    fmr = chance.rate(near.distance)
    p = np.minimum(1.0, fmr * near.factor)
    order = np.lexsort([near.second, near.first, near.distance, p])[:_TESTED_PAIRS]
    p, fmr = p[order], fmr[order]
    found = np.searchsorted(p, p, side="right")
    shares, local = false_discovery_rates(p, pairs), local_rates(p, pairs)
    likely = (shares <= MAX_FALSE_SHARE) & (local <= MOST_LIKELY_CHANCE)
    shown = np.flatnonzero(likely).tolist() + np.flatnonzero(~likely)[:_OTHERS_SHOWN].tolist()
    return tuple(
        DuplicatePair(
            first=int(near.first[order[at]]),
            second=int(near.second[order[at]]),
            distance=float(near.distance[order[at]]),
            fmr=float(fmr[at]),
            expected=float(p[at]) * pairs,
            expected_upper95=min(1.0, float(p[at]) * chance.upper) * pairs,
            found=int(found[at]),
            false_share=float(shares[at]),
            chance=float(local[at]),
            likely=bool(likely[at]),
        )
        for at in shown
    )


def _groups(pairs: list[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Return the connected components with two members or more, each sorted, the largest first."""
    leader: dict[int, int] = {}

    def of(label: int) -> int:
        while leader.setdefault(label, label) != label:
            leader[label] = leader[leader[label]]
            label = leader[label]
        return label

    for first, second in pairs:
        leader[of(second)] = of(first)
    members: dict[int, list[int]] = {}
    for label in sorted(leader):
        members.setdefault(of(label), []).append(label)
    return tuple(sorted((tuple(group) for group in members.values()), key=lambda g: (-len(g), g)))


def _swapped(
    near: _Near, own: _Own, labels: NDArray[np.int32], chance: Chance, threshold: float, identities: int
) -> tuple[Swapped, ...]:
    tested = np.isfinite(own.image) & (own.image > threshold)
    tests = int(tested.sum())
    if tests == 0 or near.image.size == 0:
        return ()
    p_near = np.minimum(1.0, chance.rate(near.image_distance) * near.image_factor * (identities - 1))
    # The likeliest other identity of each image, which must be nearer than its own.
    eligible = np.flatnonzero(tested[near.image] & (near.image_distance < own.image[near.image]))
    order = eligible[np.lexsort([near.image_distance[eligible], p_near[eligible], near.image[eligible]])]
    best = order[np.flatnonzero(np.diff(near.image[order], prepend=-1))]
    if best.size == 0:
        return ()
    p = p_near[best]
    shares, local = false_discovery_rates(p, tests), local_rates(p, tests)
    found = [
        Swapped(
            image=int(near.image[at]),
            label=int(labels[near.image[at]]),
            nearest=int(near.nearest[at]),
            own_distance=float(own.image[near.image[at]]),
            distance=float(near.image_distance[at]),
            expected=float(value) * tests,
            false_share=float(share),
            chance=float(probability),
        )
        for at, value, share, probability in zip(best, p, shares, local, strict=True)
        if share <= MAX_FALSE_SHARE and probability <= MOST_LIKELY_CHANCE
    ]
    return tuple(sorted(found, key=lambda one: (one.chance, one.distance, one.image)))


def _lower_median(apart: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lower median of each row, left-out (NaN) entries not counted."""
    ranked = np.sort(apart, axis=1)
    sizes = apart.shape[1] - np.isnan(apart).sum(axis=1)
    return np.asarray(ranked[np.arange(len(ranked)), np.maximum(0, (sizes + 1) // 2 - 1)])


def _without_each(
    apart: NDArray[np.float64], mine: NDArray[np.intp], against: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return, for each image of an identity, the typical distance between the others."""
    if mine.size > 64:  # one of so many moves the median of all by next to nothing
        return np.full(mine.size, _lower_median(apart.reshape(1, -1))[0])
    return np.array([_lower_median(apart[mine != one][:, against != one].reshape(1, -1))[0] for one in mine])


__all__ = ["Audit", "AuditResult", "DuplicatePair", "LookAlike", "Mixed", "PointTotal", "Stranger", "Swapped"]
