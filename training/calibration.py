"""``visavis calibrate``: measure a bundle on labelled photos of one's own and give it their thresholds.

The bundle's exported graphs run behind the service's own intake. All pairs of ``<subject>/<image>`` photos
are compared, or exactly those that a list in the format of LFW's ``pairs.txt`` names. What comes out is a
copy of the bundle with its own evidence, operating points, golden decisions, plots, card and seal; the
encoder, and so every template made with it, stays the same.

Interrupted, the same command goes on where it was: embeddings are kept in a work folder
(``training.embedding_cache``). Equal photos and an equal seed give equal bytes of ``evidence.npz``.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from app.cli.cohort_file import check_known, read_cohorts
from app.cli.common import print_json, progress_bar
from app.encoding.image_encoder import ImageEncoder
from app.encoding.manifest import MANIFEST_NAME, Manifest
from app.encoding.model import open_model
from app.encoding.onnx_session import Provider
from app.errors import VisavisError
from app.settings import load_settings
from training.data.errors import DataError
from training.data.preparing import LIMITS
from training.embedding_cache import EmbeddingCache
from training.evaluation.pairs import PairList, locate_images, read_pairs
from training.evidence_card import PLOTS, CardError, evidence_section, with_evidence
from training.measured_evidence import evidence_results, evidence_summary, subject_images, write_evidence
from training.measurement import STEPS, Measurement, measure
from training.trial_sets import Photos, TrialSet

CARD: Final = "MODEL_CARD.md"
EVIDENCE: Final = "evidence.npz"
LABEL_ERRORS: Final = "label_errors.json"
FAILURES: Final = "failures.json"

ROLE: Final = "evidence only: nothing was trained on it, none of it is in the bundle"
"""Of the images in the manifest's list of data sets."""

SERVED: Final = "with the exported graph through the service's own code"

PLOT_DPI: Final = 90

Bar = Callable[[int, str], AbstractContextManager[Callable[[int], None]]]
"""A progress bar: total and label to what takes the steps."""


class MissingExtraError(VisavisError):
    """A package of the extra ``train`` is not installed."""

    code = "extra_missing"


class CalibrationRefusedError(VisavisError):
    """The folder to write to is not one that may be written."""

    code = "calibration_refused"


