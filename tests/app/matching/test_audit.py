"""Planted duplicates, swapped labels, strangers and look-alikes among points drawn around known centres."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from app.matching.audit import Audit, AuditResult
from app.matching.evidence import Evidence
from app.matching.trials import all_trials
from training.measured_evidence import operating_points

DIMENSIONS = 64
NOISE = 0.7
"""Length of an image's deviation from a centre of length 1: images of a subject are about 0.8 apart."""


def images_of(
    centres: NDArray[np.float64], each: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return unit vectors around each centre, and their labels."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(centres)), each)
    points = centres[labels] + draw.standard_normal((labels.size, DIMENSIONS)) * NOISE / DIMENSIONS**0.5
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32), labels.astype(np.int32)


def centres(count: int, seed: int) -> NDArray[np.float64]:
    drawn = np.random.default_rng(seed).standard_normal((count, DIMENSIONS))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


@cache
def evidence() -> Evidence:
    return all_trials(*images_of(centres(150, 100), 4, 101), "euclidean", tail_share=0.05)


def audited(embeddings: NDArray[np.float32], labels: NDArray[np.int32]) -> AuditResult:
    points = operating_points(evidence())
    return Audit(embeddings, labels, "euclidean", evidence(), points, default="fmr-1e-3").run()


def likely(result: AuditResult) -> set[tuple[int, int]]:
    return {(pair.first, pair.second) for pair in result.duplicates if pair.likely}


# duplicates


def test_planted_duplicates_among_single_references_are_found_and_nobody_else() -> None:
    people = centres(200, 1)
    people[150:158] = people[:8]
    people[158] = people[0]  # three entries of one person
    result = audited(*images_of(people, 1, 2))
    planted = {(person, 150 + person) for person in range(8)} | {(0, 158), (150, 158)}
    assert likely(result) <= planted
    assert len(likely(result)) >= 8
    assert (0, 150, 158) in result.groups


@pytest.mark.parametrize("each", [1, 5])
def test_gallery_without_duplicates_has_none_reported(each: int) -> None:
    for seed in range(5):
        result = audited(*images_of(centres(120, 10 + seed), each, 20 + seed))
        assert likely(result) == set()
        assert result.groups == ()


def test_a_subject_split_in_two_is_found_by_its_photos() -> None:
    embeddings, labels = images_of(centres(60, 3), 6, 4)
    labels[0:3] = 60  # half of the photos of subject 0
    result = audited(embeddings, labels)
    assert likely(result) == {(0, 60)}
    assert result.duplicates[0].expected < 0.01
    assert result.duplicates[0].found == 1


def test_one_shared_photo_does_not_make_two_identities_one() -> None:
    embeddings, labels = images_of(centres(60, 3), 6, 4)
    embeddings[6] = embeddings[0]  # a photo of subject 0 among those of subject 1
    result = audited(embeddings, labels)
    assert likely(result) == set()
    assert [(one.image, one.nearest) for one in result.swapped] == [(6, 0)]


def test_expected_chance_hits_are_rate_times_pairs() -> None:
    people = centres(100, 5)
    people[99] = people[0]
    result = audited(*images_of(people, 1, 6))
    best = result.duplicates[0]
    assert (best.first, best.second) == (0, 99)
    assert result.pairs == 100 * 99 / 2
    assert best.expected == pytest.approx(best.fmr * result.pairs)
    assert best.expected_upper95 == pytest.approx(best.expected * result.chance.upper)


def test_large_gallery_finds_its_duplicates() -> None:
    people = centres(6000, 70)
    people[5980:] = people[:20]
    draw = np.random.default_rng(71)
    noise = draw.standard_normal(people.shape) * np.where(np.arange(6000) < 5980, 0.7, 0.3)[:, None]
    points = people + noise / DIMENSIONS**0.5
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    result = audited(points.astype(np.float32), np.arange(6000, dtype=np.int32))
    planted = {(person, 5980 + person) for person in range(20)}
    assert len(likely(result) & planted) >= 10
    assert len(likely(result) - planted) <= 2


def test_more_alike_than_the_evidence_are_not_all_called_duplicates() -> None:
    # Everybody shares a direction: FMR at the evidence's thresholds is many times what it promises.
    people = centres(150, 7) + 0.5 * centres(1, 8)
    people /= np.linalg.norm(people, axis=1, keepdims=True)
    result = audited(*images_of(people, 1, 9))
    total = next(total for total in result.totals if total.point.name == "fmr-1e-3")
    assert total.expected is not None
    assert total.seen > 5 * total.expected
    assert len(likely(result)) <= 1


