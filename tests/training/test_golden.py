"""Golden pairs lie just below and just above each threshold that synthetic images reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from app.encoding.golden import Golden
from app.matching.distances import distances
from training.bundle_files import synthetic_inputs
from training.golden import MARGIN, STEPS, Encode, blend, margin, shapes, with_pairs

PATTERNS = synthetic_inputs(3, 12, 12, 1)


def plain(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Grey levels of unit length."""
    rows = images.reshape(len(images), -1).astype(np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def pairs_at(thresholds: Sequence[float], encode: Encode = plain, quick: Encode | None = None) -> Golden:
    return with_pairs(
        PATTERNS,
        encode(PATTERNS).astype(np.float32),
        thresholds=thresholds,
        metric="euclidean",
        quick=quick or encode,
        exact=encode,
    )


def test_each_threshold_gets_a_pair_on_either_side() -> None:
    thresholds = [0.7, 0.5, 0.3]
    golden = pairs_at(thresholds)
    assert len(golden.pairs) == 6
    for number, threshold in enumerate(thresholds):
        below, above = golden.pair_distance[2 * number : 2 * number + 2]
        assert -0.005 < below - threshold <= -0.99 * MARGIN
        assert 0.99 * MARGIN <= above - threshold < 0.005


def test_stored_distances_are_those_of_the_stored_embeddings_to_the_last_bit() -> None:
    golden = pairs_at([0.6, 0.3])
    assert golden.embeddings.dtype == np.float32
    np.testing.assert_array_equal(golden.embeddings, plain(golden.images).astype(np.float32))
    first, second = golden.pairs.T
    again = distances(golden.embeddings[first], golden.embeddings[second], "euclidean")
    np.testing.assert_array_equal(golden.pair_distance, again)


def test_patterns_stay_in_front_and_pairs_join_one_with_a_blend() -> None:
    golden = pairs_at([0.6, 0.3])
    np.testing.assert_array_equal(golden.images[:3], PATTERNS)
    assert set(golden.pairs[:, 0]) <= {0, 1, 2}
    assert golden.pairs[:, 1].tolist() == [3, 4, 5, 6]


def test_rounding_of_the_quick_run_does_not_move_the_pairs() -> None:
    # What onnxruntime in float32 is off by on one machine or another.
    noise = np.random.default_rng(3)

    def rounded(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        found = plain(images)
        return found + noise.uniform(-2e-7, 2e-7, found.shape)

    golden = pairs_at([0.7, 0.5, 0.3])
    for _ in range(5):
        again = pairs_at([0.7, 0.5, 0.3], quick=rounded)
        np.testing.assert_array_equal(again.images, golden.images)
        np.testing.assert_array_equal(again.pairs, golden.pairs)


def test_threshold_out_of_reach_gets_the_nearest_pair_there_is() -> None:
    golden = pairs_at([1.9])
    starts, ends = plain(PATTERNS), plain(shapes(12, 12, 1))
    farthest = max(float(np.linalg.norm(a - b)) for a in starts for b in ends)
    assert farthest < 1.9
    assert golden.pair_distance == pytest.approx([farthest], abs=1e-6)


def test_encoder_that_jumps_gets_another_path() -> None:
    # Pattern 0 jumps from distance 0 to 1.4 on every path; the others grow evenly.
    start = PATTERNS[0].astype(np.int64)

    def jumping(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        found = plain(images)
        near = np.abs(images.astype(np.int64) - start).reshape(len(images), -1).mean(axis=1) < 20
        found[near] = 0
        found[near, 0] = 1
        return found

    golden = pairs_at([0.5], jumping)
    below, above = golden.pair_distance
    assert 0.49 < below < 0.5 < above < 0.51


def test_thresholds_closer_than_their_margins_get_no_pair_between_them() -> None:
    low, high = 0.5, 0.5 + MARGIN
    golden = pairs_at([low, high])
    assert len(golden.pairs) == len(golden.images) - 3 > 0
    assert (golden.pair_distance < low).any()
    assert (golden.pair_distance > high).any()
    for threshold in (low, high):
        assert np.abs(golden.pair_distance - threshold).min() >= 0.99 * MARGIN
    assert golden.pairs.max() == len(golden.images) - 1


def test_threshold_next_to_zero_gets_no_pair_below() -> None:
    golden = pairs_at([MARGIN / 2])
    assert len(golden.pairs) == 1
    assert golden.pair_distance[0] > MARGIN / 2


def test_shape_without_an_embedding_is_left_out() -> None:
    def no_answer(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        found = plain(images)
        found[images.reshape(len(images), -1).mean(axis=1) > 180] = np.nan
        return found

    assert np.isnan(no_answer(shapes(12, 12, 1))).any()
    golden = pairs_at([0.6], no_answer)
    assert len(golden.pairs) == 2
    assert np.isfinite(golden.embeddings).all()


def test_margin_grows_with_the_scale_of_the_distances() -> None:
    assert margin(0.5) == margin(1.0) == MARGIN
    assert margin(40.0) == pytest.approx(40 * MARGIN)


def test_blend_is_a_dithered_sum_of_whole_numbers() -> None:
    pattern, shape = np.zeros((4, 4, 1), np.uint8), np.full((4, 4, 1), 100, np.uint8)
    np.testing.assert_array_equal(blend(pattern, shape, 0), pattern)
    np.testing.assert_array_equal(blend(pattern, shape, STEPS), shape)
    # 100 * 2132 / 16384 is 13.01: nearly all are 13, which share of them is 14 grows with the fraction.
    assert set(blend(pattern, shape, STEPS // 8 + 84).ravel().tolist()) <= {13, 14}
    half = blend(pattern, shape, STEPS * 105 // 1000)
    assert 2 <= (half == 11).sum() <= 14
    assert set(half.ravel().tolist()) == {10, 11}


@pytest.mark.parametrize("size", [(1, 2, 1), (5, 7, 3), (28, 28, 1)])
def test_shapes_are_black_and_white_each_with_its_negative(size: tuple[int, int, int]) -> None:
    drawn = shapes(*size)
    assert drawn.shape == (10, *size)
    assert set(np.unique(drawn).tolist()) <= {0, 255}
    np.testing.assert_array_equal(drawn[::2], 255 - drawn[1::2])
