"""``visavis evaluate oneshot`` and ``nway``: one-shot classification against pixels and chance."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from app.cli.common import face_option, models_dir_option, print_json, progress_bar, span
from app.encoding.detection import FaceChoice
from app.encoding.model import Model
from training.cli.measuring import (
    as_json_option,
    check_page,
    described,
    embedded_with_progress,
    html_option,
    images_option,
    model_line,
    model_option,
    opened,
    seed_option,
    write_page,
)
from training.evaluation.folders import LabelledFiles, labelled_files
from training.evaluation.oneshot import (
    OneShotRate,
    OneShotTrials,
    draw_trials,
    is_error,
    one_shot,
    one_shot_curve,
    trial_distances,
)
from training.evaluation.pixels import PIXEL_METRIC, pixel_vectors
from training.evaluation.runs import opened_runs

if TYPE_CHECKING:
    from training.pages.common import Measurement


@click.command("oneshot")
@model_option
@click.option(
    "--runs",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="Folder, or zip archive, of run01/class_labels.txt and so on.",
)
@html_option
@face_option("central")
@models_dir_option
@as_json_option
def oneshot(
    model: str | None,
    runs: Path,
    html: Path | None,
    face: FaceChoice,
    models_dir: Path | None,
    as_json: bool,
) -> None:
    """Measure one-shot classification on official runs, such as Omniglot's.

    In each run every image of test/ is given the class of the nearest image of training/, by the model's
    distance. Reported are the error rate with 95 % intervals (by run: for other characters and people; by
    trial: as if all were independent), the error rate of each run, that of comparing pixels (105 x 105 grey
    values, Euclidean distance), and that of guessing.

    A tie for the nearest is an error. An image that cannot be decoded or shows no usable face is a failure
    to acquire: an item that failed, or whose class failed, is an error. Failures are counted.
    """
    check_page(html)
    loaded = opened(model, models_dir)
    with opened_runs(runs) as found:
        embedded = embedded_with_progress(loaded, found.paths, face, found.folder)
        pixels, readable = pixel_vectors(found.paths)
        trials = found.trials
        distance = trial_distances(trials, embedded.embeddings, loaded.manifest.metric, embedded.ok)
        plain = trial_distances(trials, pixels, PIXEL_METRIC, readable)
        rate, baseline = one_shot(trials, distance), one_shot(trials, plain)
        wrong = is_error(distance)
        by_run = {name: float(wrong[trials.cluster == run].mean()) for run, name in enumerate(found.names)}
        if html:
            # It imports Matplotlib, which the other options do without.
            from training.pages.oneshot import Drawn, oneshot_page  # noqa: PLC0415

            ways = range(2, trials.ways + 1)
            order = _shuffled_columns(trials)
            curve, pixel_curve = (
                one_shot_curve(trials, np.take_along_axis(measured, order, axis=1), ways)
                for measured in (distance, plain)
            )
            page = oneshot_page(
                _measurement(loaded, runs, {"face": face}),
                embedded=embedded,
                folder=found.folder,
                drawn=[Drawn(trials, distance, curve, pixel_curve, "official runs")],
                title="one-shot classification",
                by="run",
                runs=by_run,
            )
            write_page(html, page.html())
    answer = {
        **described(loaded),
        "images": len(found.files),
        "failures_to_acquire": int((~embedded.ok).sum()),
        **_with_baseline(rate, baseline),
        "runs": by_run,
    }
    if as_json:
        print_json(answer)
        return
    lines = [
        model_line(loaded),
        f"runs      {len(by_run)} of {rate.ways} ways; {rate.trials} trials, {len(found.files)} images",
        f"failures  {answer['failures_to_acquire']} images not acquired; {rate.failures} trials are errors "
        "by one of them",
        f"error     {rate.error_rate:.4f}  {span(rate.interval)} by run, {span(rate.trial_interval)} by "
        f"trial; {rate.errors} errors, {rate.ties} of them ties",
        f"pixels    {baseline.error_rate:.4f}  {span(baseline.interval)}",
        f"chance    {rate.chance_error_rate:.4f}",
        "",
        *(f"{name:<10}{error:.4f}" for name, error in by_run.items()),
        "",
        "Error rates. In brackets: 95 % intervals.",
    ]
    click.echo("\n".join(lines))


def _parsed_ways(ctx: click.Context, param: click.Parameter, value: str) -> range:
    first, _, last = value.partition("..")
    try:
        ways = range(int(first), int(last or first) + 1)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither N nor FIRST..LAST", ctx, param) from error
    if len(ways) == 0 or ways[0] < 2:
        raise click.BadParameter(f"{value!r} holds no numbers from 2 up", ctx, param)
    return ways


@click.command("nway")
@model_option
@images_option
@click.option(
    "--ways",
    callback=_parsed_ways,
    default="2..20",
    metavar="N|FIRST..LAST",
    show_default=True,
    help="Candidates in a trial.",
)
@click.option("--trials", type=click.IntRange(1), default=400, show_default=True, help="Trials of each kind.")
@seed_option
@html_option
@face_option("central")
@models_dir_option
@as_json_option
def nway(
    model: str | None,
    images: Path,
    ways: range,
    trials: int,
    seed: int,
    html: Path | None,
    face: FaceChoice,
    models_dir: Path | None,
    as_json: bool,
) -> None:
    """Measure N-way one-shot classification on labelled images, over N.

    A trial is a probe and N candidates, one image each of N subjects; the nearest candidate is the answer.
    With IMAGES as <group>/<subject>/<image>, such as alphabets of characters, trials are drawn within groups
    and across them; with <subject>/<image> across all subjects. Where files are called like Omniglot's, as
    0709_03.png, no candidate is by the drawer of the probe, and within an alphabet one drawer drew them all.
    Trials of fewer ways are those of the most with candidates left out.

    Reported for each N are the error rate with a 95 % interval by group (by subject of the probe where there
    are no groups), that of comparing pixels on the same trials, and that of guessing.

    A tie for the nearest is an error. An image that cannot be decoded or shows no usable face is a failure
    to acquire: a probe that failed, or whose right candidate failed, is an error. Failures are counted.
    """
    check_page(html)
    files = labelled_files(images)
    kinds = {
        kind: draw_trials(
            files.labels,
            ways=ways[-1],
            trials=trials,
            seed=seed,
            groups=files.groups,
            drawers=files.drawers,
            within=kind == "within",
        )
        for kind in (("within", "across") if files.groups else ("across",))
    }
    loaded = opened(model, models_dir)
    used = np.unique(np.concatenate([drawn.images() for drawn in kinds.values()]))
    paths = [files.paths[image] for image in used]
    embedded = embedded_with_progress(loaded, paths, face)
    with progress_bar(len(paths), "pixels") as progress:
        pixels, readable = pixel_vectors(paths, progress=progress)
    curves, asked = {}, {}
    for kind, drawn in kinds.items():
        trial = _renumbered(drawn, used)
        distance = trial_distances(trial, embedded.embeddings, loaded.manifest.metric, embedded.ok)
        plain = trial_distances(trial, pixels, PIXEL_METRIC, readable)
        both = one_shot_curve(trial, distance, ways), one_shot_curve(trial, plain, ways)
        curves[kind] = list(zip(*both, strict=True))
        asked[kind] = (trial, distance, *both, _where(kind, files))
    if html:
        from training.pages.oneshot import Drawn, oneshot_page  # noqa: PLC0415 - imports Matplotlib

        span_of_ways = f"{ways[0]} to {ways[-1]}" if len(ways) > 1 else f"{ways[0]}"
        settings = {
            "ways": span_of_ways,
            "trials of each kind": f"{trials:,}",
            "seed": f"{seed}",
            "face": face,
        }
        page = oneshot_page(
            _measurement(loaded, images, {**settings, "subjects": _counted(files)}),
            embedded=embedded,
            folder=images,
            drawn=[Drawn(*each) for each in asked.values()],
            title="N-way one-shot classification",
            by="group" if files.groups else "subject of the probe",
        )
        write_page(html, page.html())
    answer = {
        **described(loaded),
        "images": len(files.paths),
        "images_used": len(paths),
        "subjects": len(files.subjects),
        "groups": None if files.groups is None else len(set(files.groups)),
        "drawers_known": files.drawers is not None,
        "failures_to_acquire": int((~embedded.ok).sum()),
        "seed": seed,
        **{kind: [_with_baseline(*pair) for pair in curve] for kind, curve in curves.items()},
    }
    if as_json:
        print_json(answer)
        return
    lines = [
        model_line(loaded),
        f"images    {len(paths)} used of {len(files.paths)}; {_counted(files)}",
        f"failures  {answer['failures_to_acquire']} images not acquired",
    ]
    for kind, curve in curves.items():
        where = _where(kind, files)
        failed = curve[-1][0].failures
        lines += ["", f"{where}: {trials} trials, seed {seed}; {failed} are errors by a failure to acquire"]
        lines.append(f"{'ways':<6}{'error':<26}{'pixels':<26}chance")
        lines += [_row(*pair) for pair in curve]
    lines += [
        "",
        "Error rates. In brackets: 95 % intervals by group, or by the probe's subject without groups.",
    ]
    click.echo("\n".join(lines))


def _shuffled_columns(trials: OneShotTrials) -> NDArray[np.intp]:
    """Return intp[T, N], an order of each trial's candidates: the right one first, the others at random.

    Official runs list candidates in one order. With fewer ways the last are left out, which then must not
    always be the same ones.
    """
    rng = np.random.default_rng(0)
    others = np.tile(np.arange(1, trials.ways), (trials.probe.size, 1))
    return np.concatenate([np.zeros((trials.probe.size, 1), np.intp), rng.permuted(others, axis=1)], axis=1)


def _measurement(loaded: Model, data: Path, settings: dict[str, str]) -> Measurement:
    from training.pages.common import Measurement  # noqa: PLC0415 - imports Matplotlib

    return Measurement(loaded, data, settings, datetime.now(UTC))


def _where(kind: str, files: LabelledFiles) -> str:
    return f"{kind} groups" if files.groups else "all subjects"


def _with_baseline(rate: OneShotRate, baseline: OneShotRate) -> dict[str, Any]:
    return {
        **rate.as_json(),
        "pixel_error_rate": baseline.error_rate,
        "pixel_error_rate_lower95": baseline.interval.lower95,
        "pixel_error_rate_upper95": baseline.interval.upper95,
    }


def _renumbered(trials: OneShotTrials, used: NDArray[np.intp]) -> OneShotTrials:
    """Return the trials as rows of the images used."""
    return OneShotTrials(
        np.searchsorted(used, trials.probe), np.searchsorted(used, trials.candidates), trials.cluster
    )


def _counted(files: LabelledFiles) -> str:
    groups = f" in {len(set(files.groups))} groups" if files.groups else ""
    drawers = "drawers by the files' names" if files.drawers else "drawers unknown"
    return f"{len(files.subjects)} subjects{groups}; {drawers}"


def _row(rate: OneShotRate, baseline: OneShotRate) -> str:
    error = f"{rate.error_rate:.4f}  {span(rate.interval)}"
    pixels = f"{baseline.error_rate:.4f}  {span(baseline.interval)}"
    return f"{rate.ways:<6}{error:<26}{pixels:<26}{rate.chance_error_rate:.4f}"
