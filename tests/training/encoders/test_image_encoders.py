from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from training.encoders.koch import koch, smallest_map
from training.encoders.mlp import mlp
from training.encoders.residual import residual

RESIDUAL: dict[str, Any] = {
    "ink": True,
    "stem": 4,
    "widths": (8, 16),
    "blocks": (2, 1),
    "dimensions": 12,
    "dropout": 0.2,
}


def images(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def paper() -> keras.Model:
    """Koch's net as the paper has it."""
    keras.utils.set_random_seed(1)
    return koch()


def values(model: keras.Model, layer: str) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    return [np.asarray(weight) for weight in model.get_layer(layer).get_weights()]


def test_text_mlp_has_its_number_of_weights() -> None:
    # 784 * 512 + 512, 512 * 256 + 256, 256 * 128 + 128
    model = mlp(28, 28, 1, widths=(512, 256, 128))
    assert model.count_params() == 401_920 + 131_328 + 32_896
    assert model.output_shape == (None, 128)


def test_mlp_takes_pixels_as_shares_of_255() -> None:
    model = mlp(2, 2, 1, widths=(3,), last_linear=True)
    kernel, bias = model.layers[-2].get_weights()
    pixels = images(5, 2, 2, 1)
    expected = pixels.reshape(5, 4) / 255.0 @ kernel + bias
    np.testing.assert_allclose(model(pixels), expected, atol=1e-6)


def test_relu_of_the_last_mlp_layer_can_be_left_out() -> None:
    keras.utils.set_random_seed(1)
    assert np.min(mlp(4, 4, 1, widths=(16,))(images(20, 4, 4, 1))) == 0
    assert np.min(mlp(4, 4, 1, widths=(16,), last_linear=True)(images(20, 4, 4, 1))) < 0


def test_dropout_follows_every_hidden_mlp_layer_and_not_the_last() -> None:
    kinds = [type(layer).__name__ for layer in mlp(4, 4, 1, widths=(8, 8, 4), dropout=0.1).layers]
    assert kinds[3:8] == ["Dense", "Dropout", "Dense", "Dropout", "Dense"]
    assert kinds.count("Dropout") == 2


def test_unit_length_mlp_embeds_on_the_sphere() -> None:
    model = mlp(4, 4, 1, widths=(8,), last_linear=True, unit_length=True)
    lengths = np.linalg.norm(model(images(9, 4, 4, 1)), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_koch_net_has_the_papers_shapes_and_number_of_weights(paper: keras.Model) -> None:
    maps = [paper.get_layer(f"convolution_{number}").output.shape[1:] for number in (1, 2, 3, 4)]
    assert maps == [(96, 96, 64), (42, 42, 128), (18, 18, 128), (6, 6, 256)]
    assert paper.get_layer("dense").kernel.shape == (9216, 4096)
    assert paper.output_shape == (None, 4096)
    assert paper.count_params() == 6_464 + 401_536 + 262_272 + 524_544 + 37_752_832 == 38_947_648


def test_koch_weights_are_drawn_as_the_paper_says(paper: keras.Model) -> None:
    for number in (1, 2, 3, 4):
        kernel, bias = values(paper, f"convolution_{number}")
        assert abs(kernel.mean()) < 4 * 0.01 / np.sqrt(kernel.size)
        assert kernel.std() == pytest.approx(0.01, rel=0.05)
        assert bias.mean() == pytest.approx(0.5, abs=0.005)
        assert bias.std() == pytest.approx(0.01, rel=0.4)
    kernel, bias = values(paper, "dense")
    assert abs(kernel.mean()) < 1e-3
    assert kernel.std() == pytest.approx(0.2, rel=0.01)
    assert bias.mean() == pytest.approx(0.5, abs=0.001)
    assert bias.std() == pytest.approx(0.01, rel=0.1)


def test_koch_embeddings_are_sigmoids(paper: keras.Model) -> None:
    found = np.asarray(paper(images(2, 105, 105, 1)))
    assert found.min() >= 0
    assert found.max() <= 1


def test_other_koch_start_keeps_the_size_of_relu_signals() -> None:
    keras.utils.set_random_seed(1)
    kernel, bias = values(koch(initialisation="he", units=8), "convolution_2")
    assert kernel.std() == pytest.approx(np.sqrt(2 / (64 * 49)), rel=0.03)
    assert (bias == 0).all()


def test_koch_weight_decay_is_layer_by_layer() -> None:
    model = koch(size=75, units=8, l2_convolution=(0.0, 0.1, 0.2, 0.3), l2_dense=0.4)
    expected = sum(
        decay * float(np.sum(np.square(values(model, layer)[0])))
        for layer, decay in zip(
            ("convolution_1", "convolution_2", "convolution_3", "convolution_4", "dense"),
            (0.0, 0.1, 0.2, 0.3, 0.4),
            strict=True,
        )
    )
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_koch_net_with_batch_norm_is_the_papers_net_with_other_weights() -> None:
    keras.utils.set_random_seed(3)
    size: dict[str, Any] = {"size": 75, "filters": (4, 6, 8, 8), "units": 16, "initialisation": "he"}
    normalised, plain = koch(**size, batch_norm=True), koch(**size)
    rng = np.random.default_rng(4)
    norms = [layer for layer in normalised.layers if isinstance(layer, keras.layers.BatchNormalization)]
    names = [*(f"convolution_{number}" for number in (1, 2, 3, 4)), "dense"]
    for name, norm in zip(names, norms, strict=True):
        width = norm.moving_mean.shape
        norm.moving_mean.assign(rng.normal(0, 0.2, width))
        norm.moving_variance.assign(rng.uniform(0.5, 2, width))
        norm.beta.assign(rng.normal(0, 0.2, width))
        factor = 1 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
        if norm.gamma is not None:
            norm.gamma.assign(rng.normal(0, 1, width))
            factor = factor * norm.gamma.numpy()
        kernel = normalised.get_layer(name).kernel.numpy()
        plain.get_layer(name).kernel.assign(kernel * factor)
        plain.get_layer(name).bias.assign(norm.beta.numpy() - norm.moving_mean.numpy() * factor)
    some = images(5, 75, 75, 1)
    np.testing.assert_allclose(normalised(some), plain(some), atol=1e-5)


def test_koch_filters_and_kernels_can_be_searched() -> None:
    model = koch(size=60, filters=(16, 32, 48, 64), kernels=(5, 4, 3, 3), units=128)
    assert model.get_layer("convolution_3").kernel.shape == (3, 3, 32, 48)
    assert model.output_shape == (None, 128)


@pytest.mark.parametrize(("size", "kernels", "left"), [(105, (10, 7, 4, 4), 6), (47, (10, 7, 4, 4), -2)])
def test_side_of_the_last_map_is_known_beforehand(size: int, kernels: tuple[int, ...], left: int) -> None:
    assert smallest_map(size, kernels) == left
    if left > 0:
        assert koch(size=size, kernels=kernels, units=1).get_layer("convolution_4").output.shape[1] == left
    else:
        with pytest.raises(ValueError, match="leave nothing of an image of 47 pixels"):
            koch(size=size, kernels=kernels)


def test_residual_embeddings_have_length_one_and_the_asked_size() -> None:
    model = residual(20, 24, 1, **RESIDUAL)
    found = np.asarray(model(images(5, 20, 24, 1)))
    assert found.shape == (5, 12)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_residual_encoder_of_ink_takes_either_polarity() -> None:
    model = residual(20, 20, 1, **RESIDUAL)
    drawings = np.where(images(5, 20, 20, 1) < 30, 0, 255).astype(np.uint8)
    np.testing.assert_allclose(model(drawings), model(255 - drawings), atol=1e-5)


def test_residual_encoder_of_photos_tells_a_photo_from_its_negative() -> None:
    model = residual(20, 20, 3, **{**RESIDUAL, "ink": False})
    photos = images(5, 20, 20, 3)
    assert np.abs(np.asarray(model(photos)) - np.asarray(model(255 - photos))).max() > 0.01


def test_each_residual_stage_halves_the_side() -> None:
    model = residual(20, 20, 1, **RESIDUAL)
    sums = [layer.output.shape[1:] for layer in model.layers if isinstance(layer, keras.layers.Add)]
    assert sums == [(10, 10, 8), (10, 10, 8), (5, 5, 16)]


@pytest.mark.parametrize(
    "build", [lambda: mlp(8, 8, 1, widths=(4,)), lambda: residual(16, 16, 1, **RESIDUAL)]
)
def test_embeddings_are_float32_under_mixed_precision(build: Any) -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model.outputs[0].dtype == "float32"
    assert "bfloat16" in {layer.compute_dtype for layer in model.layers}