# mislabels


def test_exchanged_photos_are_told_with_whose_they_are() -> None:
    embeddings, labels = images_of(centres(40, 11), 8, 12)
    embeddings[[0, 80]] = embeddings[[80, 0]]  # subjects 0 and 10
    result = audited(embeddings, labels)
    assert {(one.image, one.label, one.nearest) for one in result.swapped} == {(0, 0, 10), (80, 10, 0)}
    assert result.judged_images == 320


def test_photos_of_nobody_here_are_strangers() -> None:
    embeddings, labels = images_of(centres(40, 11), 8, 12)
    planted = [5, 60, 100, 130, 200, 210, 250, 300]
    embeddings[planted] = images_of(centres(len(planted), 13), 1, 14)[0]
    result = audited(embeddings, labels)
    found = {one.image for one in result.strangers}
    assert found <= set(planted)
    assert len(found) >= 6
    assert result.swapped == ()


def test_clean_labels_are_left_alone() -> None:
    result = audited(*images_of(centres(40, 11), 8, 12))
    assert (result.swapped, result.strangers, result.mixed) == ((), (), ())


def test_identity_of_several_people_is_mixed() -> None:
    embeddings, labels = images_of(centres(40, 11), 8, 12)
    embeddings[:8] = images_of(centres(8, 15), 1, 16)[0]
    result = audited(embeddings, labels)
    assert [one.label for one in result.mixed] == [0]
    assert {one.label for one in result.strangers} == set()


def test_with_one_image_each_no_image_is_judged() -> None:
    result = audited(*images_of(centres(50, 17), 1, 18))
    assert result.judged_images == 0
    assert (result.swapped, result.strangers, result.mixed) == ((), (), ())


# look-alikes


def test_wolf_is_found_and_a_duplicate_is_not_called_one() -> None:
    people = centres(200, 21)
    people[199] = people[198]  # a duplicate
    people[:30] += 0.6 * people[100]  # thirty who resemble number 100
    people /= np.linalg.norm(people, axis=1, keepdims=True)
    result = audited(*images_of(people, 1, 22))
    assert result.look_alikes[0].label == 100
    assert result.look_alikes[0].matches > 5 * result.look_alikes[0].expected
    assert {198, 199}.isdisjoint(one.label for one in result.look_alikes)


def test_ordinary_gallery_has_hardly_any_look_alike() -> None:
    found = [len(audited(*images_of(centres(150, 30 + s), 1, 40 + s)).look_alikes) for s in range(10)]
    assert sum(found) <= 3


# edges


@pytest.mark.parametrize("size", [0, 1])
def test_empty_and_one_identity_galleries_have_nothing_to_report(size: int) -> None:
    result = audited(np.ones((size, DIMENSIONS), np.float32) / 8.0, np.zeros(size, np.int32))
    assert (result.identities, result.images, result.pairs, result.compared) == (size, size, 0, 0)
    assert (result.duplicates, result.groups, result.look_alikes) == ((), (), ())
    assert [total.seen for total in result.totals] == [0] * len(result.totals)


def test_one_identity_of_several_photos_has_a_result() -> None:
    result = audited(*images_of(centres(1, 50), 5, 51))
    assert result.judged_images == 5
    assert result.strangers == ()


def test_totals_count_what_matches_at_each_operating_point() -> None:
    embeddings, labels = images_of(centres(80, 60), 2, 61)
    result = audited(embeddings, labels)
    for total in result.totals:
        apart = np.linalg.norm(embeddings[:, None].astype(float) - embeddings[None], axis=2)
        different = labels[:, None] < labels[None]
        assert total.seen == int((apart[different] <= total.point.threshold).sum())
        assert total.expected == pytest.approx(result.compared * (total.point.fmr or 0.0))


def test_result_before_the_end_is_refused() -> None:
    points = operating_points(evidence())
    audit = Audit(*images_of(centres(5, 1), 1, 2), "euclidean", evidence(), points, default="fmr-1e-3")
    with pytest.raises(RuntimeError, match="not finished"):
        audit.result()


def test_unknown_operating_point_is_refused() -> None:
    points = operating_points(evidence())
    with pytest.raises(ValueError, match="no operating point 'x'"):
        Audit(*images_of(centres(5, 1), 1, 2), "euclidean", evidence(), points, default="x")
