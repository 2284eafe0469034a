"""Embeddings in two dimensions, before and after training, coloured by subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import NDArray

from training.pictures.style import BLACK, BLUE, CYCLE, ORANGE, legend_label, marker, shortened, styled

FloatArray = NDArray[np.float64]
Method = Literal["pca", "t-sne"]

NAMED: Final = 12
"""Subjects that are named; of more one sees only that they lie apart."""

_NAMED_COLOURS: Final = (
    *("#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#DDCC77"),
    *("#44AA99", "#AA4499", "#999933", BLACK, ORANGE, BLUE),
)
"""The first nine are Paul Tol's "muted" scheme, for colour-blind readers too."""

_TSNE_FROM: Final = 50
"""t-SNE starts from this many principal components, as its authors do: faster and less noisy."""


def project(embeddings: NDArray[np.floating], method: Method, *, seed: int = 0) -> tuple[FloatArray, str]:
    """Return a two-dimensional picture of embeddings, and the method in words.

    Args:
        embeddings: float[N, D], N at least 3.
        method: ``pca`` keeps large distances; ``t-sne`` keeps neighbours; its gaps mean nothing.
        seed: Of t-SNE; PCA has none.

    Returns:
        float64[N, 2]; all zero when the embeddings are all the same, as those of a collapsed encoder.

    Source: van der Maaten and Hinton (2008), "Visualizing data using t-SNE".
    """
    # Takes a second to import, and only these two pictures need it.
    from sklearn.decomposition import PCA  # noqa: PLC0415
    from sklearn.manifold import TSNE  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    data = np.asarray(embeddings, np.float64)
    if not np.ptp(data, axis=0).any():
        return np.zeros((len(data), 2)), "all the same"
    if method == "pca":
        fitted = PCA(2, svd_solver="full").fit(data)
        kept = float(fitted.explained_variance_ratio_.sum())
        return np.asarray(fitted.transform(data)), f"PCA, {kept:.0%} of the variance"
    if data.shape[1] > _TSNE_FROM and data.shape[0] > _TSNE_FROM:
        data = PCA(_TSNE_FROM, svd_solver="full").fit_transform(data)
    perplexity = min(30.0, (data.shape[0] - 1) / 3.0)
    # Where a training run has taken the cores, more threads wait for one another: 19 s instead of 0.3 s.
    with threadpool_limits(1):
        moved = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(data)
    return np.asarray(moved, np.float64), f"t-SNE, perplexity {perplexity:.3g}"


@styled
def embedding_maps(
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    labels: NDArray[np.integer],
    subjects: Sequence[str],
    *,
    method: Method = "pca",
    seed: int = 0,
    thumbnails: Sequence[NDArray[np.uint8]] | None = None,
) -> Figure:
    """Show embeddings before and after training side by side, coloured by subject.

    Args:
        before: float[N, D0], of the encoder as it was initialised, or the pixels.
        after: float[N, D], of the trained encoder, for the same samples.
        labels: int[N], the subject of each sample, a position in ``subjects``.
        subjects: Their names, written beside their samples when there are at most ``NAMED``.
        method: See ``project``.
        seed: See ``project``.
        thumbnails: N images, uint8[H, W, C] or uint8[H, W]; some of them are shown where they lie.
    """
    figure = Figure(figsize=(10.0, 5.0), layout="constrained")
    for axes, embeddings, when in zip(
        figure.subplots(1, 2), (before, after), ("Before", "After"), strict=True
    ):
        points, words = project(embeddings, method, seed=seed)
        axes.set_title(f"{when} training ({words})")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        axes.margins(0.07)
        _scatter(axes, points, labels, subjects)
        if thumbnails is not None:
            _thumbnails(axes, points, thumbnails, [_colour(label, len(subjects)) for label in labels])
        elif len(subjects) <= NAMED:
            _names(axes, points, labels, subjects)
    if len(subjects) <= NAMED:
        handles, names = figure.axes[0].get_legend_handles_labels()
        # Six short names fit beside one another, of long ones four.
        columns = 6 if max(map(len, names), default=0) <= 12 else 4
        figure.legend(handles, names, loc="outside lower center", ncols=columns, markerscale=1.8)
    return figure


def _colour(index: int, count: int) -> tuple[float, ...] | str:
    if count <= len(_NAMED_COLOURS):
        return (CYCLE if count <= len(CYCLE) else _NAMED_COLOURS)[index]
    return tuple(matplotlib.colormaps["turbo"]((index + 0.5) / count))


def _scatter(axes: Axes, points: FloatArray, labels: NDArray[np.integer], subjects: Sequence[str]) -> None:
    size = float(np.clip(6000.0 / max(len(points), 1), 14.0, 30.0))
    for index, name in enumerate(subjects):
        own = points[labels == index]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=size,
            marker=marker(index),
            color=[_colour(index, len(subjects))],
            alpha=0.75,
            linewidths=0.0,
            label=legend_label(name, 24),
        )


def _names(axes: Axes, points: FloatArray, labels: NDArray[np.integer], subjects: Sequence[str]) -> None:
    """Write each subject above the middle of its samples, but not over another's name."""
    extent = np.maximum(np.ptp(points, axis=0), np.finfo(np.float64).tiny)
    taken: list[FloatArray] = []
    for index, name in enumerate(subjects):
        own = points[labels == index]
        if not len(own):
            continue
        place = np.array([np.median(own[:, 0]), np.quantile(own[:, 1], 0.8)])
        words = shortened(name, 14)
        room = np.array([0.02 * len(words) + 0.01, 0.05])
        if any(bool(np.all(np.abs(place - other) / extent < room)) for other in taken):
            continue
        taken.append(place)
        axes.annotate(
            words,
            (place[0], place[1]),
            (0, 5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9.0,
            fontweight="bold",
            color=BLACK,
            path_effects=[patheffects.withStroke(linewidth=3.0, foreground="white")],
        )


def _thumbnails(
    axes: Axes,
    points: FloatArray,
    images: Sequence[NDArray[np.uint8]],
    frames: Sequence[tuple[float, ...] | str],
) -> None:
    """Show an image where it lies if no other is shown there yet, framed in its subject's colour."""
    extent = np.maximum(np.ptp(points, axis=0), np.finfo(np.float64).tiny)
    taken: list[FloatArray] = []
    for point, image, frame in zip(points, images, frames, strict=True):
        if any(float(np.abs((point - other) / extent).max()) < 0.055 for other in taken):
            continue
        taken.append(point)
        flat = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
        picture = OffsetImage(flat, zoom=16.0 / flat.shape[0], cmap="gray", norm=None)
        place = (float(point[0]), float(point[1]))
        box = {"edgecolor": frame, "linewidth": 1.2}
        axes.add_artist(AnnotationBbox(picture, place, pad=0.08, bboxprops=box))
