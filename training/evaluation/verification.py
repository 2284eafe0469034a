"""How well a model verifies: accuracy, EER, FNMR at given FMR, and the rates at its own threshold.

A match is ``distance <= threshold``; FMR(t) is the share of non-mated trials with a distance of at most t,
FNMR(t) the share of mated trials above t (ISO/IEC 19795-1). A trial of which an image could not be embedded
(a failure to acquire) has distance infinity: in the accuracy it is a non-match, so an error when mated; FMR,
FNMR and EER, which are rates of comparisons, leave it out. Both are counted in the report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.encoding.bulk import Embedded
from app.errors import InvalidRequestError
from app.matching.distances import Metric, distances
from training.evaluation.intervals import (
    Interval,
    disjoint_pairs,
    mated_weights,
    nonmated_weights,
    resample_subjects,
    resampled_interval,
)
from training.evaluation.pairs import PairList

TARGETS: Final = ("0.01", "0.001", "0.0001")
"""False match rates at which FNMR is reported, as the report spells them."""

FOLDS: Final = 10
"""Folds of the accuracy when the list of trials has none."""

SEED: Final = 20070401
RESAMPLES: Final = 1000
_BLOCK_ELEMENTS: Final = 1_000_000
"""Weights held at once: 8 MB an array, whatever the number of trials."""


@dataclass(frozen=True, eq=False)
class Trials:
    """Comparisons with the truth about them.

    Attributes:
        distance: float64[N]; infinity where an image could not be embedded.
        mated: bool[N].
        subjects: intp[N, 2], the subjects of both sides, numbered from 0 without gaps.
        folds: intp[N], the fold of each trial; None when the list has none.
    """

    distance: NDArray[np.float64]
    mated: NDArray[np.bool_]
    subjects: NDArray[np.intp]
    folds: NDArray[np.intp] | None = None

    @property
    def compared(self) -> NDArray[np.bool_]:
        """Return bool[N], whether both images could be embedded."""
        return np.isfinite(self.distance)


@dataclass(frozen=True)
class Accuracy:
    """Share of right decisions: the mean over the folds and their sample standard deviation."""

    mean: float
    std: float
    folds: int


@dataclass(frozen=True)
class Fold:
    """One fold: the threshold that is best on all others, and the share of right decisions at it."""

    threshold: float
    accuracy: float


@dataclass(frozen=True)
class Rates:
    """Error rates at a threshold, each with the ends of its two-sided 95 % interval."""

    threshold: float
    fmr: float
    fmr_lower95: float
    fmr_upper95: float
    fnmr: float
    fnmr_lower95: float
    fnmr_upper95: float


@dataclass(frozen=True)
class Unsupported:
    """A false match rate that the trials are too few to show."""

    reason: str


@dataclass(frozen=True)
class Report:
    """What ``visavis evaluate verification`` reports.

    Attributes:
        accuracy: See ``cross_validated_accuracy``.
        eer: See ``equal_error_rate``.
        eer_interval: Its 95 % interval.
        fnmr_at_fmr: By target, in the order of ``TARGETS``.
        at_default: At the threshold that the model decides with by default.
        at_points: At other thresholds that were given, by name.
        trials: Mated and non-mated trials of the list.
        failed_trials: Those among them that could not be compared.
        subjects: How many the list names.
    """

    accuracy: Accuracy
    eer: float
    eer_interval: Interval
    fnmr_at_fmr: Mapping[str, Rates | Unsupported]
    at_default: Rates
    trials: tuple[int, int]
    failed_trials: tuple[int, int]
    subjects: int
    at_points: Mapping[str, Rates] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the report with the keys that others rely on."""
        return {
            "accuracy": asdict(self.accuracy),
            "eer": self.eer,
            "eer_lower95": self.eer_interval.lower95,
            "eer_upper95": self.eer_interval.upper95,
            "fnmr_at_fmr": {
                target: {"supported": isinstance(entry, Rates), **asdict(entry)}
                for target, entry in self.fnmr_at_fmr.items()
            },
            "at_default_threshold": asdict(self.at_default),
            "at_operating_points": {name: asdict(rates) for name, rates in self.at_points.items()},
            "trials": dict(zip(("mated", "nonmated"), self.trials, strict=True)),
            "failed_trials": dict(zip(("mated", "nonmated"), self.failed_trials, strict=True)),
            "subjects": self.subjects,
        }


def run_trials(listed: PairList, embedded: Embedded, metric: Metric) -> Trials:
    """Compare the two images of each pair.

    Args:
        listed: The trials.
        embedded: The list's images in the order of ``PairList.photos``.
        metric: The model's.
    """
    names = {name: index for index, name in enumerate(listed.subjects())}
    subject = np.array([names[photo.subject] for photo in listed.photos()])
    return replace(
        compare(embedded.embeddings, listed.rows(), subject, metric, embedded.ok), folds=listed.folds
    )


