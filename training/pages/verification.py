"""The page of ``visavis evaluate verification``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from app.encoding.bulk import Embedded
from app.matching.cohorts import Cohort, CohortReport, Share
from training.evaluation.pairs import PairList
from training.evaluation.verification import Fold, Rates, Report, Trials, fold_accuracies
from training.pages.common import (
    SHOWN,
    Measurement,
    decided,
    failures,
    histogram,
    interval,
    no_image_twice,
    page,
    shot,
    whole,
)
from training.pictures.distances import curve_of_trials, det_curve, roc_curve
from training.pictures.rates import Span, rate_intervals
from training.pictures.rates import fold_accuracies as fold_picture
from training.pictures.report import Block, Comparison, Result, ShotGroup, Table
from training.pictures.report import Report as Page
from training.pictures.style import percent

KINDS = {"fnmr": "FNMR", "fmr_within": "FMR within", "fmr_others": "FMR against others"}


def verification_page(
    measured: Measurement,
    *,
    listed: PairList,
    embedded: Embedded,
    trials: Trials,
    report: Report,
    cohorts: CohortReport | None = None,
) -> Page:
    """Return the page.

    Args:
        measured: Model, folder, settings.
        listed: The trials, as listed.
        embedded: Their images, in the order of ``PairList.photos``.
        trials: The trials, as compared.
        report: What was measured on them, with all the model's operating points.
        cohorts: Rates by cohort, if they were asked for.
    """
    folds = fold_accuracies(trials)
    shown = page(
        measured,
        title="1:1 verification",
        results=list(_results(report, measured)),
        blocks=[
            _cohorts(cohorts) if cohorts else None,
            _worst(measured, listed, embedded, trials),
            failures(embedded, measured.data),
        ],
    )
    shown.tables = [_folds(folds, by_list=listed.folds is not None)]
    shown.point_tables = [_points(report, measured)]
    accuracy = np.array([fold.accuracy for fold in folds])
    shown.picture(
        fold_picture(accuracy, report.accuracy.mean, report.accuracy.std),
        "Accuracy by fold",
        caption="Right decisions in each fold, at the threshold that is best on all the others. Line and "
        "band: their mean and standard deviation.",
        alternative=f"Accuracies of {accuracy.size} folds from {percent(float(accuracy.min()))} to "
        f"{percent(float(accuracy.max()))}.",
        section="results",
        wide=True,
    )
    compared = trials.compared
    histogram(
        shown,
        measured,
        trials.distance[trials.mated],
        trials.distance[~trials.mated],
        caption=f"{np.count_nonzero(compared & trials.mated):,} mated and "
        f"{np.count_nonzero(compared & ~trials.mated):,} non-mated trials.",
    )
    _curves(shown, measured, trials, report)
    if cohorts and cohorts.cohorts:
        _cohort_picture(shown, cohorts)
    return shown


def _results(report: Report, measured: Measurement) -> Iterator[Result]:
    mated, nonmated = report.trials
    failed = sum(report.failed_trials)
    note = f"{mated:,} mated and {nonmated:,} non-mated trials of {report.subjects:,} subjects"
    yield Result(
        f"Accuracy, mean of {report.accuracy.folds} folds",
        report.accuracy.mean,
        note=f"standard deviation {percent(report.accuracy.std)}; trials with a failed image are non-matches",
        key=True,
    )
    note += f", less {failed:,} with a failed image" if failed else ""
    yield Result("EER", report.eer, *report.eer_interval, note, key=True)
    at, name = report.at_default, measured.model.manifest.default_operating_point
    yield Result(
        "FNMR at the default", at.fnmr, at.fnmr_lower95, at.fnmr_upper95, f"{name}; the same trials", key=True
    )
    yield Result(
        "FMR at the default", at.fmr, at.fmr_lower95, at.fmr_upper95, f"{name}; the same trials", key=True
    )
    for target, entry in report.fnmr_at_fmr.items():
        title = f"FNMR at FMR {percent(float(target))}"
        if isinstance(entry, Rates):
            note = "the same trials; threshold chosen on them"
            yield Result(title, entry.fnmr, entry.fnmr_lower95, entry.fnmr_upper95, note)
        else:
            yield Result(title, "-", note=entry.reason)


def _folds(folds: tuple[Fold, ...], *, by_list: bool) -> Table:
    return Table(
        "Accuracy by fold, " + ("as the list lays them out" if by_list else "trials dealt at random"),
        ["", *(str(number) for number in range(1, len(folds) + 1))],
        [
            ["right", *(whole(percent(fold.accuracy)) for fold in folds)],
            ["threshold", *(f"{fold.threshold:.4f}" for fold in folds)],
        ],
    )


def _points(report: Report, measured: Measurement) -> Table:
    manifest = measured.model.manifest
    rows = []
    for point in manifest.operating_points:
        at = report.at_points[point.name or ""]
        promise = f"FMR at most {percent(point.max_fmr)}" if point.max_fmr else ""
        default = " (default)" if point.name == manifest.default_operating_point else ""
        rows.append([f"{point.name}{default}", promise, *_rates(at)])
    for target, entry in report.fnmr_at_fmr.items():
        if isinstance(entry, Rates):
            rows.append([f"FMR {percent(float(target))}", "chosen on these trials", *_rates(entry)])
    columns = ["operating point", "promises", "threshold", "FMR", "95 % interval", "FNMR", "95 % interval"]
    return Table("The model's own thresholds, then those that these trials give", columns, rows)


def _rates(at: Rates) -> tuple[str, ...]:
    return (
        f"{at.threshold:.4f}",
        whole(percent(at.fmr)),
        whole(interval(at.fmr_lower95, at.fmr_upper95)),
        whole(percent(at.fnmr)),
        whole(interval(at.fnmr_lower95, at.fnmr_upper95)),
    )


def _curves(shown: Page, measured: Measurement, trials: Trials, report: Report) -> None:
    curve = curve_of_trials(trials)
    rates = {name: (at.fmr, at.fnmr) for name, at in report.at_points.items()}
    words = "".join(
        f" {name}: FMR {percent(fmr)}, FNMR {percent(fnmr)}." for name, (fmr, fnmr) in rates.items()
    )
    name = measured.model.model_id
    shown.picture(
        det_curve({name: curve}, points={n: p for n, p in rates.items() if min(p) > 0.0 and p[1] < 0.5}),
        "DET",
        caption="FNMR against FMR, lower left is better. Marks: the model's operating points, where neither "
        "rate is zero. Band: 95 % intervals of the FNMR by resampling subjects.",
        alternative=f"The two error rates are equal at {percent(report.eer)}.{words}",
        section="points",
    )
    shown.picture(
        roc_curve({name: curve}, points={n: p for n, p in rates.items() if p[0] > 0.0}),
        "ROC",
        caption="The same rates: the share of mated trials that match, against FMR on a logarithmic axis.",
        alternative=f"{percent(1.0 - report.eer)} of the mated trials match where the FMR is "
        f"{percent(report.eer)}.",
        section="points",
    )


def _worst(measured: Measurement, listed: PairList, embedded: Embedded, trials: Trials) -> Block:
    point = measured.model.manifest.default_point
    sides = listed.rows()
    groups = []
    for mated, title, words in (
        (True, "Mated pairs farthest apart", "Two images of one subject each."),
        (False, "Non-mated pairs closest together", "Images of two subjects each."),
    ):
        of_kind = np.flatnonzero((trials.mated == mated) & trials.compared)
        order = of_kind[np.argsort(trials.distance[of_kind] * (-1.0 if mated else 1.0), kind="stable")]
        comparisons = []
        for trial in no_image_twice(order, sides, SHOWN):
            said, right = decided(float(trials.distance[trial]), point.threshold, mated=mated)
            shots = [shot(embedded.paths[row], measured.data) for row in sides[trial]]
            comparisons.append(Comparison(shots, said, right))
        groups.append(ShotGroup(title, f"{words} No image is shown twice.", comparisons))
    return Block(
        "pairs",
        "Worst pairs",
        lead=f"Decided at {point.threshold:.4f}, the threshold of {point.name}: a solid green frame is a "
        "right decision, a dashed red one a wrong one. Wrong labels in the data end up here first.",
        groups=groups,
    )


def _cohorts(report: CohortReport) -> Block:
    withheld = [
        [cohort.name, title, share.reason]
        for cohort in _all(report)
        for share, title in _shares(cohort)
        if share.rate is None
    ]
    columns = ["cohort", "subjects", *(text for title in KINDS.values() for text in (title, "95 % interval"))]
    tables = [Table(f"At the threshold {report.threshold:.4f}", columns, [_cohort(c) for c in _all(report)])]
    ratios = [["FNMR", report.fnmr_ratio.in_words], ["FMR within", report.fmr_ratio.in_words]]
    tables.append(Table("Largest rate over smallest, by cohort", ["rate", "ratio"], ratios))
    if withheld:
        tables.append(Table("Rates withheld; their intervals stay", ["cohort", "rate", "reason"], withheld))
    if report.suppressed:
        rows = [[hidden.name, str(hidden.subjects), hidden.reason] for hidden in report.suppressed]
        tables.append(Table("Cohorts not shown on their own", ["cohort", "subjects", "reason"], rows))
    return Block(
        "cohorts",
        "Cohorts",
        lead="FMR within: both subjects are of the cohort, whose people resemble each other more than people "
        f"at large. Cohorts of fewer than {report.minimum} subjects with mated trials are not shown on their "
        "own.",
        tables=tables,
    )


def _all(report: CohortReport) -> list[Cohort]:
    return [*report.cohorts, *([report.together] if report.together else [])]


def _shares(cohort: Cohort) -> list[tuple[Share, str]]:
    return [(getattr(cohort, kind), title) for kind, title in KINDS.items()]


def _cohort(cohort: Cohort) -> list[str]:
    row = [cohort.name, f"{cohort.subjects:,}"]
    for share, _ in _shares(cohort):
        row.append("withheld" if share.rate is None else percent(share.rate))
        known = share.lower95 is not None and share.upper95 is not None
        row.append(interval(share.lower95 or 0.0, share.upper95 or 0.0) if known else "")
    return [whole(cell) for cell in row]


def _cohort_picture(shown: Page, report: CohortReport) -> None:
    every = _all(report)
    spans = {
        title: {
            cohort.name: Span(share.rate, share.lower95, share.upper95)
            for cohort in every
            for share in [getattr(cohort, kind)]
        }
        for kind, title in KINDS.items()
    }
    shown.picture(
        rate_intervals(spans),
        "Rates by cohort",
        caption="Dots: rates. Lines: 95 % intervals by subject. A line without a dot is a withheld rate; an "
        "arrow says that its interval goes on.",
        alternative=f"Rates of {len(every)} cohorts as in the table.",
        section="cohorts",
        wide=True,
    )
