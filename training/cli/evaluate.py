"""``visavis evaluate``: measure a model on labelled images. Needs no TensorFlow."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from app.cli.cohort_file import check_known, read_cohorts
from app.cli.cohort_table import cohort_lines
from app.cli.common import face_option, models_dir_option, print_json, span
from app.encoding.detection import FaceChoice
from app.encoding.model import Model
from app.matching.cohorts import CohortReport, labelled
from training.cli.identification import identification
from training.cli.measuring import (
    as_json_option,
    check_page,
    described,
    embedded_with_progress,
    html_option,
    model_line,
    model_option,
    opened,
    write_page,
)
from training.cli.oneshot import nway, oneshot
from training.evaluation.cohorts import measured_by_cohort
from training.evaluation.pairs import PairList, locate_images, read_pairs
from training.evaluation.verification import Rates, Report, run_trials
from training.evaluation.verification import evaluate as measure


@click.group()
def evaluate() -> None:
    """Measure a model on labelled images."""


for _command in (oneshot, nway, identification):
    evaluate.add_command(_command)


@evaluate.command("verification")
@model_option
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of NAME/NAME_0001.jpg and so on.",
)
@click.option(
    "--pairs",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="List of trials in the format of LFW's pairs.txt.",
)
@click.option(
    "--cohorts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="CSV or TSV file of subject,cohort: report error rates by cohort too.",
)
@html_option
@face_option("central")
@models_dir_option
@as_json_option
def verification(
    model: str | None,
    images: Path,
    pairs: Path,
    cohorts: Path | None,
    html: Path | None,
    face: FaceChoice,
    models_dir: Path | None,
    as_json: bool,
) -> None:
    """Measure 1:1 error rates on a folder in LFW's layout.

    Each line of PAIRS is 'NAME I J' (a mated trial: two images of one subject) or 'NAME_A I NAME_B J' (a
    non-mated one). A first line 'FOLDS N', as in LFW's View 2, says that each fold is N mated and then N
    non-mated trials; 'N' alone says the same of the whole file.

    Reported are the accuracy (each fold at the threshold that is best on the others; ten random folds when
    the list has none), the EER, the FNMR at FMR 1e-2, 1e-3 and 1e-4, and both rates at the model's default
    threshold, with 95 % intervals that resample subjects, not pairs. The interval of an FNMR at an FMR counts
    that its threshold comes from the same trials.

    With --cohorts, both rates at the default threshold are reported for each cohort of subjects: FNMR, FMR
    within the cohort (the harder kind) and FMR against others. Small cohorts are not shown on their own.

    A file that is missing is an error. An image that cannot be decoded or shows no usable face is a
    failure to acquire: its trials are non-matches in the accuracy, are left out of FMR, FNMR and EER, and
    are counted.
    """
    check_page(html)
    listed = read_pairs(pairs)
    cohort_of = _cohorts(cohorts, listed) if cohorts else None
    files = locate_images(listed, images)
    loaded = opened(model, models_dir)
    embedded = embedded_with_progress(loaded, [files[photo] for photo in sorted(files)], face)
    manifest = loaded.manifest
    point = manifest.default_point
    trials = run_trials(listed, embedded, manifest.metric)
    thresholds = {p.name or "": p.threshold for p in manifest.operating_points}
    report = measure(trials, point.threshold, points=thresholds)
    by_cohort = (
        measured_by_cohort(trials, cohort_of, report.at_default, asked_fmr=point.max_fmr)
        if cohort_of
        else None
    )
    answer = {
        **described(loaded),
        "images": len(files),
        "failures_to_acquire": int((~embedded.ok).sum()),
        **report.as_json(),
    }
    asked = {"name": point.name, "max_fmr": point.max_fmr}
    answer["at_default_threshold"] = {**asked, **answer["at_default_threshold"]}
    if by_cohort:
        answer["cohorts"] = {**asked, **by_cohort.as_json()}
    if html:
        # They import Matplotlib, which the other options do without.
        from training.pages.common import Measurement  # noqa: PLC0415
        from training.pages.verification import verification_page  # noqa: PLC0415

        settings = {"pairs": pairs.name, "face": face, **({"cohorts": cohorts.name} if cohorts else {})}
        page = verification_page(
            Measurement(loaded, images, settings, datetime.now(UTC)),
            listed=listed,
            embedded=embedded,
            trials=trials,
            report=report,
            cohorts=by_cohort,
        )
        write_page(html, page.html())
    if as_json:
        print_json(answer)
    else:
        click.echo(_table(report, answer, loaded, by_cohort))


def _cohorts(file: Path, listed: PairList) -> tuple[str, ...]:
    """Return the cohort of each subject of a list, in the list's order."""
    known, subjects = read_cohorts(file), listed.subjects()
    check_known(known, subjects, file.name)
    unused = len(known.keys() - set(subjects))
    if unused:
        click.echo(f"{file.name}: {unused} of its {len(known)} subjects take part in no trial", err=True)
    return labelled(subjects, known)


def _table(report: Report, answer: dict[str, Any], model: Model, cohorts: CohortReport | None) -> str:
    mated, nonmated = report.trials
    failed_mated, failed_nonmated = report.failed_trials
    accuracy = report.accuracy
    lines = [
        model_line(model),
        f"trials    {mated} mated, {nonmated} non-mated; {answer['images']} images of "
        f"{report.subjects} subjects",
        f"failures  {answer['failures_to_acquire']} images not acquired; {failed_mated} mated and "
        f"{failed_nonmated} non-mated trials not compared",
        f"accuracy  {accuracy.mean:.4f} +- {accuracy.std:.4f} over {accuracy.folds} folds",
        f"EER       {report.eer:.4f}  {span(report.eer_interval)}",
        "",
        f"{'at':<18}{'threshold':<11}{'FMR':<31}FNMR",
    ]
    for target, entry in report.fnmr_at_fmr.items():
        label = f"FMR {target}"
        lines.append(_row(label, entry) if isinstance(entry, Rates) else f"{label:<18}{entry.reason}")
    lines.append(_row(str(model.manifest.default_operating_point), report.at_default))
    if cohorts:
        lines += ["", *cohort_lines(cohorts, str(model.manifest.default_operating_point))]
    lines += ["", "The last row is the model's default threshold. In brackets: 95 % intervals by subject."]
    return "\n".join(lines)


def _row(label: str, rates: Rates) -> str:
    fmr = f"{rates.fmr:.2e}  {span((rates.fmr_lower95, rates.fmr_upper95), '.2e')}"
    fnmr = f"{rates.fnmr:.4f}  {span((rates.fnmr_lower95, rates.fnmr_upper95))}"
    return f"{label:<18}{rates.threshold:<11.4f}{fmr:<31}{fnmr}"
