"""The figures of a run on pairs of texts, of the exported encoder on the test part, beside TF-IDF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from app.matching.distances import Metric, distances
from training.data.text import TextPairs, Unit, connected
from training.data.text_parts import TextParts
from training.evaluation.clustered_pairs import eer_difference, evaluate_pairs
from training.evaluation.tfidf import tfidf_distances
from training.evaluation.verification import best_threshold
from training.runs.validation import eer_of

PairDistances = Callable[[TextPairs], NDArray[np.float64]]
"""Pairs to float64[N], smaller is closer."""


LEAST_UNSEEN = 30
"""Test pairs of each kind of which no text was trained on; fewer have no figures of their own."""


@dataclass(frozen=True, eq=False)
class MeasuredTexts:
    """What a run on texts measured.

    Attributes:
        values: By name, as JSON.
        distance: float64[N], of the test pairs.
        baseline: float64[N], of the same pairs by the TF-IDF that is best on them.
        threshold: Chosen on the validation part.
    """

    values: dict[str, Any]
    distance: NDArray[np.float64]
    baseline: NDArray[np.float64]
    threshold: float


def embedding_distances(
    embed: Callable[[tuple[str, ...]], NDArray[np.float32]], metric: Metric
) -> PairDistances:
    """Return what compares pairs by their embeddings."""
    return lambda pairs: distances(embed(pairs.left), embed(pairs.right), metric)


def measure_texts(parts: TextParts, apart: PairDistances, head: PairDistances | None) -> MeasuredTexts:
    """Measure distances on the test part, at the threshold that suits the validation part.

    Args:
        parts: The pairs.
        apart: Distance of embeddings.
        head: ``1 - similarity`` of a learned head that is more than a distance; None where there is none.
    """
    test, cluster = parts.test, connected(parts.test)
    known = [*parts.train.left, *parts.train.right]
    figures: dict[Unit, dict[str, Any]] = {}
    measured: dict[Unit, NDArray[np.float64]] = {}
    for unit in get_args(Unit):
        validation, on_test = tfidf_distances(known, [parts.validation, test], unit)
        threshold = best_threshold(validation, parts.validation.same)
        report = evaluate_pairs(on_test, test.same, cluster, threshold)
        figures[unit] = {"validation_eer": eer_of(validation, parts.validation.same), **report.as_json()}
        measured[unit] = on_test
    # The baseline may choose its tokens on the test part itself; the encoder must be better all the same.
    best = min(figures, key=lambda unit: float(figures[unit]["eer"]))
    distance, values = _measured(parts, apart, cluster)
    difference, within = eer_difference(distance, measured[best], test.same, cluster)
    values |= {
        "baseline": {"unit": best, **figures[best]},
        "baselines": figures,
        "eer_less_baseline": difference,
        "eer_less_baseline_lower95": within.lower95,
        "eer_less_baseline_upper95": within.upper95,
        "pairs": {
            "train": len(parts.train),
            "validation": len(parts.validation),
            "test": len(test),
            "left_out_of_training": parts.left_out,
        },
    }
    unseen = parts.unseen()
    if min(np.count_nonzero(test.same[unseen] == kind) for kind in (True, False)) >= LEAST_UNSEEN:
        values["unseen_texts"] = {
            name: evaluate_pairs(
                each[unseen], test.same[unseen], _renumbered(cluster[unseen]), threshold
            ).as_json()
            for name, each, threshold in (
                ("encoder", distance, values["encoder"]["threshold"]),
                ("baseline", measured[best], figures[best]["threshold"]),
            )
        }
    if head is not None:
        values["head"] = _measured(parts, head, cluster)[1]["encoder"]
    return MeasuredTexts(values, distance, measured[best], values["encoder"]["threshold"])


def _measured(
    parts: TextParts, apart: PairDistances, cluster: NDArray[np.intp]
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    validation = apart(parts.validation)
    threshold = best_threshold(validation, parts.validation.same)
    distance = apart(parts.test)
    report = evaluate_pairs(distance, parts.test.same, cluster, threshold)
    eer = eer_of(validation, parts.validation.same)
    return distance, {"encoder": {"validation_eer": eer, **report.as_json()}}


def _renumbered(cluster: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.unique(cluster, return_inverse=True)[1]


def headline(values: dict[str, Any]) -> str:
    """Return the main figures in one line."""
    own, base = values["encoder"], values["baseline"]
    text = (
        f"accuracy {own['accuracy']:.4f}, EER {own['eer']:.4f}; "
        f"TF-IDF of {base['unit']}: accuracy {base['accuracy']:.4f}, EER {base['eer']:.4f}"
    )
    if "head" in values:
        text += f"; head: accuracy {values['head']['accuracy']:.4f}, EER {values['head']['eer']:.4f}"
    return text
