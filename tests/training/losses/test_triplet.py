"""Triplet mining rules against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.training.losses import plain_loops
from tests.training.losses.batches import LABELS, on_a_grid, spread_out
from training.losses.triplet import (
    MINING,
    TripletCounts,
    batch_all_triplet_loss,
    explicit_triplet_loss,
    semi_hard_triplet_loss,
)

RULES = {
    "batch_all": plain_loops.batch_all,
    "semi_hard": plain_loops.semi_hard,
    "batch_hard": plain_loops.batch_hard,
}


def plain(counts: TripletCounts) -> tuple[int, int, int]:
    return int(counts.easy), int(counts.semi_hard), int(counts.hard)


def line(*places: float) -> np.ndarray:
    return np.array(places, np.float32)[:, np.newaxis]


@pytest.mark.parametrize("squared", [False, True], ids=["plain", "squared"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("mining", MINING)
def test_loss_and_counts_are_those_of_plain_loops(mining: str, labels: list[int], squared: bool) -> None:
    for seed in range(5):
        embeddings = spread_out(seed)
        loss, counts = MINING[mining](embeddings, labels, 0.5, squared=squared)
        expected = RULES[mining](embeddings, labels, 0.5, squared=squared)
        assert loss.numpy() == pytest.approx(expected.loss, rel=1e-5, abs=1e-6)
        assert plain(counts) == expected.counts


@pytest.mark.parametrize("squared", [False, True], ids=["plain", "squared"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("mining", MINING)
def test_ties_and_duplicates_are_those_of_plain_loops(mining: str, labels: list[int], squared: bool) -> None:
    for seed in range(10):
        embeddings = on_a_grid(seed)
        loss, counts = MINING[mining](embeddings, labels, 1.0, squared=squared)
        expected = RULES[mining](embeddings, labels, 1.0, squared=squared)
        assert loss.numpy() == pytest.approx(expected.loss, rel=1e-5, abs=1e-6)
        assert plain(counts) == expected.counts


def test_batch_all_can_average_over_easy_triplets_too() -> None:
    embeddings, labels = spread_out(3), LABELS["several subjects"]
    loss, _ = batch_all_triplet_loss(embeddings, labels, 0.5, active_only=False)
    expected = plain_loops.batch_all(embeddings, labels, 0.5, active_only=False).loss
    assert loss.numpy() == pytest.approx(expected, rel=1e-5)
    assert expected < plain_loops.batch_all(embeddings, labels, 0.5).loss


def test_semi_hard_takes_the_closest_negative_beyond_the_positive() -> None:
    # Anchor 0 has its positive 2 away and negatives 1, 2.5 and 9 away: the one at 2.5 costs 0.5.
    # Anchor 2 has its positive 2 away and negatives 1, 0.5 and 7 away: the one at 7 is easy.
    loss, counts = semi_hard_triplet_loss(line(0, 2, 1, 2.5, 9), [0, 0, 1, 2, 3], margin=1.0)
    assert loss.numpy() == 0.25
    assert plain(counts) == (1, 1, 0)


def test_semi_hard_takes_the_farthest_negative_when_none_is_beyond_the_positive() -> None:
    # Anchor 0 has its positive 10 away and negatives 1 and 3 away: the one at 3 costs 10 - 3 + 1 = 8.
    # Anchor 10 has them 9 and 7 away: the one at 9 costs 2.
    loss, counts = semi_hard_triplet_loss(line(0, 10, 1, 3), [0, 0, 1, 2], margin=1.0)
    assert loss.numpy() == 5.0
    assert plain(counts) == (0, 0, 2)


def test_negative_as_far_as_the_positive_is_hard() -> None:
    _, counts = explicit_triplet_loss(line(0), line(1), line(-1), margin=0.5)
    assert plain(counts) == (0, 0, 1)


def test_negative_exactly_a_margin_farther_is_easy() -> None:
    _, counts = explicit_triplet_loss(line(0), line(1), line(2), margin=1.0)
    assert plain(counts) == (1, 0, 0)


@pytest.mark.parametrize(("squared", "expected"), [(False, 1.0), (True, 2.0)], ids=["plain", "squared"])
def test_explicit_triplets_average_over_all(squared: bool, expected: float) -> None:
    # Plain: max(1 - 2 + 1, 0) = 0 and 2 - 1 + 1 = 2. Squared: max(1 - 4 + 1, 0) = 0 and 4 - 1 + 1 = 4.
    loss, counts = explicit_triplet_loss(line(0, 0), line(1, 2), line(2, 1), margin=1.0, squared=squared)
    assert loss.numpy() == expected
    assert plain(counts) == (1, 0, 1)


@pytest.mark.parametrize("mining", MINING)
def test_collapsed_encoder_gets_the_margin(mining: str) -> None:
    loss, counts = MINING[mining](np.ones((6, 3)), [0, 0, 0, 1, 1, 1], 0.25)
    assert loss.numpy() == 0.25
    assert int(counts.hard) == int(counts.valid) > 0


@pytest.mark.parametrize("mining", MINING)
def test_embedding_that_is_no_number_makes_the_loss_no_number(mining: str) -> None:
    embeddings = spread_out(0)
    embeddings[2, 1] = np.nan
    assert np.isnan(MINING[mining](embeddings, LABELS["several subjects"], 1.0)[0].numpy())


@pytest.mark.parametrize("mining", MINING)
def test_compiled_for_any_batch_it_gives_the_same(mining: str) -> None:
    compiled = tf.function(
        lambda embeddings, labels: MINING[mining](embeddings, labels, 0.5),
        input_signature=[tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None], tf.int32)],
    )
    embeddings, labels = spread_out(4).astype(np.float32), np.array(LABELS["not in order"], np.int32)
    loss, counts = MINING[mining](embeddings, labels, 0.5)
    compiled_loss, compiled_counts = compiled(embeddings, labels)
    assert compiled_loss.numpy() == pytest.approx(loss.numpy())
    assert isinstance(compiled_counts, TripletCounts)
    assert plain(compiled_counts) == plain(counts)


def test_shares_add_up_and_are_zero_without_triplets() -> None:
    assert [float(share) for share in TripletCounts(1, 2, 1).shares()] == [0.25, 0.5, 0.25]
    assert [float(share) for share in TripletCounts(0, 0, 0).shares()] == [0.0, 0.0, 0.0]


def test_active_triplets_are_the_semi_hard_and_the_hard() -> None:
    assert TripletCounts(easy=1, semi_hard=2, hard=4).active == 6


def test_margin_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        semi_hard_triplet_loss(spread_out(0), LABELS["several subjects"], 0.0)
