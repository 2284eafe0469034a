"""Identification rates: by hand, against slow definitions, and intervals against simulated truth."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from app.errors import InvalidRequestError
from app.matching.distances import Metric, distance
from training.evaluation.identification import Gallery, Searches, Share, draw_galleries, search

LABELS = np.repeat(np.arange(12), 3)


def rows(*numbers: int) -> NDArray[np.intp]:
    return np.array(numbers, np.intp)


def circle(*degrees: float) -> NDArray[np.float64]:
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def chord(degrees: float) -> float:
    """Return the distance of unit vectors that far apart."""
    return 2 * math.sin(math.radians(degrees) / 2)


def by_hand() -> Searches:
    """References at 0, 30 and 60 degrees; searches for them at 3, 16 and 26, by others at 50 and 90."""
    points = circle(0, 30, 60, 3, 16, 26, 50, 90)
    labels = np.array([0, 1, 2, 0, 0, 2, 3, 4])
    return search((Gallery(rows(0, 1, 2), rows(3, 4, 5), rows(6, 7)),), points, labels, "euclidean")


def random_searches(
    seed: int, spread: float = 1.0
) -> tuple[NDArray[np.float64], tuple[Gallery, ...], Searches]:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(12, 4)).repeat(3, axis=0) + spread * rng.normal(size=(36, 4))
    galleries = draw_galleries(LABELS, draws=3, seed=seed)
    return points, galleries, search(galleries, points, LABELS, "euclidean")


# Drawing


def test_each_enrolled_subject_has_one_reference_and_searches_for_its_other_images() -> None:
    for gallery in draw_galleries(LABELS, enrolled_share=0.25, draws=20, seed=0):
        enrolled = LABELS[gallery.references].tolist()
        assert len(set(enrolled)) == len(enrolled) == 3
        assert sorted(LABELS[gallery.mated].tolist()) == sorted(enrolled * 2)
        assert set(LABELS[gallery.nonmated]).isdisjoint(enrolled)
        assert sorted(np.concatenate(gallery).tolist()) == list(range(36))


def test_every_subject_is_enrolled_about_as_often() -> None:
    galleries = draw_galleries(LABELS, draws=600, seed=0)
    counts = np.bincount(np.concatenate([LABELS[gallery.references] for gallery in galleries]))
    assert (np.abs(counts - 300) < 4 * math.sqrt(150)).all()


def test_same_seed_draws_the_same_galleries_and_another_seed_others() -> None:
    first, again, other = (draw_galleries(LABELS, seed=seed) for seed in (3, 3, 4))
    assert all((a.references == b.references).all() for a, b in zip(first, again, strict=True))
    assert any((a.references != b.references).any() for a, b in zip(first, other, strict=True))


def test_image_that_failed_takes_no_part() -> None:
    ok = np.ones(36, np.bool_)
    ok[[0, 7]] = False
    for gallery in draw_galleries(LABELS, draws=20, seed=0, ok=ok):
        assert set(np.concatenate(gallery).tolist()) == set(range(36)) - {0, 7}


def test_subject_with_one_image_is_never_enrolled() -> None:
    for gallery in draw_galleries(np.array([0, 0, 1, 1, 2]), draws=20, seed=0):
        assert 4 in gallery.nonmated


def test_enrolling_everyone_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="2 have two usable images, and 2 would be enrolled"):
        draw_galleries(np.array([0, 0, 1, 1]), enrolled_share=0.9)


def test_single_images_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="of 4 subjects 0 have two usable images"):
        draw_galleries(np.arange(4))


# Rates by hand


def test_reference_is_found_at_its_rank() -> None:
    # 3 is nearest to 0, its own. 16 is nearer to 30 than to its 0. 26 has 30 and 0 nearer than its 60.
    assert by_hand().mated.rank.tolist() == [1, 2, 3]
    assert by_hand().cumulative_match().tolist() == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_fnir_counts_references_that_are_too_far_or_not_the_nearest() -> None:
    searches = by_hand()
    assert searches.fnir(chord(2)).rate == 1.0
    assert searches.fnir(chord(10)).rate == pytest.approx(2 / 3)
    assert searches.fnir(chord(17), rank=2).rate == pytest.approx(1 / 3)
    assert searches.fnir(chord(15), rank=2).rate == pytest.approx(2 / 3)


def test_fpir_counts_searches_with_any_candidate_within_the_threshold() -> None:
    # 50 is 10 degrees from 60, 90 is 30 degrees from it.
    assert [by_hand().fpir(chord(degrees)).rate for degrees in (9, 11, 31)] == [0.0, 0.5, 1.0]


def test_candidate_at_the_threshold_is_found() -> None:
    searches = by_hand()
    assert searches.fpir(float(searches.nonmated.distance[0])).rate == 0.5
    assert searches.fnir(float(searches.mated.distance[0])).rate == pytest.approx(2 / 3)


def test_reference_tied_with_another_counts_as_the_farther() -> None:
    points = circle(0, 20, 10, 80)
    labels = np.array([0, 1, 0, 2])
    points[2] = (points[0] + points[1]) / 2
    searches = search((Gallery(rows(0, 1), rows(2), rows(3)),), points, labels, "euclidean")
    assert searches.mated.rank.tolist() == [2]


def test_threshold_at_an_fpir_is_the_highest_that_holds_it() -> None:
    searches = by_hand()
    threshold = searches.threshold_at_fpir(0.5)
    assert threshold is not None
    assert searches.fpir(threshold).rate == 0.5
    assert searches.fpir(float(np.nextafter(threshold, 9.0))).rate == 1.0


def test_fpir_that_the_images_cannot_show_has_no_threshold() -> None:
    assert by_hand().threshold_at_fpir(0.49) is None


def test_curve_runs_from_finding_nobody_to_finding_all_that_rank_first() -> None:
    curve = by_hand().curve()
    assert (curve.thresholds[0], curve.fpir[0], curve.fnir[0]) == (-math.inf, 0.0, 1.0)
    assert (curve.fpir[-1], curve.fnir[-1]) == (1.0, pytest.approx(2 / 3))


def test_rank_beyond_those_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="rank is 21; it must be 1 to 20"):
        by_hand().fnir(1.0, rank=21)


# Slow definitions


def slow_rates(
    points: NDArray[np.float64],
    galleries: tuple[Gallery, ...],
    threshold: float,
    rank: int,
    *,
    metric: Metric = "euclidean",
    without: int = -1,
) -> tuple[float, float]:
    """Return FPIR and FNIR search by search, optionally as if a subject did not exist."""
    positives, misses = [], []
    for gallery in galleries:
        references = [int(r) for r in gallery.references if LABELS[r] != without]
        for image in gallery.nonmated:
            if LABELS[image] != without:
                near = [distance(points[image], points[r], metric) for r in references]
                positives.append(min(near) <= threshold)
        for image in gallery.mated:
            if LABELS[image] != without:
                own = next(r for r in references if LABELS[r] == LABELS[image])
                right = distance(points[image], points[own], metric)
                ahead = [
                    r for r in references if r != own and distance(points[image], points[r], metric) <= right
                ]
                misses.append(right > threshold or len(ahead) >= rank)
    return float(np.mean(positives)), float(np.mean(misses))


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "l1"])
def test_rates_are_those_of_a_search_by_search_count(metric: Metric) -> None:
    points, galleries, _ = random_searches(1)
    searches = search(galleries, points, LABELS, metric)
    threshold = float(np.median(searches.nonmated.distance))
    for rank in (1, 2, 4):
        slow = slow_rates(points, galleries, threshold, rank, metric=metric)
        assert (searches.fpir(threshold).rate, searches.fnir(threshold, rank).rate) == slow


@pytest.mark.parametrize("rank", [1, 3])
def test_jackknife_leaves_each_subject_out_of_searches_and_gallery(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, galleries, searches = random_searches(2)
    threshold = float(np.median(searches.mated.distance))
    seen = []

    def recorded(**counts: NDArray[np.int64]) -> tuple[float, float]:
        seen.append(counts["errors_without"] / counts["trials_without"])
        return 0.0, 1.0

    monkeypatch.setattr("training.evaluation.identification.jackknife_interval", recorded)
    searches.fpir(threshold)
    searches.fnir(threshold, rank)
    slow = [slow_rates(points, galleries, threshold, rank, without=subject) for subject in range(12)]
    assert seen[0].tolist() == pytest.approx([fpir for fpir, _ in slow])
    assert seen[1].tolist() == pytest.approx([fnir for _, fnir in slow])


def test_curve_goes_through_the_rates_at_each_threshold() -> None:
    _, _, searches = random_searches(3)
    curve = searches.curve()
    for row in range(1, curve.thresholds.size, 7):
        at = searches.at(float(curve.thresholds[row]))
        assert (at.fpir.rate, at.fnir.rate) == pytest.approx((curve.fpir[row], curve.fnir[row]))


# Intervals


def test_rate_lies_in_its_interval() -> None:
    _, _, searches = random_searches(4)
    for share in (searches.fpir(1.0), searches.fnir(1.0), searches.identification_rate(1)):
        assert share.lower95 <= share.rate <= share.upper95


def samples(runs: int, seed: int, draws: int) -> tuple[list[Share], list[Share]]:
    """Return FPIR and FNIR at 0.1 of samples of 30 people, points of a plane with images scattered around."""
    labels = np.repeat(np.arange(30), 3)
    found: tuple[list[Share], list[Share]] = ([], [])
    for run in range(runs):
        rng = np.random.default_rng(seed + run)
        points = rng.normal(size=(30, 2)).repeat(3, axis=0) + 0.05 * rng.normal(size=(90, 2))
        searches = search(draw_galleries(labels, draws=draws, seed=run), points, labels, "euclidean")
        found[0].append(searches.fpir(0.1))
        found[1].append(searches.fnir(0.1))
    return found


def test_intervals_hold_the_true_rates_in_95_of_100_samples_of_people() -> None:
    for shares, truth in zip(samples(200, 1000, draws=4), samples(400, 5000, draws=2), strict=True):
        rate = float(np.mean([share.rate for share in truth]))
        assert np.mean([share.lower95 <= rate <= share.upper95 for share in shares]) > 0.92
        # Neither do they hold it by being of no use: they are not twice as wide as rates spread.
        spread = float(np.std([share.rate for share in shares]))
        assert np.mean([share.upper95 - share.lower95 for share in shares]) < 2 * 3.92 * spread
