"""Mean-negative plus closest-negative loss against its definition and the courses' worked figure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.losses import plain_loops
from tests.training.losses.batches import LABELS, on_a_grid, spread_out
from training.losses.closest_negatives import closest_negatives_loss, closest_negatives_terms

FIRST = [[1, 2, 3], [9, 8, 7], [-1, -4, -2], [1, -7, 2]]
SECOND = [
    [1.27551159, 2.11854853, 3.01429143],
    [8.83539979, 8.44302619, 8.21303737],
    [-1.95506567, -2.96172592, -1.76136987],
    [1.45513761, -8.12660221, 2.14513688],
]


def test_sum_of_the_worked_example_is_as_published() -> None:
    total = closest_negatives_terms(FIRST, SECOND, margin=0.25).numpy().sum()
    assert total == pytest.approx(0.33096828, abs=1e-6)


def test_loss_is_the_mean_of_the_rows() -> None:
    loss = closest_negatives_loss(FIRST, SECOND, margin=0.25).numpy()
    assert loss == pytest.approx(0.33096828 / 4, abs=1e-6)


@pytest.mark.parametrize("exclude_closer", [True, False], ids=["excluded", "kept"])
@pytest.mark.parametrize("labels", [None, *LABELS.values()], ids=["no labels", *LABELS.keys()])
@pytest.mark.parametrize("batch", [spread_out, on_a_grid], ids=["spread out", "on a grid"])
def test_rows_are_those_of_plain_loops(
    batch: Callable[..., NDArray[np.float64]], labels: list[int] | None, exclude_closer: bool
) -> None:
    for seed in range(5):
        first = batch(seed)
        # Close views, so that most rows have eligible negatives; on the grid some rows are zero vectors.
        second = first + 0.5 * spread_out(seed + 100, dimensions=first.shape[1])
        terms = closest_negatives_terms(first, second, 0.5, labels=labels, exclude_closer=exclude_closer)
        expected = plain_loops.closest_negatives(first, second, 0.5, labels, exclude_closer)
        assert terms.numpy() == pytest.approx(np.array(expected), abs=1e-5)


def test_negative_closer_than_the_mated_view_acts_through_the_mean_only() -> None:
    # Row 0: mated cosine 0, negatives 1 and 0 (a tie, eligible).
    # Mean 0.5: 0.25 - 0 + 0.5. Closest 0: 0.25 - 0 + 0.
    first, second = [[1.0, 0], [1, 0], [0, 1]], [[0.0, 1], [1, 0], [0, 1]]
    assert closest_negatives_terms(first, second, 0.25).numpy()[0] == pytest.approx(1.0)
    assert closest_negatives_terms(first, second, 0.25, exclude_closer=False).numpy()[0] == pytest.approx(2.0)


def test_other_samples_of_the_subject_are_no_negatives() -> None:
    views = [[1.0, 0], [1, 0], [0, 1]]
    assert closest_negatives_terms(views, views, 0.25, labels=[4, 4, 9]).numpy().tolist() == [0.0, 0.0, 0.0]
    assert closest_negatives_terms(views, views, 0.25).numpy()[0] == pytest.approx(0.25)


def test_collapsed_encoder_gets_twice_the_margin() -> None:
    same = np.ones((5, 4))
    assert closest_negatives_loss(same, same, 0.25).numpy() == pytest.approx(0.5, abs=1e-6)
