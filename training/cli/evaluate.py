"""``visavis evaluate``: measure a model on labelled images. Needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from app.cli.common import face_option, given, models_dir_option, print_json, progress_bar
from app.encoding.detection import FaceChoice
from app.encoding.model import Model, open_model
from app.settings import load_settings
from training.evaluation.pairs import locate_images, read_pairs
from training.evaluation.verification import Rates, Report, embed_photos, run_trials
from training.evaluation.verification import evaluate as measure

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def evaluate() -> None:
    """Measure a model on labelled images."""


@evaluate.command("verification")
@click.option("--model", help="Model id.  [default: the first of VISAVIS_MODELS]")
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
@face_option("central")
@models_dir_option
@_as_json
def verification(
    model: str | None, images: Path, pairs: Path, face: FaceChoice, models_dir: Path | None, as_json: bool
) -> None:
    """Measure 1:1 error rates on a folder in LFW's layout.

    Each line of PAIRS is 'NAME I J' (a mated trial: two images of one subject) or 'NAME_A I NAME_B J' (a
    non-mated one). A first line 'FOLDS N', as in LFW's View 2, says that each fold is N mated and then N
    non-mated trials; 'N' alone says the same of the whole file.

    Reported are the accuracy (each fold at the threshold that is best on the others; ten random folds when
    the list has none), the EER, the FNMR at FMR 1e-2, 1e-3 and 1e-4, and both rates at the model's default
    threshold, with 95 % intervals that resample subjects, not pairs. The interval of an FNMR at an FMR counts
    that its threshold comes from the same trials.

    A file that is missing is an error. An image that cannot be decoded or shows no usable face is a
    failure to acquire: its trials are non-matches in the accuracy, are left out of FMR, FNMR and EER, and
    are counted.
    """
    listed = read_pairs(pairs)
    files = locate_images(listed, images)
    settings = load_settings(**given(models_dir=models_dir))
    loaded = open_model(settings.models_dir / (model or settings.models[0]), provider=settings.provider)
    with progress_bar(len(files), "embedding") as progress:
        embedded = embed_photos(loaded.images, files, face, progress=progress)
    for path, reason in zip(embedded.paths, embedded.reasons, strict=True):
        if reason:
            click.echo(f"{path}: {reason}", err=True)
    point = loaded.manifest.default_point
    report = measure(run_trials(listed, embedded, loaded.manifest.metric), point.threshold)
    answer = {
        "model": loaded.model_id,
        "model_digest": loaded.digest,
        "metric": loaded.manifest.metric,
        "images": len(files),
        "failures_to_acquire": int((~embedded.ok).sum()),
        **report.as_json(),
    }
    asked = {"name": point.name, "max_fmr": point.max_fmr}
    answer["at_default_threshold"] = {**asked, **answer["at_default_threshold"]}
    if as_json:
        print_json(answer)
    else:
        click.echo(_table(report, answer, loaded))


def _table(report: Report, answer: dict[str, Any], model: Model) -> str:
    mated, nonmated = report.trials
    failed_mated, failed_nonmated = report.failed_trials
    accuracy = report.accuracy
    lines = [
        f"model     {model.model_id} {model.manifest.version} ({model.digest[:12]}), "
        f"{answer['metric']} distance",
        f"trials    {mated} mated, {nonmated} non-mated; {answer['images']} images of "
        f"{report.subjects} subjects",
        f"failures  {answer['failures_to_acquire']} images not acquired; {failed_mated} mated and "
        f"{failed_nonmated} non-mated trials not compared",
        f"accuracy  {accuracy.mean:.4f} +- {accuracy.std:.4f} over {accuracy.folds} folds",
        f"EER       {report.eer:.4f}  {_span(report.eer_interval)}",
        "",
        f"{'at':<18}{'threshold':<11}{'FMR':<31}FNMR",
    ]
    for target, entry in report.fnmr_at_fmr.items():
        label = f"FMR {target}"
        lines.append(_row(label, entry) if isinstance(entry, Rates) else f"{label:<18}{entry.reason}")
    lines.append(_row(str(model.manifest.default_operating_point), report.at_default))
    lines += ["", "The last row is the model's default threshold. In brackets: 95 % intervals by subject."]
    return "\n".join(lines)


def _row(label: str, rates: Rates) -> str:
    fmr = f"{rates.fmr:.2e}  {_span((rates.fmr_lower95, rates.fmr_upper95), '.2e')}"
    fnmr = f"{rates.fnmr:.4f}  {_span((rates.fnmr_lower95, rates.fnmr_upper95))}"
    return f"{label:<18}{rates.threshold:<11.4f}{fmr:<31}{fnmr}"


def _span(interval: tuple[float, float], style: str = ".4f") -> str:
    return f"[{interval[0]:{style}}, {interval[1]:{style}}]"
