"""Pairs of images with the decision about each, in words and in colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from training.pictures.style import RIGHT, WRONG, shortened, styled

_GAP = 0.06
"""Between the two images of a pair, in heights of an image."""


@styled
def pair_grid(
    left: Sequence[NDArray[np.uint8]],
    right: Sequence[NDArray[np.uint8]],
    distance: NDArray[np.float64],
    mated: NDArray[np.bool_],
    *,
    threshold: float,
    columns: int = 4,
    title: str = "",
) -> Figure:
    """Show pairs side by side with distance, decision, and whether it is right.

    Args:
        left: N images, uint8[H, W, C] with C 1 or 3, or uint8[H, W]; sizes may differ.
        right: N images likewise.
        distance: float64[N]; infinity where an image could not be embedded, which is a non-match.
        mated: bool[N], the truth.
        threshold: A distance of at most this is a match.
        columns: Pairs in a row.
        title: Above all.
    """
    count = len(left)
    columns = max(1, min(columns, count))
    rows = max(1, math.ceil(count / columns))
    widest = max(
        (_width(first) + _width(second) for first, second in zip(left, right, strict=True)), default=2
    )
    cell = (max(2.2, 1.1 * widest), 1.1 * max(2.0, widest) / widest + 0.42)
    size = (cell[0] * columns, cell[1] * rows + (0.4 if title else 0.0))
    figure = Figure(figsize=size, layout="constrained")
    if title:
        figure.suptitle(shortened(title, 24 * columns), x=0.01, ha="left")
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in cells:
        axes.set_axis_off()
    for axes, first, second, apart, same in zip(cells, left, right, distance, mated, strict=False):
        _pair(axes, first, second, float(apart), mated=bool(same), threshold=threshold)
    return figure


def _pair(
    axes: Axes,
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    distance: float,
    *,
    mated: bool,
    threshold: float,
) -> None:
    start = 0.0
    for image in (first, second):
        width = _width(image)
        axes.imshow(_shown(image), cmap="gray", vmin=0, vmax=255, extent=(start, start + width, 0.0, 1.0))
        start += width + _GAP
    match = distance <= threshold
    is_right = match == mated
    colour = RIGHT if is_right else WRONG
    end = start - _GAP
    frame = Rectangle(
        (-_GAP, -_GAP),
        end + 2 * _GAP,
        1.0 + 2 * _GAP,
        fill=False,
        edgecolor=colour,
        linewidth=2.2,
        linestyle="-" if is_right else "--",
    )
    axes.add_patch(frame)
    axes.set(xlim=(-2 * _GAP, end + 2 * _GAP), ylim=(-2 * _GAP, 1.0 + 2 * _GAP))
    axes.set_title(
        f"{_in_words(distance)} · {'match' if match else 'non-match'}\n"
        f"{'✓ right' if is_right else '✗ wrong'}: {'same' if mated else 'different'}",
        color=colour,
        fontsize=8.5,
        fontweight="normal" if is_right else "bold",
        loc="center",
        pad=3.0,
    )


def _width(image: NDArray[np.uint8]) -> float:
    """Return the width when the height is one."""
    return float(image.shape[1] / image.shape[0])


def _shown(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image


def _in_words(distance: float) -> str:
    return f"distance {distance:.3f}" if math.isfinite(distance) else "no distance"
