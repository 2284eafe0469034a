"""Drawn and composed data sets: reproducible, of the right shape, neither trivial nor hopeless."""

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from training.data.labelled import LabelledImages
from training.data.smoke import drawn_characters, drawn_faces, handwritten_digits, paraphrases
from training.data.text import tokens_of


def pixel_accuracy(data: LabelledImages) -> float:
    """Nearest neighbour on pixels, from every second image to the others."""
    pixels = data.images.reshape(len(data), -1).astype(np.float32)
    known = np.arange(len(data)) % 2 == 0
    fitted = KNeighborsClassifier(1).fit(pixels[known], data.labels[known])
    return float(fitted.score(pixels[~known], data.labels[~known]))


def test_handwritten_digits_look_like_mnist() -> None:
    digits = handwritten_digits()
    assert digits.images.shape == (1797, 28, 28, 1)
    assert digits.images[:, :4].max() == 0  # black margin
    assert digits.images[:, 4:24, 4:24].max(axis=(1, 2)).min() > 200  # white ink
    assert digits.subjects == tuple("0123456789")
    assert pixel_accuracy(digits) > 0.95


def test_drawn_characters_are_black_on_white_in_alphabets() -> None:
    drawn = drawn_characters(12, 5, 48, seed=0, alphabets=3)
    assert drawn.images.shape == (60, 48, 48, 1)
    assert drawn.counts.tolist() == [5] * 12
    assert drawn.groups is not None
    assert [drawn.groups.count(group) for group in sorted(set(drawn.groups))] == [4, 4, 4]
    assert drawn.subjects[4] == "drawn01/character004"
    assert np.median(drawn.images) == 255
    assert drawn.images.min(axis=(1, 2, 3)).max() < 100


def test_drawn_characters_can_be_told_apart_but_not_easily_by_pixels() -> None:
    assert 0.1 < pixel_accuracy(drawn_characters(60, 10, 48, seed=0, alphabets=3)) < 0.8


def test_a_seed_draws_the_same_again_and_another_draws_others() -> None:
    first = drawn_characters(4, 3, 32, seed=1)
    assert np.array_equal(first.images, drawn_characters(4, 3, 32, seed=1).images)
    assert not np.array_equal(first.images, drawn_characters(4, 3, 32, seed=2).images)
    faces = drawn_faces(2, 2, seed=1)
    assert np.array_equal(faces.images, drawn_faces(2, 2, seed=1).images)
    assert paraphrases(20, seed=1).left == paraphrases(20, seed=1).left


def test_drawn_faces_have_the_size_asked_for_and_differ_by_sample() -> None:
    faces = drawn_faces(3, 4, seed=0, height=109, width=89)
    assert faces.images.shape == (12, 109, 89, 3)
    assert faces.counts.tolist() == [4, 4, 4]
    assert len(np.unique(faces.images.reshape(12, -1), axis=0)) == 12


def test_skin_tells_drawn_faces_apart() -> None:
    faces = drawn_faces(20, 6, seed=0)
    # Ratios of the channels between eyes and mouth, where light and contrast cancel out mostly.
    centre = faces.images[:, 58:68, 51:61].mean(axis=(1, 2)) - 128
    colour = centre / np.linalg.norm(centre, axis=1, keepdims=True)
    known = np.arange(len(faces)) % 2 == 0
    fitted = KNeighborsClassifier(1).fit(colour[known], faces.labels[known])
    assert fitted.score(colour[~known], faces.labels[~known]) > 0.5


def test_paraphrases_are_half_the_same_and_share_words_either_way() -> None:
    composed = paraphrases(600, seed=0)
    assert composed.same.sum() == 300
    rows = list(zip(composed.left, composed.right, composed.same, strict=True))
    assert all(left != right for left, right, same in rows if same)
    overlap = np.array(
        [len({*tokens_of(left, "words")} & {*tokens_of(right, "words")}) for left, right, _ in rows]
    )
    # Shared words alone are a poor judge: many that differ share more words than many that do not.
    assert (overlap[~composed.same] >= np.median(overlap[composed.same])).mean() > 0.3