@contextmanager
def no_bar(_total: int, _label: str) -> Iterator[Callable[[int], None]]:
    """Show no progress."""
    yield lambda _: None


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What a calibration made.

    Attributes:
        folder: The bundle.
        work: Folder with embeddings, label errors and failures.
        manifest: Of the bundle.
        measurement: Behind it.
    """

    folder: Path
    work: Path
    manifest: Manifest
    measurement: Measurement


def main_for_cli(
    *,
    model_folder: Path,
    data: Path,
    pairs: Path | None,
    out: Path | None,
    seed: int,
    work: Path | None,
    cohorts: Path | None,
    as_json: bool,
) -> None:
    """Run the command: calibrate and say what came out.

    Raises:
        VisavisError: Something that was given cannot be used; the message says what to change.
    """
    done = calibrate_bundle(
        model_folder,
        data,
        pairs=pairs,
        out=out,
        seed=seed,
        work=work,
        cohorts=cohorts,
        provider=load_settings().provider,
        bar=progress_bar,
    )
    for reason, count in done.measurement.measured.results["failures_to_acquire"].items():  # type: ignore[union-attr]
        click.echo(f"not acquired: {count} images, {reason}", err=True)
    answer = _answer(done)
    if as_json:
        print_json(answer)
    else:
        click.echo(_report(done))


def calibrate_bundle(
    model_folder: Path,
    data: Path,
    *,
    pairs: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
    work: Path | None = None,
    cohorts: Path | None = None,
    provider: Provider = "auto",
    about: str = "",
    bar: Bar = no_bar,
) -> Calibrated:
    """Measure a bundle on labelled photos and write a copy of it with their evidence.

    Args:
        model_folder: The bundle.
        data: Folder of ``<subject>/<image>``, or of LFW's layout with ``pairs``.
        pairs: List of trials; None compares every image with every other.
        out: Folder to write, named like the model; the default is ``runs/calibrate-<model>/models/<model>``.
            The bundle itself is changed only when it is named here.
        seed: Of the draw of images where all would be too many.
        work: Folder for what an interrupted run has done; the default is ``runs/calibrate-<model>/work``.
        cohorts: File of ``subject,cohort``, for rates by cohort.
        provider: What runs the graphs.
        about: What the photos are, for the card.
        bar: Shows progress.

    Raises:
        MissingExtraError: The extra ``train`` is not installed.
        CalibrationRefusedError: ``out`` is no folder that may be written.
        DataError: The photos show too few subjects.
        InvalidRequestError: A list or a file of cohorts is wrong.
        StartupError: The bundle is not sound.
    """
    need_extra()
    model_folder = model_folder.resolve()
    model_id = model_folder.name
    home = Path("runs") / f"calibrate-{model_id}"
    work = work or home / "work"
    out = (out or home / "models" / model_id).resolve()
    _check_out(out, model_id)
    listed = None if pairs is None else read_pairs(pairs)
    cohort_of = None if cohorts is None else read_cohorts(cohorts)
    model = open_model(model_folder, provider=provider, limits=LIMITS)
    trials = trials_of(
        model.images,
        model.digest,
        data,
        work,
        listed=listed,
        seed=seed,
        bar=bar,
    )
    if cohort_of is not None and cohorts is not None:
        check_known(cohort_of, trials.photos.subjects, cohorts.name)
    measurement = measured(trials, data.resolve().name, listed, cohort_of, bar)
    report_label_errors(measurement, trials.photos, work)
    partial = out.with_name(f"{out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(model_folder, partial / model_id)
    manifest = write_measured(
        partial / model_id, model.manifest, measurement, data_name=data.resolve().name, about=about
    )
    _replace(partial, out)
    return Calibrated(out, work, manifest, measurement)


def need_extra() -> None:
    """Refuse to go on without what plots and golden decisions are made with.

    Raises:
        MissingExtraError: A package is not installed; the message says how to get it.
    """
    for package in ("matplotlib", "onnx"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"calibration needs {package}: pip install 'visavis[train]'")


def trials_of(
    encoder: ImageEncoder,
    digest: str,
    data: Path,
    work: Path,
    *,
    listed: PairList | None = None,
    seed: int = 0,
    bar: Bar = no_bar,
) -> TrialSet:
    """Embed the photos below a folder and form trials.

    Args:
        encoder: The model's encoder.
        digest: Of the graphs and the preprocessing.
        data: Folder of ``<subject>/<image>``.
        work: Folder that keeps the embeddings.
        listed: The trials; None compares every image with every other.
        seed: Of the draw of images where all would be too many.
        bar: Shows progress.

    Raises:
        DataError: Fewer than two subjects have an image that can be embedded.
        InvalidRequestError: An image of the list is not there.
    """
    files: Sequence[tuple[str, Path]]
    if listed is None:
        try:
            files = subject_images(data)
        except ValueError as error:
            raise DataError(str(error)) from error
    else:
        located = locate_images(listed, data)
        files = [(photo.subject, located[photo]) for photo in listed.photos()]
    paths = [path for _, path in files]
    with bar(len(paths), "embedding") as progress:
        cache = EmbeddingCache(work / "embeddings", f"{digest} {encoder.provider}")
        stored = cache.embed(encoder, data, paths, "central", progress=progress)
    names = [path.relative_to(data).as_posix() for path in paths]
    work.mkdir(parents=True, exist_ok=True)
    failed = {name: reason for name, reason in zip(names, stored.reasons, strict=True) if reason}
    _write_json(work / FAILURES, failed)
    rows = np.flatnonzero(stored.ok)
    # A subject without a single usable image took part in no trial and is not counted.
    subjects, labels = np.unique(np.array([subject for subject, _ in files])[rows], return_inverse=True)
    if subjects.size < 2:
        raise DataError(
            f"only {rows.size} images of {subjects.size} subjects in {data} can be embedded; two are "
            f"needed, and {work / FAILURES} says what is wrong with the others"
        )
    photos = Photos(
        embeddings=stored.embeddings[rows],
        labels=labels.astype(np.int32),
        subjects=tuple(subjects.tolist()),
        names=tuple(names[row] for row in rows),
        digests=tuple(stored.digests[row] for row in rows),
        failures=Counter(reason.partition(":")[0] for reason in failed.values()),
    )
    compared = None
    if listed is not None:
        place = dict(zip(listed.photos(), np.cumsum(stored.ok) - 1, strict=True))
        usable = dict(zip(listed.photos(), stored.ok, strict=True))
        compared = np.array(
            [
                (place[pair.first], place[pair.second])
                for pair in listed.pairs
                if usable[pair.first] and usable[pair.second]
            ],
            np.intp,
        ).reshape(-1, 2)
    return TrialSet(photos, encoder.encoding.metric, pairs=compared, seed=seed)


def measured(
    trials: TrialSet,
    name: str,
    listed: PairList | None = None,
    cohort_of: dict[str, str] | None = None,
    bar: Bar = no_bar,
) -> Measurement:
    """Measure the trials.

    Args:
        trials: As ``trials_of`` returns them.
        name: Of the folder of photos.
        listed: The list that they come from; None where every image is compared with every other.
        cohort_of: Cohort by subject.
        bar: Shows progress.

    Raises:
        DataError: They support no operating point.
    """
    size = trials.photos.labels.size
    source = (
        f"all pairs of {size} images in {name}"
        if listed is None
        else f"the trials of {listed.source} on {size} images in {name}"
    )
    try:
        with bar(STEPS, "comparing") as progress:
            return measure(trials, source, cohorts=cohort_of, progress=progress)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error


def report_label_errors(measurement: Measurement, photos: Photos, work: Path) -> None:
    """Write the likely label errors by name into the work folder; the bundle has their numbers only."""
    if measurement.errors is not None:
        _write_json(work / LABEL_ERRORS, measurement.errors.as_json(photos.names, photos.subjects))


def write_measured(
    folder: Path,
    manifest: Manifest,
    measurement: Measurement,
    *,
    data_name: str | None = None,
    about: str = "",
    plots: Iterable[str] = PLOTS,
    unit: str = "subjects",
    how: str = SERVED,
) -> Manifest:
    """Write evidence, plots, golden decisions, card, manifest and seal into a bundle's folder.

    Args:
        folder: The bundle, its graphs and golden embeddings in place.
        manifest: As it was.
        measurement: On the exported graph.
        data_name: Of the images, for the list of data sets; None leaves that as it is.
        about: What they are, for the card.
        plots: Which of ``PLOTS``.
        unit: What bounds count as independent, for the card.
        how: The trials were run, for the card.
    """
    from training.bundle_files import file_entries, write_manifest  # noqa: PLC0415 - onnx is an extra
    from training.golden import add_pairs  # noqa: PLC0415

    write_evidence(folder / EVIDENCE, measurement.measured)
    write_plots(folder, measurement, manifest.model_id, manifest.metric, files=plots)
    add_pairs(folder, measurement.points, manifest.metric)
    write_card(folder, manifest.metric, about, unit=unit, how=how)
    datasets = manifest.datasets
    if data_name is not None:
        others = [item for item in datasets if item.get("role") != ROLE]
        datasets = (*others, {"name": data_name, "role": ROLE, "licence": "not recorded"})
    changed = Manifest.model_validate(
        {
            **manifest.model_dump(),
            "files": file_entries(folder, tuple(manifest.files)),
            "operating_points": measurement.points,
            "default_operating_point": measurement.default.name,
            "evidence": evidence_summary(folder / EVIDENCE),
            "datasets": datasets,
            "results": {**manifest.results, "evidence": dict(measurement.measured.results)},
        }
    )
    write_manifest(folder, changed)
    return changed


def write_plots(
    folder: Path, measurement: Measurement, name: str, metric: str, *, files: Iterable[str] = PLOTS
) -> None:
    """Write DET, distances and reliability as PNG; one that cannot be drawn any more is removed.

    Args:
        folder: The bundle.
        measurement: On the exported graph.
        name: Of the model.
        metric: Of the model.
        files: Which of ``PLOTS``.
    """
    from training.pictures.evidence import (  # noqa: PLC0415 - matplotlib is an extra
        evidence_det,
        evidence_distances,
        reliability_diagram,
    )
    from training.pictures.style import png  # noqa: PLC0415

    evidence = measurement.measured.evidence
    points = {point.name or "": point.threshold for point in measurement.points}
    figures: dict[str, Any] = {}
    if evidence.mated_total:
        figures["evidence-det.png"] = evidence_det(evidence, name, points, measurement.corrected)
        figures["evidence-distances.png"] = evidence_distances(evidence, points, f"{metric} distance")
    if measurement.held_out is not None:
        figures["reliability.png"] = reliability_diagram(measurement.held_out.splits)
    for file in files:
        (folder / file).unlink(missing_ok=True)
        if file in figures:
            (folder / file).write_bytes(png(figures[file], dpi=PLOT_DPI))


def write_card(
    folder: Path, metric: str, about: str = "", *, unit: str = "subjects", how: str = SERVED
) -> None:
    """Write the evidence's part of the model card, from ``evidence.npz`` and the plots that lie there.

    Raises:
        DataError: The card has one marker without the other.
    """
    card = folder / CARD
    section = evidence_section(
        evidence_summary(folder / EVIDENCE),
        evidence_results(folder / EVIDENCE),
        metric=metric,
        plots=[name for name in PLOTS if (folder / name).is_file()],
        about=about,
        unit=unit,
        how=how,
    )
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# Model card: `{folder.name}`\n"
    try:
        card.write_text(with_evidence(text, section), encoding="utf-8")
    except CardError as error:
        raise DataError(f"{card}: {error}") from error


def _check_out(out: Path, model_id: str) -> None:
    if out.name != model_id:
        raise CalibrationRefusedError(
            f"--out {out}: a bundle's folder is named like its model; give {out / model_id}"
        )
    if out.exists() and not out.is_dir():
        raise CalibrationRefusedError(f"--out {out} is a file; give a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST_NAME).is_file():
        raise CalibrationRefusedError(
            f"--out {out} holds something that is no bundle; give an empty or a new folder"
        )


def _replace(partial: Path, out: Path) -> None:
    """Put the finished bundle in the place of what was there, in two renames."""
    old = partial / "old"
    if out.exists():
        out.rename(old)
    (partial / out.name).rename(out)
    shutil.rmtree(partial)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _answer(done: Calibrated) -> dict[str, Any]:
    manifest = done.manifest
    return {
        "model": manifest.model_id,
        "model_digest": manifest.digest,
        "metric": manifest.metric,
        "bundle": str(done.folder),
        "work": str(done.work),
        "evidence": manifest.evidence.model_dump(mode="json"),
        "operating_points": [point.model_dump(mode="json") for point in manifest.operating_points],
        "default_operating_point": manifest.default_operating_point,
        **done.measurement.measured.results,
    }


def _report(done: Calibrated) -> str:
    manifest, errors = done.manifest, done.measurement.errors
    summary, digest = manifest.evidence, manifest.digest[:12]
    lines = [
        f"model     {manifest.model_id} {manifest.version} ({digest}), {manifest.metric} distance",
        f"trials    {summary.mated:,} mated, {summary.nonmated:,} non-mated: {summary.source}",
        f"subjects  {summary.subjects}; {summary.failures_to_acquire} of {summary.images} images failed",
        "",
        f"{'point':<12}{'threshold':<11}{'FMR':<10}{'at most':<10}{'FNMR':<8}",
    ]
    for point in manifest.operating_points:
        default = "  (default)" if point.name == manifest.default_operating_point else ""
        lines.append(
            f"{point.name:<12}{point.threshold:<11.4f}{point.fmr or 0.0:<10.2e}"
            f"{1.0 if point.fmr_upper95 is None else point.fmr_upper95:<10.2e}"
            f"{'' if point.fnmr is None else f'{point.fnmr:.4f}':<8}{default}"
        )
    if errors is not None and errors.any:
        counts = errors.counts()
        lines += [
            "",
            f"labels    likely wrong: {counts['subjects_taken_as_one']} subject names whose subject has "
            f"another, {counts['images_of_another_subject']} images of another subject, "
            f"{counts['copies_under_two_subjects']} photos under two subjects. They count as labelled; "
            f"{done.work / LABEL_ERRORS} names them, {CARD} has the rates without them.",
        ]
    lines += ["", f"written   {done.folder}"]
    return "\n".join(lines)


__all__ = [
    "Calibrated",
    "CalibrationRefusedError",
    "MissingExtraError",
    "calibrate_bundle",
    "main_for_cli",
    "write_card",
    "write_measured",
]
