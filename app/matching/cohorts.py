"""Error rates of groups of subjects: does a threshold treat people alike?

A cohort is a set of subjects that share a label. At one threshold each cohort has

- FNMR: share of its mated trials above the threshold;
- FMR within: share of the non-mated trials at or below it, both of whose subjects are of the cohort. People
  of one cohort resemble each other more than people at large, so this is the harder kind;
- FMR against others: the same with exactly one subject of the cohort.

Each comes with a two-sided 95 % interval that takes subjects for the independent units (``matching.bounds``):
without each subject in turn, on either side of a trial.

**Small cohorts are suppressed.** With fewer than ``MINIMUM_SUBJECTS`` subjects in mated trials the figures
say little and point at persons. The suppressed ones are shown as one, and so that none of them can be worked
out by subtracting what is shown from the whole, there are always at least two, of enough subjects together:
where that takes more, subjects without a label join first, then the smallest cohort left.

A rate that a cohort's pairs of subjects are too few to show (as in ``matching.evidence``) is withheld and
takes no part in comparisons; its interval stays, because an interval that begins above the rate asked for is
a finding all the same.

Sources: ISO/IEC 19795-10 (performance across demographic groups) for rates by group and their differences;
Hundepool and others (2012), "Statistical Disclosure Control", for the minimum and what else it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.matching.bounds import clustered_interval, jackknife_interval, wilson_interval

UNKNOWN: Final = "unknown"
"""The cohort of subjects without a label."""

MINIMUM_SUBJECTS: Final = 30
"""With no error among 30 people the rate may still be 10 % (rule of three): fewer tell no cohorts apart."""

LEAST_EXPECTED_PAIRS: Final = 3.0
"""A false match rate is shown when it stands for at least this many pairs of subjects."""


@dataclass(frozen=True, eq=False)
class TrialCounts:
    """Trials and errors at one threshold, by subject and by pair of subjects.

    Attributes:
        mated: int64[S], mated trials of each subject.
        false_non_matches: int64[S], those of them above the threshold.
        pairs: int64[P, 2], the different pairs of two subjects that were compared.
        nonmated: int64[P], non-mated trials of each pair.
        false_matches: int64[P], those of them at or below the threshold.
    """

    mated: NDArray[np.int64]
    false_non_matches: NDArray[np.int64]
    pairs: NDArray[np.int64]
    nonmated: NDArray[np.int64]
    false_matches: NDArray[np.int64]

    @property
    def subjects(self) -> int:
        """S."""
        return int(self.mated.size)

    @property
    def compared(self) -> NDArray[np.bool_]:
        """Return bool[S], which subjects any trial is of."""
        seen = self.mated > 0
        seen[self.pairs.ravel()] = True
        return seen


@dataclass(frozen=True)
class Share:
    """A rate of errors with its interval.

    Attributes:
        rate: None where it is withheld.
        lower95: The lower end of the interval; None where there were no trials.
        upper95: The upper end.
        trials: How many.
        reason: Why the rate is withheld; empty where it is not.
    """

    rate: float | None
    lower95: float | None
    upper95: float | None
    trials: int
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the figures; a rate that is withheld is not supported, with the reason."""
        shown = {"supported": self.rate is not None, "trials": self.trials}
        ends = {"lower95": self.lower95, "upper95": self.upper95}
        return {
            **shown,
            **({"rate": self.rate} if self.rate is not None else {"reason": self.reason}),
            **ends,
        }


@dataclass(frozen=True)
class Cohort:
    """The figures of one cohort, or of several together."""

    name: str
    subjects: int
    fnmr: Share
    fmr_within: Share
    fmr_others: Share

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {
            "cohort": self.name,
            "subjects": self.subjects,
            "fnmr": self.fnmr.as_json(),
            "fmr_within": self.fmr_within.as_json(),
            "fmr_others": self.fmr_others.as_json(),
        }


@dataclass(frozen=True)
class Suppressed:
    """A cohort whose figures are not shown, and why."""

    name: str
    subjects: int
    reason: str


