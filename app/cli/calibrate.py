"""``visavis calibrate``: thresholds from one's own people, for a collection or for a whole bundle."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from app import answers
from app.cli.cohort_table import cohort_lines
from app.cli.common import (
    as_json_option,
    database_option,
    face_option,
    given,
    models_dir_option,
    print_json,
    progress_bar,
    run,
)
from app.context import Context, open_context
from app.encoding.detection import FaceChoice
from app.encoding.model import Model
from app.errors import InvalidRequestError
from app.matching.cohorts import CohortReport, cohort_report, count_tail
from app.services import audit as auditing
from app.services import calibration
from app.services.calibration import Calibrated, Failure, Measured, Probes
from app.services.names import collection_name, identity_name
from app.settings import load_settings

_LINES: Final = 20
"""Photos that could not be used, in the text; --json has all."""
_folder = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.option("--collection", help="Collection to calibrate on its own references.")
@click.option("--probes", type=_folder, help="Labelled photos <identity>/<image>, for the FNMR.")
@click.option(
    "--accept-duplicates", is_flag=True, help="Go on although some identities are probably one person."
)
@click.option("--remove", is_flag=True, help="Go back to the model's own evidence.")
@click.option("--model", help="Bundle to measure anew.  [default: the first of VISAVIS_MODELS]")
@click.option("--data", type=_folder, help="Photos <subject>/<image> to measure the bundle on.")
@click.option(
    "--pairs",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="List of trials as LFW's pairs.txt; without it all pairs are compared.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the new bundle, named like the model."
)
@click.option("--seed", type=click.IntRange(0), help="Of the draw where all pairs would be too many.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder that an interrupted run goes on from.")
@click.option(
    "--cohorts",
    metavar="KEY|FILE",
    help="Also rates by cohort: a key of the identities' metadata, or with --data a file of subject,cohort.",
)
@face_option("largest")
@database_option
@models_dir_option
@as_json_option
def calibrate(
    collection: str | None,
    probes: Path | None,
    accept_duplicates: bool,
    remove: bool,
    model: str | None,
    data: Path | None,
    pairs: Path | None,
    out: Path | None,
    seed: int | None,
    work: Path | None,
    cohorts: str | None,
    face: FaceChoice,
    as_json: bool,
    **store: Any,  # noqa: ANN401 - database_url and models_dir
) -> None:
    """Measure error rates on your own people, and decide by them.

    With --collection the collection's references are compared with one another, and --probes, if given, with
    the reference of their identity. Verifications and searches that ask for a rate use the result from then
    on, where it supports the rate. With --data a copy of a bundle gets its thresholds from the photos there.
    """
    if (collection is None) == (data is None):
        raise click.UsageError("give --collection NAME, or --data FOLDER to measure a bundle")
    if collection is not None:
        _refuse("--data", "model", "pairs", "out", "seed", "work")
        if remove:
            _refuse("a measurement, not with --remove", "probes", "accept_duplicates", "cohorts")
        _of_collection(
            collection_name(collection),
            store,
            probes=probes,
            face=face,
            accept_duplicates=accept_duplicates,
            remove=remove,
            key=cohorts,
            as_json=as_json,
        )
        return
    _refuse("--collection", "probes", "accept_duplicates", "remove", "face", "database_url")
    settings = load_settings(**given(models_dir=store["models_dir"]))
    # By name, because the service knows nothing of the offline half.
    offline = importlib.import_module("training.calibration")
    offline.main_for_cli(
        model_folder=settings.models_dir / (model or settings.models[0]),
        data=data,
        pairs=pairs,
        out=out,
        seed=seed or 0,
        work=work,
        cohorts=None if cohorts is None else _existing(cohorts),
        as_json=as_json,
    )


def _of_collection(
    name: str,
    store: Mapping[str, Any],
    *,
    probes: Path | None,
    face: FaceChoice,
    accept_duplicates: bool,
    remove: bool,
    key: str | None,
    as_json: bool,
) -> None:
    with open_context(load_settings(**given(**store)), existing=True) as context:
        if remove:
            run(context.calibration.remove(name))
            in_force = answers.evidence_in_force(run(context.calibration.in_force(name)))
            if as_json:
                print_json(in_force.model_dump(mode="json"))
            else:
                click.echo(f"removed; the evidence of {in_force.model} is in force: {_trials(in_force)}")
            return
        result, reports = _calibrated(context, name, probes, face, accept_duplicates, key)
    answer = answers.evidence_measured(result)
    if as_json:
        by_cohort = {} if key is None else {"cohorts": [report.as_json() for report in reports]}
        print_json({**answer.model_dump(mode="json"), **by_cohort})
        return
    click.echo("\n".join([*_lines(answer), *(line for report in reports for line in _cohorts(report))]))


def _calibrated(
    context: Context,
    name: str,
    folder: Path | None,
    face: FaceChoice,
    accept_duplicates: bool,
    key: str | None,
) -> tuple[Calibrated, list[CohortReport]]:
    files = [] if folder is None else auditing.labelled_files(folder, field="probes")
    labelled = [(identity_name(identity, field="probes"), path) for identity, path in files]
    references = context.database.read_now(
        calibration.read_references, context.models, name, {identity for identity, _ in labelled}
    )
    if key is not None and not any(key in metadata for metadata in references.metadata):
        raise InvalidRequestError(
            [{"field": "cohorts", "problem": f"no identity has {key!r} in its metadata"}]
        )
    with progress_bar(2 * len(references.labels), "comparing") as progress:
        trials, close = calibration.compared(
            references, accept_duplicates=accept_duplicates, progress=progress
        )
    done = calibration.measured(references, trials, close, _embedded(references.model, labelled, face))
    reports = [] if key is None else _by_cohort(done, key)
    return context.database.write_now(calibration.stored, done), reports


def _embedded(model: Model, files: Sequence[tuple[str, Path]], face: FaceChoice) -> Probes:
    with progress_bar(len(files), "embedding") as progress:
        rows, failed = auditing.embedded(model, files, face, auditing.StateFile(None), progress=progress)
    usable = [number for number, (_, path) in enumerate(files) if path not in failed]
    return Probes(
        tuple(files[number][0] for number in usable),
        rows[usable],
        tuple(
            Failure(identity, str(path), failed[path].partition(":")[0])
            for identity, path in files
            if path in failed
        ),
    )


def _by_cohort(done: Measured, key: str) -> list[CohortReport]:
    """Return the rates of each cohort at every threshold that the trials support."""
    references, trials = done.references, done.trials
    # Only what can be shown as a word is a cohort.
    values = [metadata.get(key) for metadata in references.metadata]
    labels = [str(value) if isinstance(value, str | int | float) else None for value in values]
    reports = []
    for rate in calibration.rates(trials):
        threshold = trials.threshold_for(rate)
        counts = count_tail(
            mated_distance=trials.mated_distance,
            mated_subject=trials.mated_subject,
            closest_distance=trials.nonmated_distance,
            closest_subjects=trials.nonmated_subjects,
            images=np.bincount(references.labels),
            threshold=threshold,
        )
        reports.append(cohort_report(counts, labels, threshold=threshold, asked_fmr=rate))
    return reports


def _lines(answer: answers.EvidenceMeasured) -> Iterator[str]:
    duplicates, probes = answer.duplicates, answer.probes
    yield f"collection  {answer.collection}, revision {answer.evidence.revision}, model {answer.model}"
    yield f"trials      {_trials(answer)}"
    yield (
        f"duplicates  {duplicates.seen:,} pairs within {duplicates.threshold:.4f}, at most "
        f"{duplicates.expected_at_most:.3g} expected by chance{', accepted' if duplicates.suspected else ''}"
    )
    for failure in probes.failures_to_acquire[:_LINES]:
        yield f"not used    {failure.image}: {failure.code}"
    if len(probes.failures_to_acquire) > _LINES:
        yield f"not used    and {len(probes.failures_to_acquire) - _LINES:,} more; --json has them"
    yield ""
    yield f"{'':<22}{'this collection':<30}the model's bundle, at the same threshold"
    columns = f"{'FMR':<10}{'at most':<10}{'FNMR':<10}"
    yield f"{'max FMR':<10}{'threshold':<12}{columns}{columns}".rstrip()
    for point in answer.operating_points:
        own, bundle = point.in_force, point.bundle
        yield (
            f"{own.max_fmr:<10.0e}{own.threshold:<12.4f}"
            + "".join(
                f"{'-' if rate is None else f'{rate:{style}}':<10}"
                for one in (own, bundle)
                for rate, style in ((one.fmr, ".2e"), (one.fmr_upper95, ".2e"), (one.fnmr, ".4f"))
            )
        ).rstrip()
    yield f"smallest FMR that these trials can show: {answer.smallest_fmr:.2g}"


def _cohorts(report: CohortReport) -> Iterator[str]:
    yield ""
    yield f"cohorts at a threshold of {report.threshold:.4f}; in brackets the 95 % interval"
    yield from cohort_lines(report, f"max FMR {report.asked_fmr:.0e}")


def _trials(answer: answers.EvidenceInForce) -> str:
    evidence = answer.evidence
    return f"{evidence.mated:,} mated, {evidence.nonmated:,} non-mated: {evidence.description}"


def _existing(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise InvalidRequestError([{"field": "cohorts", "problem": f"there is no file {text}"}])
    return path


def _refuse(goes_with: str, *names: str) -> None:
    """Refuse options of the other use, where they were given."""
    ctx = click.get_current_context()
    for name in names:
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with {goes_with}")
