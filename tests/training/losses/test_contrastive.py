"""The contrastive loss against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.losses import plain_loops
from tests.training.losses.batches import LABELS, on_a_grid, spread_out
from training.losses.contrastive import batch_contrastive_loss, contrastive_loss, contrastive_terms


def test_terms_are_squares_without_a_half() -> None:
    distance, same = [0.5, 0.5, 0.0, 2.0], [True, False, False, False]
    assert contrastive_terms(distance, same, margin=2.0).numpy().tolist() == [0.25, 2.25, 4.0, 0.0]


def test_loss_is_the_mean_of_plain_loops() -> None:
    generator = np.random.default_rng(1)
    distance, same = generator.uniform(0, 2, 50), generator.random(50) < 0.5
    expected = plain_loops.contrastive(distance.tolist(), same.tolist(), margin=1.25)
    assert contrastive_loss(distance, same, margin=1.25).numpy() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("embeddings", [spread_out(2), on_a_grid(2)], ids=["spread out", "on a grid"])
def test_batch_loss_is_that_of_plain_loops(embeddings: NDArray[np.float64], labels: list[int]) -> None:
    expected = plain_loops.batch_contrastive(embeddings, labels, margin=1.5)
    assert batch_contrastive_loss(embeddings, labels, margin=1.5).numpy() == pytest.approx(expected, rel=1e-5)


def test_collapsed_encoder_gets_half_the_margin_squared() -> None:
    assert batch_contrastive_loss(np.ones((4, 3)), [0, 0, 1, 1], margin=3.0).numpy() == 4.5


def test_same_in_numbers_is_refused() -> None:
    with pytest.raises(TypeError, match="LabelConvention"):
        contrastive_loss([0.5, 0.5], [1.0, 0.0])


def test_column_of_distances_is_refused() -> None:
    with pytest.raises(ValueError, match="must be equal"):
        contrastive_loss([[0.5], [0.5]], [True, False])