@dataclass(frozen=True)
class Ratio:
    """The largest rate among cohorts over the smallest.

    Attributes:
        largest: Cohort with the largest rate; empty where nothing could be compared.
        smallest: Cohort with the smallest.
        ratio: None where it has no value; ``reason`` says why.
        intervals_overlap: Whether the two intervals have a rate in common. Where they do, chance alone
            can have made the ratio.
        reason: Empty where there is a ratio.
    """

    largest: str = ""
    smallest: str = ""
    ratio: float | None = None
    intervals_overlap: bool | None = None
    reason: str = ""

    @property
    def in_words(self) -> str:
        """The ratio with its cohorts, or why there is none."""
        if self.ratio is None:
            return self.reason
        overlap = "overlap" if self.intervals_overlap else "do not overlap"
        return f"{self.ratio:.2f} ({self.largest} to {self.smallest}; the intervals {overlap})"

    def as_json(self) -> dict[str, Any]:
        """Return the ratio, or why there is none."""
        if self.ratio is None:
            return {"supported": False, "reason": self.reason}
        return {
            "supported": True,
            "ratio": self.ratio,
            "largest": self.largest,
            "smallest": self.smallest,
            "intervals_overlap": self.intervals_overlap,
        }


@dataclass(frozen=True)
class CohortReport:
    """Rates of all cohorts at one threshold.

    Attributes:
        threshold: A distance of at most this is a match.
        asked_fmr: The false match rate that the threshold stands for.
        minimum: Fewest subjects that are shown.
        cohorts: Those shown, by name, subjects without a label last.
        suppressed: Those that are not.
        together: The suppressed ones as one; None where they are fewer than two or too few subjects.
        fnmr_ratio: Among those shown, subjects without a label apart.
        fmr_ratio: Likewise, of the FMR within.
    """

    threshold: float
    asked_fmr: float
    minimum: int
    cohorts: tuple[Cohort, ...]
    suppressed: tuple[Suppressed, ...]
    together: Cohort | None
    fnmr_ratio: Ratio
    fmr_ratio: Ratio

    def as_json(self) -> dict[str, Any]:
        """Return the report by the names of its figures."""
        return {
            "threshold": self.threshold,
            "asked_fmr": self.asked_fmr,
            "minimum_subjects": self.minimum,
            "cohorts": [cohort.as_json() for cohort in self.cohorts],
            "suppressed": [
                {"cohort": hidden.name, "subjects": hidden.subjects, "reason": hidden.reason}
                for hidden in self.suppressed
            ],
            "suppressed_together": None if self.together is None else self.together.as_json(),
            "fnmr_ratio": self.fnmr_ratio.as_json(),
            "fmr_ratio": self.fmr_ratio.as_json(),
        }


def labelled(subjects: Sequence[str], cohort_of: Mapping[str, str]) -> tuple[str, ...]:
    """Return the cohort of each subject by name; ``UNKNOWN`` for those without one.

    >>> labelled(["ada", "bob"], {"ada": "north"})
    ('north', 'unknown')
    """
    return tuple(cohort_of.get(subject, UNKNOWN) for subject in subjects)


