"""Views of a drawing: softened and moved by hand, averaged, and the same in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from training.config import RecipeError, load_recipe
from training.encoders.residual import residual
from training.encoders.views import Views, averaged_over_views
from training.export import write_encoder


def _dot(size: int = 16) -> NDArray[np.float32]:
    ink = np.zeros((1, size, size, 1), np.float32)
    ink[0, 5, 7] = 1.0
    return ink


def test_a_dot_is_softened_by_the_binomial_filter_and_moved() -> None:
    (in_place, moved) = np.asarray(Views([(0, 0), (2, -1)])(_dot()))[..., 0]
    expected = np.zeros((16, 16))
    expected[4:7, 6:9] = np.outer([1, 2, 1], [1, 2, 1]) / 16
    assert in_place == pytest.approx(expected)
    assert moved[2:, :-1] == pytest.approx(expected[:-2, 1:])
    assert moved[:2].max() == 0


def _encoder() -> keras.Model:
    return residual(16, 16, 1, ink=True, stem=4, widths=(4, 8), blocks=(1, 1), dimensions=8, dropout=0.0)


def test_polarity_of_the_drawing_does_not_matter() -> None:
    model = averaged_over_views(_encoder(), [(0, 0), (1, 1)])
    drawing = (255 * (1 - _dot())).astype(np.uint8)
    assert np.asarray(model(drawing)) == pytest.approx(np.asarray(model(255 - drawing)), abs=1e-6)


def test_embedding_is_the_mean_of_the_views_embeddings_at_length_one() -> None:
    encoder = _encoder()
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 1), np.uint8)
    shifts = [(0, 0), (1, 1), (-1, 2)]
    each = [np.asarray(averaged_over_views(encoder, [shift])(images)) for shift in shifts]
    mean = np.mean(each, axis=0)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    found = np.asarray(averaged_over_views(encoder, shifts)(images))
    assert found == pytest.approx(expected, abs=1e-6)


def test_exported_graph_agrees_for_any_number_of_images(tmp_path: Path) -> None:
    from app.encoding.onnx_session import Graph

    model = averaged_over_views(_encoder(), [(0, 0), (-1, 1)])
    images = np.random.default_rng(1).integers(0, 256, (5, 16, 16, 1), np.uint8)
    assert write_encoder(model, tmp_path, images) < 1e-5
    graph = Graph(tmp_path / "encoder.onnx", "cpu")
    whole = graph(images)["embeddings"]
    assert graph(images[2:3])["embeddings"] == pytest.approx(whole[2:3], abs=1e-6)


def test_shifts_are_refused_for_encoders_of_photographs() -> None:
    with pytest.raises(RecipeError, match=r"export\.shifts are for encoders of drawings"):
        load_recipe("omniglot-koch", changes={"export.shifts": [[0, 0]]})


def test_what_is_exported_does_not_change_what_a_checkpoint_belongs_to() -> None:
    plain = load_recipe("omniglot", changes={"export.shifts": []})
    moved = load_recipe("omniglot", changes={"export.shifts": [[0, 0], [1, 1]]})
    assert plain.digest == moved.digest
    assert plain.digest != load_recipe("omniglot", changes={"loop.steps": 7}).digest
