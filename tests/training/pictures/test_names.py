"""Names from outside: no name breaks a picture or the page, and no warning is raised about one."""

from __future__ import annotations

import numpy as np
import pytest

from training.pictures import distances, embeddings, pairs, progress, rates
from training.pictures.style import png

NAMES = ["김민수", "$\\frac{a}$ 100 % $", "_hidden\nsecond line", "\u202eabc\x07", "😀 " * 40, ""]


def pictures(name: str):
    image = [np.zeros((4, 4, 1), np.uint8)]
    curve = distances.error_curve(np.array([0.1, 0.6]), np.array([0.4, 0.9]))
    series = rates.Series(np.array([0.5, 0.4]))
    labels = np.array([0, 0, 1, 1])
    points = np.arange(12.0).reshape(4, 3) ** 2
    yield pairs.pair_grid(image, image, np.array([0.1]), np.array([True]), threshold=0.5, title=name)
    log = {"step": np.arange(3.0), name or "loss": np.ones(3)}
    yield progress.loss_curves(log, losses=list(log)[1:], validation=list(log)[1:], rates=list(log)[1:])
    yield distances.distance_histogram(points[0], points[1], thresholds={name: 1.0}, unit=name)
    yield distances.det_curve({name: curve}, points={name + "p": (0.1, 0.1)})
    yield distances.roc_curve({name: curve}, points={name + "p": (0.1, 0.1)})
    yield distances.distance_matrix(np.ones((4, 4)), labels, [name, name], quantity=name)
    yield embeddings.embedding_maps(points, points, labels, [name, name])
    yield rates.oneshot_curve(np.array([2, 3]), {name: series})
    yield rates.cmc_curve(np.array([1, 2]), {name: series})
    yield rates.comparison_bars({name: {name: rates.Estimate(0.1)}}, title=name)


@pytest.mark.parametrize("name", NAMES, ids=["Korean", "formula", "underscore", "control", "long", "empty"])
def test_any_name_can_be_drawn(name) -> None:
    for picture in pictures(name):
        assert png(picture, dpi=40)
