"""The figures of an image run, all of the exported graph on subjects (for digits: images) not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.encoding.manifest import WholeImage
from app.matching.distances import Metric, distances
from training.config import CharactersData, DigitsData, RunConfig
from training.data.parts import Part
from training.data.preparing import prepare_bytes
from training.data.samplers import Pairs, balanced_pairs
from training.embedding import Embed
from training.evaluation.neighbours import knn_accuracy
from training.evaluation.oneshot import OneShotTrials, draw_trials, one_shot_curve, trial_distances
from training.evaluation.pixels import PIXEL_METRIC
from training.evaluation.runs import opened_runs
from training.evaluation.verification import Trials, best_threshold, evaluate

MATED, NONMATED = 10_000, 50_000
"""Trials of the test part, at most; enough for FMR 1e-3, and the resampling of subjects stays quick."""

SEED = 20_260
"""Of the test's trials: one for all recipes, so that their figures are of the same trials."""

WAYS = tuple(range(2, 21))
NEIGHBOURS = 5000
"""References of the kNN accuracy, at most."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What a run measured, for the manifest, the report and its pictures.

    Attributes:
        values: By name, as JSON: rates with the ends of their intervals.
        trials: Of the verification on the test part.
        pairs: Images of those trials, rows of the test part.
        embeddings: float32[N, D], of the test part.
    """

    values: dict[str, Any]
    trials: Trials
    pairs: Pairs
    embeddings: NDArray[np.float32]


def measure_images(
    config: RunConfig,
    embed: Embed,
    test: Part,
    *,
    validation: Part | None,
    train: Part,
    threshold: float,
    data_dir: Path,
) -> Measured:
    """Measure an exported encoder.

    Args:
        config: Of the run.
        embed: Images to embeddings with the exported graph.
        test: Subjects to measure on.
        validation: What a threshold for pair accuracy may be chosen on.
        train: References of the kNN accuracy of digits.
        threshold: Of the default operating point.
        data_dir: Where Omniglot's official runs lie.
    """
    embeddings = embed(test.images.images)
    pairs, trials = compare_test(config, embeddings, test)
    values: dict[str, Any] = {"verification": evaluate(trials, threshold).as_json()}
    if isinstance(config.data, DigitsData):
        values["pairs"] = _pair_accuracy(config, embed, trials.distance, pairs, validation)
        values["knn"] = _knn(embed, train, embeddings, test.images.labels, config.metric)
    else:
        curves = _curves(test, embeddings, config.metric)
        values["oneshot"] = {name: [rate.as_json() for rate in curve] for name, curve in curves.items()}
    if isinstance(config.data, CharactersData) and config.data.source == "omniglot":
        values["official_runs"] = _official_runs(config, embed, data_dir)
    return Measured(values, trials, pairs, embeddings)


def compare_test(config: RunConfig, embeddings: NDArray[np.float32], test: Part) -> tuple[Pairs, Trials]:
    """Compare the test part's pairs, the same for every run on the same data.

    Args:
        config: Of the run.
        embeddings: float32[N, D], of the test part.
        test: The test part.
    """
    pairs = _test_pairs(config, test)
    labels = test.images.labels
    apart = distances(embeddings[pairs.left], embeddings[pairs.right], config.metric)
    sides = np.stack([labels[pairs.left], labels[pairs.right]], axis=1).astype(np.intp)
    return pairs, Trials(apart, pairs.same, sides)


def _test_pairs(config: RunConfig, test: Part) -> Pairs:
    labels = test.images.labels
    if isinstance(config.data, DigitsData):
        half = config.data.test_pairs // 2
        return balanced_pairs(labels, half, half, config.data.pairs_seed)
    return balanced_pairs(labels, MATED, NONMATED, SEED)


