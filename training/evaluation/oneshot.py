"""N-way one-shot classification: which of N images, one of each subject, shows the subject of the probe?

A trial is a probe and N candidates, one of which is of the probe's subject. The answer is the nearest
candidate by the model's metric. It is right when that candidate is strictly nearer than every other: **a tie
is an error**, so that an encoder that maps everything to one point is wrong always and never lucky. An image
that could not be embedded is infinitely far from all; a probe or a right candidate that failed is an error.

Trials of fewer ways are the same trials with their last candidates left out. Each still is a uniform draw,
the curve over N cannot fall, and one pass over the distances serves all of it.

Sources: Lake, Salakhutdinov, Tenenbaum (2015), "Human-level concept learning through probabilistic program
induction", Science 350, for the task, in which one person drew all candidates and another one the probes;
Koch, Zemel, Salakhutdinov (2015), "Siamese Neural Networks for One-shot Image Recognition", for drawing such
trials evenly from the alphabets, and for the curve over N.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidRequestError
from app.matching.distances import Metric, distances
from training.evaluation.intervals import Interval, clustered_interval, wilson_interval

_BLOCK_ELEMENTS = 2_000_000
"""Coordinates compared at once: 16 MB an array, whatever the number of trials."""


@dataclass(frozen=True, eq=False)
class OneShotTrials:
    """Trials as rows of a set of images.

    Attributes:
        probe: intp[T], the image asked about.
        candidates: intp[T, N], one image of each of N subjects; column 0 is of the probe's.
        cluster: intp[T], which trials depend on one another: those of one run, alphabet or subject.
    """

    probe: NDArray[np.intp]
    candidates: NDArray[np.intp]
    cluster: NDArray[np.intp]

    @property
    def ways(self) -> int:
        """Return N."""
        return int(self.candidates.shape[1])

    def images(self) -> NDArray[np.intp]:
        """Return the images that any trial uses, sorted."""
        return np.unique(np.concatenate([self.probe, self.candidates.ravel()]))


@dataclass(frozen=True)
class OneShotRate:
    """What a set of trials shows for one number of ways.

    Attributes:
        ways: Candidates in a trial.
        trials: How many there were.
        errors: Those not answered rightly, ties and failures among them.
        ties: Errors in which no other candidate was nearer than the right one.
        failures: Errors whose probe or right candidate could not be embedded.
        interval: 95 % interval of the error rate by clusters of trials: how far it says something of other
            subjects than these.
        trial_interval: The same if all trials were independent: how far it says something of other trials
            on these subjects.
    """

    ways: int
    trials: int
    errors: int
    ties: int
    failures: int
    interval: Interval
    trial_interval: Interval

    @property
    def error_rate(self) -> float:
        """Return the share of errors."""
        return self.errors / self.trials

    @property
    def chance_error_rate(self) -> float:
        """Return the error rate of guessing."""
        return 1.0 - 1.0 / self.ways

    def as_json(self) -> dict[str, Any]:
        """Return the figures with the keys that others rely on."""
        return {
            "error_rate": self.error_rate,
            "error_rate_lower95": self.interval.lower95,
            "error_rate_upper95": self.interval.upper95,
            "error_rate_by_trial_lower95": self.trial_interval.lower95,
            "error_rate_by_trial_upper95": self.trial_interval.upper95,
            "ways": self.ways,
            "trials": self.trials,
            "errors": self.errors,
            "ties": self.ties,
            "failed_trials": self.failures,
            "chance_error_rate": self.chance_error_rate,
        }


def draw_trials(
    labels: NDArray[np.signedinteger],
    *,
    ways: int,
    trials: int,
    seed: int,
    groups: Sequence[str] | None = None,
    drawers: Sequence[Hashable] | None = None,
    within: bool = False,
) -> OneShotTrials:
    """Draw trials at random from labelled images.

    Across groups, the probe's subject is drawn from all that have two images, the others from all. Within
    groups, all subjects of a trial are of one group, and each group that is large enough gets the same number
    of trials, give or take one. With drawers, no candidate is by the probe's drawer; within groups one other
    drawer drew all candidates.

    Args:
        labels: int[N], the subject of each image, 0..S-1.
        ways: Candidates in a trial, 2 or more.
        trials: How many.
        seed: Same seed, same trials.
        groups: S names, the group (alphabet) of each subject. Intervals then take groups for the
            independent units, otherwise subjects of probes.
        drawers: N keys, who made each image; with groups, one key is one person within one group only.
        within: Whether to draw within groups.

    Raises:
        InvalidRequestError: The images do not suffice; the message says what is missing.
    """
    if ways < 2 or trials < 1:
        _refuse("ways", f"{trials} trials of {ways} ways; at least one trial of two ways is needed")
    labels = labels.astype(np.intp)
    subjects = int(labels.max(initial=-1)) + 1
    group_of = _numbered([None] * subjects if groups is None else groups)
    if drawers is None:
        # Each image is by a drawer of its own: no candidate is the probe itself.
        drawer_of = np.arange(labels.size)
    else:
        drawer_of = _numbered(zip(group_of[labels], drawers, strict=True))
    parts = [np.arange(subjects)]
    if within and groups is not None:
        parts = [np.flatnonzero(group_of == group) for group in range(int(group_of.max(initial=-1)) + 1)]
    sheets = [_sheets(labels, drawer_of, part, by_one=within and drawers is not None) for part in parts]
    usable = [kept for part in sheets if (kept := [sheet for sheet in part if sheet.allows(ways)])]
    if not usable:
        _refuse("images", _too_few(ways, subjects, within=within, drawers=drawers is not None))
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(trials):
        choices = usable[number % len(usable)]
        rows.append(_draw(rng, choices[rng.integers(len(choices))], drawer_of, ways))
    probe = np.array([row[0] for row in rows], np.intp)
    subject = labels[probe]
    cluster = subject if np.unique(group_of).size < 2 else group_of[subject]
    return OneShotTrials(probe, np.array([row[1:] for row in rows], np.intp), cluster)


def trial_distances(
    trials: OneShotTrials,
    embeddings: NDArray[Any],
    metric: Metric,
    ok: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return the distance of each probe to its candidates.

    Args:
        trials: Rows of the embeddings.
        embeddings: [N, D] of any number type; pixels do for a baseline.
        metric: The model's.
        ok: bool[N], which images could be embedded; all of them by default.

    Returns:
        float64[T, N]; infinity where an image failed, or its embedding is not finite.
    """
    usable = np.ones(len(embeddings), np.bool_) if ok is None else ok
    count, ways = trials.candidates.shape
    result = np.empty((count, ways), np.float64)
    block = max(1, _BLOCK_ELEMENTS // (ways * embeddings.shape[1]))
    for start in range(0, count, block):
        chosen = trials.candidates[start : start + block]
        probes = np.repeat(trials.probe[start : start + block], ways)
        measured = distances(embeddings[probes], embeddings[chosen.ravel()], metric)
        measured[~(usable[probes] & usable[chosen.ravel()] & np.isfinite(measured))] = np.inf
        result[start : start + block] = measured.reshape(chosen.shape)
    return result


def is_error(distance: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return bool[T], whether another candidate is as near as the right one in column 0, or nearer.

    Args:
        distance: float64[T, N].

    >>> is_error(np.array([[0.1, 0.2, 0.3], [0.2, 0.2, 0.3], [0.5, 0.9, 0.4]])).tolist()
    [False, True, True]
    """
    return np.asarray((distance[:, 1:] <= distance[:, :1]).any(axis=1))


def one_shot(trials: OneShotTrials, distance: NDArray[np.float64], ways: int | None = None) -> OneShotRate:
    """Return the error rate of trials.

    Args:
        trials: As drawn.
        distance: float64[T, N], see ``trial_distances``.
        ways: How many of the N candidates to keep; all by default.
    """
    kept = distance[:, :ways]
    wrong = is_error(kept)
    failed = np.isinf(kept[:, 0])
    return OneShotRate(
        ways=kept.shape[1],
        trials=wrong.size,
        errors=int(wrong.sum()),
        ties=int(((kept[:, 1:].min(axis=1) == kept[:, 0]) & ~failed).sum()),
        failures=int(failed.sum()),
        interval=clustered_interval(wrong, trials.cluster),
        trial_interval=wilson_interval(float(wrong.mean()), wrong.size),
    )


def one_shot_curve(
    trials: OneShotTrials, distance: NDArray[np.float64], ways: Sequence[int]
) -> tuple[OneShotRate, ...]:
    """Return the error rate for each number of ways, none of which is above the trials'."""
    return tuple(one_shot(trials, distance, count) for count in ways)


class _Sheet(NamedTuple):
    """Images to draw a trial from, by subject."""

    asked: dict[int, NDArray[np.intp]]
    candidates: dict[int, NDArray[np.intp]]

    def allows(self, ways: int) -> bool:
        return len(self.asked) > 0 and len(self.candidates) >= ways


def _sheets(
    labels: NDArray[np.intp], drawer_of: NDArray[np.intp], subjects: NDArray[np.intp], *, by_one: bool
) -> list[_Sheet]:
    """Return what trials of these subjects are drawn from: one sheet, or one by each drawer of candidates."""
    images = {int(subject): np.flatnonzero(labels == subject) for subject in subjects}
    if not by_one:
        # Two drawers of a subject make sure that one of them did not draw the probe.
        asked = {subject: rows for subject, rows in images.items() if np.unique(drawer_of[rows]).size > 1}
        return [_Sheet(asked, images)]
    sheets = []
    for drawer in np.unique(drawer_of[np.concatenate(list(images.values()))]):
        by_drawer = {subject: rows[drawer_of[rows] == drawer] for subject, rows in images.items()}
        candidates = {subject: rows for subject, rows in by_drawer.items() if rows.size}
        by_others = {subject: images[subject][drawer_of[images[subject]] != drawer] for subject in candidates}
        sheets.append(_Sheet({subject: rows for subject, rows in by_others.items() if rows.size}, candidates))
    return sheets


def _draw(rng: np.random.Generator, sheet: _Sheet, drawer_of: NDArray[np.intp], ways: int) -> list[int]:
    """Return the probe, the right candidate and the other candidates."""
    asked, subjects = list(sheet.asked), list(sheet.candidates)
    right = asked[rng.integers(len(asked))]
    probe = int(rng.choice(sheet.asked[right]))
    row = [probe]
    for subject in [right, *(subjects[i] for i in rng.permutation(len(subjects)) if subjects[i] != right)]:
        rows = sheet.candidates[subject]
        rows = rows[drawer_of[rows] != drawer_of[probe]]
        if rows.size:
            row.append(int(rng.choice(rows)))
        if len(row) > ways:
            break
    else:
        _refuse("images", f"fewer than {ways} subjects have an image by another drawer than that of a probe")
    return row


def _numbered(keys: Iterable[Hashable]) -> NDArray[np.intp]:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.intp)


def _too_few(ways: int, subjects: int, *, within: bool, drawers: bool) -> str:
    where = "one group" if within else f"the {subjects} that there are"
    whose = (
        "an image by one drawer and, one of them, by another" if drawers else "an image and, one of them, two"
    )
    return f"trials of {ways} ways need {ways} subjects of {where} with {whose}; ask for fewer ways"


def _refuse(field: str, problem: str) -> NoReturn:
    raise InvalidRequestError([{"field": field, "problem": problem}])
