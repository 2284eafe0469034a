"""Nearest references: votes by hand, and ranks against a search of every one."""

import numpy as np
import pytest

from app.matching.distances import Metric, distances
from training.evaluation.neighbours import knn_accuracy, nearest_references

LINE = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [9.0, 0.0], [9.5, 0.0]])


def accuracy(labels: list[int], probe: float, label: int, k: int) -> float:
    """Return 1 when the vote among references at 1, 2, 3, 9 and 9.5 elects the label."""
    return knn_accuracy(
        LINE, np.array(labels), np.array([[probe, 0.0]]), np.array([label]), k=k, metric="euclidean"
    )


def test_nearest_reference_decides_for_k_1() -> None:
    assert accuracy([7, 8, 8, 8, 8], 1.4, 7, k=1) == 1.0
    assert accuracy([7, 8, 8, 8, 8], 1.6, 7, k=1) == 0.0


def test_most_votes_win_over_the_nearest() -> None:
    assert accuracy([7, 8, 8, 9, 9], 1.0, 8, k=3) == 1.0


def test_subject_of_the_nearest_wins_among_equally_many_votes() -> None:
    assert accuracy([8, 7, 7, 8, 9], 1.0, 8, k=5) == 1.0
    assert accuracy([9, 7, 7, 8, 8], 1.0, 7, k=5) == 1.0


def test_accuracy_is_the_share_of_probes() -> None:
    probes, labels = np.array([[1.0, 0.0], [9.0, 0.0]]), np.array([0, 0])
    references = np.array([0, 0, 0, 1, 1])
    assert knn_accuracy(LINE, references, probes, labels, k=1, metric="l1") == 0.5


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "l1"])
def test_ranks_are_those_of_a_search_of_every_reference(
    metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    references, probes = rng.normal(size=(90, 7)), rng.normal(size=(40, 7))
    monkeypatch.setattr("training.evaluation.neighbours._BLOCK_ELEMENTS", 90 * 7 * 6)
    found = nearest_references(references, probes, k=5, metric=metric)
    for probe, row in zip(probes, found, strict=True):
        assert row.tolist() == np.argsort(distances(probe, references, metric))[:5].tolist()


def test_references_at_equal_distance_keep_their_order() -> None:
    same = np.ones((6, 2))
    assert nearest_references(same, same[:1], k=3, metric="l1").tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("k", [0, 6])
def test_more_or_fewer_neighbours_than_there_are_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}; it must be 1 to the 5 references"):
        accuracy([0] * 5, 1.0, 0, k)
