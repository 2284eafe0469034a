"""The pictures of a run on images, each with its title, its caption and a text for who cannot see it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from app.matching.distances import distances
from training.pictures.distances import (
    ErrorCurve,
    curve_of_trials,
    det_curve,
    distance_histogram,
    distance_matrix,
    roc_curve,
)
from training.pictures.embeddings import Method, embedding_maps
from training.pictures.pairs import pair_grid
from training.pictures.progress import loss_curves, triplet_kinds
from training.pictures.rates import Series, oneshot_curve
from training.pictures.report import Section
from training.pictures.style import percent, png
from training.runs.image_run import ImageRun

PAIRS: Final = 8
"""Pairs of a grid: two rows of four."""

SAMPLES: Final = 12
"""Samples of a subject in the matrix of distances, at most."""

BUNDLE_DPI: Final = 90
"""Of the plots in a bundle, which travels with the model and stays small."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with its texts; ``name`` is that of its file, the others are as ``Report.picture`` takes."""

    name: str
    figure: Figure
    title: str
    caption: str
    alternative: str
    section: Section
    wide: bool | None = None


def all_pictures(run: ImageRun) -> list[Picture]:
    """Draw what the report shows, in its order."""
    curve = curve_of_trials(run.measured.trials)
    return [
        *_one_shot(run),
        _pairs(run, "surest"),
        _pairs(run, "closest"),
        _histogram(run),
        _det(run, curve),
        _roc(run, curve),
        _pairs(run, "worst"),
        _map(run, "pca"),
        _map(run, "t-sne"),
        _matrix(run),
        *_progress(run),
    ]


def write_bundle_plots(run: ImageRun) -> None:
    """Write DET curve, distance histogram and PCA into the bundle's folder, before its manifest is made."""
    curve = curve_of_trials(run.measured.trials)
    for picture in (_det(run, curve), _histogram(run), _map(run, "pca")):
        write_plot(picture, run.bundle, dpi=BUNDLE_DPI)


def write_plot(picture: Picture, folder: Path, *, dpi: int) -> None:
    """Write a picture as PNG."""
    (folder / f"{picture.name}.png").write_bytes(png(picture.figure, dpi=dpi))


def surplus(run: ImageRun) -> NDArray[np.float64]:
    """Return float64[N], how far on the wrong side of the default threshold each test trial lies.

    Positive is wrong, negative is right; a non-mated trial at the threshold is wrong by 0.
    """
    trials = run.measured.trials
    return np.where(trials.mated, 1.0, -1.0) * (trials.distance - run.default.threshold)


def worst_trials(run: ImageRun, count: int) -> NDArray[np.intp]:
    """Return test trials farthest on the wrong side, or nearest to it: half mated, half not.

    No image is shown twice by trials of one kind.
    """
    return _of_both_kinds(run, np.argsort(-surplus(run), kind="stable"), count)