def count_trials(
    *,
    mated_distance: NDArray[np.float64],
    mated_subject: NDArray[np.integer],
    nonmated_distance: NDArray[np.float64],
    nonmated_subjects: NDArray[np.integer],
    subjects: int,
    threshold: float,
) -> TrialCounts:
    """Count trials of which every one is given.

    Args:
        mated_distance: float64[M], finite.
        mated_subject: int[M], 0..S-1.
        nonmated_distance: float64[K], finite.
        nonmated_subjects: int[K, 2], two different subjects each, in either order.
        subjects: S.
        threshold: A distance of at most this is a match.
    """
    both = np.sort(nonmated_subjects.reshape(-1, 2), axis=1).astype(np.int64)
    keys, trials = np.unique(both[:, 0] * subjects + both[:, 1], return_counts=True)
    matched = nonmated_distance <= threshold
    wrong = np.searchsorted(keys, both[matched, 0] * subjects + both[matched, 1])
    return TrialCounts(
        *_mated_counts(mated_distance, mated_subject, subjects, threshold),
        pairs=np.stack([keys // subjects, keys % subjects], axis=1),
        nonmated=trials.astype(np.int64),
        false_matches=np.bincount(wrong, minlength=keys.size).astype(np.int64),
    )


def count_tail(
    *,
    mated_distance: NDArray[np.float64],
    mated_subject: NDArray[np.integer],
    closest_distance: NDArray[np.float64],
    closest_subjects: NDArray[np.integer],
    images: NDArray[np.integer],
    threshold: float,
) -> TrialCounts:
    """Count trials of every image with every other, of which only the closest non-mated ones are given.

    Args:
        mated_distance: float64[M].
        mated_subject: int[M], 0..S-1.
        closest_distance: float64[K], all non-mated distances up to the threshold, and any beyond.
        closest_subjects: int[K, 2].
        images: int[S], images of each subject that were compared.
        threshold: Within what the tail covers.
    """
    first, second = np.triu_indices(images.size, 1)
    trials = images[first].astype(np.int64) * images[second]
    pairs = np.stack([first, second], axis=1).astype(np.int64)[trials > 0]
    near = np.sort(closest_subjects[closest_distance <= threshold].reshape(-1, 2), axis=1).astype(np.int64)
    keys = pairs[:, 0] * images.size + pairs[:, 1]
    wrong = np.searchsorted(keys, near[:, 0] * images.size + near[:, 1])
    return TrialCounts(
        *_mated_counts(mated_distance, mated_subject, images.size, threshold),
        pairs=pairs,
        nonmated=trials[trials > 0],
        false_matches=np.bincount(wrong, minlength=keys.size).astype(np.int64),
    )


def cohort_report(
    counts: TrialCounts,
    cohort_of: Sequence[str | None],
    *,
    threshold: float,
    asked_fmr: float,
    minimum: int = MINIMUM_SUBJECTS,
) -> CohortReport:
    """Return the error rates of each cohort.

    Args:
        counts: At the threshold.
        cohort_of: S names, the cohort of each subject; None or ``UNKNOWN`` for one without a label.
        threshold: At which the trials were counted.
        asked_fmr: The false match rate that the threshold stands for, above 0. A cohort with too few pairs of
            subjects to show it has its FMR withheld.
        minimum: Fewest subjects with mated trials that a cohort is shown with.

    Raises:
        ValueError: There are not as many names as subjects, or the rate is not above 0.
    """
    if len(cohort_of) != counts.subjects:
        raise ValueError(f"{len(cohort_of)} names of cohorts for {counts.subjects} subjects")
    if not asked_fmr > 0.0:
        raise ValueError(f"asked_fmr is {asked_fmr}; it must be above 0")
    labels = np.array([name or UNKNOWN for name in cohort_of], np.object_)
    members = {
        name: (labels == name) & counts.compared
        for name in sorted(set(labels.tolist()), key=lambda name: (name == UNKNOWN, name))
    }
    members = {name: inside for name, inside in members.items() if inside.any()}
    hidden = _suppressed(members, counts, minimum)
    shown = tuple(
        _measured(name, inside, counts, asked_fmr) for name, inside in members.items() if name not in hidden
    )
    together = np.zeros(counts.subjects, np.bool_)
    for name in hidden:
        together |= members[name]
    enough = len(hidden) > 1 and int((together & (counts.mated > 0)).sum()) >= minimum
    compared = [cohort for cohort in shown if cohort.name != UNKNOWN]
    return CohortReport(
        threshold=threshold,
        asked_fmr=asked_fmr,
        minimum=minimum,
        cohorts=shown,
        suppressed=tuple(
            Suppressed(name, int(members[name].sum()), reason)
            for name, reason in sorted(hidden.items(), key=lambda item: (item[0] == UNKNOWN, item[0]))
        ),
        together=_measured("suppressed, together", together, counts, asked_fmr) if enough else None,
        fnmr_ratio=_ratio({cohort.name: cohort.fnmr for cohort in compared}),
        fmr_ratio=_ratio({cohort.name: cohort.fmr_within for cohort in compared}),
    )


def _mated_counts(
    distance: NDArray[np.float64], subject: NDArray[np.integer], subjects: int, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return (
        np.bincount(subject, minlength=subjects).astype(np.int64),
        np.bincount(subject[distance > threshold], minlength=subjects).astype(np.int64),
    )


def _suppressed(
    members: Mapping[str, NDArray[np.bool_]], counts: TrialCounts, minimum: int
) -> dict[str, str]:
    """Return the cohorts that are not shown, with the reason of each."""
    with_mated = {name: int((inside & (counts.mated > 0)).sum()) for name, inside in members.items()}
    hidden = {
        name: f"{_counted(with_mated[name], 'subject')} with mated trials; at least {minimum} are needed"
        for name in members
        if with_mated[name] < minimum
    }
    left = sorted(
        (name for name in members if name not in hidden),
        key=lambda name: (name != UNKNOWN, with_mated[name], name),
    )
    # One suppressed cohort alone is what all trials say less what is shown; so is a set of few people.
    while hidden and left and (len(hidden) < 2 or sum(with_mated[name] for name in hidden) < minimum):
        hidden[left.pop(0)] = "held back, so that the small ones cannot be worked out from the rest"
    return hidden


def _measured(name: str, inside: NDArray[np.bool_], counts: TrialCounts, asked_fmr: float) -> Cohort:
    of_cohort = inside[counts.pairs].sum(axis=1)
    return Cohort(
        name,
        int(inside.sum()),
        _false_non_matches(counts.false_non_matches[inside], counts.mated[inside]),
        _false_matches(counts, of_cohort == 2, asked_fmr),
        _false_matches(counts, of_cohort == 1, asked_fmr),
    )


def _false_non_matches(errors: NDArray[np.int64], trials: NDArray[np.int64]) -> Share:
    total = int(trials.sum())
    if not total:
        return Share(None, None, None, 0, "there are no mated trials")
    # In an order of their own: in which order the subjects came must not show in the last bits of a sum.
    order = np.lexsort((trials, errors))
    return Share(int(errors.sum()) / total, *clustered_interval(errors[order], trials[order]), total)


def _false_matches(counts: TrialCounts, chosen: NDArray[np.bool_], asked_fmr: float) -> Share:
    pairs, trials, errors = counts.pairs[chosen], counts.nonmated[chosen], counts.false_matches[chosen]
    total = int(trials.sum())
    if not total:
        return Share(None, None, None, 0, "no two such subjects were compared")
    rate = int(errors.sum()) / total
    interval = _pair_interval(pairs, errors, trials)
    if len(pairs) * asked_fmr < LEAST_EXPECTED_PAIRS:
        reason = (
            f"{_counted(len(pairs), 'pair')} of subjects compared; to show a rate of {asked_fmr:.2g} takes "
            f"{int(np.ceil(LEAST_EXPECTED_PAIRS / asked_fmr))}"
        )
        return Share(None, *interval, total, reason)
    return Share(rate, *interval, total)


def _pair_interval(
    pairs: NDArray[np.int64], errors: NDArray[np.int64], trials: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the interval of a rate over pairs of subjects, by leaving out each subject with its pairs.

    Where all trials went wrong or none did, only pairs that share no subject count.
    """
    total, wrong = int(trials.sum()), int(errors.sum())
    numbers = np.unique(pairs, return_inverse=True)[1].reshape(pairs.shape)
    size = int(numbers.max()) + 1
    left = total - _by_subject(numbers, trials, size)
    errors_left = wrong - _by_subject(numbers, errors, size)
    kept = left > 0
    if wrong in {0, total} or np.count_nonzero(kept) < 2:
        return wilson_interval(wrong / total, _disjoint(numbers))
    # However alike the images of two people match, there are no more independent trials than pairs of people.
    left_out = np.sort(errors_left[kept] / left[kept])
    return jackknife_interval(wrong / total, left_out, at_most=float(len(pairs)))


def _by_subject(pairs: NDArray[np.intp], values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return int64[size], the sum of the values over the pairs of each subject."""
    sums = sum(np.bincount(pairs[:, side], values, size) for side in (0, 1))
    return np.asarray(np.rint(sums), np.int64)


def _disjoint(pairs: NDArray[np.intp]) -> int:
    """Count pairs, taken greedily, that share no subject with one taken before."""
    taken = np.zeros(int(pairs.max()) + 1, np.bool_)
    count = 0
    # Neighbours first: of all pairs of S subjects they take everybody within about S of them.
    for first, second in pairs[np.argsort(np.diff(pairs, axis=1)[:, 0], kind="stable")].tolist():
        if not (taken[first] or taken[second]):
            taken[[first, second]] = True
            count += 1
            if 2 * count + 2 > taken.size:
                break
    return count


def _ratio(shares: Mapping[str, Share]) -> Ratio:
    known = {name: share for name, share in shares.items() if share.rate is not None}
    if len(known) < 2:
        return Ratio(reason=f"{len(known)} cohorts have a rate that is shown; two are needed")
    (smallest, low), *_, (largest, high) = sorted(known.items(), key=lambda item: float(item[1].rate or 0.0))
    if not low.rate:
        return Ratio(
            largest, smallest, reason=f"no error was seen in {smallest}, so a ratio has no upper end"
        )
    assert high.rate and high.lower95 is not None and low.upper95 is not None  # noqa: S101, PT018
    return Ratio(largest, smallest, high.rate / low.rate, high.lower95 <= low.upper95)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