def compare(
    embeddings: NDArray[np.floating],
    pairs: NDArray[np.integer],
    labels: NDArray[np.integer],
    metric: Metric,
    ok: NDArray[np.bool_] | None = None,
) -> Trials:
    """Compare pairs of labelled embeddings.

    Args:
        embeddings: float[N, D].
        pairs: int[P, 2], rows of the embeddings.
        labels: int[N], the subject of each embedding.
        metric: The model's.
        ok: bool[N], which images could be embedded; all of them by default.
    """
    sides = labels[pairs]
    distance = distances(embeddings[pairs[:, 0]], embeddings[pairs[:, 1]], metric)
    if ok is not None:
        distance[~ok[pairs].all(axis=1)] = np.inf
    numbers = np.unique(sides, return_inverse=True)[1].reshape(sides.shape)
    return Trials(distance, sides[:, 0] == sides[:, 1], numbers)


def evaluate(
    trials: Trials,
    default_threshold: float,
    *,
    points: Mapping[str, float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Report:
    """Measure the error rates of a set of trials, with intervals (see ``training.evaluation.intervals``).

    The intervals of rates at a threshold take the threshold as given. The interval of the FNMR at a target
    FMR does not: its threshold comes from the same trials, so it is chosen anew in each resample.

    Args:
        trials: Both kinds, some of each compared.
        default_threshold: Of the model's default operating point.
        points: Other thresholds to measure at, by name.
        resamples: How often the subjects are resampled.
        seed: Of the resampling, and of the folds when the trials have none.

    Raises:
        InvalidRequestError: Fewer than two trials of a kind, or none of a kind could be compared.
    """
    by_kind = [int(np.count_nonzero(trials.mated == kind)) for kind in (True, False)]
    if min(by_kind) < 2:
        _refuse(f"{by_kind[0]} mated and {by_kind[1]} non-mated trials; at least two of each are needed")
    compared = [int(np.count_nonzero((trials.mated == kind) & trials.compared)) for kind in (True, False)]
    if min(compared) < 1:
        _refuse(
            f"of {by_kind[0]} mated and {by_kind[1]} non-mated trials {compared[0]} and {compared[1]} could "
            "be compared, the others have an image that failed; is this the model for these images?"
        )
    measured = _Comparisons(trials)
    rates = measured.rates()
    eer = float(equal_error_rate(*rates))
    # Thresholds first, so that one pass over the resamples serves every figure.
    thresholds = {
        target: measured.threshold_at(rates[0], float(target))
        for target in TARGETS
        if float(target) * compared[1] >= 1.0
    }
    asked = {**(points or {})}
    every = list(dict.fromkeys([*thresholds.values(), default_threshold, *asked.values()]))
    resampled = _resample(measured, every, thresholds, resamples, seed)

    def at(threshold: float, fnmr_resampled: NDArray[np.float64] | None = None) -> Rates:
        fmr, fnmr = (float(rate) for rate in measured.at(rates, threshold))
        fmr_interval = measured.fmr_interval(fmr, resampled.fmr[threshold])
        if fnmr_resampled is None:
            fnmr_resampled = resampled.fnmr[threshold]
        fnmr_interval = measured.fnmr_interval(fnmr, fnmr_resampled)
        return Rates(threshold, fmr, *fmr_interval, fnmr, *fnmr_interval)

    return Report(
        accuracy=cross_validated_accuracy(trials, seed=seed),
        eer=eer,
        eer_interval=measured.eer_interval(eer, resampled.eer),
        fnmr_at_fmr={
            target: at(thresholds[target], resampled.fnmr_at[target])
            if target in thresholds
            else _unsupported(target, compared[1])
            for target in TARGETS
        },
        at_default=at(default_threshold),
        trials=(by_kind[0], by_kind[1]),
        failed_trials=(by_kind[0] - compared[0], by_kind[1] - compared[1]),
        subjects=int(trials.subjects.max()) + 1,
        at_points={name: at(threshold) for name, threshold in asked.items()},
    )


def cross_validated_accuracy(trials: Trials, *, seed: int = SEED) -> Accuracy:
    """Return the mean of ``fold_accuracies`` and their sample standard deviation.

    Source: Huang et al. (2007), whose estimated standard error of the mean is ``std / sqrt(folds)``.
    """
    right = [fold.accuracy for fold in fold_accuracies(trials, seed=seed)]
    return Accuracy(float(np.mean(right)), float(np.std(right, ddof=1)), len(right))


def fold_accuracies(trials: Trials, *, seed: int = SEED) -> tuple[Fold, ...]:
    """Return the accuracy on each fold at the threshold that is best on all others.

    Folds are the list's own. A list without folds has its mated and its non-mated trials each dealt at random
    to ten (fewer when there are fewer of a kind). Subjects then recur across folds, unlike in LFW's View 2;
    what is fitted is one number, so that little leaks.
    """
    folds = dealt_folds(trials.mated, seed=seed) if trials.folds is None else trials.folds
    found = []
    for number in range(int(folds.max()) + 1):
        inside = folds == number
        threshold = best_threshold(trials.distance[~inside], trials.mated[~inside])
        matched = trials.distance[inside] <= threshold
        found.append(Fold(threshold, float(np.mean(matched == trials.mated[inside]))))
    return tuple(found)


def dealt_folds(mated: NDArray[np.bool_], *, seed: int) -> NDArray[np.intp]:
    """Deal mated and non-mated trials at random to folds, as evenly as can be.

    Returns:
        intp[N], 0 to 9, or to the number of trials of the rarer kind less one.
    """
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(mated), np.flatnonzero(~mated)]
    count = min(FOLDS, *(kind.size for kind in kinds))
    folds = np.empty(mated.size, np.intp)
    for kind in kinds:
        folds[rng.permutation(kind)] = np.arange(kind.size) % count
    return folds


def best_threshold(distance: NDArray[np.float64], mated: NDArray[np.bool_]) -> float:
    """Return the threshold with the most right decisions.

    Between two neighbouring distances every threshold decides alike, and halfway stands for all. Where
    several such gaps are best, the middle one is taken.

    >>> best_threshold(np.array([0.1, 0.3, 0.5, 0.9]), np.array([True, True, False, False]))
    0.4
    """
    values = np.unique(distance[np.isfinite(distance)])
    if not values.size:
        return -math.inf
    halfway = np.minimum(values[:-1] + np.diff(values) / 2.0, np.nextafter(values[1:], -np.inf))
    candidates = np.concatenate([[np.nextafter(values[0], -np.inf)], halfway, values[-1:]])
    mated_matches = np.searchsorted(np.sort(distance[mated]), candidates, side="right")
    nonmated_matches = np.searchsorted(np.sort(distance[~mated]), candidates, side="right")
    right = mated_matches - nonmated_matches
    best = np.flatnonzero(right == right.max())
    return float(candidates[best[(best.size - 1) // 2]])


def equal_error_rate(fmr: NDArray[np.float64], fnmr: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where FMR and FNMR are equal.

    Both change in steps, so as a rule they are equal at no threshold. The line from the last point of the
    curve with FMR below FNMR to the next point is straight; the rate is where it crosses FMR = FNMR.

    Args:
        fmr: float64[..., T], rising from 0 to 1 with the threshold along the last axis.
        fnmr: float64[..., T], falling from 1 to 0.

    Returns:
        float64[...].

    >>> float(equal_error_rate(np.array([0.0, 0.0, 0.2, 1.0]), np.array([1.0, 0.4, 0.0, 0.0]))).__round__(4)
    0.1333
    """
    after = np.argmax(fmr >= fnmr, axis=-1)[..., None]
    fmr_before, fmr_after = (np.take_along_axis(fmr, index, -1)[..., 0] for index in (after - 1, after))
    fnmr_before, fnmr_after = (np.take_along_axis(fnmr, index, -1)[..., 0] for index in (after - 1, after))
    gap_before, gap_after = fnmr_before - fmr_before, fmr_after - fnmr_after
    return np.asarray(fmr_before + gap_before / (gap_before + gap_after) * (fmr_after - fmr_before))


class _Comparisons:
    """The trials that were compared, sorted, with everything that resampling them needs.

    Error rates are arrays [..., T] along ``thresholds``: one below every distance, then each distance seen.
    """

    def __init__(self, trials: Trials) -> None:
        order = np.argsort(trials.distance, kind="stable")[: np.count_nonzero(trials.compared)]
        mated = order[trials.mated[order]]
        nonmated = order[~trials.mated[order]]
        self.mated_subject = trials.subjects[mated, 0]
        self.nonmated_subjects = trials.subjects[nonmated]
        self.subjects = int(trials.subjects.max()) + 1
        self.thresholds = np.concatenate([[-np.inf], np.unique(trials.distance[order])])
        self._nonmated = trials.distance[nonmated]
        self._mated_matched = np.searchsorted(trials.distance[mated], self.thresholds, side="right")
        self._nonmated_matched = np.searchsorted(self._nonmated, self.thresholds, side="right")
        self._mated_independent = np.unique(self.mated_subject).size
        self._nonmated_independent = disjoint_pairs(self.nonmated_subjects)

    @property
    def size(self) -> int:
        return len(self.mated_subject) + len(self.nonmated_subjects)

    def rates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return FMR and FNMR, float64[T] each."""
        return self.weighted_rates(
            np.ones(self.mated_subject.size, np.int64), np.ones(len(self.nonmated_subjects), np.int64)
        )

    def weighted_rates(
        self, mated: NDArray[np.int64], nonmated: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return FMR and FNMR, float64[..., T] each, with weights int64[..., M] and int64[..., K]."""
        false_matches, nonmated_total = _matched(nonmated, self._nonmated_matched)
        true_matches, mated_total = _matched(mated, self._mated_matched)
        return false_matches / nonmated_total, (mated_total - true_matches) / mated_total

    def at(
        self, rates: tuple[NDArray[np.float64], NDArray[np.float64]], threshold: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return FMR and FNMR at a threshold, float64[...] each."""
        index = int(np.searchsorted(self.thresholds, threshold, side="right")) - 1
        return rates[0][..., index], rates[1][..., index]

    def threshold_at(self, fmr: NDArray[np.float64], target: float) -> float:
        """Return the highest threshold whose FMR is at most the target, which is below 1."""
        allowed = int(np.searchsorted(fmr, target, side="right")) - 1
        first_refused = self._nonmated[self._nonmated_matched[allowed]]
        return float(np.nextafter(first_refused, -np.inf))

    def fmr_interval(self, rate: float, resampled: NDArray[np.float64]) -> Interval:
        trials, independent = len(self.nonmated_subjects), self._nonmated_independent
        return resampled_interval(rate, resampled, trials=trials, independent=independent)

    def fnmr_interval(self, rate: float, resampled: NDArray[np.float64]) -> Interval:
        trials, independent = self.mated_subject.size, self._mated_independent
        return resampled_interval(rate, resampled, trials=trials, independent=independent)

    def eer_interval(self, rate: float, resampled: NDArray[np.float64]) -> Interval:
        trials = min(self.mated_subject.size, len(self.nonmated_subjects))
        independent = min(self._mated_independent, self._nonmated_independent)
        return resampled_interval(rate, resampled, trials=trials, independent=independent)


@dataclass(frozen=True, eq=False)
class _Resampled:
    """Rates measured in each resample, float64[resamples] each, by threshold or by target."""

    eer: NDArray[np.float64]
    fmr: Mapping[float, NDArray[np.float64]]
    fnmr: Mapping[float, NDArray[np.float64]]
    fnmr_at: Mapping[str, NDArray[np.float64]]


def _resample(
    measured: _Comparisons, thresholds: list[float], targets: Mapping[str, float], resamples: int, seed: int
) -> _Resampled:
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_ELEMENTS // (measured.size + measured.subjects))
    eer: list[NDArray[np.float64]] = []
    fmr: dict[float, list[NDArray[np.float64]]] = {threshold: [] for threshold in thresholds}
    fnmr: dict[float, list[NDArray[np.float64]]] = {threshold: [] for threshold in thresholds}
    fnmr_at: dict[str, list[NDArray[np.float64]]] = {target: [] for target in targets}
    for start in range(0, resamples, block):
        counts = resample_subjects(rng, measured.subjects, min(block, resamples - start))
        mated = mated_weights(counts, measured.mated_subject)
        nonmated = nonmated_weights(counts, measured.nonmated_subjects)
        # With few subjects a resample can miss one kind of trial altogether; it then tells nothing.
        usable = mated.any(axis=1) & nonmated.any(axis=1)
        rates = measured.weighted_rates(mated[usable], nonmated[usable])
        eer.append(equal_error_rate(*rates))
        for threshold in thresholds:
            for rate, collected in zip(measured.at(rates, threshold), (fmr, fnmr), strict=True):
                collected[threshold].append(rate)
        for target in targets:
            allowed = np.count_nonzero(rates[0] <= float(target), axis=1) - 1
            fnmr_at[target].append(np.take_along_axis(rates[1], allowed[:, None], axis=1)[:, 0])
    return _Resampled(
        np.concatenate(eer),
        {threshold: np.concatenate(parts) for threshold, parts in fmr.items()},
        {threshold: np.concatenate(parts) for threshold, parts in fnmr.items()},
        {target: np.concatenate(parts) for target, parts in fnmr_at.items()},
    )


def _matched(
    weights: NDArray[np.int64], matched: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the weight of the first ``matched`` trials, int64[..., T], and that of all, int64[..., 1]."""
    sums = np.zeros((*weights.shape[:-1], weights.shape[-1] + 1), np.int64)
    np.cumsum(weights, axis=-1, out=sums[..., 1:])
    return sums.take(matched, axis=-1), sums[..., -1:]


def _unsupported(target: str, nonmated: int) -> Unsupported:
    needed = math.ceil(1.0 / float(target))
    return Unsupported(
        f"{nonmated} non-mated trials were compared; to show a rate of {target} takes at least {needed}"
    )


def _refuse(problem: str) -> None:
    raise InvalidRequestError([{"field": "pairs", "problem": problem}])