def _pair_accuracy(
    config: RunConfig, embed: Embed, apart: NDArray[np.float64], pairs: Pairs, validation: Part | None
) -> dict[str, Any]:
    """Return the share of right decisions on the test pairs, at a threshold the test did not choose."""
    values: dict[str, Any] = {"trials": len(pairs)}
    if config.fixed_threshold is not None:
        values["accuracy_at_fixed_threshold"] = float(
            ((apart <= config.fixed_threshold) == pairs.same).mean()
        )
        values["fixed_threshold"] = config.fixed_threshold
    if validation is not None:
        held = validation.images
        chosen = balanced_pairs(held.labels, len(pairs) // 2, len(pairs) // 2, SEED)
        embedded = embed(held.images)
        known = distances(embedded[chosen.left], embedded[chosen.right], config.metric)
        threshold = best_threshold(known, chosen.same)
        values["threshold_of_held_out"] = threshold
        values["accuracy"] = float(((apart <= threshold) == pairs.same).mean())
    return values


def _knn(
    embed: Embed, train: Part, embeddings: NDArray[np.float32], labels: NDArray[np.int32], metric: Metric
) -> dict[str, float]:
    chosen = np.random.default_rng(SEED).permutation(len(train.images))[:NEIGHBOURS]
    references = embed(train.images.images[chosen])
    return {
        f"accuracy_k{k}": knn_accuracy(
            references, train.images.labels[chosen], embeddings, labels, k=k, metric=metric
        )
        for k in (1, 5)
    }


def _curves(test: Part, embeddings: NDArray[np.float32], metric: Metric) -> dict[str, tuple[Any, ...]]:
    """Return N-way errors of the model and of the pixels, within alphabets, if there are any, and across."""
    data = test.images
    drawers = None if test.drawers is None else test.drawers.tolist()
    pixels = data.images.reshape(len(data), -1)
    curves = {}
    for place, within in (("within alphabets", True), ("across all", False)):
        if within and data.groups is None:
            continue
        trials = _drawn(test, drawers, within=within)
        if trials is None:
            continue
        ways = [count for count in WAYS if count <= trials.ways]
        for who, vectors, how in (("model", embeddings, metric), ("pixels", pixels, PIXEL_METRIC)):
            curves[f"{who}, {place}"] = one_shot_curve(trials, trial_distances(trials, vectors, how), ways)
    return curves


def _drawn(test: Part, drawers: list[int] | None, *, within: bool) -> OneShotTrials | None:
    """Return 4,000 trials of as many ways as there are subjects for, 20 at most."""
    data = test.images
    sizes = np.unique(data.groups or (), return_counts=True)[1] if within else np.array([len(data.subjects)])
    ways = int(min(WAYS[-1], sizes.max()))
    if ways < 2:
        return None
    return draw_trials(
        data.labels, ways=ways, trials=4000, seed=SEED, groups=data.groups, drawers=drawers, within=within
    )


def _official_runs(config: RunConfig, embed: Embed, data_dir: Path) -> dict[str, Any]:
    """Return the error on Omniglot's 20 official runs; same code as ``visavis evaluate oneshot``."""
    assert isinstance(config.data, CharactersData)  # noqa: S101 - the caller looked
    with opened_runs(data_dir / "omniglot" / "all_runs.zip") as runs:
        how = WholeImage(mode="fit")
        images = np.stack([prepare_bytes(path.read_bytes(), config.data.input, how) for path in runs.paths])
    apart = trial_distances(runs.trials, embed(images), config.metric)
    rate = one_shot_curve(runs.trials, apart, [runs.trials.ways])[0]
    return rate.as_json()


def headline(values: dict[str, Any]) -> str:
    """Return the main figures in one line."""
    figures = [f"EER {values['verification']['eer']:.4f}"]
    for name in ("accuracy", "accuracy_at_fixed_threshold"):
        if name in values.get("pairs", {}):
            figures.append(f"pair {name.replace('_', ' ')} {values['pairs'][name]:.4f}")
    if "knn" in values:
        figures.append(f"kNN accuracy {values['knn']['accuracy_k5']:.4f}")
    for name, curve in values.get("oneshot", {}).items():
        who, _, where = name.partition(", ")
        if who == "model":
            last = curve[-1]
            figures.append(f"{last['ways']}-way one-shot error {where} {last['error_rate']:.4f}")
    if "official_runs" in values:
        figures.append(f"official runs error {values['official_runs']['error_rate']:.4f}")
    return "; ".join(figures)
