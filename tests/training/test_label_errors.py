"""Planted label errors are found, and nothing else is."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from app.encoding.bulk import embed_files
from app.encoding.model import open_model
from tests.support.data import data_set
from tests.support.vectors import people
from training.data.preparing import LIMITS
from training.faces_bundle import faces_folder
from training.label_errors import LabelErrors, find_label_errors
from training.measured_evidence import default_point, operating_points
from training.trial_sets import Photos, TrialSet

SUBJECTS, IMAGES = 100, 8


def found_in(
    vectors: NDArray[np.float32], labels: NDArray[np.int32], digests: tuple[str, ...] = ()
) -> LabelErrors:
    names = tuple(map(str, range(int(labels.max()) + 1)))
    evidence = TrialSet(Photos(vectors, labels, names, ()), "euclidean").evidence()
    return find_label_errors(
        vectors,
        labels,
        "euclidean",
        evidence,
        operating_points(evidence),
        default=default_point(evidence).name or "",
        digests=digests,
    )


def rows_of(labels: NDArray[np.int32], subject: int) -> NDArray[np.intp]:
    return np.flatnonzero(labels == subject)


def test_a_clean_set_has_no_errors() -> None:
    vectors, labels = people(SUBJECTS, IMAGES)
    errors = found_in(vectors, labels)
    assert not errors.any
    assert errors.counts() == {
        "subjects_taken_as_one": 0,
        "images_of_another_subject": 0,
        "copies_under_two_subjects": 0,
        "images_left_out": 0,
    }
    assert np.array_equal(errors.labels, labels)


def test_one_person_under_two_numbers_is_taken_as_one() -> None:
    vectors, labels = people(SUBJECTS, IMAGES)
    labels[rows_of(labels, 7)[4:]] = SUBJECTS  # half of 7's images are now subject 100's
    errors = found_in(vectors, labels)
    assert errors.audit.groups == ((7, SUBJECTS),)
    assert errors.kept.all()
    assert np.unique(errors.labels[(labels == 7) | (labels == SUBJECTS)]).tolist() == [7]
    assert int(errors.labels.max()) == SUBJECTS - 1


def test_image_of_another_subject_is_left_out() -> None:
    vectors, labels = people(SUBJECTS, IMAGES)
    strays = [int(rows_of(labels, 3)[0]), int(rows_of(labels, 40)[2])]
    labels[strays] = [4, 41]
    errors = found_in(vectors, labels)
    assert sorted(np.flatnonzero(~errors.kept).tolist()) == sorted(strays)
    assert {(one.label, one.nearest) for one in errors.audit.swapped} == {(4, 3), (41, 40)}
    assert errors.labels[strays].tolist() == [-1, -1]


def test_hard_photo_that_is_like_nobody_stays() -> None:
    vectors, labels = people(SUBJECTS, IMAGES)
    nowhere = np.random.default_rng(1).standard_normal((2000, vectors.shape[1]))
    nowhere /= np.linalg.norm(nowhere, axis=1, keepdims=True)
    # The one of many directions that is farthest from everybody.
    loneliest = nowhere[np.argmax((1.0 - nowhere @ vectors.T).min(axis=1))]
    vectors[5] = loneliest
    errors = found_in(vectors, labels)
    assert errors.kept.all()
    assert [one.image for one in errors.audit.strangers] == [5]


def test_file_under_two_subjects_is_left_out_where_it_does_not_belong() -> None:
    vectors, labels = people(SUBJECTS, IMAGES)
    true, stray = int(rows_of(labels, 10)[0]), int(rows_of(labels, 60)[0])
    vectors[stray] = vectors[true]
    digests = [str(row) for row in range(labels.size)]
    digests[stray] = digests[true]
    errors = found_in(vectors, labels, tuple(digests))
    assert [(copy.first, copy.second, copy.same_bytes) for copy in errors.copies] == [(true, stray, True)]
    assert np.flatnonzero(~errors.kept).tolist() == [stray]


def test_file_under_two_subjects_who_have_no_other_photo_makes_them_one() -> None:
    vectors, labels = people(SUBJECTS, IMAGES)
    alone = np.r_[vectors, vectors[:1] * -1.0, vectors[:1] * -1.0]
    numbered = np.r_[labels, SUBJECTS, SUBJECTS + 1].astype(np.int32)
    digests = tuple(str(min(row, labels.size)) for row in range(numbered.size))
    errors = found_in(alone, numbered, digests)
    assert errors.audit.groups == ((SUBJECTS, SUBJECTS + 1),)
    assert errors.kept.all()


def test_nearly_the_same_photo_under_two_subjects_is_found_without_bytes() -> None:
    vectors, labels = people(SUBJECTS, IMAGES, spread=0.6)
    true, stray = int(rows_of(labels, 10)[0]), int(rows_of(labels, 60)[0])
    vectors[stray] = vectors[true] + np.float32(1e-3)
    vectors[stray] /= np.linalg.norm(vectors[stray])
    errors = found_in(vectors, labels)
    assert [(copy.first, copy.second, copy.same_bytes) for copy in errors.copies] == [(true, stray, False)]
    assert not errors.kept[stray]
    assert errors.kept[true]


def test_file_twice_under_one_subject_is_counted_and_kept() -> None:
    vectors, labels = people(SUBJECTS, IMAGES)
    vectors[1] = vectors[0]
    digests = tuple(str(max(row, 1)) for row in range(labels.size))
    errors = found_in(vectors, labels, digests)
    assert errors.repeated == 1
    assert not errors.any


def test_findings_are_named() -> None:
    vectors, labels = people(SUBJECTS, IMAGES)
    stray = int(rows_of(labels, 3)[0])
    labels[stray] = 4
    images = tuple(f"photo {row}" for row in range(labels.size))
    subjects = tuple(f"subject {number}" for number in range(SUBJECTS))
    named = found_in(vectors, labels).as_json(images, subjects)
    assert named["left_out"] == [f"photo {stray}"]
    (one,) = named["another_subject"]
    assert (one["image"], one["looks_like"]) == (f"photo {stray}", "subject 3")


@pytest.mark.slow
@pytest.mark.model
def test_known_errors_of_celeba_are_found() -> None:
    """07312 holds byte-identical photos of 07314, 07317 and 07320."""
    home = data_set("faces/celeba_wild") / "faces" / "celeba_wild"
    chosen = ["07312", "07314", "07317", "07320"]
    # Enough strangers to say how far apart strangers are.
    chosen += [path.name for path in sorted(home.iterdir())[200:280]]
    files = [path for name in chosen for path in sorted((home / name).glob("*.jpg"))[:12]]
    wrong = {"080026", "097415", "122811", "030146", "103867", "100022", "106795", "021423", "019039"}
    files += [home / "07312" / f"{name}.jpg" for name in sorted(wrong)]
    for subject, name in (("07317", "005179"), ("07317", "118770"), ("07314", "055807"), ("07314", "071620")):
        files.append(home / subject / f"{name}.jpg")
    files = sorted(set(files))
    embedded = embed_files(open_model(faces_folder(), provider="cpu", limits=LIMITS).images, files, "central")
    rows = np.flatnonzero(embedded.ok)
    _, labels = np.unique(np.array([files[row].parent.name for row in rows]), return_inverse=True)
    digests = tuple(hashlib.sha256(files[row].read_bytes()).hexdigest() for row in rows)
    errors = found_in(embedded.embeddings[rows], labels.astype(np.int32), digests)
    gone = {f"{files[row].parent.name}/{files[row].stem}" for row in rows[~errors.kept]}
    assert {f"07312/{name}" for name in ("080026", "097415", "030146", "100022")} <= gone
    # The other is a photo of 07433's.
    assert {name for name in gone if not name.startswith("07312/")} <= {"07450/026072"}