def _of_both_kinds(run: ImageRun, order: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    mated = run.measured.trials.mated[order]
    halves = [_no_image_twice(run, order[mated == kind], count // 2) for kind in (True, False)]
    return np.concatenate(halves)


def _no_image_twice(run: ImageRun, order: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Return the first trials of an order that show an image none before them shows."""
    pairs, seen, chosen = run.measured.pairs, set[int](), []
    for trial in order.tolist():
        images = {int(pairs.left[trial]), int(pairs.right[trial])}
        if not images & seen:
            seen |= images
            chosen.append(trial)
        if len(chosen) == count:
            break
    return np.array(chosen, np.intp)


def _pairs(run: ImageRun, kind: Literal["surest", "closest", "worst"]) -> Picture:
    trials, off = run.measured.trials, surplus(run)
    right = (trials.distance <= run.default.threshold) == trials.mated
    decided = np.flatnonzero(right) if kind != "worst" else np.arange(right.size)
    order = decided[np.argsort(off[decided] if kind == "surest" else -off[decided], kind="stable")]
    chosen = _of_both_kinds(run, order, PAIRS)
    title, words = {
        "surest": ("Surest pairs", "Right decisions on the test pairs farthest from the threshold"),
        "closest": ("Closest calls", "Decisions on test pairs that are only just right"),
        "worst": (
            "Worst pairs",
            f"{(~right).sum():,} of {right.size:,} test pairs are decided wrongly. Shown are the ones "
            "farthest on the wrong side, or nearest to it",
        ),
    }[kind]
    images, pairs = run.parts.test.images.images, run.measured.pairs
    figure = pair_grid(
        [images[row] for row in pairs.left[chosen]],
        [images[row] for row in pairs.right[chosen]],
        trials.distance[chosen],
        trials.mated[chosen],
        threshold=run.default.threshold,
    )
    apart = trials.distance[chosen]
    return Picture(
        f"pairs-{kind}",
        figure,
        title,
        f"{words}, at the threshold {run.default.threshold:.4g} of {run.default.name}. A solid green frame "
        "is a right decision, a dashed red one a wrong one.",
        f"{chosen.size} pairs of images, {int(right[chosen].sum())} decided rightly, at distances from "
        f"{apart.min():.3f} to {apart.max():.3f}."
        if chosen.size
        else "No pair is of this kind.",
        "worst" if kind == "worst" else "results",
        wide=True,
    )


def _histogram(run: ImageRun) -> Picture:
    trials = run.measured.trials
    thresholds = {point.name or "": point.threshold for point in run.points}
    if run.config.fixed_threshold is not None:
        thresholds["fixed by the recipe"] = run.config.fixed_threshold
    mated, nonmated = trials.distance[trials.mated], trials.distance[~trials.mated]
    return Picture(
        "distances",
        distance_histogram(mated, nonmated, thresholds=thresholds, unit=f"{run.config.metric} distance"),
        "Distances of the test trials",
        f"Thresholds: {run.thresholds_from}.",
        f"Mated distances have the median {np.median(mated):.3f}, non-mated ones "
        f"{np.median(nonmated):.3f}; the default threshold is {run.default.threshold:.3f}.",
        "points",
    )


def _det(run: ImageRun, curve: ErrorCurve) -> Picture:
    marked = {n: rates for n, rates in _test_rates(run).items() if min(rates) > 0.0 and rates[1] < 0.5}
    return Picture(
        "det",
        det_curve({run.config.name: curve}, points=marked),
        "DET",
        "FNMR against FMR on the test part, lower left is better. Marks: the operating points. "
        "Band: 95 % intervals by resampling subjects.",
        f"The two error rates are equal at {percent(curve.eer)}." + _in_words(_test_rates(run)),
        "points",
    )


def _roc(run: ImageRun, curve: ErrorCurve) -> Picture:
    marked = {name: rates for name, rates in _test_rates(run).items() if rates[0] > 0.0}
    return Picture(
        "roc",
        roc_curve({run.config.name: curve}, points=marked),
        "ROC",
        "The same rates: the share of mated trials that match, against FMR on a logarithmic axis.",
        f"{percent(1.0 - curve.eer)} of the mated trials match where FMR is {percent(curve.eer)}.",
        "points",
    )


def _test_rates(run: ImageRun) -> dict[str, tuple[float, float]]:
    """Return FMR and FNMR on the test part at each operating point's threshold."""
    trials = run.measured.trials
    mated, nonmated = trials.distance[trials.mated], trials.distance[~trials.mated]
    return {
        point.name or "": (
            float((nonmated <= point.threshold).mean()),
            float((mated > point.threshold).mean()),
        )
        for point in run.points
    }


def _in_words(rates: dict[str, tuple[float, float]]) -> str:
    return "".join(
        f" {name}: FMR {percent(fmr)}, FNMR {percent(fnmr)}." for name, (fmr, fnmr) in rates.items()
    )


def _map(run: ImageRun, method: Method) -> Picture:
    labels, names = _shown_subjects(run)
    images = run.parts.test.images.images[run.shown]
    figure = embedding_maps(
        run.before,
        run.measured.embeddings[run.shown],
        labels,
        names,
        method=method,
        thumbnails=list(images) if method == "t-sne" else None,
    )
    how = (
        "Principal components keep large distances."
        if method == "pca"
        else "t-SNE keeps neighbours together; sizes of gaps mean nothing. Some images are shown where they "
        "lie, framed in their subject's colour."
    )
    return Picture(
        method.replace("-", ""),
        figure,
        "Embeddings, PCA" if method == "pca" else "Embeddings, t-SNE",
        f"{run.shown.size:,} test images of {len(names)} subjects before and after training. {how}",
        f"Two scatter plots of the same {run.shown.size:,} images, coloured by subject: as the encoder "
        "embedded them before training on the left, after it on the right.",
        "embeddings",
    )


def _matrix(run: ImageRun) -> Picture:
    labels, names = _shown_subjects(run)
    kept = np.concatenate([np.flatnonzero(labels == subject)[:SAMPLES] for subject in range(len(names))])
    embedded = run.measured.embeddings[run.shown[kept]]
    apart = np.stack([distances(one, embedded, run.config.metric) for one in embedded])
    same = labels[kept][:, None] == labels[kept][None, :]
    others = ~np.eye(kept.size, dtype=np.bool_)
    return Picture(
        "matrix",
        distance_matrix(apart, labels[kept], names, quantity=f"{run.config.metric} distance"),
        "Distances between subjects",
        f"Test images of {len(names)} subjects, at most {SAMPLES} each: dark squares on the diagonal are "
        "images of one subject.",
        f"The mean distance within a subject is {apart[same & others].mean():.3f}, between two "
        f"{apart[~same].mean():.3f}.",
        "embeddings",
        wide=True,
    )


def _shown_subjects(run: ImageRun) -> tuple[NDArray[np.intp], list[str]]:
    """Return the subjects of the images shown, renumbered from 0, and their names."""
    test = run.parts.test.images
    subjects, labels = np.unique(test.labels[run.shown], return_inverse=True)
    return labels.astype(np.intp), [test.subjects[subject] for subject in subjects]


def one_shot_places(run: ImageRun) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return the N-way rates by where trials were drawn ("within alphabets") and by who answered."""
    places: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, curve in run.measured.values.get("oneshot", {}).items():
        who, _, place = name.partition(", ")
        places.setdefault(place, {})[who] = curve
    return places


def _one_shot(run: ImageRun) -> Iterator[Picture]:
    for place, curves in one_shot_places(run).items():
        ways = np.array([rate["ways"] for rate in curves["model"]])
        last = {who: curve[-1]["error_rate"] for who, curve in curves.items()}
        yield Picture(
            f"oneshot-{place.replace(' ', '-')}",
            oneshot_curve(ways, {who: _accuracy(curve) for who, curve in curves.items()}),
            f"N-way one-shot, {place}",
            f"{curves['model'][-1]['trials']:,} trials with one image of each of N subjects; the nearest "
            "answers, and a tie is an error. Bands: 95 % intervals.",
            f"Of {ways[-1]} subjects the model finds the right one in {percent(1.0 - last['model'])} of the "
            f"trials, the nearest pixels in {percent(1.0 - last['pixels'])}, chance in "
            f"{percent(1.0 / float(ways[-1]))}.",
            "results",
        )


def _accuracy(curve: list[dict[str, Any]]) -> Series:
    error, upper, lower = (
        np.array([rate[key] for rate in curve])
        for key in ("error_rate", "error_rate_upper95", "error_rate_lower95")
    )
    return Series(1.0 - error, 1.0 - upper, 1.0 - lower)


def _progress(run: ImageRun) -> Iterator[Picture]:
    log = run.log
    checked = [name for name in ("eer", "oneshot") if name in log]
    yield Picture(
        "loss",
        loss_curves(log, validation=checked),
        "Loss" + (", validation" if checked else "") + " and learning rate",
        "Means over each epoch. Validation: equal error rate and one-shot error on images kept back."
        if checked
        else "Means over each epoch.",
        f"The loss goes from {log['loss'][0]:.4g} to {log['loss'][-1]:.4g}"
        + "".join(f", {name} from {percent(log[name][0])} to {percent(log[name][-1])}" for name in checked)
        + ".",
        "training",
    )
    if "easy_triplets" in log:
        kinds = [log[f"{kind}_triplets"] for kind in ("easy", "semi_hard", "hard")]
        yield Picture(
            "triplets",
            triplet_kinds(log["step"], *kinds),
            "Triplets by kind",
            "Of those that were mined. Easy ones cost nothing; an encoder that learns makes triplets easy.",
            f"At the end {percent(float(kinds[0][-1]))} are easy, {percent(float(kinds[1][-1]))} semi-hard "
            f"and {percent(float(kinds[2][-1]))} hard.",
            "training",
        )
