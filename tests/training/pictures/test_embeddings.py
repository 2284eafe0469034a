"""Embeddings in two dimensions: projections, colours by subject, names."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.offsetbox import AnnotationBbox

from training.pictures.embeddings import NAMED, embedding_maps, project
from training.pictures.style import png

RNG = np.random.default_rng(1)
LABELS = np.repeat(np.arange(3), 8)
BEFORE = RNG.normal(size=(24, 60))
AFTER = 5.0 * np.eye(3)[LABELS] + 0.1 * RNG.normal(size=(24, 3))
SUBJECTS = ["one", "two", "three"]


def test_pca_keeps_distances_of_a_plane() -> None:
    plane = RNG.normal(size=(10, 2))
    points, words = project(np.c_[plane, np.zeros((10, 3))], "pca")
    apart = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    assert np.linalg.norm(points[:, None] - points[None], axis=-1) == pytest.approx(apart)
    assert words == "PCA, 100% of the variance"


@pytest.mark.parametrize("method", ["pca", "t-sne"])
def test_a_collapsed_encoder_is_one_point(method) -> None:
    points, words = project(np.full((5, 4), 0.1), method)
    assert points.tolist() == [[0.0, 0.0]] * 5
    assert words == "all the same"


def test_tsne_depends_on_the_seed_alone() -> None:
    first, second = (project(BEFORE, "t-sne", seed=4)[0] for _ in range(2))
    assert first.tolist() == second.tolist()


def test_tsne_keeps_subjects_together() -> None:
    points, words = project(AFTER, "t-sne")
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.where(np.eye(24), np.inf, 0.0)
    assert (LABELS[apart.argmin(axis=1)] == LABELS).all()
    assert words == "t-SNE, perplexity 7.67"


def test_maps_show_every_sample_of_every_subject() -> None:
    figure = embedding_maps(BEFORE, AFTER, LABELS, SUBJECTS)
    for axes, embeddings in zip(figure.axes, (BEFORE, AFTER), strict=True):
        points = project(embeddings, "pca")[0]
        drawn = {str(dots.get_label()): np.asarray(dots.get_offsets()) for dots in axes.collections}
        assert list(drawn) == SUBJECTS
        for index, name in enumerate(SUBJECTS):
            assert drawn[name] == pytest.approx(points[index == LABELS])


def test_subjects_differ_in_colour_and_in_marker() -> None:
    dots = embedding_maps(BEFORE, AFTER, LABELS, SUBJECTS).axes[1].collections
    assert len({tuple(one.get_facecolor()[0]) for one in dots}) == 3
    assert len({one.get_paths()[0].vertices.tobytes() for one in dots}) == 3


def test_few_subjects_are_named_beside_their_samples() -> None:
    figure = embedding_maps(BEFORE, AFTER, LABELS, SUBJECTS)
    assert [text.get_text() for text in figure.axes[1].texts] == SUBJECTS
    assert [text.get_text() for text in figure.legends[0].get_texts()] == SUBJECTS


def test_names_do_not_cover_one_another() -> None:
    figure = embedding_maps(AFTER * 0.0, AFTER, LABELS, SUBJECTS)
    assert [text.get_text() for text in figure.axes[0].texts] == ["one"]


def test_many_subjects_are_not_named() -> None:
    count = NAMED + 1
    labels = np.arange(2 * count) % count
    data = RNG.normal(size=(2 * count, 4))
    figure = embedding_maps(data, data, labels, [f"s{n}" for n in range(count)])
    assert not figure.legends
    assert not figure.axes[0].texts


def test_thumbnails_are_the_images_and_leave_room() -> None:
    images = [np.full((6, 6, 1), value, np.uint8) for value in range(24)]
    figure = embedding_maps(BEFORE, AFTER, LABELS, SUBJECTS, thumbnails=images)
    shown = [child for child in figure.axes[1].get_children() if isinstance(child, AnnotationBbox)]
    assert 3 <= len(shown) < 24
    assert png(figure)
