"""Error rates by cohort of a set of trials; the rates themselves are ``app.matching.cohorts``."""

from __future__ import annotations

from collections.abc import Sequence

from app.matching.cohorts import CohortReport, cohort_report, count_trials
from training.evaluation.verification import Rates, Trials


def measured_by_cohort(
    trials: Trials, cohort_of: Sequence[str], at: Rates, *, asked_fmr: float | None = None
) -> CohortReport:
    """Measure each cohort at a threshold, on the trials that were compared.

    Args:
        trials: Of both kinds.
        cohort_of: The cohort of each subject, by its number in the trials.
        at: The threshold and what all trials together show there.
        asked_fmr: The false match rate that the threshold promises; None takes what all trials show, or
            the upper end of its interval where they show none.
    """
    mated, nonmated = (trials.compared & (trials.mated == kind) for kind in (True, False))
    counts = count_trials(
        mated_distance=trials.distance[mated],
        mated_subject=trials.subjects[mated, 0],
        nonmated_distance=trials.distance[nonmated],
        nonmated_subjects=trials.subjects[nonmated],
        subjects=len(cohort_of),
        threshold=at.threshold,
    )
    rate = asked_fmr or at.fmr or at.fmr_upper95
    return cohort_report(counts, cohort_of, threshold=at.threshold, asked_fmr=rate)
