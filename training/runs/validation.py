"""What a run looks at between epochs: verification and one-shot error on subjects that were kept back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidRequestError
from app.matching.distances import Metric, distances
from training.data.labelled import LabelledImages
from training.data.samplers import Pairs, balanced_pairs
from training.evaluation.det import error_curve
from training.evaluation.oneshot import draw_trials, one_shot, trial_distances
from training.evaluation.verification import Trials, equal_error_rate

PAIRS = 4000
WAYS = 20
TRIALS = 1000
SEED = 0
"""Of the trials: the same for every run on the same data, so that runs can be compared."""


class ImageValidation:
    """EER over pairs and the error of one-shot trials, on the same trials every time."""

    def __init__(
        self, embed: Callable[[NDArray[np.uint8]], Any], data: LabelledImages, metric: Metric
    ) -> None:
        self._embed, self._metric = embed, metric
        pairs = balanced_pairs(data.labels, PAIRS // 2, PAIRS - PAIRS // 2, SEED)
        ways = min(WAYS, len(data.subjects))
        trials = draw_trials(data.labels, ways=ways, trials=TRIALS, seed=SEED)
        used = np.unique(np.concatenate([pairs.left, pairs.right, trials.images()]))
        # Only the images of the trials are embedded; their rows are renumbered.
        place = np.full(len(data), -1, np.intp)
        place[used] = np.arange(used.size)
        self._images = data.images[used]
        self._labels = data.labels[used]
        self._left, self._right, self._same = place[pairs.left], place[pairs.right], pairs.same
        self._trials = type(trials)(place[trials.probe], place[trials.candidates], trials.cluster)

    def __call__(self) -> dict[str, float]:
        """Return ``eer`` and ``oneshot``, both error rates."""
        embeddings = np.asarray(self._embed(self._images), np.float32)
        apart = distances(embeddings[self._left], embeddings[self._right], self._metric)
        wrong = one_shot(self._trials, trial_distances(self._trials, embeddings, self._metric))
        return {"eer": eer_of(apart, self._same), "oneshot": wrong.errors / wrong.trials}


def eer_of(apart: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """Return the equal error rate of distances; 1 where they are not finite, as in a run that diverged."""
    subjects = np.stack([np.arange(same.size), np.where(same, np.arange(same.size), same.size)], axis=1)
    try:
        curve = error_curve(Trials(apart, same, subjects))
    except InvalidRequestError:
        return 1.0
    return float(equal_error_rate(curve.fmr, curve.fnmr))


def pair_distances(embeddings: NDArray[np.float32], pairs: Pairs, metric: Metric) -> NDArray[np.float64]:
    """Return float64[B], the distance of each pair."""
    return distances(embeddings[pairs.left], embeddings[pairs.right], metric)
